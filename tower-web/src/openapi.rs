//! The document of an application's API (OpenAPI 3.1), and a page that shows it: from signatures, doc comments and types.
//!
//! With the feature `openapi`, `/openapi.json` is the document and `/docs` the page, which needs nothing from elsewhere. Nothing
//! is written for it:
//!
//! | in the document | comes from |
//! |---|---|
//! | `summary`, `description` | the doc comment: its first sentence, and the rest |
//! | `tags`, `operationId` | the resource's name; the resource's and the method's, as `users_fetch` |
//! | `parameters` | captures with their types, `Query<T>`, `Header<T>`, `Cookies`, `LastEventId` |
//! | `requestBody` | `Json<T>`, `Form<T>`, `Multipart`, text, bytes |
//! | `responses` | the returned type; `None`, refused arguments, each variant of a `#[derive(Problem)]`, also where an extractor refuses with it |
//! | `security` | `Bearer`, `Basic`, `ApiKey` |
//! | `deprecated` | `#[deprecated]` |
//! | schemas | `#[derive(JsonSchema)]` of [`schemars`], with the rules of `#[garde(…)]` among them |
//! | `title`, `version` | those of the package in which the first route stands, or [`App::openapi_info`](crate::App::openapi_info) |
//!
//! A type without [`JsonSchema`] compiles: its schema is the one that allows anything. With
//! [`App::require_schemas`](crate::App::require_schemas), an application that has such a type doesn't start, and says where they all are.
//! [`App::openapi`](crate::App::openapi) gives the document to tests and tools: one that is committed and compared in a test shows in review
//! what a change does to clients. [`App::without_docs`](crate::App::without_docs) leaves both routes out. An application's own routes come
//! before them.
//!
//! # Your own types
//!
//! An extractor or a response of your own says what it is by [`Describe`]: parameters, a body, security, what it answers with. Without, an
//! argument isn't mentioned (but for the problems that it refuses with), and a response may be anything. [`Cookies`](crate::cookies::Cookies)
//! are read in the handler, so that nothing is known of them: an extractor of your own that reads one says which. In a generic `impl`, only
//! what its bounds tell is known of a type parameter: write `T: JsonSchema` there.
//!
//! # What has no signature
//!
//! A mounted service has a document of its own, or none: [`App::describe_mount`](crate::App::describe_mount) puts one in. What a fallback
//! answers isn't part of an API, and isn't in the document. The admin port and health aren't, either.
//!
//! # Cost
//!
//! The document is made when it is first asked for. What isn't asked for it costs nothing.
//!
//! # Example
//!
//! ```
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//! use tower_web::prelude::*;
//!
//! /// Somebody.
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! struct User {
//!     name: String,
//! }
//!
//! #[derive(Debug, Problem)]
//! enum Error {
//!     #[problem(status = 404, title = "no such user")]
//!     NoSuchUser { id: u64 },
//! }
//!
//! struct Users;
//!
//! #[resource("/users")]
//! impl Users {
//!     /// Fetch one user. Nobody else is told.
//!     #[get("/{id}")]
//!     async fn fetch(&self, id: u64) -> Result<Json<User>, Error> {
//!         Err(Error::NoSuchUser { id })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let app = App::new().resource(Users);
//! let document = app.openapi();
//! let fetch = &document["paths"]["/users/{id}"]["get"];
//! assert_eq!(fetch["summary"], "Fetch one user.");
//! assert_eq!(fetch["operationId"], "users_fetch");
//! assert_eq!(fetch["responses"]["404"]["description"], "no such user");
//! assert_eq!(document["components"]["schemas"]["User"]["description"], "Somebody.");
//!
//! let served: serde_json::Value = app.test().get("/openapi.json").await.json();
//! assert_eq!(served, document);
//! # }
//! ```

use std::any::TypeId;
use std::collections::HashMap;

pub use schemars::{self, JsonSchema};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::problem::{Location, MEDIA_TYPE};

mod document;
mod fragment;
mod known;
mod page;
mod probe;
mod unknown;

pub(crate) use document::document;
pub(crate) use fragment::Fragment;
pub(crate) use page::own_routes;
pub use probe::{Holds, NoFailure, NoSchema, Probe, Silent, Unheld, Unrefused};
pub(crate) use unknown::unknown;

/// What an application says of itself, and what belongs to its document besides its routes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Docs {
    pub(crate) title: Option<String>,
    pub(crate) version: Option<String>,
    /// Whether neither the document nor its page has a route.
    pub(crate) is_hidden: bool,
    pub(crate) fragments: Vec<Fragment>,
    pub(crate) requires_schemas: bool,
}

