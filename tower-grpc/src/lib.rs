//! A gRPC client and server of Tower services.
