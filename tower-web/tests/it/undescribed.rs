//! What a signature doesn't tell the document: by an extractor of one's own, by a mounted service, or not at all.

use std::convert::Infallible;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_web::extract::{Extract, NoBody, RequestHead};
use tower_web::openapi::{Describe, Operation};
use tower_web::prelude::*;
use tower_web::problem::Location;

#[cfg(feature = "validate")]
use crate::valid_document::assert_valid;

#[derive(Serialize, Deserialize)]
struct Plain;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Described;

#[derive(Deserialize)]
struct Filter {
    #[expect(dead_code, reason = "it is there for its type")]
    by: String,
}

struct Slug(String);

impl FromStr for Slug {
    type Err = Infallible;

    fn from_str(slug: &str) -> Result<Self, Infallible> {
        Ok(Self(slug.to_owned()))
    }
}

/// Describes itself.
struct Session;

#[derive(Debug, Problem)]
enum Refused {
    #[problem(status = 401, title = "the session has ended")]
    Ended,
    #[problem(status = 403, title = "the session is another's")]
    Foreign,
}

impl Extract for Session {
    type Body = NoBody;
    type Rejection = Refused;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Refused> {
        match head.headers.contains_key("cookie") {
            true => Ok(Self),
            false => Err(if head.uri.path() == "/" {
                Refused::Ended
            } else {
                Refused::Foreign
            }),
        }
    }
}

impl Describe for Session {
    fn request(operation: &mut Operation<'_>) {
        let scheme = json!({"type": "apiKey", "in": "cookie", "name": "session"});
        operation.security("session", scheme);
        operation.parameter(Location::Cookie, "theme", json!({"type": "string"}));
        operation.parameter(Location::Header, "x-tenant", json!({"type": "integer"}));
        operation.refusal(400);
    }
}

/// Doesn't.
struct Silent;

impl Extract for Silent {
    type Body = NoBody;
    type Rejection = Refused;

    async fn extract(_: &mut RequestHead, (): ()) -> Result<Self, Refused> {
        Ok(Self)
    }
}

struct Csv;

impl IntoResponse for Csv {
    fn into_response(self) -> Response {
        "a,b".into_response()
    }
}

#[get("/me")]
async fn me(_session: Session) -> Json<Described> {
    Json(Described)
}

struct Vague;

#[resource("/vague")]
impl Vague {
    #[post("/")]
    async fn create(&self, _new: Json<Plain>, _also: Option<Query<Filter>>) -> Json<Plain> {
        Json(Plain)
    }

    #[get("/{slug}")]
    async fn fetch(&self, slug: Slug, _silent: Silent) -> Result<Csv, Problem> {
        let _ = slug.0;
        Ok(Csv)
    }

    #[get("/")]
    async fn list(&self) -> impl IntoResponse {
        "anything"
    }

    #[put("/")]
    async fn free(&self) -> Response {
        "on purpose".into_response()
    }
}

#[fallback]
async fn lost() -> impl IntoResponse {
    StatusCode::NOT_FOUND
}

#[test]
fn an_extractor_tells_its_parameters_its_security_and_its_refusals() {
    let document = App::new().route(me).openapi();
    let me = &document["paths"]["/me"]["get"];
    assert_eq!(me["security"], json!([{"session": []}]));
    assert_eq!(
        document["components"]["securitySchemes"]["session"],
        json!({"type": "apiKey", "in": "cookie", "name": "session"})
    );
    assert_eq!(
        me["parameters"],
        json!([
            {"name": "theme", "in": "cookie", "required": true, "schema": {"type": "string"}},
            {"name": "x-tenant", "in": "header", "required": true, "schema": {"type": "integer"}},
        ])
    );
    assert!(me["responses"]["400"].is_object());
    // What its refusals are is written once: in their type.
    assert_eq!(
        me["responses"]["401"]["description"],
        "the session has ended"
    );
    assert_eq!(
        me["responses"]["403"]["description"],
        "the session is another's"
    );
}

#[test]
fn refusals_are_told_of_an_extractor_that_tells_nothing_itself() {
    let document = App::new().resource(Vague).openapi();
    let fetch = &document["paths"]["/vague/{slug}"]["get"];
    assert_eq!(
        fetch["responses"]["401"]["description"],
        "the session has ended"
    );
}

