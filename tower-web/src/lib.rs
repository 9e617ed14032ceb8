//! A web framework that is trivial to begin with and production grade out of the box.
//!
//! A service is a plain type; its methods are plain asynchronous functions, and an attribute makes routes of them:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tower_web::prelude::*;
//!
//! # #[derive(Clone)]
//! # struct Db;
//! # impl Db { async fn find(&self, id: u64) -> Option<User> { (id == 7).then(|| User { name: "Ann".into() }) } }
//! #[derive(Serialize, Deserialize)]
//! struct User {
//!     name: String,
//! }
//!
//! struct Users {
//!     db: Db,
//! }
//!
//! #[resource("/users")]
//! impl Users {
//!     /// Fetch one user.
//!     #[get("/{id}")]
//!     async fn fetch(&self, id: u64) -> Option<Json<User>> {
//!         self.db.find(id).await.map(Json)
//!     }
//!
//!     /// Create a user.
//!     #[post("/")]
//!     async fn create(&self, new: Json<User>) -> Created<Json<User>> {
//!         Created::new(new).at(Self::fetch_path(8))
//!     }
//! }
//!
//! #[get("/hello/{name}")]
//! async fn hello(name: String) -> String {
//!     format!("hello, {name}")
//! }
//!
//! fn app() -> App {
//!     App::new().route(hello).resource(Users { db: Db })
//! }
//!
//! // #[tower_web::main]
//! // async fn main() -> tower_web::Result {
//! //     app().serve("127.0.0.1:8080").await
//! // }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // They stay what they are, for a unit test …
//! assert_eq!(hello("world".into()).await, "hello, world");
//! assert_eq!(Users { db: Db }.fetch(7).await.unwrap().name, "Ann");
//!
//! // … and the whole is tested without a socket.
//! let client = app().test();
//! client.get("/users/7").await.assert_json(&serde_json::json!({"name": "Ann"}));
//! client.get("/users/9").await.assert_problem(404);
//! client.get("/users/seven").await.assert_problem(400);
//! # }
//! ```
//!
//! # Arguments
//!
//! A capture of the path is bound **by name**: an argument `id` takes `{id}`, and is of any type that is read from text. A capture
//! that no argument takes doesn't compile. Everything else is bound **by type**, in any order: [`Json`], `Query`, `Form`,
//! `Header`, `Cookies`, `Bearer`, [`String`], [`Bytes`](bytes::Bytes), [`HeaderMap`], [`Method`], the raw [`Request`], and whatever
//! implements [`Extract`]. One of them at most takes the body; two don't compile. `Option` of one is `None` only where the thing is
//! absent. What is malformed is refused with a [`Problem`](struct@Problem) that names the field.
//!
//! # Results
//!
//! Whatever implements [`IntoResponse`]: text, [`Json`], `Html`, `Created`, `NoContent`, `Redirect`, a status and headers before
//! any of them, streams, events, files; `Option`, whose `None` is a 404; `Result` of two of them. `Result<_, Problem>` takes any
//! error by `?`, as a 500 whose cause is logged and never sent; a boxed one, which is no error itself, by
//! `.map_err(Problem::internal)?`.
//!
//! # Paths
//!
//! `/users/{id}`, `/files/{*path}`, `/reports/{year}.json`. The most literal route wins, whatever the order in which they were
//! added. Two routes for one method and path don't compile within a resource, and are told by [`App::build`] across resources, all at
//! once, with the places of both. `/` in a resource is its prefix itself; a slash more or less at the end is
//! [redirected](TrailingSlash). `Users::fetch_path(7)` builds a path.
//!
//! # Layers
//!
//! Any Tower layer, around the [application](App::layer), a resource or a route (`#[layer(…)]`): outermost first, whatever it
//! does with bodies, and whatever its error, which becomes a problem. [`middleware::from_fn`] makes one of an asynchronous
//! function. Those of tower-http come in through `tower-compat`, or as they are where an application patches its Tower. A limit is
//! one limit, however many connections there are.
//!
//! # In production
//!
//! What production needs is on: a time for each handler, limits of bodies, requests and connections, request ids, trace contexts,
//! spans, metrics, security headers, compression, health, a drain with a deadline. [`defaults`] has all of it in a table, with the
//! reasons, and how to change it: by a line of code or a variable of the environment. Every error is a
//! [problem](struct@Problem), and [`App::on_problem`] writes them all.
//!
//! # The document of the API, and rules
//!
//! With the feature `openapi`, `/openapi.json` describes the routes from their signatures, and `/docs` shows it: see the module `openapi`.
//! With `validate`, what breaks the rules of a type that implements `garde::Validate` is refused with a 422: see the module
//! `validate`. Both are off by default.
//!
//! # When not to use it
//!
//! For gRPC, use `tower-grpc`. Where there are no routes, a Tower service on `tower-hyper` is all that is needed.
//!
//! # What it costs
//!
//! A request for a static route over a kept connection costs 4 allocations and about 5 100 instructions more than bare hyper, with
//! all that production needs; without ([`App::bare`]) 3, one of which is the handler's future, and about 1 250. A layer costs a
//! clone of its service and a boxed future. `bench/`'s `web`, `web-defaults` and `web-allocations` measure it.
//!
//! # Features
//!
//! Explained in `Cargo.toml`, which says also which are on by default. Without any, there are routes, JSON, and the client for
//! tests; `server` adds a server of HTTP/1.1, which is quick to build, and `http2` makes it speak HTTP/2 too.

