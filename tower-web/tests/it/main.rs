//! Public behaviour of tower-web.
mod macros;
