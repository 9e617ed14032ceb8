//! Public behaviour of tower-web.
mod layers;
mod macros;
mod routes;
