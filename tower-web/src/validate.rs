//! Rules of values, by `garde`: a [`Json`], `Query` or `Form` whose type has them never comes to a handler that breaks them.
//!
//! With the feature `validate`, an argument whose type implements [`garde::Validate`] is validated, with nothing written for it, and
//! types without rules stay as they are. What breaks rules is refused with a 422 that lists **every** field, named as in the
//! request: by a JSON pointer in wire names (`rename_all`, `rename`, `flatten`, indices and keys of maps), by its name in a query or form.
//!
//! ```
//! use garde::Validate;
//! use serde::Deserialize;
//! use serde_json::json;
//! use tower_web::prelude::*;
//!
//! #[derive(Deserialize, Validate)]
//! #[serde(rename_all = "camelCase")]
//! struct NewUser {
//!     #[garde(length(min = 1))]
//!     first_name: String,
//!     #[garde(inner(length(min = 3)))]
//!     nick_names: Vec<String>,
//! }
//!
//! #[post("/users")]
//! async fn create(new: Json<NewUser>) -> String {
//!     new.0.first_name
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let client = App::new().route(create).test();
//! let response = client.post("/users").json(&json!({"firstName": "", "nickNames": ["ann", "a"]})).await;
//! let problem = response.assert_problem(422);
//! assert_eq!(problem["errors"][0]["pointer"], "#/firstName");
//! assert_eq!(problem["errors"][1]["pointer"], "#/nickNames/1");
//! # }
//! ```
//!
//! # Where the compiler can't know
//!
//! Whether a type has rules is known where it is written out: in the signature of a handler. Where it isn't, nothing is skipped in
//! silence:
//!
//! - In a generic `impl`, an argument whose type has a type parameter in it must be [`Checked`], or the code doesn't compile: write
//!   `T: garde::Validate<Context = ()>` among the bounds, or take [`Unchecked<Json<T>>`](Unchecked).
//! - An extractor of your own that is made of others calls `Json::<NewUser>::extract`, which checks the rules of the type that is
//!   written there (and so do those of `Query` and `Form`). One that is generic says so in its bounds, `T: HasRules`: see [`HasRules`].
//! - Where an argument has a type with rules in it and isn't known to check them (`Signed<NewUser>` of your own, `Json<Bag<NewUser>>`
//!   where only `NewUser` has rules), the compiler warns: implement [`Checked`] for the extractor, or take it [`Unchecked`].
//!
//! Rules with a context are checked with its default. One that has none can't be made here: the compiler warns of such a type as well. Take
//! it [`Unchecked`], and validate it in the handler.
//!
//! # Names
//!
//! `garde` tells fields as Rust calls them. What they are called in the request is found from the request itself and from the names that
//! `serde` asks for: by their words, whichever their case; where a field was renamed altogether, by trying which member of the
//! document the rule depends on. A name that can't be found so is told as in Rust. Of what breaks more than a thousand rules, the first
//! thousand are told.

use std::future::Future;
use std::future::{Pending, pending};
use std::marker::PhantomData;

use garde::Validate;
use http::StatusCode;
use serde_core::de::DeserializeOwned;
use serde_json::Value;

use crate::body::Body;
use crate::extract::{Extension, Extract, Given, OptionalExtract, RequestHead};
use crate::handler::{Ask, Call};
use crate::json::{self, Json};
use crate::problem::{IntoProblem, Location, Problem, Rejection};

mod names;

/// An extractor that checks the rules of what it has read.
///
/// Those without rules may implement it with nothing: then `extract_checked` is `extract`.
#[diagnostic::on_unimplemented(
    message = "whether `{Self}` has rules isn't known in a generic `impl`",
    label = "might have rules that would be skipped",
    note = "add `T: garde::Validate<Context = ()>` to the bounds, or take `tower_web::validate::Unchecked<{Self}>`"
)]
pub trait Checked: Extract {
    /// Makes it from the request, and refuses what breaks its rules.
    fn extract_checked(
        head: &mut RequestHead,
        body: Given<Self>,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send {
        Self::extract(head, body)
    }
}

/// One of them for which absence isn't an error.
pub trait OptionalChecked: Checked + OptionalExtract {
    /// Makes it from the request, and refuses what breaks its rules, or `None` where it is absent.
    fn extract_optional_checked(
        head: &mut RequestHead,
        body: Given<Self>,
    ) -> impl Future<Output = Result<Option<Self>, Self::Rejection>> + Send {
        Self::extract_optional(head, body)
    }
}

/// An argument whose rules aren't checked, for a generic `impl` or a handler that does it itself.
#[derive(Debug, Clone, Copy)]
pub struct Unchecked<E>(pub E);

impl<E: Extract> Extract for Unchecked<E> {
    type Body = E::Body;
    type Rejection = E::Rejection;

