//! The macros of tower-web.
