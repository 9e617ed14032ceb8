//! What the macros accept, and what they make of it.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tower_web::prelude::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct NewUser {
    name: String,
}

struct Users {
    next: AtomicU32,
}

type UserId = u64;

#[resource("/users")]
impl Users {
    const FIRST: u32 = 7;

    fn new() -> Self {
        Self {
            next: AtomicU32::new(Self::FIRST),
        }
    }

    /// Fetch one user.
    #[get("/{id}")]
    async fn fetch(&self, id: UserId) -> Result<Json<User>, Problem> {
        if id == 0 {
            return Err(Problem::new(StatusCode::NOT_FOUND).with_detail("there is no such user"));
        }
        Ok(Json(User {
            id,
            name: "Ann".into(),
        }))
    }

    /// Create a user.
    #[post("/")]
    async fn create(&self, Json(new): Json<NewUser>) -> Created<Json<User>> {
        let id = u64::from(self.next.fetch_add(1, Ordering::Relaxed));
        let user = User { id, name: new.name };
        Created::new(Json(user)).at(Self::fetch_path(id))
    }

    #[get("/")]
    fn list() -> &'static str {
        "all"
    }

    #[get("/{id}/avatar.{format}")]
    async fn avatar(&self, format: &str, mut id: u64) -> String {
        id += 1;
        format!("{id} as {format}")
    }

    #[cfg(test)]
    #[delete("/{_id}")]
    async fn delete(&self, _id: u64) -> NoContent {
        NoContent
    }

    #[cfg(not(test))]
    #[delete("/{_id}")]
    async fn delete(&self, _id: u64) -> NoContent {
        this_is_not_compiled()
    }

    #[any("/{id}/any")]
    async fn any(&self, id: u64, method: tower_web::Method) -> String {
        format!("{method} {id}")
    }

    #[get("/{id}/notes/{*path}")]
    #[get("/{id}/remarks/{*path}")]
    async fn notes(
        &self,
        id: u64,
        path: String,
    ) -> (StatusCode, [(&'static str, &'static str); 1], String) {
        (
            StatusCode::ACCEPTED,
            [("x-kind", "note")],
            format!("{id}: {path}"),
        )
    }
}

#[tokio::test]
async fn methods_of_a_resource_are_routes() {
    let client = App::new().resource(Users::new()).test();
    client
        .get("/users/3")
        .await
        .assert_status(200)
        .assert_header("content-type", "application/json")
        .assert_json(&serde_json::json!({"id": 3, "name": "Ann"}));
    client
        .post("/users")
        .json(&serde_json::json!({"name": "Bob"}))
        .await
        .assert_status(201)
        .assert_header("location", "/users/7")
        .assert_json(&serde_json::json!({"id": 7, "name": "Bob"}));
    client.get("/users").await.assert_text("all");
    client
        .get("/users/3/avatar.png")
        .await
        .assert_text("4 as png");
    client
        .delete("/users/3")
        .await
        .assert_status(204)
        .assert_text("");
    client.put("/users/3/any").await.assert_text("PUT 3");
    for path in ["/users/3/notes/a/b", "/users/3/remarks/a/b"] {
        client
            .get(path)
            .await
            .assert_status(202)
            .assert_header("x-kind", "note")
            .assert_text("3: a/b");
    }
}

#[tokio::test]
async fn methods_of_a_resource_stay_plain() {
    let users = Users::new();
    assert_eq!(users.fetch(3).await.unwrap().id, 3);
    assert_eq!(users.fetch(0).await.unwrap_err().status(), 404);
    let new = NewUser { name: "Bob".into() };
    assert_eq!(users.create(Json(new)).await.into_inner().name, "Bob");
    assert_eq!(Users::list(), "all");
}

#[test]
fn paths_are_built_from_captures() {
    assert_eq!(Users::fetch_path(7), "/users/7");
    assert_eq!(Users::list_path(), "/users");
    assert_eq!(Users::avatar_path(7, "a/b"), "/users/7/avatar.a%2Fb");
    assert_eq!(Users::notes_path(7, "a b/ä"), "/users/7/notes/a%20b/%C3%A4");
    assert_eq!(hello_path("world"), "/hello/world");
}

#[get("/hello/{name}")]
async fn hello(name: String) -> String {
    format!("hello, {name}")
}

/// Borrowed captures are decoded, too.
#[get("/borrowed/{first}/{second}")]
async fn borrowed(first: &str, second: &str) -> String {
    format!("{first}, {second}")
}

#[get("/opaque")]
async fn opaque() -> impl IntoResponse {
    (StatusCode::IM_A_TEAPOT, "short and stout")
}

#[post("/sync")]
fn synchronous(text: String) -> usize_text::Length {
    usize_text::Length(text.len())
}

mod usize_text {
    use tower_web::respond::{IntoResponse, Response};

    pub(crate) struct Length(pub(crate) usize);

    impl IntoResponse for Length {
        fn into_response(self) -> Response {
            self.0.to_string().into_response()
        }
    }
}