#[cfg(feature = "server")]
mod admin;
mod app;
#[cfg(feature = "auth")]
pub mod auth;
pub mod body;
mod captures;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "cookies")]
pub mod cookies;
pub mod cors;
pub mod csrf;
pub mod defaults;
pub mod detach;
pub mod extract;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "forms")]
pub mod forms;
pub mod guide;
pub mod handler;
#[cfg(feature = "headers")]
pub mod headers;
mod health;
pub mod idempotency;
pub mod json;
mod layered;
#[cfg(feature = "metrics")]
mod metrics;
pub mod middleware;
#[cfg(feature = "multipart")]
pub mod multipart;
#[cfg(feature = "openapi")]
pub mod openapi;
mod pattern;
pub mod problem;
pub mod respond;
mod routing;
#[cfg(feature = "server")]
mod serving;
#[cfg(feature = "sessions")]
pub mod sessions;
mod sheet;
mod shutdown;
#[cfg(feature = "sse")]
pub mod sse;
pub mod streams;
pub mod testing;
mod tree;
#[cfg(feature = "validate")]
pub mod validate;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use app::{App, AppFuture, AppService, BuildError, DEFAULT_BODY_LIMIT};
pub use body::Body;
pub use captures::FromCapture;
pub use extract::{Extract, Request};
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
pub use json::Json;
pub use layered::{Next, NextFuture};
pub use problem::{Problem, Rejection};
pub use respond::{IntoResponse, Response};
pub use routing::TrailingSlash;
#[cfg(feature = "server")]
pub use serving::{ListenError, Outcome, bind, block_on, exit};
pub use shutdown::Shutdown;
#[cfg(feature = "server")]
pub use tower_hyper::{ConnectInfo, Server, Settings, Workers};
#[cfg(feature = "tls")]
pub use tower_hyper::{Tls, TlsInfo};
#[cfg(feature = "server")]
pub use tower_web_macros::main;
pub use tower_web_macros::{
    Problem, any, body_limit, delete, fallback, get, handler_timeout, head, layer, options, patch,
    post, put, resource,
};

/// An error of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What `main` returns, and whatever else fails with any error.
pub type Result<T = (), E = BoxError> = std::result::Result<T, E>;

/// What an application is written with.
///
/// ```
/// use tower_web::prelude::*;
/// ```
pub mod prelude {
    #[cfg(feature = "server")]
    pub use crate::ConnectInfo;
    #[cfg(feature = "auth")]
    pub use crate::auth::{ApiKey, Basic, Bearer};
    #[cfg(feature = "cookies")]
    pub use crate::cookies::{Cookie, Cookies};
    pub use crate::extract::{Extension, Extract, Request};
    #[cfg(feature = "files")]
    pub use crate::files::{File, Files};
    #[cfg(feature = "forms")]
    pub use crate::forms::{Form, Query};
    #[cfg(feature = "headers")]
    pub use crate::headers::Header;
    #[cfg(feature = "multipart")]
    pub use crate::multipart::Multipart;
    pub use crate::respond::{Created, Html, IntoResponse, NoContent, Redirect, Response};
    #[cfg(feature = "sse")]
    pub use crate::sse::{Event, LastEventId, Sse};
    pub use crate::streams::BodyStream;
    #[cfg(feature = "websocket")]
    pub use crate::websocket::{Message, WebSocket, WebSocketUpgrade};
    pub use crate::{App, Body, Json, Problem, Shutdown, StatusCode};
    pub use tower_web_macros::{
        any, body_limit, delete, fallback, get, handler_timeout, head, layer, options, patch, post,
        put, resource,
    };
}
