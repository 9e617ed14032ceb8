//! How the generated code asks a type to be an argument, so that what isn't an extractor is told once.

use std::future::{Pending, pending};
use std::marker::PhantomData;

use super::Call;
use crate::extract::{Beside, BodyUse, Extract, Requirements};
use crate::problem::{IntoProblem, Problem};

/// Fails to compile where an argument isn't an extractor.
pub const fn extractor<T: Extract>() {}

/// Makes an argument, if its type is an extractor. Where it isn't, [`extractor`] says so, and [`AskNothing`] keeps the compiler
/// from saying it again.
#[derive(Debug)]
pub struct Ask<T>(PhantomData<fn() -> T>);

impl<T> Ask<T> {
    /// Asks this type.
    #[expect(clippy::new_without_default, reason = "it is made by the macros only")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Extract> Ask<T> {
    /// Says what it requires of the application.
    pub fn require(self, requirements: &mut Requirements) {
        T::require(requirements);
    }

    /// A handler's only argument by type.
    ///
    /// # Errors
    ///
    /// Where the extractor refuses the request.
    pub async fn argument(self, call: &mut Call) -> Result<T, Problem> {
        call.argument().await
    }

    /// One of several, unless it takes the body and has to wait for the others.
    ///
    /// # Errors
    ///
    /// Where the extractor refuses the request.
    pub async fn early(self, call: &mut Call) -> Result<Option<T>, Problem> {
        match T::Body::early() {
            Some(body) => match T::extract(&mut call.head, body).await {
                Ok(argument) => Ok(Some(argument)),
                Err(rejection) => Err(rejection.into_problem()),
            },
            None => Ok(None),
        }
    }

    /// One that had to wait.
    ///
    /// # Errors
    ///
    /// Where the extractor refuses the request.
    pub async fn late(self, call: &mut Call, early: Option<T>) -> Result<T, Problem> {
        match early {
            Some(argument) => Ok(argument),
            None => call.argument().await,
        }
    }
}

/// What [`Ask`] falls back to where the type isn't an extractor. It never runs, as that doesn't compile.
pub trait AskNothing<T>: Sized {
    /// Requires nothing.
    fn require(self, _: &mut Requirements) {}

    /// Never ends.
    fn argument(self, _: &mut Call) -> Pending<Result<T, Problem>> {
        pending()
    }

    /// Never ends.
    fn early(self, _: &mut Call) -> Pending<Result<Option<T>, Problem>> {
        pending()
    }

    /// Never ends.
    fn late(self, _: &mut Call, _: Option<T>) -> Pending<Result<T, Problem>> {
        pending()
    }
}

impl<T> AskNothing<T> for Ask<T> {}

/// Fails to compile where both arguments of a handler take the body.
pub const fn beside<A, B>()
where
    A: Extract,
    B: Extract,
    B::Body: Beside<A::Body>,
{
}
