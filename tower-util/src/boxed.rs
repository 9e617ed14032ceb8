//! Services and layers whose types are forgotten.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, LocalBoxFuture};
use sync_wrapper::SyncWrapper;
use tower_layer::{Layer, LayerFn, layer_fn};
use tower_service::Service;

/// A service whose type is forgotten: [`Send`] and [`Sync`], not [`Clone`].
///
/// For services of different types in one list, or for a field whose type would be long. It asks only that
/// the service and its future are `Send`.
///
/// **Cost.** Each call allocates the box of the response future, and readiness, the call and each poll of
/// the response are calls through a table.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_util::{BoxService, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let double = service_fn(|n: u32| async move { Ok::<_, Infallible>(n * 2) });
/// let offset = 10;
/// let add = service_fn(move |n: u32| async move { Ok::<_, Infallible>(n + offset) });
///
/// let services: [BoxService<u32, u32, Infallible>; 2] = [double.boxed(), add.boxed()];
/// let mut n = 4;
/// for service in services {
///     n = service.oneshot(n).await.unwrap();
/// }
/// assert_eq!(n, 18);
/// # }
/// ```
pub struct BoxService<T, U, E> {
    // Nothing can be done with a shared reference to a service, so it may be shared: `Sync` for free.
    inner: SyncWrapper<Box<SendService<T, U, E>>>,
}

type SendService<T, U, E> =
    dyn Service<T, Response = U, Error = E, Future = BoxFuture<'static, Result<U, E>>> + Send;

/// A service whose type is forgotten: neither [`Send`] nor [`Sync`] nor [`Clone`].
///
/// A [`BoxService`] for services that stay on one thread.
pub struct UnsyncBoxService<T, U, E> {
    inner: Box<
        dyn Service<T, Response = U, Error = E, Future = LocalBoxFuture<'static, Result<U, E>>>,
    >,
}

impl<T, U, E> BoxService<T, U, E> {
    /// Forgets the type of `inner`.
    pub fn new<S>(inner: S) -> Self
    where
        S: Service<T, Response = U, Error = E> + Send + 'static,
        S::Future: Send + 'static,
    {
        Self {
            inner: SyncWrapper::new(Box::new(Boxing(inner))),
        }
    }

    /// A layer that forgets the types of services.
    pub fn layer<S>() -> LayerFn<fn(S) -> Self>
    where
        S: Service<T, Response = U, Error = E> + Send + 'static,
        S::Future: Send + 'static,
    {
        layer_fn(Self::new)
    }
}

impl<T, U, E> Service<T> for BoxService<T, U, E> {
    type Response = U;
    type Error = E;
    type Future = BoxFuture<'static, Result<U, E>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.inner.get_mut().poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: T) -> Self::Future {
        self.inner.get_mut().call(req)
    }
}

impl<T, U, E> fmt::Debug for BoxService<T, U, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxService")
    }
}

impl<T, U, E> UnsyncBoxService<T, U, E> {
    /// Forgets the type of `inner`.
    pub fn new<S>(inner: S) -> Self
    where
        S: Service<T, Response = U, Error = E> + 'static,
        S::Future: 'static,
    {
        Self {
            inner: Box::new(LocalBoxing(inner)),
        }
    }

    /// A layer that forgets the types of services.
    pub fn layer<S>() -> LayerFn<fn(S) -> Self>
    where
        S: Service<T, Response = U, Error = E> + 'static,
        S::Future: 'static,
    {
        layer_fn(Self::new)
    }
}

impl<T, U, E> Service<T> for UnsyncBoxService<T, U, E> {
    type Response = U;
    type Error = E;
    type Future = LocalBoxFuture<'static, Result<U, E>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: T) -> Self::Future {
        self.inner.call(req)
    }
}

impl<T, U, E> fmt::Debug for UnsyncBoxService<T, U, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnsyncBoxService")
    }
}

