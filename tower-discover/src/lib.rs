//! Service discovery as a stream: endpoints that come and go while a client runs.
//!
//! A balancer needs a set of services that changes: DNS answers expire, pods start and stop. [`Discover`]
//! is that set as a stream of [`Change`]s, each of which inserts a service under a key or removes the
//! one under a key. There is nothing to implement: every stream of `Result<Change<K, S>, E>` whose keys
//! can be compared is a [`Discover`].
//!
//! Where the set never changes, [`ServiceList`] makes one from any collection of services.
//!
//! # When not to use it
//!
//! With one endpoint, or where a proxy or the kernel balances already, a plain service is enough.
//!
//! # Cost
//!
//! The trait is a name for a stream: it adds no code. A [`ServiceList`] numbers an iterator.

use std::convert::Infallible;
use std::iter::Enumerate;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::{Stream, TryStream};
use pin_project_lite::pin_project;
use tower_service::Service;

/// A changing set of services, for balancers to follow.
///
/// Implemented for every [`TryStream`] of [`Change`]s. The trait is sealed: write a stream instead.
///
/// - An **insert** of a key that is there already replaces its service.
/// - A **remove** of a key that isn't there changes nothing.
/// - An **error** of the stream is an error of discovery as such, not of one endpoint; a balancer hands
///   it to its caller.
/// - The **end** of the stream means that the set won't change any more; what was inserted stays.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use std::pin::pin;
/// use std::task::{Context, Poll, Waker};
///
/// use futures_util::stream;
/// use tower_discover::{Change, Discover};
///
/// let changes = stream::iter([
///     Ok::<_, Infallible>(Change::Insert("a", "service of a")),
///     Ok(Change::Remove("a")),
/// ]);
/// let mut changes = pin!(changes);
/// let mut cx = Context::from_waker(Waker::noop());
///
/// let Poll::Ready(Some(Ok(change))) = changes.as_mut().poll_discover(&mut cx) else {
///     panic!("a change was expected");
/// };
/// assert!(matches!(change, Change::Insert("a", "service of a")));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Discover`: it isn't a stream of changes to a set of services",
    label = "not a `Stream<Item = Result<Change<Key, Service>, Error>>`",
    note = "every `Stream` of `Result<tower::discover::Change<K, S>, E>` with `K: Eq` is one",
    note = "a fixed collection of services becomes one with `tower::discover::ServiceList::new`"
)]
pub trait Discover: sealed::Sealed<Change<(), ()>> {
    /// What tells the services of the set apart: an address, a name.
    type Key: Eq;

    /// The services of the set.
    type Service;

    /// How discovery fails.
    type Error;

    /// Gives the next change of the set, once there is one.
    ///
    /// # Errors
    ///
    /// Fails as the stream does. Whether it may be polled again afterwards is for the stream to say.
    #[expect(
        clippy::type_complexity,
        reason = "spelled out, so that it reads as a stream's item"
    )]
    fn poll_discover(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<Self::Key, Self::Service>, Self::Error>>>;
}

/// A change to a set of services.
#[derive(Clone, Debug)]
pub enum Change<K, V> {
    /// A service was found under a key, or took the place of the one before.
    Insert(K, V),
    /// The service under a key is gone.
    Remove(K),
}

pin_project! {
    /// A fixed set of services, for balancers over endpoints that are known from the start.
    ///
    /// Inserts each service of a collection under its position, then ends.
    ///
    /// # Example
    ///
    /// ```
    /// use std::pin::pin;
    /// use std::task::{Context, Poll, Waker};
    ///
    /// use tower_discover::{Change, Discover, ServiceList};
    /// # use tower_service::Service;
    /// # struct Replica;
    /// # impl Service<()> for Replica {
    /// #     type Response = ();
    /// #     type Error = ();
    /// #     type Future = std::future::Ready<Result<(), ()>>;
    /// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> { Poll::Ready(Ok(())) }
    /// #     fn call(&mut self, _: ()) -> Self::Future { std::future::ready(Ok(())) }
    /// # }
    ///
    /// let mut list = pin!(ServiceList::new::<()>([Replica, Replica]));
    /// let mut cx = Context::from_waker(Waker::noop());
    ///
    /// for position in 0..2 {
    ///     let Poll::Ready(Some(Ok(Change::Insert(key, _)))) = list.as_mut().poll_discover(&mut cx) else {
    ///         panic!("an insert was expected");
    ///     };
    ///     assert_eq!(key, position);
    /// }
    /// assert!(matches!(list.poll_discover(&mut cx), Poll::Ready(None)));
    /// ```
    #[derive(Debug)]
    pub struct ServiceList<T>
    where
        T: IntoIterator,
    {
        inner: Enumerate<T::IntoIter>,
    }
}

