#![no_std]
//! The [`Layer`] trait: decorates one service with another.
//!
//! A middleware is a service around a service. Its layer is what makes it: it holds the middleware's
//! settings, and wraps any number of services with them. Layers are values, so a stack of them can be
//! built once, named, passed on, and put around many services.
//!
//! ```
//! use tower_layer::{Layer, Stack, layer_fn};
//!
//! let bold = layer_fn(|inner: String| format!("<b>{inner}</b>"));
//! let quote = layer_fn(|inner: String| format!("<q>{inner}</q>"));
//!
//! // The second layer goes around what the first has made…
//! let stack = Stack::new(bold.clone(), quote.clone());
//! assert_eq!(stack.layer("hi".to_owned()), "<q><b>hi</b></q>");
//!
//! // … whereas a tuple reads from the outside in.
//! assert_eq!((quote, bold).layer("hi".to_owned()), "<q><b>hi</b></q>");
//! ```
//!
//! (Any type can be wrapped; services are what layers are for.) `tower::ServiceBuilder` builds stacks
//! that read from the outside in, with a method for each middleware.
//!
//! The crate has no dependencies and needs no standard library. A layer costs nothing per request: it
//! runs when the stack is put together.

use core::fmt;

/// Decorates a service `S`, giving another service.
///
/// `layer` takes `&self`, as it may run often: once per connection in many servers. What all services of
/// a layer share (a budget, a global limit) belongs in the layer, behind an `Arc`; what each has for itself
/// is made in `layer`.
///
/// # Example
///
/// ```
/// use std::task::{Context, Poll};
/// use tower_layer::Layer;
/// use tower_service::Service;
///
/// /// Prints each request to the log of its target.
/// struct Log<S> {
///     target: &'static str,
///     inner: S,
/// }
///
/// impl<S, Req> Service<Req> for Log<S>
/// where
///     S: Service<Req>,
///     Req: std::fmt::Debug,
/// {
///     type Response = S::Response;
///     type Error = S::Error;
///     type Future = S::Future;
///
///     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
///         self.inner.poll_ready(cx)
///     }
///
///     fn call(&mut self, req: Req) -> Self::Future {
///         println!("{}: {req:?}", self.target);
///         self.inner.call(req)
///     }
/// }
///
/// #[derive(Clone)]
/// struct LogLayer {
///     target: &'static str,
/// }
///
/// impl<S> Layer<S> for LogLayer {
///     type Service = Log<S>;
///
///     fn layer(&self, inner: S) -> Log<S> {
///         Log { target: self.target, inner }
///     }
/// }
///
/// let layer = LogLayer { target: "api" };
/// let service = layer.layer("any service");
/// assert_eq!((service.target, service.inner), ("api", "any service"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Layer` over `{S}`",
    label = "cannot wrap `{S}`",
    note = "a closure becomes a layer with `tower::layer::layer_fn(|inner| Middleware::new(inner))`"
)]
pub trait Layer<S> {
    /// The decorated service.
    type Service;

    /// Wraps `inner`.
    fn layer(&self, inner: S) -> Self::Service;
}

impl<T, S> Layer<S> for &T
where
    T: ?Sized + Layer<S>,
{
    type Service = T::Service;

    #[inline]
    fn layer(&self, inner: S) -> Self::Service {
        (**self).layer(inner)
    }
}

/// A layer that adds nothing: the service stays as it is.
///
/// The empty stack, and the other arm of an optional layer.
#[derive(Default, Clone)]
pub struct Identity {
    _priv: (),
}

impl Identity {
    /// Makes a layer that adds nothing.
    pub const fn new() -> Self {
        Self { _priv: () }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl<S> Layer<S> for Identity {
    type Service = S;

    #[inline]
    fn layer(&self, inner: S) -> S {
        inner
    }
}

/// A layer made of a function. [`layer_fn`] makes it.
#[derive(Clone, Copy)]
pub struct LayerFn<F> {
    f: F,
}

/// Makes a layer of a function from a service to a service.
///
/// Saves a layer type of its own where the middleware has a constructor.
///
/// ```
/// use tower_layer::{Layer, layer_fn};
///
/// struct Tag<S>(&'static str, S);
///
/// let layer = layer_fn(|inner| Tag("api", inner));
/// assert_eq!(layer.layer(7).0, "api");
/// ```
pub fn layer_fn<T>(f: T) -> LayerFn<T> {
    LayerFn { f }
}

impl<F, S, Out> Layer<S> for LayerFn<F>
where
    F: Fn(S) -> Out,
{
    type Service = Out;

    #[inline]
    fn layer(&self, inner: S) -> Out {
        (self.f)(inner)
    }
}

impl<F> fmt::Debug for LayerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerFn")
            .field("f", &format_args!("{}", core::any::type_name::<F>()))
            .finish()
    }
}

/// Two layers, one around the other.
///
/// `Debug` prints a nest of stacks as a flat list, the outermost first.
#[derive(Clone)]
pub struct Stack<Inner, Outer> {
    inner: Inner,
    outer: Outer,
}

impl<Inner, Outer> Stack<Inner, Outer> {
    /// Puts `outer` around `inner`.
    pub const fn new(inner: Inner, outer: Outer) -> Self {
        Self { inner, outer }
    }
}

