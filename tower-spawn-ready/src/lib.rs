//! Drives a service to readiness on a background task.
