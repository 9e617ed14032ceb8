//! Serves Tower services over HTTP/1.1 and HTTP/2, safe by default.
