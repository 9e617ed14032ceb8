//! What nothing is known of, where an application wants all of it described.

use std::any::{TypeId, type_name};
use std::fmt;

use super::{Opaque, Operation, document};
use crate::routing::Draft;

/// What of a signature can't be described, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    Schema(&'static str),
    Argument(&'static str),
    Response(&'static str),
    /// Of a type without a name.
    Unnamed,
}

impl Unknown {
    pub(super) fn schema<T>() -> Self {
        Self::Schema(type_name::<T>())
    }

    pub(super) fn argument<T>() -> Self {
        Self::Argument(type_name::<T>())
    }

    pub(super) fn response<T: 'static>() -> Self {
        match TypeId::of::<T>() == TypeId::of::<Opaque>() {
            true => Self::Unnamed,
            false => Self::Response(type_name::<T>()),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema(name) => write!(
                f,
                "`{name}` has no schema: write `#[derive(JsonSchema)]` above it"
            ),
            Self::Argument(name) => write!(
                f,
                "`{name}`, an argument, doesn't say what it takes of a request: implement `tower_web::openapi::Describe` for it"
            ),
            Self::Response(name) => write!(
                f,
                "`{name}`, a response, doesn't say what it answers with: implement `tower_web::openapi::Describe` for it"
            ),
            Self::Unnamed => f.write_str(
                "a response that is written with `impl` can't be described: write its type, or `Response` where it may be anything",
            ),
        }
    }
}

/// All of it, of these routes, with the places.
pub(crate) fn unknown(drafts: &[Draft]) -> Vec<String> {
    let mut shared = document::shared();
    let mut faults = Vec::new();
    for draft in drafts {
        let Some(description) = draft.description else {
            continue;
        };
        let mut operation = Operation::new(&mut shared);
        (description.describe)(&mut operation);
        let mut told = Vec::new();
        for unknown in operation.unknown {
            if !told.contains(&unknown) {
                faults.push(format!("{}: {unknown}", draft.place));
                told.push(unknown);
            }
        }
    }
    faults
}