/// Defines a boxed service that can be cloned, for a set of auto traits: a trait object can't be generic
/// over those.
macro_rules! box_clone_service {
    (
        $(#[$doc:meta])*
        $Box:ident: $Object:ident $(+ $auto:ident)*,
        $Boxing:ident -> $Future:ident $(+ $future_auto:ident)*
    ) => {
        $(#[$doc])*
        pub struct $Box<T, U, E>(
            Box<dyn $Object<T, Response = U, Error = E, Future = $Future<'static, Result<U, E>>> $(+ $auto)*>,
        );

        trait $Object<T>: Service<T> {
            fn clone_box(
                &self,
            ) -> Box<
                dyn $Object<T, Response = Self::Response, Error = Self::Error, Future = Self::Future> $(+ $auto)*,
            >;
        }

        impl<S, T> $Object<T> for $Boxing<S>
        where
            S: Service<T> + Clone $(+ $auto)* + 'static,
            S::Future: 'static $(+ $future_auto)*,
        {
            fn clone_box(
                &self,
            ) -> Box<
                dyn $Object<T, Response = Self::Response, Error = Self::Error, Future = Self::Future> $(+ $auto)*,
            > {
                Box::new($Boxing(self.0.clone()))
            }
        }

        impl<T, U, E> $Box<T, U, E> {
            /// Forgets the type of `inner`.
            pub fn new<S>(inner: S) -> Self
            where
                S: Service<T, Response = U, Error = E> + Clone $(+ $auto)* + 'static,
                S::Future: 'static $(+ $future_auto)*,
            {
                Self(Box::new($Boxing(inner)))
            }

            /// A layer that forgets the types of services.
            pub fn layer<S>() -> LayerFn<fn(S) -> Self>
            where
                S: Service<T, Response = U, Error = E> + Clone $(+ $auto)* + 'static,
                S::Future: 'static $(+ $future_auto)*,
            {
                layer_fn(Self::new)
            }
        }

        impl<T, U, E> Service<T> for $Box<T, U, E> {
            type Response = U;
            type Error = E;
            type Future = $Future<'static, Result<U, E>>;

            #[inline]
            fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
                self.0.poll_ready(cx)
            }

            #[inline]
            fn call(&mut self, req: T) -> Self::Future {
                self.0.call(req)
            }
        }

        impl<T, U, E> Clone for $Box<T, U, E> {
            fn clone(&self) -> Self {
                Self(self.0.clone_box())
            }
        }

        impl<T, U, E> fmt::Debug for $Box<T, U, E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($Box))
            }
        }
    };
}

box_clone_service! {
    /// A service whose type is forgotten: [`Clone`] and [`Send`], not [`Sync`].
    ///
    /// A [`BoxService`] that can be cloned. Cloning allocates.
    BoxCloneService: CloneService + Send, Boxing -> BoxFuture + Send
}

box_clone_service! {
    /// A service whose type is forgotten: [`Clone`], [`Send`] and [`Sync`].
    ///
    /// A [`BoxCloneService`] for services that are `Sync`, and what holds them must be, too.
    BoxCloneSyncService: CloneSyncService + Send + Sync, Boxing -> BoxFuture + Send
}

box_clone_service! {
    /// A service whose type is forgotten: [`Clone`], neither [`Send`] nor [`Sync`].
    ///
    /// A [`BoxCloneService`] for services that stay on one thread.
    ///
    /// # Example
    ///
    /// ```
    /// use std::{cell::Cell, convert::Infallible, rc::Rc};
    /// use tower_util::{ServiceExt, UnsyncBoxCloneService, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let count = Rc::new(Cell::new(0));
    /// let counter = service_fn({
    ///     let count = Rc::clone(&count);
    ///     move |n: u32| {
    ///         let count = Rc::clone(&count);
    ///         async move { Ok::<_, Infallible>(count.replace(count.get() + n)) }
    ///     }
    /// });
    ///
    /// let service: UnsyncBoxCloneService<u32, u32, Infallible> = counter.boxed_clone_unsync();
    /// service.clone().oneshot(3).await.unwrap();
    /// service.oneshot(4).await.unwrap();
    /// assert_eq!(count.get(), 7);
    /// # }
    /// ```
    UnsyncBoxCloneService: UnsyncCloneService, LocalBoxing -> LocalBoxFuture
}