    async fn extract(head: &mut RequestHead, body: Given<E>) -> Result<Self, E::Rejection> {
        E::extract(head, body).await.map(Self)
    }

    fn require(requirements: &mut crate::extract::Requirements) {
        E::require(requirements);
    }
}

#[cfg(feature = "openapi")]
impl<E: 'static> crate::openapi::Describe for Unchecked<E> {
    fn request(operation: &mut crate::openapi::Operation<'_>) {
        operation.argument::<E>();
    }
}

/// A type that is read from a request and has rules: it is there for the bounds of generic extractors.
///
/// # Example
///
/// ```
/// use garde::Validate;
/// use serde::Deserialize;
/// use serde_json::json;
/// use tower_web::extract::{Extract, RequestHead, WholeBody};
/// use tower_web::prelude::*;
/// use tower_web::validate::{Checked, HasRules};
/// use tower_web::{Body, Rejection};
///
/// /// What a sender that is known has sent.
/// struct Event<T>(T);
///
/// impl<T: HasRules> Extract for Event<T> {
///     type Body = WholeBody;
///     type Rejection = Rejection;
///
///     async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
///         if !head.headers.contains_key("x-sender") {
///             return Err(Rejection::new(StatusCode::UNAUTHORIZED, "who are you?"));
///         }
///         // With the rules of `T` checked.
///         let Json(event) = Json::<T>::extract(head, body).await?;
///         Ok(Self(event))
///     }
/// }
///
/// // It does: no need to warn of it.
/// impl<T: HasRules> Checked for Event<T> {}
///
/// #[derive(Deserialize, Validate)]
/// struct Renamed {
///     #[garde(length(min = 1))]
///     name: String,
/// }
///
/// #[post("/events")]
/// async fn renamed(event: Event<Renamed>) -> String {
///     event.0.name
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let client = App::new().route(renamed).test();
/// let response = client.post("/events").header("x-sender", "me").json(&json!({"name": ""})).await;
/// assert_eq!(response.assert_problem(422)["errors"][0]["pointer"], "#/name");
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` isn't known to have rules",
    label = "its rules would be checked here, and it may have none",
    note = "write the type out where it has none: `Json::<{Self}>::extract(head, body)`",
    note = "or, in a generic extractor, say in its bounds that it has: `T: tower_web::validate::HasRules`"
)]
pub trait HasRules: DeserializeOwned + Send + Validate<Context: Default> {}

impl<T: DeserializeOwned + Send + Validate<Context: Default>> HasRules for T {}

/// What is called by name comes before what a trait has: `Json::<NewUser>::extract` is this one where `NewUser` has rules.
macro_rules! named {
    ($($(#[$meta:meta])* $extractor:ident::$($path:ident)::+;)*) => {$(
        $(#[$meta])*
        impl<T: HasRules> $extractor::$($path)::+<T> {
            /// [`extract_checked`](Checked::extract_checked): so that an extractor that is made of this one doesn't skip the rules of `T`.
            /// Without the rules, it is what [`Unchecked`] does.
            pub async fn extract(head: &mut RequestHead, body: Given<Self>) -> Result<Self, Rejection> {
                Self::extract_checked(head, body).await
            }

            /// [`extract_optional_checked`](OptionalChecked::extract_optional_checked), as well.
            pub async fn extract_optional(
                head: &mut RequestHead,
                body: Given<Self>,
            ) -> Result<Option<Self>, Rejection> {
                Self::extract_optional_checked(head, body).await
            }
        }
    )*};
}

named! {
    crate::json::Json;
    #[cfg(feature = "forms")]
    crate::forms::Query;
    #[cfg(feature = "forms")]
    crate::forms::Form;
}

impl<E: Extract> Checked for Unchecked<E> {}
impl<T: Clone + Send + Sync + 'static> Checked for Extension<T> {}
impl<T: Clone + Send + Sync + 'static> OptionalChecked for Extension<T> {}

#[cfg(feature = "auth")]
impl<H: crate::auth::ApiKeyHeader> Checked for crate::auth::ApiKey<H> {}

#[cfg(feature = "auth")]
impl<H: crate::auth::ApiKeyHeader> OptionalChecked for crate::auth::ApiKey<H> {}

#[cfg(feature = "headers")]
impl<T: crate::headers::types::Header + Send> Checked for crate::headers::Header<T> {}

#[cfg(feature = "headers")]
impl<T: crate::headers::types::Header + Send> OptionalChecked for crate::headers::Header<T> {}

impl<T> Checked for Json<T>
where
    T: DeserializeOwned + Send + Validate<Context: Default>,
{
    async fn extract_checked(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        json::check_type(&head.headers)?;
        // They are kept for the case that a rule is broken, which costs no copy.
        let bytes = body.bytes().await?;
        let value: T = json::parse(&bytes)?;
        match value.validate() {
            Ok(()) => Ok(Self(value)),
            Err(report) => {
                let document = serde_json::from_slice(&bytes).unwrap_or_default();
                Err(refuse::<T>(&report, &document, Place::Body))
            }
        }
    }
}

impl<T> OptionalChecked for Json<T>
where
    T: DeserializeOwned + Send + Validate<Context: Default>,
{
    async fn extract_optional_checked(
        head: &mut RequestHead,
        body: Body,
    ) -> Result<Option<Self>, Rejection> {
        match is_no_body(head, &body) {
            true => Ok(None),
            false => Self::extract_checked(head, body).await.map(Some),
        }
    }
}

#[cfg(feature = "forms")]
impl<T> Checked for crate::forms::Query<T>
where
    T: DeserializeOwned + Send + Validate<Context: Default>,
{
    async fn extract_checked(head: &mut RequestHead, (): ()) -> Result<Self, Rejection> {
        let value = <Self as Extract>::extract(head, ()).await?;
        match value.validate() {
            Ok(()) => Ok(value),
            Err(report) => {
                let document = pairs(head.uri.query().unwrap_or_default().as_bytes());
                Err(refuse::<T>(&report, &document, Place::Query))
            }
        }
    }
}

#[cfg(feature = "forms")]
impl<T> OptionalChecked for crate::forms::Query<T>
where
    T: DeserializeOwned + Send + Validate<Context: Default>,
{
    async fn extract_optional_checked(
        head: &mut RequestHead,
        (): (),
    ) -> Result<Option<Self>, Rejection> {
        match head.uri.query() {
            None | Some("") => Ok(None),
            Some(_) => Self::extract_checked(head, ()).await.map(Some),
        }
    }
}

#[cfg(feature = "forms")]
impl<T> Checked for crate::forms::Form<T>
where
    T: DeserializeOwned + Send + Validate<Context: Default>,
{
    async fn extract_checked(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        crate::forms::check_type(&head.headers)?;
        let bytes = body.bytes().await?;
        let value = <Self as Extract>::extract(head, Body::from(bytes.clone())).await?;
        match value.validate() {
            Ok(()) => Ok(value),
            Err(report) => Err(refuse::<T>(&report, &pairs(&bytes), Place::Form)),
        }
    }
}

#[cfg(feature = "forms")]
impl<T> OptionalChecked for crate::forms::Form<T>
where
    T: DeserializeOwned + Send + Validate<Context: Default>,
{
    async fn extract_optional_checked(
        head: &mut RequestHead,
        body: Body,
    ) -> Result<Option<Self>, Rejection> {
        match is_no_body(head, &body) {
            true => Ok(None),
            false => Self::extract_checked(head, body).await.map(Some),
        }
    }
}

impl<T: OptionalChecked> Checked for Option<T> {
    fn extract_checked(
        head: &mut RequestHead,
        body: Given<Self>,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send {
        T::extract_optional_checked(head, body)
    }
}

impl<T: Checked> Checked for Result<T, T::Rejection>
where
    Given<T>: Send,
{
    async fn extract_checked(
        head: &mut RequestHead,
        body: Given<Self>,
    ) -> Result<Self, Self::Rejection> {
        Ok(T::extract_checked(head, body).await)
    }
}

fn is_no_body(head: &RequestHead, body: &Body) -> bool {
    !head.headers.contains_key(http::header::CONTENT_TYPE) && http_body::Body::is_end_stream(body)
}

/// The pairs of a query or form as a document: what is there once is text, and what is there more often a list of it.
#[cfg(feature = "forms")]
fn pairs(pairs: &[u8]) -> Value {
    let pairs: Vec<(String, String)> = serde_html_form::from_bytes(pairs).unwrap_or_default();
    let mut document = serde_json::Map::new();
    for (name, value) in pairs {
        match document.get_mut(&name) {
            None => {
                document.insert(name, Value::String(value));
            }
            Some(Value::Array(values)) => values.push(Value::String(value)),
            Some(first) => *first = Value::Array(vec![first.take(), Value::String(value)]),
        }
    }
    Value::Object(document)
}

/// In which part of the request it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Body,
    #[cfg(feature = "forms")]
    Query,
    #[cfg(feature = "forms")]
    Form,
}

/// How many fields are told: a large list may break as many rules as it has items, and telling so much is no help.
const MOST_TOLD: usize = 1000;

/// The 422 that lists what is wrong.
#[cold]
fn refuse<T>(report: &garde::Report, document: &Value, place: Place) -> Rejection
where
    T: DeserializeOwned + Validate<Context: Default>,
{
    let names = names::Names::of::<T>(document);
    let mut rejection: Option<Rejection> = None;
    for (path, error) in report.iter().take(MOST_TOLD) {
        let steps = names.resolve(path, error.message());
        let (location, name) = match place {
            Place::Body => (Location::Body, names::pointer(&steps)),
            #[cfg(feature = "forms")]
            Place::Query => (Location::Query, parameter(steps)),
            #[cfg(feature = "forms")]
            Place::Form => (Location::Body, parameter(steps)),
        };
        let detail = error.message().to_owned();
        rejection = Some(match rejection {
            None => Rejection::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at(location, name),
            Some(rejection) => rejection.and(location, name, detail),
        });
    }
    rejection.unwrap_or_else(|| Rejection::new(StatusCode::UNPROCESSABLE_ENTITY, "breaks a rule"))
}

/// A parameter's name, whichever of its values it is.
#[cfg(feature = "forms")]
fn parameter(steps: Vec<String>) -> String {
    steps.into_iter().next().unwrap_or_default()
}

impl<T: Checked> Ask<T> {
    /// A handler's only argument by type.
    #[doc(hidden)]
    pub async fn checked_argument(self, call: &mut Call) -> Result<T, Problem> {
        use crate::extract::BodyUse as _;

        let body = T::Body::late(&mut call.body);
        let argument = T::extract_checked(&mut call.head, body).await;
        argument.map_err(IntoProblem::into_problem)
    }

    /// One of several, unless it takes the body and has to wait for the others.
    #[doc(hidden)]
    pub async fn checked_early(self, call: &mut Call) -> Result<Option<T>, Problem> {
        use crate::extract::BodyUse as _;

        match T::Body::early() {
            Some(body) => match T::extract_checked(&mut call.head, body).await {
                Ok(argument) => Ok(Some(argument)),
                Err(rejection) => Err(rejection.into_problem()),
            },
            None => Ok(None),
        }
    }

    /// One that had to wait.
    #[doc(hidden)]
    pub async fn checked_late(self, call: &mut Call, early: Option<T>) -> Result<T, Problem> {
        match early {
            Some(argument) => Ok(argument),
            None => self.checked_argument(call).await,
        }
    }
}

/// What [`Ask`] falls back to where a type has no rules.
#[doc(hidden)]
pub trait AskUnchecked<T>: Sized {
    fn checked_argument(self, call: &mut Call) -> impl Future<Output = Result<T, Problem>> + Send;
    fn checked_early(
        self,
        call: &mut Call,
    ) -> impl Future<Output = Result<Option<T>, Problem>> + Send;
    fn checked_late(
        self,
        call: &mut Call,
        early: Option<T>,
    ) -> impl Future<Output = Result<T, Problem>> + Send;
}

impl<T: Extract> AskUnchecked<T> for Ask<T> {
    fn checked_argument(self, call: &mut Call) -> impl Future<Output = Result<T, Problem>> + Send {
        self.argument(call)
    }

    fn checked_early(
        self,
        call: &mut Call,
    ) -> impl Future<Output = Result<Option<T>, Problem>> + Send {
        self.early(call)
    }

    fn checked_late(
        self,
        call: &mut Call,
        early: Option<T>,
    ) -> impl Future<Output = Result<T, Problem>> + Send {
        self.late(call, early)
    }
}

/// What it falls back to where the type isn't an extractor. It never runs, as that doesn't compile.
#[doc(hidden)]
pub trait AskNobody<T>: Sized {
    fn checked_argument(self, _: &mut Call) -> Pending<Result<T, Problem>> {
        pending()
    }

    fn checked_early(self, _: &mut Call) -> Pending<Result<Option<T>, Problem>> {
        pending()
    }

    fn checked_late(self, _: &mut Call, _: Option<T>) -> Pending<Result<T, Problem>> {
        pending()
    }
}

impl<T> AskNobody<T> for &Ask<T> {}

/// Asks whether the rules of a type are skipped in an argument that is written with it. What is found first answers.
#[doc(hidden)]
#[derive(Debug)]
pub struct Within<E, T>(PhantomData<fn() -> (E, T)>);

impl<E, T> Within<E, T> {
    #[expect(clippy::new_without_default, reason = "it is made by the macros only")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E: Checked, T> Within<E, T> {
    pub fn rules(&self) {}
}

#[doc(hidden)]
pub trait MightSkip {
    #[deprecated(
        note = "the argument has a type with rules in it, and isn't known to check them: implement `tower_web::validate::Checked` for \
        the argument's type (with `{}` where it checks them already), or take it as `tower_web::validate::Unchecked<…>`"
    )]
    fn rules(&self) {}
}

impl<E, T: Validate> MightSkip for Within<E, T> {}

#[doc(hidden)]
pub trait SkipsNothing {
    fn rules(&self) {}
}

impl<E, T> SkipsNothing for &Within<E, T> {}

/// Fails to compile where it isn't known whether an argument of a generic `impl` has rules.
#[doc(hidden)]
pub const fn checked<T: Checked>() {}
