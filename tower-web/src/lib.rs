//! A web framework that is trivial to begin with and production grade out of the box.

mod app;
pub mod body;
mod captures;
pub mod extract;
pub mod json;
pub mod problem;
pub mod respond;
mod routing;
mod shutdown;

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
