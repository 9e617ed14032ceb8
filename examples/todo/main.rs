//! A to-do service over SQLite, as one would run it: migrations, validation, problems, a page of its API, tests.
//!
//! ```sh
//! cargo run --example todo -- /tmp/todo.db
//! curl -d '{"title": "buy milk"}' -H 'content-type: application/json' http://127.0.0.1:8080/todos
//! curl http://127.0.0.1:8080/todos?done=false
//! ```
//!
//! Its API is described at <http://127.0.0.1:8080/docs>.

use std::path::PathBuf;

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_web::BoxError;
use tower_web::prelude::*;

use crate::store::Store;

mod store;

/// Something to be done.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct Todo {
    id: u32,
    title: String,
    note: Option<String>,
    done: bool,
}

/// What a new to-do is made of.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
struct NewTodo {
    #[garde(length(chars, min = 1, max = 200))]
    title: String,
    #[garde(length(chars, max = 2000))]
    note: Option<String>,
}

/// What changes of a to-do. What isn't told stays.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
struct Change {
    #[garde(length(chars, min = 1, max = 200))]
    title: Option<String>,
    #[garde(length(chars, max = 2000))]
    note: Option<String>,
    #[garde(skip)]
    done: Option<bool>,
}

/// Which to-dos are asked for.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
struct Page {
    /// Only those that are done, or only those that aren't.
    #[garde(skip)]
    done: Option<bool>,
    /// Those after this one: the last of the page before.
    #[garde(skip)]
    after: Option<u32>,
    /// At most so many; 20 where nothing is said.
    #[garde(range(min = 1, max = 100))]
    limit: Option<u8>,
}

#[derive(Debug, Problem)]
enum Error {
    #[problem(status = 404, title = "no such to-do")]
    NoSuchTodo { id: u32 },
    #[problem(status = 500, hide)]
    Store(#[from] BoxError),
}

struct Todos {
    store: Store,
}

#[resource("/todos")]
impl Todos {
    /// The to-dos, oldest first.
    #[get("/")]
    async fn list(&self, page: Query<Page>) -> Result<Json<Vec<Todo>>, Error> {
        Ok(Json(self.store.page(page.0).await?))
    }

    /// Keeps a new to-do.
    #[post("/")]
    async fn add(&self, new: Json<NewTodo>) -> Result<Created<Json<Todo>>, Error> {
        let todo = self.store.add(new.0).await?;
        let place = Self::fetch_path(todo.id);
        Ok(Created::new(Json(todo)).at(place))
    }

    /// One to-do.
    #[get("/{id}")]
    async fn fetch(&self, id: u32) -> Result<Json<Todo>, Error> {
        let todo = self.store.find(id).await?;
        todo.map(Json).ok_or(Error::NoSuchTodo { id })
    }

    /// Changes a to-do: its title, its note, whether it is done.
    #[patch("/{id}")]
    async fn change(&self, id: u32, change: Json<Change>) -> Result<Json<Todo>, Error> {
        let todo = self.store.change(id, change.0).await?;
        todo.map(Json).ok_or(Error::NoSuchTodo { id })
    }

