//! Public behaviour of tower-web.
mod layers;
mod macros;
mod routes;
#[cfg(feature = "websocket")]
mod websocket;
