//! What stands behind an error.

use std::error::Error;

/// An error, or what leads to one: the field of a `#[derive(Problem)]` that is the cause.
///
/// It is there for the code that the macro writes. Every error has it, and so has `dyn Error`: what dereferences to one (a
/// `Box<dyn Error + Send + Sync>` by whichever name, an error of `anyhow`) leads to it as methods are found through references.
///
/// # Example
///
/// ```
/// use std::error::Error as _;
/// use tower_web::prelude::*;
///
/// type Cause = Box<dyn std::error::Error + Send + Sync>;
///
/// #[derive(Debug, Problem)]
/// enum Error {
///     #[problem(status = 500, hide)]
///     Db(#[from] Cause),
/// }
///
/// let error = Error::from(Cause::from("no route to host"));
/// assert_eq!(error.source().unwrap().to_string(), "no route to host");
/// ```
pub trait AsCause {
    /// The error.
    fn as_cause(&self) -> &(dyn Error + 'static);
}

impl<E: Error + 'static> AsCause for E {
    fn as_cause(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl AsCause for dyn Error + 'static {
    fn as_cause(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl AsCause for dyn Error + Send + 'static {
    fn as_cause(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl AsCause for dyn Error + Send + Sync + 'static {
    fn as_cause(&self) -> &(dyn Error + 'static) {
        self
    }
}
