//! The document of an application's API.

use std::collections::HashMap;
use std::convert::Infallible;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_stream::Stream;
use tower_web::openapi::{Describe, Operation};
use tower_web::prelude::*;

/// Somebody.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct User {
    first_name: String,
    #[serde(default)]
    friends: Vec<Self>,
}

/// Has no schema.
#[derive(Serialize, Deserialize)]
struct Plain {
    name: String,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it is described, and not read")]
struct Search {
    /// How many.
    limit: Option<u8>,
    #[serde(default)]
    tag: Vec<String>,
    sort: Sort,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Sort {
    Name,
    Age,
}

#[derive(Debug, Problem)]
enum Error {
    #[problem(
        status = 404,
        title = "no such user",
        type = "https://example.org/no-such-user"
    )]
    NoSuchUser { id: u64 },
    #[problem(status = 404, title = "no such friend")]
    NoSuchFriend,
    #[problem(status = 500, hide)]
    Db(#[from] std::io::Error),
}

type Reply<T> = Result<T, Error>;
type Body = Json<User>;

struct Users;

#[resource("/users")]
impl Users {
    /// Fetch one user. Whoever asks
    /// may see it.
    ///
    /// More about it.
    #[get("/{id}")]
    async fn fetch(&self, id: u64, _token: Bearer) -> Result<Json<User>, Error> {
        Err(Error::NoSuchUser { id })
    }

    /// Create a user
    #[post("/")]
    async fn create(&self, new: Json<User>) -> Created<Json<User>> {
        Created::new(new)
    }

    #[get("/")]
    async fn list(&self, _search: Query<Search>) -> Json<Vec<User>> {
        Json(Vec::new())
    }

    #[deprecated]
    #[delete("/{id}")]
    async fn remove(&self, id: u64, _key: Option<ApiKey>) -> Reply<NoContent> {
        let _ = (id, Error::NoSuchFriend);
        Ok(NoContent)
    }

    #[put("/{id}")]
    async fn replace(&self, id: u64, new: Body) -> Reply<Body> {
        let _ = id;
        Ok(new)
    }

    #[patch("/{id}")]
    async fn change(&self, id: u64, new: Json<Plain>) -> Option<Json<Plain>> {
        let _ = id;
        Some(new)
    }
}

struct Mine;

impl Extract for Mine {
    type Body = tower_web::extract::NoBody;
    type Rejection = tower_web::Rejection;

    async fn extract(
        _: &mut tower_web::extract::RequestHead,
        (): (),
    ) -> Result<Self, Self::Rejection> {
        Ok(Self)
    }
}

impl IntoResponse for Mine {
    fn into_response(self) -> Response {
        "mine".into_response()
    }
}

struct Csv;

impl IntoResponse for Csv {
    fn into_response(self) -> Response {
        "a,b".into_response()
    }
}

impl Describe for Csv {
    fn response(operation: &mut Operation<'_>) {
        operation.answer("text/csv", json!({"type": "string"}));
    }
}

#[get("/mine")]
async fn mine(mine: Mine) -> Mine {
    mine
}

#[get("/reports/{year}.csv")]
async fn report(year: u16) -> (StatusCode, Csv) {
    let _ = year;
    (StatusCode::OK, Csv)
}

#[get("/files/{*path}")]
async fn file(path: &str) -> impl IntoResponse {
    path.to_owned()
}

#[any("/any")]
async fn any_method(_: Option<Query<HashMap<String, String>>>) -> Redirect {
    Redirect::to("/")
}

#[post("/form")]
async fn form(_form: Form<Search>) -> Html<String> {
    Html(String::new())
}

#[post("/upload")]
async fn upload(_form: Multipart) -> StatusCode {
    StatusCode::OK
}

#[get("/events")]
async fn events(_last: Option<LastEventId>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(tokio_stream::empty())
}

#[get("/socket")]
async fn socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|_| async {})
}

#[get("/text")]
fn plain_text() -> &'static str {
    "text"
}

#[fallback]
async fn lost() -> StatusCode {
    StatusCode::NOT_FOUND
}

pub(crate) fn app() -> App {
    App::new()
        .resource(Users)
        .route(mine)
        .route(report)
        .route(file)
        .route(any_method)
        .route(form)
        .route(upload)
        .route(events)
        .route(socket)
        .fallback(lost)
        .nest("/inner", App::new().route(plain_text))
}

