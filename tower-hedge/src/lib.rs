//! Sends a request a second time where the first try takes unusually long.
