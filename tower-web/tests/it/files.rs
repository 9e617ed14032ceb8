//! Files, as a client sees them.

use std::fs;
use std::path::PathBuf;

use tower_web::files::{Encoding, File, Files};
use tower_web::prelude::*;
use tower_web::testing::TestClient;

/// A directory of this test's own.
fn directory(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What another run has left.
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("docs")).unwrap();
    fs::write(root.join("hello.txt"), "0123456789").unwrap();
    fs::write(root.join("docs/index.html"), "<h1>docs</h1>").unwrap();
    fs::write(root.join(".env"), "SECRET=1").unwrap();
    root
}

fn mounted(name: &str) -> TestClient {
    App::new()
        .mount("/files", Files::new(directory(name)))
        .test()
}

#[tokio::test]
async fn a_file_is_sent_with_what_is_known_of_it() {
    let client = mounted("known");
    let response = client.get("/files/hello.txt").await;
    response.assert_status(200).assert_text("0123456789");
    response.assert_header("content-type", "text/plain; charset=utf-8");
    response
        .assert_header("content-length", "10")
        .assert_header("accept-ranges", "bytes");
    assert!(response.header("etag").is_some());
    assert!(response.header("last-modified").is_some());

    let head = client.head("/files/hello.txt").await;
    head.assert_status(200)
        .assert_text("")
        .assert_header("content-length", "10");
}

#[tokio::test]
async fn one_range_is_a_part_and_several_are_a_multipart() {
    let client = mounted("ranges");
    let get = |range| client.get("/files/hello.txt").header("range", range);
    let response = get("bytes=2-4").await;
    response.assert_status(206).assert_text("234");
    response
        .assert_header("content-range", "bytes 2-4/10")
        .assert_header("content-length", "3");

    let response = get("bytes=0-0,-2").await;
    response.assert_status(206);
    let content_type = response.header("content-type").unwrap();
    let boundary = content_type
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let part = |range, text| {
        format!(
            "--{boundary}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-range: bytes {range}/10\r\n\r\n{text}\r\n"
        )
    };
    let expected = format!(
        "{}{}--{boundary}--\r\n",
        part("0-0", "0"),
        part("8-9", "89")
    );
    response
        .assert_text(&expected)
        .assert_header("content-length", expected.len().to_string());

    let response = get("bytes=10-").await;
    response.assert_problem(416);
    response.assert_header("content-range", "bytes */10");
    get("lines=1-2")
        .await
        .assert_status(200)
        .assert_text("0123456789");
    // RFC 9110, section 14.2: only a GET has ranges.
    client
        .head("/files/hello.txt")
        .header("range", "bytes=0-1")
        .await
        .assert_status(200);
}

#[tokio::test]
async fn a_client_that_has_the_file_is_not_sent_it_again() {
    let client = mounted("conditions");
    let first = client.get("/files/hello.txt").await;
    let etag = first.header("etag").unwrap();
    let date = first.header("last-modified").unwrap();
    let get = |name, value: &str| client.get("/files/hello.txt").header(name, value);

    let unmodified = get("if-none-match", etag).await;
    unmodified
        .assert_status(304)
        .assert_text("")
        .assert_header("etag", etag);
    assert_eq!(unmodified.header("content-type"), None);
    assert_eq!(unmodified.header("content-length"), None);
    get("if-modified-since", date).await.assert_status(304);
    get("if-none-match", "\"other\"").await.assert_status(200);
    get("if-match", "\"other\"").await.assert_problem(412);
    get("if-match", etag).await.assert_status(200);
}

#[tokio::test]
async fn a_range_of_another_state_is_sent_whole() {
    let client = mounted("if-range");
    let first = client.get("/files/hello.txt").await;
    let get = |state: &str| {
        client
            .get("/files/hello.txt")
            .header("range", "bytes=0-1")
            .header("if-range", state)
    };
    get(first.header("etag").unwrap())
        .await
        .assert_status(206)
        .assert_text("01");
    get("\"other\"")
        .await
        .assert_status(200)
        .assert_text("0123456789");
}

