//! A laboratory on simulated time: what Tower's middleware does for a fleet of clients and servers.

fn main() {}