const ROUTES: [(&str, &str); 15] = [
    ("/users/{id}", "get"),
    ("/users", "post"),
    ("/users", "get"),
    ("/users/{id}", "delete"),
    ("/users/{id}", "put"),
    ("/users/{id}", "patch"),
    ("/mine", "get"),
    ("/reports/{year}.csv", "get"),
    ("/files/{path}", "get"),
    ("/form", "post"),
    ("/upload", "post"),
    ("/events", "get"),
    ("/socket", "get"),
    ("/inner/text", "get"),
    ("/any", "patch"),
];

#[test]
fn every_route_is_in_the_document() {
    let document = app().openapi();
    for (path, method) in ROUTES {
        assert!(
            document["paths"][path][method].is_object(),
            "{method} {path}: {document:#}"
        );
    }
    let paths = document["paths"].as_object().unwrap();
    let operations = paths
        .values()
        .map(|item| item.as_object().unwrap().len())
        .sum::<usize>();
    // A route for any method is five operations.
    assert_eq!(operations, ROUTES.len() + 4);
}

#[test]
fn each_operation_has_a_name_of_its_own() {
    let document = app().openapi();
    let mut ids = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
    assert!(ids.contains(&"users_fetch".to_owned()));
}

#[test]
fn a_resource_is_described_by_its_signatures_and_comments() {
    let document = app().openapi();
    let fetch = &document["paths"]["/users/{id}"]["get"];
    assert_eq!(fetch["summary"], "Fetch one user.");
    assert_eq!(
        fetch["description"],
        "Whoever asks\nmay see it.\n\nMore about it."
    );
    assert_eq!(fetch["tags"], json!(["Users"]));
    assert_eq!(fetch["security"], json!([{"bearer": []}]));
    assert_eq!(
        fetch["parameters"],
        json!([{
            "name": "id",
            "in": "path",
            "required": true,
            "schema": {"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX},
        }])
    );
    let ok = &fetch["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(ok, &json!({"$ref": "#/components/schemas/UserOutput"}));
    let missing = &fetch["responses"]["404"];
    assert_eq!(missing["description"], "no such user; no such friend");
    let examples = &missing["content"]["application/problem+json"]["examples"];
    assert_eq!(
        examples["no such user"]["value"],
        json!({"status": 404, "title": "no such user", "type": "https://example.org/no-such-user"})
    );
    assert_eq!(fetch["responses"]["500"]["description"], "db");
    assert!(fetch["responses"]["401"].is_object());
    assert!(fetch["responses"]["400"].is_object());
}

#[test]
fn what_comes_in_and_what_goes_out_differ_where_a_field_has_a_default() {
    let document = app().openapi();
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["User"]["required"], json!(["firstName"]));
    assert_eq!(
        schemas["UserOutput"]["required"],
        json!(["firstName", "friends"])
    );
    let friends = &schemas["UserOutput"]["properties"]["friends"]["items"];
    assert_eq!(friends["$ref"], "#/components/schemas/UserOutput");
    let create = &document["paths"]["/users"]["post"];
    let body = &create["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["$ref"], "#/components/schemas/User");
    assert_eq!(create["requestBody"]["required"], true);
    let created = &create["responses"]["201"];
    assert!(created["headers"]["Location"].is_object());
    assert!(create["responses"].get("200").is_none());
    for status in ["400", "413", "415", "422"] {
        assert!(create["responses"][status].is_object(), "{status}");
    }
}

#[test]
fn a_query_becomes_parameters() {
    let document = app().openapi();
    let parameters = document["paths"]["/users"]["get"]["parameters"]
        .as_array()
        .unwrap();
    let of = |name: &str| {
        parameters
            .iter()
            .find(|parameter| parameter["name"] == name)
            .unwrap()
    };
    assert_eq!(of("limit")["required"], false);
    assert_eq!(of("limit")["description"], "How many.");
    assert_eq!(of("limit")["schema"]["type"], "integer");
    assert_eq!(of("tag")["required"], false);
    assert_eq!(of("tag")["schema"]["type"], "array");
    assert_eq!(of("sort")["required"], true);
}

#[test]
fn aliases_hide_nothing() {
    let document = app().openapi();
    let replace = &document["paths"]["/users/{id}"]["put"];
    let body = &replace["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["$ref"], "#/components/schemas/User");
    let ok = &replace["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(ok["$ref"], "#/components/schemas/UserOutput");
    assert!(replace["responses"]["404"].is_object());
}

#[test]
fn a_type_without_a_schema_may_be_anything() {
    let document = app().openapi();
    let change = &document["paths"]["/users/{id}"]["patch"];
    let body = &change["requestBody"]["content"]["application/json"];
    assert_eq!(body["schema"], json!({}));
    assert!(change["responses"]["404"].is_object());
}

#[test]
fn what_is_deprecated_says_so_and_what_is_optional_too() {
    let document = app().openapi();
    let remove = &document["paths"]["/users/{id}"]["delete"];
    assert_eq!(remove["deprecated"], true);
    assert_eq!(remove["security"], json!([{"x-api-key": []}, {}]));
    let scheme = &document["components"]["securitySchemes"]["x-api-key"];
    assert_eq!(
        scheme,
        &json!({"type": "apiKey", "in": "header", "name": "x-api-key"})
    );
    assert!(remove["responses"]["204"].is_object());
}

#[test]
fn the_responses_have_their_media_types() {
    let document = app().openapi();
    let of = |path: &str, method: &str, status: &str| {
        let content = &document["paths"][path][method]["responses"][status]["content"];
        let types = content.as_object().unwrap().keys();
        types.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("/events", "get", "200"), ["text/event-stream"]);
    assert_eq!(of("/form", "post", "200"), ["text/html"]);
    assert_eq!(of("/inner/text", "get", "200"), ["text/plain"]);
    assert_eq!(
        of("/reports/{year}.csv", "get", "default"),
        ["application/problem+json", "text/csv"]
    );
    assert_eq!(
        of("/mine", "get", "default"),
        ["*/*", "application/problem+json"]
    );
    assert!(document["paths"]["/socket"]["get"]["responses"]["101"].is_object());
}

#[test]
fn the_document_is_called_as_the_package_or_as_it_is_told() {
    let info = &app().openapi()["info"];
    assert_eq!(
        info,
        &json!({"title": "tower-web", "version": env!("CARGO_PKG_VERSION")})
    );
    let info = &app().openapi_info("Users", "2").openapi()["info"];
    assert_eq!(info, &json!({"title": "Users", "version": "2"}));
}

/// Every reference leads somewhere, and each capture of a path is a parameter.
#[test]
fn the_document_is_whole() {
    let document = app().openapi();
    let mut references = Vec::new();
    gather(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            for part in path.split('{').skip(1) {
                let name = part.split('}').next().unwrap();
                let parameters = operation["parameters"].as_array().unwrap();
                let is_there = parameters
                    .iter()
                    .any(|own| own["in"] == "path" && own["name"] == name);
                assert!(is_there, "{path}");
            }
        }
    }
}

fn gather(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(target) if key == "$ref" => references.push(target.clone()),
                    value => gather(value, references),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| gather(value, references)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_served() {
    let client = app().test();
    let served: Value = client.get("/openapi.json").await.json();
    assert_eq!(served, app().openapi());

    let page = client.get("/docs").await;
    page.assert_status(200)
        .assert_header("content-type", "text/html; charset=utf-8");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
    assert!(!policy.contains("unsafe"));
    // Nothing of it comes from elsewhere, and all of it is there.
    let html = page.text();
    assert!(!html.contains("http"), "{html}");
    for asset in ["swagger-ui.css", "swagger-ui-bundle.js", "start.js"] {
        assert!(html.contains(&format!("docs/{asset}")));
        let own = client.get(&format!("/docs/{asset}")).await;
        own.assert_status(200);
        assert!(own.text().len() > 50, "{asset}");
    }
}

#[tokio::test]
async fn the_page_can_be_left_out_or_replaced() {
    let client = app().without_docs().test();
    client.get("/openapi.json").await.assert_status(404);
    client.get("/docs").await.assert_status(404);

    #[get("/docs")]
    async fn own() -> &'static str {
        "own"
    }
    let client = App::new().route(own).test();
    client.get("/docs").await.assert_text("own");
    client.get("/openapi.json").await.assert_status(200);
}
