//! What the callers of a pool and its task share: the endpoints, which of them are ready, and who waits.
//!
//! A caller picks a ready endpoint, takes its latch if nobody has it, polls the service and calls it: no task in
//! between, and nothing to wait for. Everything that is rare goes through the lock of the [`Line`].

use std::any::Any;
use std::collections::BTreeMap;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tower_rng::Rng;
use tower_service::Service;

use super::endpoint::{Blame, Endpoint, Flight, Seat, Wakes};
use super::gauge::{Gauge, Member};
use super::latch::TurnedAway;
use super::numbers::Metrics;
use super::shortage::{Census, Reason};
use super::slots::{Growing, ReadySet};
use crate::picker::{EndpointId, Endpoints, Picker, Preparation};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How many endpoints a caller tries to enter before it queues.
const TRIES: usize = 4;

#[derive(Debug)]
pub(super) struct Shared<S, G> {
    pub(super) endpoints: Growing<Arc<Endpoint<S, G>>>,
    pub(super) ready: ReadySet,
    pub(super) wakes: Arc<Wakes>,
    /// How many wait, and how many may.
    queued: AtomicUsize,
    queue_len: usize,
    /// How many wait for what their picker needs. They are in no queue, and want no more endpoints than there are.
    preparing: AtomicUsize,
    /// No request is taken any more; those that wait are finished.
    is_closing: AtomicBool,
    /// The task has gone, and drops no service any more.
    is_abandoned: AtomicBool,
    line: Mutex<Line>,
    /// Why nothing is ready.
    pub(super) report: Mutex<Report>,
    pub(super) metrics: Metrics,
}

/// Those who wait, by the order of their coming. Ready indices change under its lock.
#[derive(Debug, Default)]
struct Line {
    closed: Option<Reason>,
    next_ticket: u64,
    /// Requests that wait and weren't called yet.
    requests: BTreeMap<u64, Waker>,
    /// Handles that wait for a place in the queue.
    handles: BTreeMap<u64, Waker>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) census: Census,
    pub(super) last_failure: Option<Arc<str>>,
}

/// An endpoint whose latch is held.
pub(super) struct Visit<'a, S, G> {
    shared: &'a Shared<S, G>,
    endpoint: &'a Arc<Endpoint<S, G>>,
    seat: Option<MutexGuard<'a, Seat<S>>>,
}

/// A request that was sent.
pub(super) struct Called<F, S, G: Gauge> {
    pub(super) future: F,
    pub(super) flight: Flight<S, G>,
}

/// Why no endpoint was called.
pub(super) struct Miss<Req> {
    pub(super) request: Req,
    /// Whether it may find one if it tries again at once: there are ready ones, some that weren't have been left
    /// out, and none has turned it away. So trying again ends.
    pub(super) is_worth_another_try: bool,
}

/// What it takes to call.
pub(super) struct Chooser<P, R> {
    pub(super) picker: P,
    pub(super) rng: R,
    pub(super) blame: Blame,
}

impl<P, R> Chooser<P, R> {
    /// What a request waits for before an endpoint can be picked for it.
    #[inline]
    pub(super) fn prepare<S, G>(&mut self, shared: &Shared<S, G>) -> Option<Preparation>
    where
        G: Gauge,
        P: Picker<Member<G>>,
        R: Rng,
    {
        self.picker.prepare(shared, &mut self.rng)
    }
}

impl<S, G: Gauge> Shared<S, G> {
    pub(super) fn new(queue_len: usize, metrics: Metrics) -> Self {
        Self {
            endpoints: Growing::new(),
            ready: ReadySet::new(),
            wakes: Arc::default(),
            queued: AtomicUsize::new(0),
            queue_len,
            preparing: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            line: Mutex::default(),
            report: Mutex::default(),
            metrics,
        }
    }

    /// Makes room for an endpoint at an index that is free.
    pub(super) fn settle(&self, index: u32, gauge: &G) -> &Arc<Endpoint<S, G>> {
        let make = || Arc::new(Endpoint::new(index, gauge.fork(), Arc::clone(&self.wakes)));
        let endpoint = self.endpoints.get_or_insert(index as usize, make);
        endpoint.member.gauge.reset();
        endpoint.reset();
        endpoint
    }

