//! What holds of all parts together: each layer in a stack, and each background task.

mod layers;
mod tasks;
