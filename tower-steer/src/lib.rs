//! Routes each request to one of several services.