    /// Sends a request to an endpoint that is picked.
    #[inline]
    pub(super) fn dispatch<Req, P, R>(
        &self,
        request: Req,
        chooser: &mut Chooser<P, R>,
    ) -> Result<Called<S::Future, S, G>, Miss<Req>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError>,
        P: Picker<Member<G>>,
        R: Rng,
    {
        let mut was_turned_away = false;
        let mut has_left_out = false;
        for _ in 0..TRIES {
            let Some(endpoint) = self.pick(chooser) else {
                break;
            };
            let Some(mut visit) = self.enter(endpoint, TurnedAway::CALLER) else {
                was_turned_away = true;
                continue;
            };
            match visit.poll_ready() {
                Poll::Ready(Some(service)) => {
                    let flight = Flight::start(endpoint, chooser.blame);
                    let future = service.call(request);
                    visit.is_well();
                    return Ok(Called { future, flight });
                }
                // It leaves the ready ones, so that this ends.
                Poll::Ready(None) | Poll::Pending => {
                    visit.leave_ready();
                    has_left_out = true;
                }
            }
        }
        Err(Miss {
            request,
            is_worth_another_try: has_left_out && !was_turned_away && self.ready.len() > 0,
        })
    }

    #[inline]
    fn pick<P, R>(&self, chooser: &mut Chooser<P, R>) -> Option<&Arc<Endpoint<S, G>>>
    where
        P: Picker<Member<G>>,
        R: Rng,
    {
        let place = chooser.picker.pick(self, &mut chooser.rng)?;
        let endpoint = self.endpoint(self.ready.at(place)?)?;
        if endpoint.member.has_full_share() {
            return Some(endpoint);
        }
        Some(self.share(place, endpoint, &mut chooser.rng))
    }