/// What a type that is an argument or a response says of itself in the document.
///
/// # Example
///
/// An extractor tells its parameters, its security, and what it refuses with. What a `#[derive(Problem)]` is told of needn't be told here:
///
/// ```
/// use serde_json::json;
/// use tower_web::extract::{Extract, NoBody, RequestHead};
/// use tower_web::openapi::{Describe, Operation};
/// use tower_web::prelude::*;
/// use tower_web::problem::Location;
///
/// #[derive(Debug, Problem)]
/// enum Refused {
///     #[problem(status = 401, title = "the session has ended")]
///     Ended,
/// }
///
/// /// Who is logged in, by a cookie.
/// struct Session(String);
///
/// impl Extract for Session {
///     type Body = NoBody;
///     type Rejection = Refused;
///
///     async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Refused> {
///         let cookies = Cookies::extract(head, ()).await.map_err(|_| Refused::Ended)?;
///         let session = cookies.get("session").ok_or(Refused::Ended)?;
///         Ok(Self(session.to_owned()))
///     }
/// }
///
/// impl Describe for Session {
///     fn request(operation: &mut Operation<'_>) {
///         let scheme = json!({"type": "apiKey", "in": "cookie", "name": "session"});
///         operation.security("session", scheme);
///         operation.parameter(Location::Header, "x-tenant", json!({"type": "string"}));
///     }
/// }
///
/// #[get("/me")]
/// async fn me(session: Session) -> String {
///     session.0
/// }
///
/// let document = App::new().route(me).openapi();
/// let me = &document["paths"]["/me"]["get"];
/// assert_eq!(me["security"], json!([{"session": []}]));
/// assert_eq!(me["parameters"][0]["name"], "x-tenant");
/// assert_eq!(me["responses"]["401"]["description"], "the session has ended");
/// ```
///
/// A response tells its media type:
///
/// ```
/// use serde_json::json;
/// use tower_web::openapi::{Describe, Operation};
/// use tower_web::prelude::*;
///
/// struct Csv(String);
///
/// impl IntoResponse for Csv {
///     fn into_response(self) -> Response {
///         ([("content-type", "text/csv")], self.0).into_response()
///     }
/// }
///
/// impl Describe for Csv {
///     fn response(operation: &mut Operation<'_>) {
///         operation.answer("text/csv", json!({"type": "string"}));
///     }
/// }
///
/// #[get("/report")]
/// async fn report() -> Csv {
///     Csv("a,b".into())
/// }
///
/// let document = App::new().route(report).openapi();
/// assert!(document["paths"]["/report"]["get"]["responses"]["200"]["content"]["text/csv"].is_object());
/// ```
pub trait Describe {
    /// Says what it takes of a request, as an argument.
    fn request(operation: &mut Operation<'_>) {
        let _ = operation;
    }

    /// Says what it answers with, as a response.
    fn response(operation: &mut Operation<'_>) {
        operation.anything();
    }
}

/// Stands for a type that can't be named: one written with `impl`.
#[derive(Debug)]
pub enum Opaque {}

/// What is written above a route, and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The package's name.
    pub package: Option<&'static str>,
    /// The package's version.
    pub version: Option<&'static str>,
    /// The resource's type.
    pub resource: Option<&'static str>,
    /// The function's name.
    pub function: &'static str,
    /// Its documentation.
    pub docs: &'static str,
    /// Whether it is `#[deprecated]`.
    pub is_deprecated: bool,
}

/// A route, as its macro describes it.
#[derive(Clone, Copy)]
pub(crate) struct Description {
    pub(crate) about: About,
    pub(crate) describe: fn(&mut Operation<'_>),
}

/// How a type's schema is made: as a reference to it, and itself.
#[derive(Clone, Copy)]
struct Schemas {
    reference: fn(&mut SchemaGenerator) -> Schema,
    inline: fn(&mut SchemaGenerator) -> Schema,
}

#[derive(Clone, Copy)]
struct Descriptions {
    request: fn(&mut Operation<'_>),
    response: fn(&mut Operation<'_>),
}

/// What all operations of a document share.
struct Shared {
    /// The schemas of what comes in, and of what goes out: a field with a default may be missing in the one only.
    incoming: SchemaGenerator,
    outgoing: SchemaGenerator,
    security: Map<String, Value>,
}

/// An operation of the document, while it is described.
pub struct Operation<'a> {
    shared: &'a mut Shared,
    schemas: HashMap<TypeId, Schemas>,
    descriptions: HashMap<TypeId, Descriptions>,
    parameters: Vec<Value>,
    body: Option<Value>,
    responses: Map<String, Value>,
    security: Map<String, Value>,
    /// Where requests without credentials are answered, too.
    is_security_optional: bool,
    /// Whether what is described may be missing.
    is_optional: bool,
    is_outgoing: bool,
    /// The status of a response, where a wrapper says so.
    status: &'static str,
    /// What of the signature nothing is known of.
    unknown: Vec<unknown::Unknown>,
}

impl<'a> Operation<'a> {
    fn new(shared: &'a mut Shared) -> Self {
        Self {
            shared,
            schemas: HashMap::new(),
            descriptions: HashMap::new(),
            parameters: Vec::new(),
            body: None,
            responses: Map::new(),
            security: Map::new(),
            is_security_optional: false,
            is_optional: false,
            is_outgoing: false,
            status: "200",
            unknown: Vec::new(),
        }
    }

