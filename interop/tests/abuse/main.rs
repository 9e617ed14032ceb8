//! A server on a socket, and peers that break the rules: each call ends in the right status, and others are served
//! meanwhile and afterwards.

mod clients;
mod frames;
mod messages;
mod servers;
mod support;