    /// Has one that is new give the most of what is picked for it to others, drawn at random.
    ///
    /// A picker can't do that by a load: of two that are hardly used it would always take the other one, and of two that
    /// are much used neither more seldom.
    #[cold]
    fn share<'a, R>(
        &'a self,
        mut place: usize,
        mut endpoint: &'a Arc<Endpoint<S, G>>,
        rng: &mut R,
    ) -> &'a Arc<Endpoint<S, G>>
    where
        R: Rng,
    {
        for _ in 0..TRIES {
            let others = self.ready.len().saturating_sub(1);
            if others == 0 || rng.next_f64() < endpoint.member.share() {
                break;
            }
            let drawn = rng.next_range(0..others as u64) as usize;
            place = drawn + usize::from(drawn >= place);
            match self.ready.at(place).and_then(|index| self.endpoint(index)) {
                Some(other) => endpoint = other,
                None => break,
            }
        }
        endpoint
    }

    /// Lets callers pick an endpoint, and calls the first who waits.
    pub(super) fn make_ready(&self, index: u32) {
        let waker = {
            let mut line = self.line();
            if !self.ready.insert(index) {
                return;
            }
            line.next()
        };
        wake(waker);
    }

    /// Whether a request would find an endpoint or a place to wait.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.ready.len() > 0 || self.queued.load(Ordering::Relaxed) < self.queue_len
    }

    /// Counts a request that waits for what its picker needs.
    pub(super) fn begin_preparing(&self) {
        self.preparing.fetch_add(1, Ordering::AcqRel);
    }

    /// It no longer does: it was sent or given up, or has its place in the queue.
    pub(super) fn end_preparing(&self) {
        self.preparing.fetch_sub(1, Ordering::SeqCst);
        self.tell_who_closes();
    }

    /// Takes a place in the queue, and says which. None if it is full.
    pub(super) fn queue(&self) -> Option<u64> {
        let take = |queued| (queued < self.queue_len).then_some(queued + 1);
        let taken = self
            .queued
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, take);
        taken.ok()?;
        Some(self.ticket())
    }

    pub(super) fn ticket(&self) -> u64 {
        let mut line = self.line();
        line.next_ticket += 1;
        line.next_ticket
    }

    /// How many wait, for an endpoint or for what their picker needs.
    pub(super) fn waiting(&self) -> usize {
        // In the order in which a request is in them, so that none is missed on its way.
        let preparing = self.preparing.load(Ordering::SeqCst);
        preparing + self.queued()
    }

    /// How many wait for an endpoint.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::SeqCst)
    }

    /// Has a request called when something is ready. It keeps its turn. Fails if the pool is closed.
    pub(super) fn park(&self, ticket: u64, waker: &Waker) -> Result<(), Reason> {
        let replaced = {
            let mut line = self.line();
            if let Some(reason) = line.closed {
                return Err(reason);
            }
            line.requests.insert(ticket, waker.clone())
        };
        drop(replaced);
        self.want();
        Ok(())
    }

    /// Whether somebody waits for an endpoint.
    pub(super) fn is_waited_for(&self) -> bool {
        // Where no request may wait, handles do.
        self.queued() > 0 || (self.queue_len == 0 && !self.line().handles.is_empty())
    }

    /// Has the task connect to an endpoint that is idle, if there is one.
    fn want(&self) {
        if !self.wakes.is_wanted.swap(true, Ordering::AcqRel) {
            self.wakes.wake();
        }
    }

    /// Gives a request's place back. If it was called and didn't come, or if there is more, the next is called.
    pub(super) fn leave_queue(&self, ticket: u64) {
        let mut wakers = [None, None];
        let parked = {
            let mut line = self.line();
            let parked = line.requests.remove(&ticket);
            self.queued.fetch_sub(1, Ordering::SeqCst);
            if self.ready.len() > 0 {
                wakers[0] = line.requests.pop_first().map(|(_, waker)| waker);
            }
            // Its place is free.
            wakers[1] = line.handles.pop_first().map(|(_, waker)| waker);
            parked
        };
        drop(parked);
        wakers.into_iter().for_each(wake);
        self.tell_who_closes();
    }

    /// One fewer waits. Either this sees that the pool closes, or who closes it sees the count: hence the ordering of both.
    fn tell_who_closes(&self) {
        if self.is_closing.load(Ordering::SeqCst) {
            self.wakes.wake();
        }
    }

    /// Has a handle called when a request would find room. Fails if the pool is closed.
    pub(super) fn park_handle(&self, ticket: u64, waker: &Waker) -> Result<(), Reason> {
        let replaced = {
            let mut line = self.line();
            if let Some(reason) = line.closed {
                return Err(reason);
            }
            line.handles.insert(ticket, waker.clone())
        };
        drop(replaced);
        // Where no request may wait, a handle is all that tells.
        if self.queue_len == 0 {
            self.want();
        }
        Ok(())
    }

    /// A handle no longer waits. As it has reserved nothing, the next may find room as well.
    pub(super) fn leave_doorstep(&self, ticket: u64) {
        let (parked, next) = {
            let mut line = self.line();
            let parked = line.handles.remove(&ticket);
            let next = self.has_room().then(|| line.handles.pop_first()).flatten();
            (parked, next)
        };
        drop(parked);
        wake(next.map(|(_, waker)| waker));
    }

    /// Takes no more requests.
    pub(super) fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Why no request is taken any more, if that is so.
    pub(super) fn closed(&self) -> Option<Reason> {
        let closing = self.is_closing().then_some(Reason::Closed);
        self.line().closed.or(closing)
    }

    /// Refuses all that wait, and all that come.
    pub(super) fn close(&self, reason: Reason) {
        self.begin_closing();
        let (requests, handles) = {
            let mut line = self.line();
            line.closed.get_or_insert(reason);
            (mem::take(&mut line.requests), mem::take(&mut line.handles))
        };
        for (_, waker) in requests.into_iter().chain(handles) {
            waker.wake();
        }
    }

    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, G> Shared<S, G> {
    pub(super) fn endpoint(&self, index: u32) -> Option<&Arc<Endpoint<S, G>>> {
        self.endpoints.get(index as usize)
    }

    /// Takes the latch of an endpoint, unless somebody has it.
    #[inline]
    pub(super) fn visit(&self, index: u32, who: TurnedAway) -> Option<Visit<'_, S, G>> {
        self.enter(self.endpoint(index)?, who)
    }

    #[inline]
    fn enter<'a>(
        &'a self,
        endpoint: &'a Arc<Endpoint<S, G>>,
        who: TurnedAway,
    ) -> Option<Visit<'a, S, G>> {
        if !endpoint.latch.try_enter(who) {
            return None;
        }
        let seat = endpoint.seat.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Visit {
            shared: self,
            endpoint,
            seat: Some(seat),
        })
    }

    pub(super) fn make_unready(&self, index: u32) {
        let _line = self.line();
        self.ready.remove(index);
    }

    /// Drops the service of an endpoint, unless somebody has its latch.
    pub(super) fn drop_service(&self, index: u32) {
        if let Some(mut visit) = self.visit(index, TurnedAway::DRIVER) {
            let service = visit.seat().and_then(|seat| seat.service.take());
            // Where it had panicked, that is over with it.
            visit.is_well();
            drop(visit);
            drop(service);
        }
    }

    /// From now on whoever the task would be called back for drops the service itself: there is no task.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::SeqCst);
    }

    /// No code of a user runs under it, but for the cloning of wakers.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Whoever is to be called now that something is ready.
    fn next(&mut self) -> Option<Waker> {
        let first = self
            .requests
            .pop_first()
            .or_else(|| self.handles.pop_first());
        first.map(|(_, waker)| waker)
    }
}

