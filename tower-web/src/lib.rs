//! A web framework that is trivial to begin with and production grade out of the box.

mod app;
#[cfg(feature = "auth")]
pub mod auth;
pub mod body;
mod captures;
#[cfg(feature = "cookies")]
pub mod cookies;
pub mod extract;
#[cfg(feature = "forms")]
pub mod forms;
#[cfg(feature = "headers")]
pub mod headers;
pub mod json;
pub mod problem;
pub mod respond;
mod routing;
mod shutdown;
#[cfg(feature = "sse")]
pub mod sse;
pub mod streams;

pub use app::App;
pub use body::Body;
pub use captures::FromCapture;
pub use extract::Extract;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
pub use json::Json;
pub use problem::{Problem, Rejection};
pub use respond::IntoResponse;
pub use shutdown::Shutdown;

/// An error of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
