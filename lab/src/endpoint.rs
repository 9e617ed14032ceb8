//! An endpoint without queues: it answers after a while that doesn't depend on its load.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower_service::Service;

use crate::server::{Failed, Work};
use crate::world::{Nanos, World};

/// What an endpoint does with a request that comes now: answer after a span, with this.
pub(crate) type Answer = (Nanos, Result<(), Failed>);

/// Clones are the same endpoint. Requests are told to `answer` as they come; of [`Work`] it knows nothing.
#[derive(Clone)]
pub(crate) struct Endpoint {
    world: World,
    answer: Arc<Mutex<dyn FnMut(Nanos) -> Answer + Send>>,
}

impl Endpoint {
    /// Makes an endpoint that answers as `answer` says, which is told the time.
    pub(crate) fn new(world: &World, answer: impl FnMut(Nanos) -> Answer + Send + 'static) -> Self {
        Self {
            world: world.clone(),
            answer: Arc::new(Mutex::new(answer)),
        }
    }
}

impl Service<Work> for Endpoint {
    type Response = ();
    type Error = Failed;
    type Future = BoxFuture<'static, Result<(), Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Work) -> Self::Future {
        let world = self.world.clone();
        let (span, result) = (self.answer.lock().expect("answers don't panic"))(world.now());
        Box::pin(async move {
            world.sleep(span).await;
            result
        })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}
