//! Limits the number of requests in flight, and the rate at which they start.
