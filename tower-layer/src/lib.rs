#![no_std]
//! The `Layer` trait.

use core::fmt;

/// Decorates a service `S`, giving another service.
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

/// A layer that adds nothing.
#[derive(Debug, Default, Clone)]
pub struct Identity {
    _priv: (),
}

impl Identity {
    /// Makes a layer that adds nothing.
    pub const fn new() -> Self {
        Self { _priv: () }
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