#[tokio::test]
async fn functions_are_routes_and_stay_callable() {
    let client = App::new()
        .route(hello)
        .route(borrowed)
        .route(opaque)
        .route(synchronous)
        .test();
    client
        .get("/hello/w%C3%B6rld")
        .await
        .assert_text("hello, wörld");
    client.get("/borrowed/a%2Fb/c").await.assert_text("a/b, c");
    client.get("/opaque").await.assert_status(418);
    client.post("/sync").body("four").await.assert_text("4");

    let hello = hello("x".into());
    assert_eq!(hello.await, "hello, x");
    assert_eq!(borrowed("a", "b").await, "a, b");
    assert_eq!(opaque().await.status(), 418);
    assert_eq!(synchronous("four".into()).0, 4);
}

trait Store: Send + Sync + 'static {
    type Item: Serialize + DeserializeOwned + Send;
    fn first(&self) -> Option<Self::Item>;
}

struct Memory;

impl Store for Memory {
    type Item = String;
    fn first(&self) -> Option<String> {
        Some("first".into())
    }
}

struct Items<S, T> {
    store: S,
    kind: PhantomData<T>,
}

#[resource("/items")]
impl<S, T> Items<S, T>
where
    S: Store,
    T: DeserializeOwned + Serialize + Send,
{
    #[get("/first")]
    async fn first(&self) -> Option<Json<S::Item>> {
        self.store.first().map(Json)
    }

    /// With rules, a `T` that may have some must say so: see `rules`.
    #[cfg(not(feature = "validate"))]
    #[post("/")]
    async fn echo(
        &self,
        item: Json<T>,
        method: tower_web::Method,
    ) -> (tower_web::HeaderMap, Json<T>) {
        let mut headers = tower_web::HeaderMap::new();
        headers.insert("x-method", method.as_str().parse().unwrap());
        (headers, item)
    }
}

#[tokio::test]
async fn generic_resources_have_routes() {
    let items = Items {
        store: Memory,
        kind: PhantomData::<Vec<u8>>,
    };
    let client = App::new().resource(items).test();
    client.get("/items/first").await.assert_json("first");
    #[cfg(not(feature = "validate"))]
    {
        client
            .post("/items")
            .json(&[1, 2])
            .await
            .assert_header("x-method", "POST")
            .assert_json(&[1, 2]);
        client
            .post("/items")
            .json(&"no bytes")
            .await
            .assert_problem(422);
    }
}

/// The whole request and what is made of parts of it, in any order.
#[post("/orders")]
async fn orders(
    request: Request,
    method: tower_web::Method,
    headers: tower_web::HeaderMap,
) -> String {
    let (parts, body) = request.into_parts();
    let text = String::from_utf8(body.bytes().await.unwrap().into()).unwrap();
    format!("{method} {} {} {text}", headers.len(), parts.headers.len())
}

#[tokio::test]
async fn arguments_stand_in_any_order() {
    let client = App::new().route(orders).test();
    client
        .post("/orders")
        .header("x-a", "1")
        .body("text")
        .await
        .assert_text("POST 2 2 text");
}

macro_rules! generated {
    ($name:ident, $path:literal, $ty:ty) => {
        #[get($path)]
        async fn $name(value: $ty) -> String {
            value.to_string()
        }
    };
}

generated!(from_a_macro, "/generated/{value}", u8);

#[tokio::test]
async fn routes_may_come_from_macros() {
    let client = App::new().route(from_a_macro).test();
    client.get("/generated/8").await.assert_text("8");
    let problem = client.get("/generated/800").await.assert_problem(400);
    assert_eq!(problem["errors"][0]["in"], "path");
    assert_eq!(problem["errors"][0]["name"], "value");
}

/// A response may be written from what the resource has, without a copy of it.
struct Shelf {
    books: Vec<User>,
}

#[resource("/shelf")]
impl Shelf {
    #[get("/")]
    async fn all(&self) -> Json<&[User]> {
        Json(&self.books)
    }

    #[get("/first")]
    fn first(&self) -> Option<Json<&User>> {
        self.books.first().map(Json)
    }

    #[get("/{id}")]
    async fn one(&self, id: u64) -> Result<Json<&'_ User>, Problem> {
        let found = self.books.iter().find(|book| book.id == id);
        found
            .map(Json)
            .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND))
    }
}

/// Text whose type has another without a size in it.
struct Texts;

#[resource("/texts")]
impl Texts {
    #[get("/{name}")]
    async fn greet(&self, name: &str) -> Cow<'static, str> {
        match name {
            "nobody" => "hello".into(),
            name => format!("hello, {name}").into(),
        }
    }

    #[post("/")]
    async fn shout(&self, text: Json<Box<str>>) -> Json<Cow<'_, str>> {
        Json(text.to_uppercase().into())
    }
}

#[tokio::test]
async fn text_may_be_of_any_type_that_holds_a_str() {
    let client = App::new().resource(Texts).test();
    client.get("/texts/nobody").await.assert_text("hello");
    client.get("/texts/Ann").await.assert_text("hello, Ann");
    let shouted = client.post("/texts").json("hey").await;
    shouted.assert_json("HEY");
}

#[tokio::test]
async fn a_response_may_borrow_from_the_resource() {
    let book = User {
        id: 7,
        name: "Ulysses".into(),
    };
    let client = App::new()
        .resource(Shelf {
            books: vec![book.clone()],
        })
        .test();
    client.get("/shelf").await.assert_json(&[&book]);
    client.get("/shelf/first").await.assert_json(&book);
    client.get("/shelf/7").await.assert_json(&book);
    client.get("/shelf/8").await.assert_problem(404);
}
