//! Closing with grace: one trait for everything that can stop accepting, drain and end by a deadline.
