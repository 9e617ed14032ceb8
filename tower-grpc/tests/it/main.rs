//! What the protocol promises, on both sides, in memory; and on sockets, what needs them.

mod channel;
mod compressed;
mod corpus;
mod deadlines;
mod echo;
mod ends;
mod fresh;
mod kinds;
mod protocol;
mod raw;
mod responses;
mod services;
mod sockets;
mod targets;
mod web;
mod wire;
