//! The macros of `tower-web`, which documents them.

use proc_macro::TokenStream;
use syn::parse_macro_input;

mod describe;
mod function;
mod pattern;
mod problem;
mod resource;
mod route;

/// Makes routes of the methods of an `impl` that have `#[get("/…")]` or its like.
///
/// The methods stay what they are. See `tower_web`'s page.
#[proc_macro_attribute]
pub fn resource(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let prefix = parse_macro_input!(attribute as resource::Prefix);
    let item = parse_macro_input!(item as syn::Item);
    resource::expand(&prefix, item).into()
}

macro_rules! methods {
    ($($(#[$meta:meta])* $name:ident)*) => {$(
        $(#[$meta])*
        #[proc_macro_attribute]
        pub fn $name(attribute: TokenStream, item: TokenStream) -> TokenStream {
            function::expand(stringify!($name), attribute.into(), item.into()).into()
        }
    )*};
}

methods! {
    /// Makes a route for `GET` (and `HEAD`) of a function, or of a method in a `#[resource]`.
    get
    /// Makes a route for `POST` of a function, or of a method in a `#[resource]`.
    post
    /// Makes a route for `PUT` of a function, or of a method in a `#[resource]`.
    put
    /// Makes a route for `DELETE` of a function, or of a method in a `#[resource]`.
    delete
    /// Makes a route for `PATCH` of a function, or of a method in a `#[resource]`.
    patch
    /// Makes a route for `HEAD` of a function, or of a method in a `#[resource]`, in the place of what `GET` would answer.
    head
    /// Makes a route for `OPTIONS` of a function, or of a method in a `#[resource]`, in the place of the list of methods.
    options
    /// Makes a route for all methods that no other route of the path answers.
    any
    /// Makes a handler of a function for what no route answers; of a method in a `#[resource]`, below its prefix.
    fallback
}

/// Puts a layer around a route. It stands below `#[get("/…")]`, or below `#[resource]` for all its routes.
#[proc_macro_attribute]
pub fn layer(_: TokenStream, item: TokenStream) -> TokenStream {
    misplaced("layer", item)
}

/// Limits the size of a request's body, in bytes. It stands below `#[get("/…")]`.
#[proc_macro_attribute]
pub fn body_limit(_: TokenStream, item: TokenStream) -> TokenStream {
    misplaced("body_limit", item)
}

/// Limits the time until the response's head is there: a `Duration`, or `None` for no limit. It stands below `#[get("/…")]`.
#[proc_macro_attribute]
pub fn handler_timeout(_: TokenStream, item: TokenStream) -> TokenStream {
    misplaced("handler_timeout", item)
}

fn misplaced(name: &str, item: TokenStream) -> TokenStream {
    let message =
        format!("`#[{name}]` belongs to a route: write it below `#[get(\"/…\")]` or its like");
    let error = syn::Error::new(proc_macro2::Span::call_site(), message).into_compile_error();
    TokenStream::from_iter([TokenStream::from(error), item])
}

/// Runs an asynchronous `main` on a multi-threaded runtime.
#[proc_macro_attribute]
pub fn main(_: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as syn::ItemFn);
    function::expand_main(function)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an error, an enum of what may go wrong, one that handlers return and that clients are told as a problem.
#[proc_macro_derive(Problem, attributes(problem, from, source))]
pub fn derive_problem(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as syn::DeriveInput);
    problem::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
