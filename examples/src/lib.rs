//! Runnable examples of Tower.