/// What is wrong, without the paths of this crate.
fn faults(app: App) -> Vec<String> {
    let error = app.build().unwrap_err();
    let told = error.faults().iter();
    told.map(|fault| fault.replace("it::undescribed::", ""))
        .collect()
}

#[test]
fn an_application_that_requires_schemas_tells_all_that_lack_one_at_once() {
    let told = faults(App::new().resource(Vague).route(me).require_schemas());
    let place = |method: &str| format!("`Vague::{method}` (");
    let said = [
        ("create", "`Plain` has no schema"),
        ("create", "`Filter` has no schema"),
        ("fetch", "`Slug` has no schema"),
        ("fetch", "`Silent`, an argument"),
        ("fetch", "`Csv`, a response"),
        ("list", "written with `impl`"),
    ];
    assert_eq!(told.len(), said.len(), "{told:#?}");
    for (method, what) in said {
        let is_said = |fault: &String| fault.contains(&place(method)) && fault.contains(what);
        assert!(told.iter().any(is_said), "{method}, {what}: {told:#?}");
    }
    assert!(told[0].contains("undescribed.rs:"), "{}", told[0]);
}

#[test]
fn schemas_are_required_of_nobody_who_doesnt_ask() {
    assert!(App::new().resource(Vague).build().is_ok());
    let asks = || App::new().route(me).fallback(lost).require_schemas();
    assert!(asks().build().is_ok());
    // Of the nested application's own routes, its own word.
    assert!(
        App::new()
            .resource(Vague)
            .nest("/me", asks())
            .build()
            .is_ok()
    );
    let asks = App::new().resource(Vague).require_schemas();
    assert_eq!(faults(App::new().nest("/inner", asks)).len(), 6);
}

fn fragment() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Legacy", "version": "1"},
        "security": [{"key": []}],
        "tags": [{"name": "legacy"}],
        "paths": {
            "/": {"get": {"operationId": "me", "responses": {"200": {"description": "all"}}}},
            "/users/{id}": {
                "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"$ref": "#/components/schemas/Id"}}],
                "get": {"security": [], "responses": {"200": {"description": "one"}}},
            },
        },
        "components": {
            "schemas": {"Id": {"type": "string"}},
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-key"}},
        },
    })
}

#[test]
fn a_mounted_service_is_described_by_its_own_document() {
    let app = App::new()
        .route(me)
        .nest("/outer", App::new().describe_mount("/legacy/", fragment()));
    let document = app.openapi();
    #[cfg(feature = "validate")]
    assert_valid(&document);
    let all = &document["paths"]["/outer/legacy"]["get"];
    assert_eq!(all["security"], json!([{"key": []}]));
    // `me` is taken.
    assert_eq!(all["operationId"], "me_2");
    let one = &document["paths"]["/outer/legacy/users/{id}"];
    assert_eq!(one["get"]["security"], json!([]));
    assert_eq!(one["parameters"][0]["name"], "id");
    assert_eq!(
        document["components"]["schemas"]["Id"],
        json!({"type": "string"})
    );
    assert!(document["components"]["securitySchemes"]["session"].is_object());
    assert_eq!(document["tags"], json!([{"name": "legacy"}]));
    assert!(app.build().is_ok());
}

#[test]
fn a_fragment_that_fits_badly_keeps_the_application_from_being_built() {
    let app = App::new()
        .route(me)
        .describe_mount(
            "",
            json!({"paths": {"/me": {"get": {"responses": {}}}, "me": {}}}),
        )
        .describe_mount(
            "/a",
            json!({"components": {"schemas": {"Described": true}}}),
        )
        .describe_mount("/b", json!({"openapi": "3.0.3", "paths": {}}))
        .describe_mount("/c", json!([]))
        .describe_mount("/d", json!({"paths": []}));
    let told = faults(app);
    let said = [
        "`get` of `/me` is described twice",
        "`me` in its document is no path",
        "`#/components/schemas/Described`",
        "OpenAPI `3.0.3`",
        "is an object",
        "are no object",
    ];
    assert_eq!(told.len(), said.len(), "{told:#?}");
    for (fault, said) in told.iter().zip(said) {
        assert!(fault.contains(said), "{fault}");
        assert!(fault.contains("undescribed.rs:"), "{fault}");
    }
}