    /// The schema of a type that stands in the route's signature: of one without [`JsonSchema`], that which allows
    /// anything.
    pub fn schema<T: 'static>(&mut self) -> Value {
        match self.schemas.get(&TypeId::of::<T>()).copied() {
            Some(schemas) => (schemas.reference)(self.generator()).to_value(),
            None => {
                self.unknown.push(unknown::Unknown::schema::<T>());
                json!({})
            }
        }
    }

    fn inline_schema<T: 'static>(&mut self) -> Option<Value> {
        let Some(schemas) = self.schemas.get(&TypeId::of::<T>()).copied() else {
            self.unknown.push(unknown::Unknown::schema::<T>());
            return None;
        };
        Some((schemas.inline)(self.generator()).to_value())
    }

    fn generator(&mut self) -> &mut SchemaGenerator {
        match self.is_outgoing {
            true => &mut self.shared.outgoing,
            false => &mut self.shared.incoming,
        }
    }

    /// Adds a parameter, which is required unless it stands in an `Option`.
    pub fn parameter(&mut self, location: Location, name: &str, schema: Value) {
        let is_required = location == Location::Path || !self.is_optional;
        self.add_parameter(location, name, schema, is_required);
    }

    fn add_parameter(&mut self, location: Location, name: &str, schema: Value, required: bool) {
        let is_there = |own: &Value| own["name"] == name && own["in"] == location.to_string();
        if self.parameters.iter().any(is_there) {
            return;
        }
        let mut schema = never_null(schema);
        let mut parameter = json!({"name": name, "in": location.to_string(), "required": required});
        if let Some(object) = schema.as_object_mut() {
            for key in ["description", "deprecated"] {
                if let Some(value) = object.remove(key) {
                    parameter[key] = value;
                }
            }
        }
        parameter["schema"] = schema;
        self.parameters.push(parameter);
    }