/// Says that `what` panicked, and what the panic said.
pub(super) fn panicked(what: &str, panic: &(dyn Any + Send)) -> Arc<str> {
    match tower_close::panic_message(panic) {
        Some(message) => format!("{what} panicked: {message}").into(),
        None => format!("{what} panicked").into(),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<S, G> Endpoints<Member<G>> for Shared<S, G> {
    #[inline]
    fn len(&self) -> usize {
        self.ready.len()
    }

    #[inline]
    fn get(&self, place: usize) -> Option<(EndpointId, &Member<G>)> {
        let index = self.ready.at(place)?;
        let endpoint = self.endpoints.get(index as usize)?;
        Some((endpoint.id(), &endpoint.member))
    }

    #[inline]
    fn find(&self, id: EndpointId) -> Option<usize> {
        let index = id.number() as u32;
        let endpoint = self.endpoints.get(index as usize)?;
        (endpoint.id() == id).then(|| self.ready.place(index))?
    }
}

impl<S, G> Visit<'_, S, G> {
    pub(super) fn seat(&mut self) -> Option<&mut Seat<S>> {
        self.seat.as_deref_mut()
    }

    /// The service has been used, and hasn't panicked.
    #[inline]
    pub(super) fn is_well(&mut self) {
        if let Some(seat) = &mut self.seat {
            seat.is_in_use = false;
        }
    }
}

impl<S, G: Gauge> Visit<'_, S, G> {
    /// Polls the service. Ready with none: it has failed, or panicked before, and is gone.
    ///
    /// Until [`is_well`](Self::is_well) is called, a panic counts against the service.
    #[inline]
    pub(super) fn poll_ready<Req>(&mut self) -> Poll<Option<&mut S>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError>,
    {
        let Some(seat) = self.seat.as_deref_mut() else {
            return Poll::Ready(None);
        };
        if mem::replace(&mut seat.is_in_use, true) {
            seat.give_up("its service panicked".into());
        }
        let mut cx = Context::from_waker(&self.endpoint.waker);
        // The endpoint is everybody's, and goes by nobody's deadline.
        let polled = match &mut seat.service {
            Some(service) => tower_deadline::enter_unbounded(|| service.poll_ready(&mut cx)),
            None => {
                seat.is_in_use = false;
                return Poll::Ready(None);
            }
        };
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(seat.service.as_mut()),
            Poll::Ready(Err(error)) => {
                let error: BoxError = error.into();
                seat.give_up(error.to_string().into());
                seat.is_in_use = false;
                self.endpoint.waker.wake_by_ref();
                Poll::Ready(None)
            }
            Poll::Pending => {
                seat.is_in_use = false;
                Poll::Pending
            }
        }
    }

    /// Polls the service, for the task, which a panic of one endpoint must not end: it is a failure like others. Says
    /// whether the service is ready; if not, it is gone.
    pub(super) fn poll_guarded<Req>(&mut self) -> Poll<bool>
    where
        S: Service<Req>,
        S::Error: Into<BoxError>,
    {
        let poll = || self.poll_ready::<Req>().map(|service| service.is_some());
        catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|panic| {
            if let Some(seat) = self.seat() {
                seat.give_up(panicked("its service", &*panic));
            }
            Poll::Ready(false)
        })
    }

    /// Keeps callers from picking it. While the latch is held, so that the task can't put it back before.
    #[cold]
    pub(super) fn leave_ready(&mut self) {
        self.shared.make_unready(self.endpoint.index());
    }
}

impl<S, G> Drop for Visit<'_, S, G> {
    #[inline]
    fn drop(&mut self) {
        let has_panicked = self.seat.as_ref().is_some_and(|seat| seat.is_in_use);
        drop(self.seat.take());
        let turned_away = self.endpoint.latch.leave();
        if has_panicked || !turned_away.is_empty() {
            self.call_back(has_panicked, turned_away);
        }
    }
}

impl<S, G> Visit<'_, S, G> {
    #[cold]
    fn call_back(&self, has_panicked: bool, turned_away: TurnedAway) {
        if has_panicked || turned_away.has(TurnedAway::DRIVER) {
            if self.shared.is_abandoned.load(Ordering::SeqCst) {
                self.shared.drop_service(self.endpoint.index());
            } else {
                self.endpoint.waker.wake_by_ref();
            }
        }
        if turned_away.has(TurnedAway::CALLER) {
            let first = self.shared.line().requests.pop_first();
            wake(first.map(|(_, waker)| waker));
        }
    }
}

/// Splits off the seeds of handles. The numbers that they start from are all different.
#[derive(Debug)]
pub(super) struct Seeds(AtomicU64);

impl Seeds {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(super) fn next(&self) -> tower_rng::SplitMix64 {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        tower_rng::SplitMix64::new(number).split()
    }
}
