//! The way from a client to a server, and a client that picks one of them.

use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower_balance::picker::{Endpoints, Picker, Preparation};
use tower_balance::prequal::{Probe, Reply};
use tower_load::meter::{Meter, Metered};
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;

use crate::server::{Failed, Server, Work};
use crate::world::{Nanos, World};

/// A connection to a server, some time away, which answers probes. The server is measured by a [`Meter`].
#[derive(Clone, Debug)]
pub(crate) struct Link {
    world: World,
    server: Metered<Server>,
    /// The same, for who knows all.
    bare: Server,
    one_way: Nanos,
}

/// A client that knows its endpoints, all of which are ready at any time, and picks one for each request.
#[derive(Debug)]
pub(crate) struct Client<S, P> {
    parts: Arc<Mutex<Parts<S, P>>>,
}

#[derive(Debug)]
struct Parts<S, P> {
    endpoints: Vec<S>,
    picker: P,
    rng: SplitMix64,
}

impl Link {
    pub(crate) fn new(world: &World, server: Server, meter: Meter, one_way: Nanos) -> Self {
        Self {
            world: world.clone(),
            bare: server.clone(),
            server: Metered::new(server, meter),
            one_way,
        }
    }

    fn crowding(&self) -> f64 {
        self.bare.crowding()
    }
}

/// Picks the server that has the most to spare at this moment, which no client can know: nobody does better.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllKnowing;

impl Picker<Link> for AllKnowing {
    fn pick<E, R>(&mut self, links: &E, rng: &mut R) -> Option<usize>
    where
        E: Endpoints<Link> + ?Sized,
        R: Rng + ?Sized,
    {
        let len = links.len();
        let first = rng.next_range(0..len.max(1) as u64) as usize;
        // Of those that are equal, the first from anywhere.
        let indices = (0..len).map(|index| (first + index) % len);
        let crowded = indices.filter_map(|index| Some((index, links.get(index)?.1.crowding())));
        crowded
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(index, _)| index)
    }
}

impl Service<Work> for Link {
    type Response = ();
    type Error = Failed;
    type Future = BoxFuture<'static, Result<(), Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, work: Work) -> Self::Future {
        let mut link = self.clone();
        Box::pin(async move {
            link.world.sleep(link.one_way).await;
            let result = link.server.call(work).await;
            link.world.sleep(link.one_way).await;
            result
        })
    }
}

impl Probe for Link {
    fn probe(&self, reply: Reply) {
        let (world, meter, one_way) = (
            self.world.clone(),
            self.server.meter().clone(),
            self.one_way,
        );
        self.world.after(one_way, move || {
            let report = meter.report();
            world.after(one_way, move || reply.send(report));
        });
    }
}

impl<S, P> Client<S, P> {
    pub(crate) fn new(endpoints: Vec<S>, picker: P, rng: SplitMix64) -> Self {
        let parts = Parts {
            endpoints,
            picker,
            rng,
        };
        Self {
            parts: Arc::new(Mutex::new(parts)),
        }
    }
}

impl<S, P> Service<Work> for Client<S, P>
where
    S: Service<Work, Error = Failed, Future: Send> + Send + 'static,
    S::Response: Send,
    P: Picker<S> + Send + 'static,
{
    type Response = S::Response;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<S::Response, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, work: Work) -> Self::Future {
        let preparation = lock(&self.parts).prepare();
        match preparation {
            None => send(&self.parts, work),
            Some(preparation) => {
                let parts = Arc::clone(&self.parts);
                Box::pin(async move {
                    preparation.await;
                    send(&parts, work).await
                })
            }
        }
    }
}

fn send<S, P>(
    parts: &Mutex<Parts<S, P>>,
    work: Work,
) -> BoxFuture<'static, Result<S::Response, Failed>>
where
    S: Service<Work, Error = Failed, Future: Send + 'static>,
    S::Response: Send + 'static,
    P: Picker<S>,
{
    let Parts {
        endpoints,
        picker,
        rng,
    } = &mut *lock(parts);
    match picker.pick(&endpoints[..], rng) {
        Some(index) => Box::pin(endpoints[index].call(work)),
        None => Box::pin(ready(Err(Failed::Refused))),
    }
}

impl<S, P> Parts<S, P> {
    fn prepare(&mut self) -> Option<Preparation>
    where
        P: Picker<S>,
    {
        self.picker.prepare(&self.endpoints[..], &mut self.rng)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
