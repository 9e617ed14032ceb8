//! What the compiler knows of a type that a route's signature is written with.

use std::any::TypeId;
use std::marker::PhantomData;

use schemars::{JsonSchema, SchemaGenerator};

use super::{Describe, Descriptions, Operation, Schemas};
use crate::extract::Extract;

/// Asks a type that is written in a route's signature what is known of it.
///
/// Each question has an answer of its own where a bound holds, and else that of a trait that anything has. So it is the compiler who
/// asks, where it knows the type.
#[doc(hidden)]
#[derive(Debug)]
pub struct Probe<T>(PhantomData<fn() -> T>);

impl<T> Probe<T> {
    #[expect(clippy::new_without_default, reason = "it is made by the macros only")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: JsonSchema + 'static> Probe<T> {
    pub fn schema(&self, operation: &mut Operation<'_>) {
        operation.schemas.insert(
            TypeId::of::<T>(),
            Schemas {
                reference: SchemaGenerator::subschema_for::<T>,
                inline: T::json_schema,
            },
        );
    }
}

#[doc(hidden)]
pub trait NoSchema {
    fn schema(&self, _: &mut Operation<'_>) {}
}

impl<T> NoSchema for Probe<T> {}

impl<T: Describe + 'static> Probe<T> {
    pub fn description(&self, operation: &mut Operation<'_>) {
        operation.descriptions.insert(
            TypeId::of::<T>(),
            Descriptions {
                request: T::request,
                response: T::response,
            },
        );
    }
}

#[doc(hidden)]
pub trait Silent {
    fn description(&self, _: &mut Operation<'_>) {}
}

impl<T> Silent for Probe<T> {}

/// What an extractor refuses with, where that says what it is.
impl<T: Extract<Rejection: Describe>> Probe<T> {
    pub fn refusals(&self, operation: &mut Operation<'_>) {
        operation.is_outgoing = true;
        T::Rejection::response(operation);
    }
}

#[doc(hidden)]
pub trait Unrefused {
    fn refusals(&self, _: &mut Operation<'_>) {}
}

impl<T> Unrefused for Probe<T> {}

/// A type that holds another with a schema, which an alias may hide.
#[doc(hidden)]
pub trait Holds {
    fn learn(operation: &mut Operation<'_>);
}

impl<T: Holds> Probe<T> {
    pub fn held(&self, operation: &mut Operation<'_>) {
        T::learn(operation);
    }
}

#[doc(hidden)]
pub trait Unheld {
    fn held(&self, _: &mut Operation<'_>) {}
}

impl<T> Unheld for Probe<T> {}

/// An error that an alias of `Result` may hide.
impl<T, E: Describe + 'static> Probe<Result<T, E>> {
    pub fn failure(&self, operation: &mut Operation<'_>) {
        Probe::<E>::new().description(operation);
    }
}

#[doc(hidden)]
pub trait NoFailure {
    fn failure(&self, _: &mut Operation<'_>) {}
}

impl<T> NoFailure for Probe<T> {}
