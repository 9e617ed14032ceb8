//! A server on a socket, and peers that break the rules: each call ends in the right status, and others are served
//! meanwhile and afterwards.
//!
//! The server is a process of its own. Under each attack it grows by no more than 32 MiB, and a client that means well gets
//! its answers soon; `--nocapture` shows the figures.

mod clients;
mod frames;
mod messages;
mod servers;
mod support;
mod victim;
