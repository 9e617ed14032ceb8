//! Files go up by a form, and come down whole or in ranges. Neither is ever in memory as a whole.
//!
//! ```sh
//! cargo run --example uploads -- /tmp/uploads
//! ```
//!
//! Then open <http://127.0.0.1:8080>, or
//!
//! ```sh
//! curl -F file=@Cargo.toml http://127.0.0.1:8080/files
//! curl -r 0-99 http://127.0.0.1:8080/files/Cargo.toml
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::fs;
use tokio::io::AsyncWriteExt as _;
use tower_web::multipart::Field;
use tower_web::prelude::*;

/// A directory that anyone may put files into and fetch them from.
struct Uploads {
    directory: PathBuf,
    files: Files,
    next: AtomicU64,
}

/// A file that is there.
#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    size: u64,
}

#[resource("/")]
impl Uploads {
    #[get("/")]
    async fn page(&self) -> Html<&'static str> {
        Html(include_str!("pages/uploads.html"))
    }

    /// All files, by name.
    #[get("/files")]
    async fn list(&self) -> Result<Json<Vec<Entry>>, Problem> {
        let mut entries = Vec::new();
        let mut directory = fs::read_dir(&self.directory).await?;
        while let Some(entry) = directory.next_entry().await? {
            let name = entry.file_name().to_string_lossy().into_owned();
            // What begins with a dot is still on its way.
            if !name.starts_with('.') {
                let size = entry.metadata().await?.len();
                entries.push(Entry { name, size });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Json(entries))
    }

    /// Keeps the files of a form: 1 GiB of them at most.
    #[post("/files")]
    #[body_limit(1 << 30)]
    #[handler_timeout(std::time::Duration::from_secs(3600))]
    async fn upload(&self, mut form: Multipart) -> Result<Created<Json<Vec<Entry>>>, Problem> {
        let mut kept = Vec::new();
        while let Some(field) = form.next_field().await? {
            if let Some(name) = field.file_name().map(str::to_owned) {
                let size = self.keep(&name, field).await?;
                kept.push(Entry { name, size });
            }
        }
        Ok(Created::new(Json(kept)))
    }

    /// A file, or as much of it as is asked for.
    #[get("/files/{name}")]
    async fn download(&self, name: String) -> Result<File, Problem> {
        Ok(self.files.open(&name).await?.as_download(&name))
    }
}

impl Uploads {
    fn new(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self {
            files: Files::new(&directory).without_index(),
            directory,
            next: AtomicU64::new(0),
        })
    }

    /// Writes a file under a hidden name, and shows it once it is whole.
    async fn keep(&self, name: &str, mut field: Field<'_>) -> Result<u64, Problem> {
        if name.starts_with('.') {
            return Err(Problem::new(StatusCode::BAD_REQUEST)
                .with_detail("a file's name must not begin with a dot"));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let hidden = self.directory.join(format!(".{number}.part"));
        let written = write(&hidden, &mut field).await;
        let kept = match written {
            Ok(size) => fs::rename(&hidden, self.directory.join(name))
                .await
                .map(|()| size)
                .map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        if kept.is_err() {
            // Whatever went wrong before counts more.
            let _ = fs::remove_file(&hidden).await;
        }
        kept
    }
}

/// Writes a field to a file, as it arrives.
async fn write(path: &PathBuf, field: &mut Field<'_>) -> Result<u64, Problem> {
    let mut file = fs::File::create(path).await?;
    let mut size = 0;
    while let Some(chunk) = field.chunk().await? {
        file.write_all(&chunk).await?;
        size += chunk.len() as u64;
    }
    file.sync_all().await?;
    Ok(size)
}

fn app(directory: PathBuf) -> io::Result<App> {
    Ok(App::new().resource(Uploads::new(directory)?))
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| std::env::temp_dir().join("tower-uploads"));
    println!(
        "keeping files in {}: http://127.0.0.1:8080",
        directory.display()
    );
    app(directory)?.serve("127.0.0.1:8080").await
}

#[cfg(test)]
mod tests {
    use tower_web::testing::TestClient;

    use super::*;

    fn client(name: &str) -> TestClient {
        let directory =
            std::env::temp_dir().join(format!("tower-uploads-{name}-{}", std::process::id()));
        // What another run has left.
        let _ = std::fs::remove_dir_all(&directory);
        app(directory).unwrap().test()
    }

    fn form(file: &str, content: &str) -> String {
        format!(
            "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{file}\"\r\n\r\n{content}\r\n--x--\r\n"
        )
    }

    #[tokio::test]
    async fn what_goes_up_comes_down() {
        let client = client("round-trip");
        let upload = client
            .post("/files")
            .header("content-type", "multipart/form-data; boundary=x");
        upload
            .body(form("hello.txt", "0123456789"))
            .await
            .assert_status(201);

        client.get("/files").await.assert_json(&[Entry {
            name: "hello.txt".into(),
            size: 10,
        }]);
        let file = client.get("/files/hello.txt").await;
        file.assert_text("0123456789");
        file.assert_header("content-disposition", "attachment; filename=\"hello.txt\"");
        let part = client
            .get("/files/hello.txt")
            .header("range", "bytes=-3")
            .await;
        part.assert_status(206).assert_text("789");
        client.get("/files/nothing").await.assert_problem(404);
    }

    #[tokio::test]
    async fn an_upload_that_breaks_off_leaves_nothing() {
        let client = client("broken");
        let mut broken = form("hello.txt", "0123456789");
        broken.truncate(broken.len() - 12);
        let upload = client
            .post("/files")
            .header("content-type", "multipart/form-data; boundary=x");
        upload.body(broken).await.assert_problem(400);
        client.get("/files").await.assert_json(&Vec::<Entry>::new());
    }

    #[tokio::test]
    async fn a_name_leads_nowhere_else() {
        let client = client("names");
        let upload = |name| {
            let upload = client
                .post("/files")
                .header("content-type", "multipart/form-data; boundary=x");
            upload.body(form(name, "x"))
        };
        upload(".hidden").await.assert_problem(400);
        upload("../../up.txt").await.assert_status(201);
        client.get("/files").await.assert_json(&[Entry {
            name: "up.txt".into(),
            size: 1,
        }]);
    }
}