impl<S, Inner, Outer> Layer<S> for Stack<Inner, Outer>
where
    Inner: Layer<S>,
    Outer: Layer<Inner::Service>,
{
    type Service = Outer::Service;

    #[inline]
    fn layer(&self, service: S) -> Self::Service {
        self.outer.layer(self.inner.layer(service))
    }
}

impl<Inner: fmt::Debug, Outer: fmt::Debug> fmt::Debug for Stack<Inner, Outer> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The nesting of a deep stack is noise: print the layers as a flat list, outermost first.
        if f.alternate() {
            write!(f, "{:#?},\n{:#?}", self.outer, self.inner)
        } else {
            write!(f, "{:?}, {:?}", self.outer, self.inner)
        }
    }
}

impl<S> Layer<S> for () {
    type Service = S;

    #[inline]
    fn layer(&self, service: S) -> S {
        service
    }
}

/// Implements [`Layer`] for a tuple of the named layers, the first outermost.
macro_rules! tuple_layer {
    // Walk the names, collecting each layer with the one that it wraps…
    (@impl [$($name:ident)+] [$($outer:ident $inner:ident)*] $a:ident $b:ident $($rest:ident)*) => {
        tuple_layer!(@impl [$($name)+] [$($outer $inner)* $a $b] $b $($rest)*);
    };
    // … until only the innermost is left, which wraps the service itself.
    (@impl [$first:ident $($name:ident)*] [$($outer:ident $inner:ident)*] $last:ident) => {
        impl<S, $first $(, $name)*> Layer<S> for ($first, $($name,)*)
        where
            $($outer: Layer<$inner::Service>,)*
            $last: Layer<S>,
        {
            type Service = $first::Service;

            #[inline]
            #[allow(non_snake_case, reason = "the type parameters name the fields, too")]
            fn layer(&self, service: S) -> Self::Service {
                let ($first, $($name,)*) = self;
                tuple_layer!(@wrap service $first $($name)*)
            }
        }
    };
    (@wrap $service:ident $outer:ident $($rest:ident)*) => {
        $outer.layer(tuple_layer!(@wrap $service $($rest)*))
    };
    (@wrap $service:ident) => { $service };
    ($($name:ident)+) => { tuple_layer!(@impl [$($name)+] [] $($name)+); };
}

tuple_layer!(L1);
tuple_layer!(L1 L2);
tuple_layer!(L1 L2 L3);
tuple_layer!(L1 L2 L3 L4);
tuple_layer!(L1 L2 L3 L4 L5);
tuple_layer!(L1 L2 L3 L4 L5 L6);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8 L9);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8 L9 L10);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12 L13);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12 L13 L14);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12 L13 L14 L15);
tuple_layer!(L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12 L13 L14 L15 L16);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;
    use std::string::{String, ToString};

    #[derive(Debug, Clone)]
    struct Wrap(char);

    impl Layer<String> for Wrap {
        type Service = String;

        fn layer(&self, inner: String) -> String {
            format!("{}({inner})", self.0)
        }
    }

    #[test]
    fn the_leftmost_of_a_tuple_is_outermost() {
        let service = || "s".to_string();
        assert_eq!(().layer(service()), "s");
        assert_eq!((Wrap('a'),).layer(service()), "a(s)");
        assert_eq!((Wrap('a'), Wrap('b')).layer(service()), "a(b(s))");
        let w = Wrap;
        let sixteen = (
            (w('a'), w('b'), w('c'), w('d')),
            w('e'),
            w('f'),
            w('g'),
            w('h'),
            w('i'),
            w('j'),
            w('k'),
            w('l'),
            w('m'),
            w('n'),
            w('o'),
            w('p'),
            w('q'),
            w('r'),
            w('s'),
        );
        let wrapped = sixteen.layer("_".to_string());
        assert_eq!(wrapped.replace(['(', ')'], ""), "abcdefghijklmnopqrs_");
    }

    #[test]
    fn a_stack_puts_its_second_layer_outside_and_prints_flat() {
        let stack = Stack::new(Stack::new(Identity::new(), Wrap('b')), Wrap('a'));
        assert_eq!(stack.layer("s".to_string()), "a(b(s))");
        let by_reference = &stack;
        assert_eq!(Layer::layer(&by_reference, "s".to_string()), "a(b(s))");
        assert_eq!(format!("{stack:?}"), "Wrap('a'), Wrap('b'), Identity");
        let pair = Stack::new(Identity::new(), Wrap('a'));
        assert_eq!(
            format!("{pair:#?}"),
            format!("{:#?},\n{:#?}", Wrap('a'), Identity::new())
        );
    }

    #[test]
    fn a_layer_fn_prints_the_name_of_its_function() {
        fn wrap(inner: u8) -> (u8,) {
            (inner,)
        }
        let layer = layer_fn(wrap);
        assert_eq!(layer.layer(1), (1,));
        assert_eq!(
            format!("{layer:?}"),
            "LayerFn { f: tower_layer::tests::a_layer_fn_prints_the_name_of_its_function::wrap }"
        );
    }
}
