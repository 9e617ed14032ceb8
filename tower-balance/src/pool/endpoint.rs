//! One endpoint: its service, what its requests came to, and who is told that something is to be done for it.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;
use tower_classify::Class;
use tower_deadline::Deadline;

use super::gauge::{Gauge, InFlight, Member};
use super::latch::Latch;
use super::outlier::Tally;
use crate::picker::EndpointId;

/// A place for one endpoint, and after it for another.
#[derive(Debug)]
pub(super) struct Endpoint<S, G> {
    pub(super) member: Member<G>,
    pub(super) latch: Latch,
    /// Locked by whoever has the latch, and so never waited for.
    pub(super) seat: Mutex<Seat<S>>,
    /// Wakes the pool's task for this endpoint.
    pub(super) waker: Waker,
    wake: Arc<EndpointWake>,
    /// How many endpoints were here before.
    generation: AtomicU32,
    succeeded: AtomicU32,
    failed: AtomicU32,
    faults_in_a_row: AtomicU32,
    /// Set by callers, for the task: it failed too often in a row.
    is_suspect: AtomicBool,
    was_used: AtomicBool,
    is_draining: AtomicBool,
}

/// The service of an endpoint.
#[derive(Debug)]
pub(super) struct Seat<S> {
    pub(super) service: Option<S>,
    /// Why the service is gone, until the task has seen it.
    pub(super) failure: Option<Arc<str>>,
    /// Whether it is in use: still set when one enters only if the one before has panicked.
    pub(super) is_in_use: bool,
}

/// A request in flight.
pub(super) struct Flight<S, G: Gauge> {
    /// None once it has ended, or its completion has it.
    held: Option<Held<S, G>>,
    blame: Blame,
    /// From when on it is the endpoint's fault if the request is given up. None until it had to wait.
    overdue_at: Option<Instant>,
}

/// What a request in flight holds of its endpoint.
struct Held<S, G: Gauge> {
    endpoint: Arc<Endpoint<S, G>>,
    ticket: G::Ticket,
}

/// Keeps a request in flight after its response is there, until it is dropped; see
/// [`Builder::with_completion`](super::Builder::with_completion).
pub struct Completion<S, G: Gauge = InFlight> {
    held: Option<Held<S, G>>,
    class: Class,
}

/// What counts against an endpoint between the looks at all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blame {
    /// Zero: they don't count.
    pub(super) max_faults_in_a_row: u32,
    /// After how long a request that is given up counts as a fault. None if that never counts.
    pub(super) given_up_after: Option<Duration>,
}

/// What the pool's task is to look at.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    driver: AtomicWaker,
    endpoints: Mutex<Vec<u32>>,
    /// Somebody waits, so that idle endpoints are wanted.
    pub(super) is_wanted: AtomicBool,
}

#[derive(Debug)]
struct EndpointWake {
    index: u32,
    is_listed: AtomicBool,
    wakes: Arc<Wakes>,
}

impl<S, G> Endpoint<S, G> {
    pub(super) fn new(index: u32, gauge: G, wakes: Arc<Wakes>) -> Self {
        let wake = Arc::new(EndpointWake {
            index,
            is_listed: AtomicBool::new(false),
            wakes,
        });
        Self {
            member: Member::new(gauge),
            latch: Latch::new(),
            seat: Mutex::new(Seat {
                service: None,
                failure: None,
                is_in_use: false,
            }),
            waker: Waker::from(Arc::clone(&wake)),
            wake,
            generation: AtomicU32::new(0),
            succeeded: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            faults_in_a_row: AtomicU32::new(0),
            is_suspect: AtomicBool::new(false),
            was_used: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        }
    }

    pub(super) fn index(&self) -> u32 {
        self.wake.index
    }

    #[inline]
    pub(super) fn id(&self) -> EndpointId {
        let generation = self.generation.load(Ordering::Relaxed);
        EndpointId::new(u64::from(generation) << 32 | u64::from(self.wake.index))
    }

    pub(super) fn reset(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.take_tally();
        self.faults_in_a_row.store(0, Ordering::Relaxed);
        self.is_suspect.store(false, Ordering::Relaxed);
        self.was_used.store(false, Ordering::Relaxed);
        self.is_draining.store(false, Ordering::SeqCst);
        self.member.set_share(1.0);
    }

    /// What came of its requests since the last time.
    pub(super) fn take_tally(&self) -> Tally {
        Tally {
            succeeded: self.succeeded.swap(0, Ordering::Relaxed),
            failed: self.failed.swap(0, Ordering::Relaxed),
        }
    }

    pub(super) fn take_suspicion(&self) -> bool {
        self.is_suspect.swap(false, Ordering::Relaxed)
    }