    /// Adds the fields of `T` as parameters of the query.
    pub fn query<T: 'static>(&mut self) {
        let Some(schema) = self.inline_schema::<T>() else {
            return self.free_query();
        };
        let Some(properties) = schema["properties"].as_object() else {
            return self.free_query();
        };
        let required = |name: &str| {
            let required = schema["required"].as_array();
            required.is_some_and(|all| all.iter().any(|own| own == name))
        };
        let is_optional = self.is_optional;
        for (name, property) in properties {
            self.add_parameter(
                Location::Query,
                name,
                property.clone(),
                required(name) && !is_optional,
            );
        }
    }

    /// Any parameters at all.
    fn free_query(&mut self) {
        let schema = json!({"type": "object", "additionalProperties": true});
        self.add_parameter(Location::Query, "query", schema, false);
    }

    /// Adds a body of this media type.
    pub fn body(&mut self, media_type: &str, schema: Value) {
        let mut content = Map::new();
        content.insert(media_type.to_owned(), json!({"schema": schema}));
        self.body = Some(json!({"content": content, "required": !self.is_optional}));
    }

    /// Adds a scheme of security. In an `Option`, requests without it are answered as well.
    pub fn security(&mut self, name: &str, scheme: Value) {
        self.shared.security.insert(name.to_owned(), scheme);
        self.security.insert(name.to_owned(), json!([]));
        self.is_security_optional |= self.is_optional;
    }

    /// Adds a response with the status that its wrapper says, by default 200.
    pub fn answer(&mut self, media_type: &str, schema: Value) {
        let status = self.status;
        let content = &mut self.response(status, None)["content"];
        content[media_type] = json!({"schema": schema});
    }

    /// Adds a response without a body, of any status: `"204"`, `"3XX"`, `"default"`.
    pub fn status(&mut self, status: &str, description: &str) {
        self.response(status, Some(description));
    }

    /// Says which header the response with this status has.
    pub fn header(&mut self, status: &str, name: &str, description: &str) {
        let headers = &mut self.response(status, None)["headers"];
        headers[name] = json!({"description": description, "schema": {"type": "string"}});
    }

    /// Adds a response of which nothing is known.
    pub fn anything(&mut self) {
        let content = &mut self.response("default", Some("any response"))["content"];
        content["*/*"] = json!({});
    }

    /// Adds a problem with this status. There may be many of one status.
    pub fn problem(&mut self, status: u16, title: &str, kind: Option<&str>) {
        let mut example = json!({"status": status, "title": title});
        if let Some(kind) = kind {
            example["type"] = json!(kind);
        }
        let status = status.to_string();
        let response = self.response(&status, None);
        let told = response["description"].as_str().unwrap_or_default();
        let is_told = told.split("; ").any(|own| own == title);
        if !is_told {
            let known = document::reason(&status);
            let told = match told.is_empty() || told == known {
                true => title.to_owned(),
                false => format!("{told}; {title}"),
            };
            response["description"] = json!(told);
        }
        let content = &mut response["content"][MEDIA_TYPE];
        content["schema"] = json!({"$ref": "#/components/schemas/Problem"});
        content["examples"][title] = json!({"value": example});
    }

    /// A refusal that an extractor may answer with: a problem of no kind of its own.
    pub fn refusal(&mut self, status: u16) {
        if !self.responses.contains_key(&status.to_string()) {
            let text = status.to_string();
            let response = self.response(&text, None);
            response["content"][MEDIA_TYPE] =
                json!({"schema": {"$ref": "#/components/schemas/Problem"}});
        }
    }

    fn response(&mut self, status: &str, description: Option<&str>) -> &mut Value {
        let response = self
            .responses
            .entry(status)
            .or_insert_with(|| json!({"description": document::reason(status)}));
        if let Some(description) = description {
            response["description"] = json!(description);
        }
        response
    }

    /// Describes an argument of type `T`, if it says what it is.
    pub fn argument<T: 'static>(&mut self) {
        self.is_outgoing = false;
        match self.descriptions.get(&TypeId::of::<T>()).copied() {
            Some(own) => (own.request)(self),
            None => self.unknown.push(unknown::Unknown::argument::<T>()),
        }
    }

    /// The same, of one that may be missing.
    pub fn optional<T: 'static>(&mut self) {
        let before = std::mem::replace(&mut self.is_optional, true);
        self.argument::<T>();
        self.is_optional = before;
    }

    /// Describes a response of type `T`.
    pub fn output<T: 'static>(&mut self) {
        self.is_outgoing = true;
        match self.descriptions.get(&TypeId::of::<T>()).copied() {
            Some(own) => (own.response)(self),
            None => {
                self.unknown.push(unknown::Unknown::response::<T>());
                self.anything();
            }
        }
    }

    /// The same, with this status in the place of its own.
    pub fn output_as<T: 'static>(&mut self, status: &'static str) {
        let before = std::mem::replace(&mut self.status, status);
        self.output::<T>();
        self.status = before;
    }

    /// Describes the capture of this name.
    pub fn capture<T: 'static>(&mut self, name: &str) {
        self.is_outgoing = false;
        let mut schema = self.inline_schema::<T>().unwrap_or_else(|| json!({}));
        if TypeId::of::<T>() != TypeId::of::<String>() {
            self.refusal(400);
        } else if schema.get("minLength").is_none() {
            // Nothing at all isn't caught.
            schema["minLength"] = json!(1);
        }
        self.add_parameter(Location::Path, name, schema, true);
    }
}

impl std::fmt::Debug for Operation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation")
            .field("parameters", &self.parameters)
            .field("responses", &self.responses)
            .finish_non_exhaustive()
    }
}

/// A parameter is there or isn't; it is never `null`.
fn never_null(mut schema: Value) -> Value {
    let Some(object) = schema.as_object_mut() else {
        return json!({});
    };
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|own| own != "null");
        if let [only] = &types[..] {
            object["type"] = only.clone();
        }
    }
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else {
        return schema;
    };
    choices.retain(|own| own["type"] != "null");
    if let [Value::Object(only)] = &choices[..] {
        let only = only.clone();
        object.remove("anyOf");
        object.extend(only);
    }
    schema
}