#[tokio::test]
async fn nothing_outside_of_the_directory_is_sent() {
    let client = mounted("outside");
    let outside = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("outside.txt");
    fs::write(&outside, "outside").unwrap();
    for path in [
        "../outside.txt",
        "..%2foutside.txt",
        "%2e%2e/outside.txt",
        "docs/../../outside.txt",
        "docs/..%2f..%2foutside.txt",
        "./hello.txt",
        "/hello.txt",
        "docs//index.html",
        "..%5coutside.txt",
        "%2fetc/passwd",
        "/etc/passwd",
        "hello.txt/",
        "hello.txt/x",
        ".env",
        "nothing",
    ] {
        let response = client.get(&format!("/files/{path}")).await;
        assert_eq!(response.status(), 404, "{path}: {response:?}");
    }
    let long = "x".repeat(5000);
    client
        .get(&format!("/files/{long}"))
        .await
        .assert_problem(404);
    client
        .get("/files/hello.txt%00.html")
        .await
        .assert_problem(400);
    client.get("/files/%ff").await.assert_problem(400);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_is_followed_inside_and_not_outside() {
    use std::os::unix::fs::symlink;

    let root = directory("links");
    let outside = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("linked.txt");
    fs::write(&outside, "outside").unwrap();
    symlink(&outside, root.join("out.txt")).unwrap();
    symlink(root.join("hello.txt"), root.join("in.txt")).unwrap();
    symlink(env!("CARGO_TARGET_TMPDIR"), root.join("up")).unwrap();
    symlink(&outside, root.join("hello.txt.gz")).unwrap();
    let client = App::new()
        .mount("/files", Files::new(&root).with_precompressed())
        .test();
    client.get("/files/in.txt").await.assert_text("0123456789");
    client.get("/files/out.txt").await.assert_problem(404);
    client.get("/files/up/linked.txt").await.assert_problem(404);
    let encoded = client
        .get("/files/hello.txt")
        .header("accept-encoding", "gzip")
        .await;
    encoded.assert_text("0123456789");
}

#[tokio::test]
async fn an_index_stands_for_its_directory() {
    let client = mounted("index");
    client
        .get("/files/docs/")
        .await
        .assert_text("<h1>docs</h1>");
    let redirect = client.get("/files/docs").await;
    redirect
        .assert_status(308)
        .assert_header("location", "./docs/");
    client.get("/files/").await.assert_problem(404);

    let plain = Files::new(directory("no-index")).without_index();
    let client = App::new().mount("/files", plain).test();
    client.get("/files/docs/").await.assert_problem(404);
}

#[tokio::test]
async fn a_fallback_is_sent_where_there_is_nothing() {
    let files = Files::new(directory("fallback")).with_fallback("docs/index.html");
    let client = App::new().mount("/", files).test();
    client
        .get("/some/route")
        .await
        .assert_status(200)
        .assert_text("<h1>docs</h1>");
    client.get("/hello.txt").await.assert_text("0123456789");
    client.get("/.env").await.assert_status(404);
}

#[tokio::test]
async fn files_are_only_fetched() {
    let client = mounted("methods");
    let response = client.post("/files/hello.txt").await;
    response.assert_problem(405);
    response.assert_header("allow", "GET, HEAD, OPTIONS");
    client.options("/files/hello.txt").await.assert_status(204);
}

#[tokio::test]
async fn an_encoding_that_stands_beside_the_file_is_sent_to_who_takes_it() {
    let root = directory("encodings");
    fs::write(root.join("app.js"), "the script").unwrap();
    fs::write(root.join("app.js.gz"), "gzipped").unwrap();
    let files = Files::new(&root).with_precompressed();
    let client = App::new().mount("/files", files).test();
    let get = |accept| {
        client
            .get("/files/app.js")
            .header("accept-encoding", accept)
    };

    let encoded = get("br, gzip").await;
    encoded
        .assert_text("gzipped")
        .assert_header("content-encoding", "gzip");
    encoded.assert_header("content-type", "text/javascript; charset=utf-8");
    encoded.assert_header("vary", "accept-encoding");
    let plain = get("br").await;
    plain
        .assert_text("the script")
        .assert_header("vary", "accept-encoding");
    assert_ne!(plain.header("etag"), encoded.header("etag"));
}

#[tokio::test]
async fn no_file_speaks_for_another_unless_it_may() {
    let root = directory("encodings-off");
    fs::write(root.join("hello.txt.gz"), "another's").unwrap();
    let client = App::new().mount("/files", Files::new(&root)).test();
    let response = client
        .get("/files/hello.txt")
        .header("accept-encoding", "gzip")
        .await;
    response.assert_text("0123456789");
    assert_eq!(response.header("content-encoding"), None);
}

#[tokio::test]
async fn a_file_larger_than_a_piece_arrives_whole_and_in_ranges() {
    let root = directory("large");
    let content: Vec<u8> = (0..500_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(root.join("large"), &content).unwrap();
    let client = App::new().mount("/files", Files::new(&root)).test();
    assert_eq!(client.get("/files/large").await.bytes(), &content);
    let range = client
        .get("/files/large")
        .header("range", "bytes=100000-399999")
        .await;
    assert_eq!(range.bytes(), &content[100_000..400_000]);
}

#[tokio::test]
async fn a_file_that_becomes_shorter_breaks_off() {
    let root = directory("shrinks");
    fs::write(root.join("file"), vec![1; 300_000]).unwrap();
    let client = App::new().mount("/files", Files::new(&root)).test();
    let mut body = client.get("/files/file").stream().await.into_body();
    assert!(body.chunk().await.unwrap().is_some());
    fs::write(root.join("file"), "short").unwrap();
    assert!(body.chunk().await.is_err());
}

#[tokio::test]
async fn a_handler_opens_files_below_a_directory() {
    struct Documents(Files);

    #[resource("/documents")]
    impl Documents {
        #[get("/{*path}")]
        async fn fetch(&self, path: String) -> Result<File, Problem> {
            Ok(self.0.open(&path).await?.as_download("document.txt"))
        }
    }

    let client = App::new()
        .resource(Documents(Files::new(directory("handler"))))
        .test();
    let response = client
        .get("/documents/hello.txt")
        .header("range", "bytes=0-3")
        .await;
    response.assert_status(206).assert_text("0123");
    response.assert_header(
        "content-disposition",
        "attachment; filename=\"document.txt\"",
    );
    client
        .get("/documents/..%2Fhello.txt")
        .await
        .assert_problem(404);
    client.get("/documents/docs").await.assert_problem(404);
}

#[tokio::test]
async fn a_file_in_memory_does_as_one_on_the_disk() {
    struct Page(File);

    #[resource("/")]
    impl Page {
        #[get("/")]
        async fn page(&self) -> (StatusCode, File) {
            (StatusCode::OK, self.0.clone())
        }
    }

    let page = File::new("page.html", "<p>")
        .with_encoded(Encoding::Brotli, "br")
        .with_cache_control("no-cache");
    let client = App::new().resource(Page(page)).test();
    let response = client.get("/").header("accept-encoding", "br").await;
    response
        .assert_text("br")
        .assert_header("cache-control", "no-cache");
    let plain = client.get("/").await;
    plain
        .assert_text("<p>")
        .assert_header("content-type", "text/html; charset=utf-8");
}
