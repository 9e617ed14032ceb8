//! A web framework that is trivial to begin with and production grade out of the box.

mod app;
#[cfg(feature = "auth")]
pub mod auth;
pub mod body;
mod captures;
#[cfg(feature = "cookies")]
pub mod cookies;
pub mod extract;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "forms")]
pub mod forms;
pub mod handler;
#[cfg(feature = "headers")]
pub mod headers;
pub mod json;
mod layered;
#[cfg(feature = "multipart")]
pub mod multipart;
mod pattern;
pub mod problem;
pub mod respond;
mod routing;
#[cfg(feature = "server")]
mod serving;
mod shutdown;
#[cfg(feature = "sse")]
pub mod sse;
pub mod streams;
pub mod testing;
mod tree;
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
pub use serving::block_on;
pub use shutdown::Shutdown;
#[cfg(feature = "server")]
pub use tower_hyper::{ConnectInfo, Server, Settings, Workers};
#[cfg(feature = "server")]
pub use tower_web_macros::main;
pub use tower_web_macros::{
    Problem, any, body_limit, delete, fallback, get, head, layer, options, patch, post, put,
    resource,
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
        any, body_limit, delete, fallback, get, head, layer, options, patch, post, put, resource,
    };
}
