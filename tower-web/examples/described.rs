//! A service whose document `.ci/schemathesis` tests against its answers. With `PLANTED`, one of them isn't as it says.
//!
//! ```sh
//! cargo run --package tower-web --features openapi,validate --example described
//! ```

use std::sync::Mutex;

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use tower_web::prelude::*;

/// Somebody.
#[derive(Clone, Serialize, JsonSchema)]
struct Person {
    id: u32,
    #[serde(serialize_with = "write_name")]
    #[schemars(with = "String")]
    name: String,
}

/// A name is text, but for the planted violation.
fn write_name<S: Serializer>(name: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match std::env::var_os("PLANTED").is_some_and(|planted| !planted.is_empty()) {
        true => serializer.serialize_u32(7),
        false => serializer.serialize_str(name),
    }
}

/// Somebody who is new.
#[derive(Deserialize, JsonSchema, Validate)]
struct NewPerson {
    #[garde(length(chars, min = 1, max = 20))]
    name: String,
}

/// Which are asked for.
#[derive(Deserialize, JsonSchema, Validate)]
struct Page {
    /// At most so many.
    #[garde(range(max = 100))]
    limit: Option<u8>,
}

#[derive(Debug, Problem)]
enum Error {
    #[problem(status = 404, title = "no such person")]
    NoSuchPerson { id: u32 },
    #[problem(status = 401, title = "the token isn't the right one")]
    Unknown,
}

struct People {
    all: Mutex<Vec<Person>>,
}

impl People {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Person>> {
        self.all
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[resource("/people")]
impl People {
    /// Some of them.
    #[get("/")]
    async fn list(&self, page: Query<Page>) -> Json<Vec<Person>> {
        let limit = page.limit.unwrap_or(20);
        let all = self.all();
        Json(all.iter().take(limit.into()).cloned().collect())
    }

    /// One of them.
    #[get("/{id}")]
    async fn fetch(&self, id: u32) -> Result<Json<Person>, Error> {
        let all = self.all();
        let found = all.iter().find(|person| person.id == id);
        found.cloned().map(Json).ok_or(Error::NoSuchPerson { id })
    }

    /// Adds one.
    #[post("/")]
    async fn add(&self, new: Json<NewPerson>) -> Created<Json<Person>> {
        let mut all = self.all();
        let id = u32::try_from(all.len()).unwrap_or_default() + 1;
        let name = new.0.name;
        let person = Person { id, name };
        all.push(person.clone());
        Created::new(Json(person)).at(Self::fetch_path(id))
    }

    /// Forgets all.
    #[delete("/")]
    async fn clear(&self, token: Bearer) -> Result<NoContent, Error> {
        if !token.matches("secret") {
            return Err(Error::Unknown);
        }
        self.all().clear();
        Ok(NoContent)
    }
}

/// Says hello.
#[get("/hello/{name}")]
async fn hello(name: String) -> String {
    format!("hello, {name}")
}

pub(crate) fn app() -> App {
    let all = Mutex::default();
    App::new().resource(People { all }).route(hello)
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    println!("http://127.0.0.1:8080/docs");
    app().serve("127.0.0.1:8080").await
}