impl<K, S, E, D> Discover for D
where
    D: TryStream<Ok = Change<K, S>, Error = E> + ?Sized,
    K: Eq,
{
    type Key = K;
    type Service = S;
    type Error = E;

    #[inline]
    fn poll_discover(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<D::Ok, D::Error>>> {
        TryStream::try_poll_next(self, cx)
    }
}

impl<T, U> ServiceList<T>
where
    T: IntoIterator<Item = U>,
{
    /// Makes a set of the services of a collection.
    ///
    /// `Request` only says for which requests they are services: `ServiceList::new::<Request>(services)`.
    #[allow(clippy::use_self, reason = "as `tower` 0.5 spells it")]
    pub fn new<Request>(services: T) -> ServiceList<T>
    where
        U: Service<Request>,
    {
        Self {
            inner: services.into_iter().enumerate(),
        }
    }
}

impl<T, U> Stream for ServiceList<T>
where
    T: IntoIterator<Item = U>,
{
    type Item = Result<Change<usize, U>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.project().inner.next();
        Poll::Ready(next.map(|(position, service)| Ok(Change::Insert(position, service))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

mod sealed {
    use super::{Change, TryStream};

    /// Keeps [`Discover`](super::Discover) for streams. The parameter lets it name `Change` without
    /// constraining it.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not a `Discover`: it isn't a stream of changes to a set of services",
        label = "not a `Stream<Item = Result<Change<Key, Service>, Error>>`"
    )]
    #[expect(
        unnameable_types,
        reason = "that is what seals the public trait above it"
    )]
    pub trait Sealed<T> {}

    impl<K, S, E, D> Sealed<Change<(), ()>> for D
    where
        D: TryStream<Ok = Change<K, S>, Error = E> + ?Sized,
        K: Eq,
    {
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    struct Named(&'static str);

    impl Service<()> for Named {
        type Response = &'static str;
        type Error = Infallible;
        type Future = std::future::Ready<Result<&'static str, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Ok(self.0))
        }
    }

    #[test]
    fn a_list_inserts_every_service_in_order_and_then_ends() {
        let mut list = ServiceList::new::<()>([Named("a"), Named("b")]);
        assert_eq!(list.size_hint(), (2, Some(2)));

        let mut found = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(Change::Insert(key, service)))) =
            Pin::new(&mut list).poll_discover(&mut cx)
        {
            found.push((key, service.0));
        }
        assert_eq!(found, [(0, "a"), (1, "b")]);
        assert!(matches!(
            Pin::new(&mut list).poll_discover(&mut cx),
            Poll::Ready(None)
        ));
    }

    #[test]
    fn a_boxed_stream_of_an_unknown_type_is_a_discover() {
        type Dyn = dyn Stream<Item = Result<Change<usize, Named>, Infallible>>;
        fn key_of<D: Discover<Key = usize> + ?Sized>(discover: Pin<&mut D>) -> Option<usize> {
            match discover.poll_discover(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(Change::Insert(key, _)))) => Some(key),
                _ => None,
            }
        }

        let mut boxed: Pin<Box<Dyn>> = Box::pin(ServiceList::new::<()>([Named("a")]));
        assert_eq!(key_of(boxed.as_mut()), Some(0));
        assert_eq!(key_of(boxed.as_mut()), None);
    }
}
