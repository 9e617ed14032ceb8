//! Behaviour on real connections, over in-memory pipes and paused time.

mod client;
mod conformance;
mod limits;
mod load;
mod server;
mod support;
mod transport;
mod wire;
