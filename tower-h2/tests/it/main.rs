//! Behaviour on real connections, over in-memory pipes and paused time.

mod server;
mod support;