    pub(super) fn take_use(&self) -> bool {
        self.was_used.swap(false, Ordering::Relaxed)
    }

    /// The task comes to look at it. Whatever wakes it from now on lists it again.
    pub(super) fn looked_at(&self) {
        self.wake.is_listed.store(false, Ordering::SeqCst);
    }

    /// Has the task woken when the last request has ended.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }
}

impl<S> Seat<S> {
    #[cold]
    pub(super) fn give_up(&mut self, failure: Arc<str>) {
        self.failure = Some(failure);
        // Its destructor may panic as well; the seat is empty by then.
        drop(self.service.take());
    }
}

impl<S, G: Gauge> Flight<S, G> {
    #[inline]
    pub(super) fn start(endpoint: &Arc<Endpoint<S, G>>, blame: Blame) -> Self {
        endpoint.member.add();
        if !endpoint.was_used.load(Ordering::Relaxed) {
            endpoint.was_used.store(true, Ordering::Relaxed);
        }
        Self {
            held: Some(Held {
                ticket: endpoint.member.gauge.start(),
                endpoint: Arc::clone(endpoint),
            }),
            blame,
            overdue_at: None,
        }
    }

    /// The response isn't there yet. Reads the clock the first time, so that what is answered at once costs none.
    #[inline]
    pub(super) fn waits(&mut self) {
        if let (None, Some(after)) = (self.overdue_at, self.blame.given_up_after) {
            self.overdue_at = overdue_at(after);
        }
    }

    /// The request has ended.
    #[inline]
    pub(super) fn finish(&mut self, class: Class) {
        drop(self.answered(class));
    }

    /// The request is answered, and ends with what this gives.
    #[inline]
    pub(super) fn answered(&mut self, class: Class) -> Completion<S, G> {
        let held = self.held.take();
        if let Some(Held { endpoint, .. }) = &held {
            self.judge(endpoint, class);
        }
        Completion { held, class }
    }

    /// Counts what the response says of the endpoint.
    #[inline]
    fn judge(&self, endpoint: &Endpoint<S, G>, class: Class) {
        if class.is_fault() {
            self.fault(endpoint);
        } else if class.is_working() {
            endpoint.succeeded.fetch_add(1, Ordering::Relaxed);
            if endpoint.faults_in_a_row.load(Ordering::Relaxed) != 0 {
                endpoint.faults_in_a_row.store(0, Ordering::Relaxed);
            }
        }
    }

    #[cold]
    fn fault(&self, endpoint: &Endpoint<S, G>) {
        endpoint.failed.fetch_add(1, Ordering::Relaxed);
        let faults = endpoint.faults_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if faults == self.blame.max_faults_in_a_row {
            endpoint.faults_in_a_row.store(0, Ordering::Relaxed);
            endpoint.is_suspect.store(true, Ordering::Relaxed);
            endpoint.waker.wake_by_ref();
        }
    }
}

impl<S, G: Gauge> Held<S, G> {
    #[inline]
    fn end(self, class: Option<Class>) {
        let Self { endpoint, ticket } = self;
        endpoint.member.gauge.finish(ticket, class);
        // Ordered with the task, which says that it drains and then looks whether something is in flight.
        if endpoint.member.sub() && endpoint.is_draining.load(Ordering::SeqCst) {
            endpoint.waker.wake_by_ref();
        }
    }
}

impl<S, G: Gauge> Drop for Flight<S, G> {
    #[inline]
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            if self.overdue_at.is_some_and(|at| at <= Instant::now()) {
                self.fault(&held.endpoint);
            }
            held.end(None);
        }
    }
}

impl<S, G: Gauge> Drop for Completion<S, G> {
    #[inline]
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.end(Some(self.class));
        }
    }
}

impl<S, G: Gauge> fmt::Debug for Completion<S, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

/// When a request that waits since now has waited for so long, or its deadline, if that is earlier.
#[cold]
fn overdue_at(after: Duration) -> Option<Instant> {
    let by_age = Instant::now().checked_add(after);
    let by_deadline = Deadline::current().map(Deadline::instant);
    by_age.into_iter().chain(by_deadline).min()
}

impl Wakes {
    pub(super) fn wake(&self) {
        self.driver.wake();
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// The endpoints that were woken; each is listed once, until it is [looked at](Endpoint::looked_at).
    pub(super) fn take(&self) -> Vec<u32> {
        mem::take(&mut *self.endpoints())
    }

    fn endpoints(&self) -> MutexGuard<'_, Vec<u32>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for EndpointWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::SeqCst) {
            self.wakes.endpoints().push(self.index);
            self.wakes.wake();
        }
    }
}
