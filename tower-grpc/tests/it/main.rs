//! What the protocol promises, on both sides, in memory.

mod echo;
mod fresh;
mod kinds;
