//! Mocks and checks for testing services and middleware.
