//! Makes a service anew when it fails.
