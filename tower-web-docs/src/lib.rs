//! [Swagger UI](https://github.com/swagger-api/swagger-ui) 5, for the page on which `tower-web` shows an API: so that it is shown
//! where there is no network, and nothing is loaded while it is built.
//!
//! The files are those of `swagger-ui-dist`, which is licensed under Apache-2.0 (`assets/LICENSE`), packed by `gzip -n9`. For
//! a newer version, pack its files in their place.

/// `swagger-ui.css`, packed by gzip.
pub const CSS_GZ: &[u8] = include_bytes!("../assets/swagger-ui.css.gz");

/// `swagger-ui-bundle.js`, packed by gzip.
pub const SCRIPT_GZ: &[u8] = include_bytes!("../assets/swagger-ui-bundle.js.gz");