    /// Forgets a to-do.
    #[delete("/{id}")]
    async fn remove(&self, id: u32) -> Result<NoContent, Error> {
        match self.store.remove(id).await? {
            true => Ok(NoContent),
            false => Err(Error::NoSuchTodo { id }),
        }
    }
}

fn app(store: Store) -> App {
    let database = store.clone();
    App::new()
        .ready_check("database", move || {
            let database = database.clone();
            async move { database.check().await }
        })
        .resource(Todos { store })
        // Whatever it answers with is in the document, or it doesn't start.
        .require_schemas()
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    // To the standard error, so that the standard output is left to what a user is told.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| std::env::temp_dir().join("tower-todo.db"));
    println!(
        "keeping to-dos in {}: http://127.0.0.1:8080/docs",
        path.display()
    );
    app(Store::open(&path)?).serve("127.0.0.1:8080").await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_todo_is_made_and_changed_and_forgotten() {
        let client = app(Store::in_memory()).test();
        let added = client
            .post("/todos")
            .json(&json!({"title": "buy milk"}))
            .await;
        added
            .assert_status(201)
            .assert_header("location", "/todos/1")
            .assert_json(&json!({"id": 1, "title": "buy milk", "note": null, "done": false}));

        let change = client.patch("/todos/1").json(&json!({"done": true}));
        change
            .await
            .assert_status(200)
            .assert_json(&json!({"id": 1, "title": "buy milk", "note": null, "done": true}));

        client.delete("/todos/1").await.assert_status(204);
        client.get("/todos/1").await.assert_problem(404);
        client.delete("/todos/1").await.assert_problem(404);
    }

    #[tokio::test]
    async fn what_is_refused_says_why() {
        let client = app(Store::in_memory()).test();
        let problem = client.get("/todos/seven").await.assert_problem(400);
        assert_eq!(problem["errors"][0]["name"], "id");
        let problem = client.post("/todos").json(&json!({"title": 7})).await;
        let problem = problem.assert_problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "#/title");
        let new = json!({"title": "", "note": "x".repeat(2001)});
        let problem = client.post("/todos").json(&new).await.assert_problem(422);
        let pointers = problem["errors"].as_array().unwrap().iter();
        let pointers: Vec<_> = pointers
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(pointers, ["#/note", "#/title"]);
        let problem = client.get("/todos?limit=0").await.assert_problem(422);
        assert_eq!(problem["errors"][0]["name"], "limit");
        let problem = client.get("/todos/7").await.assert_problem(404);
        assert_eq!(problem["title"], "no such to-do");
        assert_eq!(problem["id"], 7);
    }

    #[test]
    fn its_api_is_described_with_its_rules() {
        let document = app(Store::in_memory()).openapi();
        assert_eq!(
            document["paths"]["/todos/{id}"]["patch"]["operationId"],
            "todos_change"
        );
        let title = &document["components"]["schemas"]["NewTodo"]["properties"]["title"];
        assert_eq!(
            (&title["minLength"], &title["maxLength"]),
            (&json!(1), &json!(200))
        );
    }

    /// `WRITE_SNAPSHOTS=1 cargo test --package examples-todo` writes it anew.
    #[test]
    fn its_api_changes_only_on_purpose() {
        let document = app(Store::in_memory()).openapi();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("WRITE_SNAPSHOTS").is_some() {
            std::fs::write(file, format!("{document:#}\n")).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap();
        let committed: serde_json::Value = serde_json::from_str(&committed).unwrap();
        assert!(committed == document, "{file} isn't the document any more");
    }

    #[tokio::test]
    async fn it_is_ready_while_its_database_is() {
        let client = app(Store::in_memory()).test();
        client.get("/readyz").await.assert_status(200);
    }

    #[tokio::test]
    async fn a_list_comes_in_pages_and_by_state() {
        let client = app(Store::in_memory()).test();
        for title in ["one", "two", "three"] {
            let new = client.post("/todos").json(&json!({"title": title}));
            new.await.assert_status(201);
        }
        let done = client.patch("/todos/2").json(&json!({"done": true}));
        done.await.assert_status(200);

        let titles = async |query: &str| {
            let list = client.get(&format!("/todos{query}")).await;
            let todos: Vec<serde_json::Value> = list.json();
            let titles = todos
                .iter()
                .map(|todo| todo["title"].as_str().unwrap().to_owned());
            titles.collect::<Vec<_>>()
        };
        assert_eq!(titles("").await, ["one", "two", "three"]);
        assert_eq!(titles("?done=false").await, ["one", "three"]);
        assert_eq!(titles("?limit=1&after=1").await, ["two"]);
    }
}
