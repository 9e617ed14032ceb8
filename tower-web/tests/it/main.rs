//! Public behaviour of tower-web.
#[cfg(feature = "default")]
mod anything;
#[cfg(feature = "client")]
mod clients;
#[cfg(all(feature = "compression", feature = "sse"))]
mod compression;
#[cfg(feature = "default")]
mod corpus;
mod cross_origin;
mod defaults;
mod derived;
mod detached;
#[cfg(all(feature = "default", feature = "openapi"))]
mod document;
#[cfg(all(feature = "server", feature = "sse", feature = "websocket"))]
mod endings;
#[cfg(feature = "sse")]
mod events;
#[cfg(feature = "files")]
mod files;
mod foreign;
#[cfg(feature = "middleware")]
mod layers;
mod macros;
#[cfg(feature = "prometheus")]
mod metrics;
mod middleware;
mod mistakes;
#[cfg(feature = "multipart")]
mod multipart;
mod once;
mod routes;
#[cfg(all(feature = "default", feature = "validate"))]
mod rules;
mod spans;
#[cfg(feature = "default")]
mod targets;
#[cfg(all(feature = "default", feature = "openapi"))]
mod undescribed;
#[cfg(all(feature = "default", feature = "openapi", feature = "validate"))]
mod valid_document;
#[cfg(feature = "websocket")]
mod websocket;
#[cfg(all(
    feature = "files",
    feature = "server",
    feature = "sse",
    feature = "websocket"
))]
mod wire;
