//! The application.

/// An application: routes, layers, and what they need.
#[derive(Debug, Default)]
pub struct App {}

impl App {
    /// Declares that a layer puts a `T` into each request's extensions.
    #[must_use]
    pub fn provide<T: 'static>(self) -> Self {
        self
    }
}
