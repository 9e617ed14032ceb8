//! HTTP/2 clients and servers of Tower services.
