//! A pool over endpoints that can't fail to be connected to.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower_balance::pool::{Builder, Pool};
use tower_discover::Change;
use tower_service::Service;

/// Connects to the endpoint of an index, at once.
#[derive(Clone, Debug)]
pub(crate) struct Connect<S>(pub(crate) Vec<S>);

impl<S: Clone> Service<usize> for Connect<S> {
    type Response = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, index: usize) -> Self::Future {
        ready(Ok(self.0[index].clone()))
    }
}

/// What is discovered: indices.
pub(crate) type Found = ReceiverStream<Result<Change<usize, usize>, Infallible>>;

/// Tells a pool of endpoints.
pub(crate) type Tell = mpsc::Sender<Result<Change<usize, usize>, Infallible>>;

/// A discovery that knows the first `count` indices, and will hear of more.
pub(crate) fn discovery(count: usize) -> (Tell, Found) {
    let (tell, found) = mpsc::channel(count.max(1024));
    for index in 0..count {
        tell.try_send(Ok(Change::Insert(index, index)))
            .expect("the channel has room for all");
    }
    (tell, ReceiverStream::new(found))
}

/// Begins a pool over endpoints that are known from the beginning.
///
/// The sender must be kept: discovery ends with it.
pub(crate) fn pool_of<S: Clone>(
    endpoints: Vec<S>,
    seed: u64,
) -> (Tell, Builder<Found, Connect<S>>) {
    let (tell, found) = discovery(endpoints.len());
    (
        tell,
        Pool::builder(found, Connect(endpoints)).with_seed(seed),
    )
}

/// Waits until a service is ready, and calls it.
pub(crate) async fn oneshot<S, Req>(mut service: S, request: Req) -> Result<S::Response, S::Error>
where
    S: Service<Req>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}
