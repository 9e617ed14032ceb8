//! Public behaviour of tower-web.
mod layers;
mod macros;
mod mistakes;
mod routes;
#[cfg(feature = "websocket")]
mod websocket;
#[cfg(feature = "files")]
mod files;
#[cfg(feature = "multipart")]
mod multipart;
#[cfg(feature = "sse")]
mod events;