/// Boxes the response futures of `S`.
struct Boxing<S>(S);

impl<S, T> Service<T> for Boxing<S>
where
    S: Service<T>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, <S::Future as Future>::Output>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, req: T) -> Self::Future {
        Box::pin(self.0.call(req))
    }
}

/// Boxes the response futures of `S`, which stay on their thread.
struct LocalBoxing<S>(S);

impl<S, T> Service<T> for LocalBoxing<S>
where
    S: Service<T>,
    S::Future: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = LocalBoxFuture<'static, <S::Future as Future>::Output>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, req: T) -> Self::Future {
        Box::pin(self.0.call(req))
    }
}

/// Defines a layer whose type is forgotten, with that of the services that it makes.
macro_rules! box_layer {
    ($(#[$doc:meta])* $Box:ident -> $Service:ident: $($auto:ident)+) => {
        $(#[$doc])*
        pub struct $Box<In, T, U, E> {
            inner: Arc<dyn Layer<In, Service = $Service<T, U, E>> + Send + Sync>,
        }

        impl<In, T, U, E> $Box<In, T, U, E> {
            /// Forgets the type of `inner`, and those of the services that it will make.
            pub fn new<L>(inner: L) -> Self
            where
                L: Layer<In> + Send + Sync + 'static,
                L::Service: Service<T, Response = U, Error = E> $(+ $auto)+ + 'static,
                <L::Service as Service<T>>::Future: Send + 'static,
            {
                Self {
                    inner: Arc::new(layer_fn(move |service| $Service::new(inner.layer(service)))),
                }
            }
        }

        impl<In, T, U, E> Layer<In> for $Box<In, T, U, E> {
            type Service = $Service<T, U, E>;

            fn layer(&self, inner: In) -> Self::Service {
                self.inner.layer(inner)
            }
        }

        impl<In, T, U, E> Clone for $Box<In, T, U, E> {
            fn clone(&self) -> Self {
                Self {
                    inner: Arc::clone(&self.inner),
                }
            }
        }

        impl<In, T, U, E> fmt::Debug for $Box<In, T, U, E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($Box))
            }
        }
    };
}

box_layer! {
    /// A layer whose type is forgotten, of [`BoxService`]s.
    ///
    /// For stacks that are put together at run time. The layer itself is cloned by reference.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_layer::{Identity, Layer};
    /// use tower_util::{BoxLayer, MapRequestLayer, ServiceExt, ServiceFn, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// async fn echo(n: u32) -> Result<u32, Infallible> {
    ///     Ok(n)
    /// }
    ///
    /// let doubling = true;
    /// let layer = if doubling {
    ///     BoxLayer::new(MapRequestLayer::new(|n: u32| n * 2))
    /// } else {
    ///     BoxLayer::new(Identity::new())
    /// };
    /// assert_eq!(layer.layer(service_fn(echo)).oneshot(4).await.unwrap(), 8);
    /// # }
    /// ```
    BoxLayer -> BoxService: Send
}

box_layer! {
    /// A layer whose type is forgotten, of [`BoxCloneService`]s.
    ///
    /// A [`BoxLayer`] of services that can be cloned.
    BoxCloneServiceLayer -> BoxCloneService: Send Clone
}

box_layer! {
    /// A layer whose type is forgotten, of [`BoxCloneSyncService`]s.
    ///
    /// A [`BoxLayer`] of services that can be cloned and are [`Sync`].
    BoxCloneSyncServiceLayer -> BoxCloneSyncService: Send Sync Clone
}
