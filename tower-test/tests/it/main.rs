//! What the mocks and the contract checker promise, from outside.

mod contract;
mod mock;
