//! The scripted service that a subject is put around, and the script that drives it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tower_service::Service;

use super::{BoxError, Response};

/// The service inside of the one under test, scripted by the checker.
///
/// It takes requests of any type and answers with what
/// [`Checker::responses`](super::Checker::responses) makes, by default a
/// [`contract::Response`](Response). Every handle of it (a clone is another handle) notes by itself
/// whether it was polled ready, and the checker notes which handle was polled, called and dropped.
pub struct Inner<Res = Response> {
    id: usize,
    script: Script,
    respond: Arc<dyn Fn() -> Res + Send + Sync>,
}

/// The response of an [`Inner`].
pub struct ResponseFuture<Res = Response> {
    id: usize,
    script: Script,
    respond: Arc<dyn Fn() -> Res + Send + Sync>,
}

/// What a scripted failure of an [`Inner`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerError {
    during: &'static str,
}

/// Drives every handle of one [`Inner`], and remembers what was done to it.
#[derive(Clone)]
pub(super) struct Script {
    world: Arc<Mutex<World>>,
}

/// How the next thing that the inner service is asked for ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Fails,
    Panics,
}

/// What a poll of the inner service says.
enum Said {
    /// Whoever polls is woken when it goes on.
    Pending,
    /// Pending, and whoever polls is woken at once.
    Again,
    Ready(Option<Fate>),
}

/// What a subject did to the inner service that the contract forbids, and when.
#[derive(Clone, Copy)]
pub(super) struct Breach {
    pub(super) deed: Deed,
    /// How many lines of the trace had been written then, the one that tells of it included.
    pub(super) lines: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    CalledUnready { handle: usize },
    PolledAfterDone { future: usize },
}

struct World {
    handles: BTreeMap<usize, Handle>,
    futures: BTreeMap<usize, Answer>,
    /// Ids are given in one sequence, so that a trace reads in the order of creation.
    next_id: usize,
    /// How many requests were made.
    calls: usize,
    /// The most reservations and requests in flight that there were at once.
    most_places: usize,
    /// How many reservations and requests in flight there may be.
    capacity: usize,
    /// Whether a reservation takes two polls: the first says pending and wakes at once.
    ready_in_two: bool,
    next_ready: Option<Fate>,
    next_call_panics: bool,
    /// How the next requests end; those after them are answered.
    next_answers: VecDeque<Fate>,
    /// Whether no request is answered for now.
    held: bool,
    /// How many polls of a response say pending and wake at once.
    answer_delay: usize,
    breaches: Vec<Breach>,
    trace: Vec<String>,
}

/// One handle of the inner service.
#[derive(Default)]
struct Handle {
    reserved: bool,
    /// Whether it has said pending for the sake of `ready_in_two`.
    asked: bool,
    waiting: Option<Waker>,
}

/// One request in flight.
struct Answer {
    /// Whether it counts against the capacity.
    permit: bool,
    done: bool,
    delay: usize,
    fate: Option<Fate>,
    waiting: Option<Waker>,
}

impl<Res> Inner<Res> {
    pub(super) fn new(script: Script, respond: Arc<dyn Fn() -> Res + Send + Sync>) -> Self {
        let id = script.lock().new_handle("made");
        Self {
            id,
            script,
            respond,
        }
    }
}

impl<Req, Res> Service<Req> for Inner<Res> {
    type Response = Res;
    type Error = BoxError;
    type Future = ResponseFuture<Res>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut world = self.script.lock();
        let (said, before) = world.poll_ready(self.id, cx.waker());
        drop(world);
        // A waker may own and do what it likes: dropped or woken under the lock, it could ask for it.
        drop(before);
        said.to(cx).map(|fate| match fate {
            None => Ok(()),
            Some(fate) => Err(fate.strike("poll_ready")),
        })
    }

    fn call(&mut self, _: Req) -> ResponseFuture<Res> {
        let made = self.script.lock().call(self.id);
        let Some(id) = made else {
            self.script.wake_waiting();
            Fate::Panics.strike("call");
            unreachable!("a panic was scripted");
        };
        ResponseFuture {
            id,
            script: self.script.clone(),
            respond: Arc::clone(&self.respond),
        }
    }
}

impl<Res> Clone for Inner<Res> {
    fn clone(&self) -> Self {
        let how = format!("cloned from inner {}", self.id);
        let id = self.script.lock().new_handle(&how);
        Self {
            id,
            script: self.script.clone(),
            respond: Arc::clone(&self.respond),
        }
    }
}

impl<Res> Drop for Inner<Res> {
    fn drop(&mut self) {
        let mut world = self.script.lock();
        let handle = world.handles.remove(&self.id);
        world.note(format!("  inner {}: dropped", self.id));
        drop(world);
        if handle.is_some_and(|handle| handle.reserved) {
            self.script.wake_waiting();
        }
    }
}

impl<Res> fmt::Debug for Inner<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<Res> Future for ResponseFuture<Res> {
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut world = self.script.lock();
        let (said, before) = world.poll_answer(self.id, cx.waker());
        drop(world);
        drop(before);
        let Poll::Ready(fate) = said.to(cx) else {
            return Poll::Pending;
        };
        // The request is done, and has left its place to another one.
        self.script.wake_waiting();
        Poll::Ready(match fate {
            None => Ok((self.respond)()),
            Some(fate) => Err(fate.strike("the response")),
        })
    }
}

impl<Res> Drop for ResponseFuture<Res> {
    fn drop(&mut self) {
        let mut world = self.script.lock();
        let answer = world.futures.remove(&self.id);
        world.note(format!("  inner future {}: dropped", self.id));
        drop(world);
        drop(answer);
        self.script.wake_waiting();
    }
}

impl<Res> fmt::Debug for ResponseFuture<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for InnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scripted failure of {}", self.during)
    }
}

impl std::error::Error for InnerError {}

impl Fate {
    /// Gives the error, or unwinds: as a panic would, save that nothing is printed.
    fn strike(self, during: &'static str) -> BoxError {
        match self {
            Self::Fails => InnerError { during }.into(),
            Self::Panics => panic::resume_unwind(Box::new(format!("scripted panic in {during}"))),
        }
    }
}

impl Said {
    fn to(self, cx: &Context<'_>) -> Poll<Option<Fate>> {
        match self {
            Self::Pending => Poll::Pending,
            Self::Again => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Ready(fate) => Poll::Ready(fate),
        }
    }
}

impl Script {
    pub(super) fn new() -> Self {
        let world = World {
            handles: BTreeMap::new(),
            futures: BTreeMap::new(),
            next_id: 1,
            calls: 0,
            most_places: 0,
            capacity: usize::MAX,
            ready_in_two: false,
            next_ready: None,
            next_call_panics: false,
            next_answers: VecDeque::new(),
            held: false,
            answer_delay: 0,
            breaches: Vec::new(),
            trace: Vec::new(),
        };
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// Sets how many reservations and requests in flight there may be; none closes the service.
    pub(super) fn capacity(&self, capacity: usize) {
        let mut world = self.lock();
        world.capacity = capacity;
        world.note(match capacity {
            0 => "(the inner service has no capacity now)".to_owned(),
            usize::MAX => "(the inner service has any capacity now)".to_owned(),
            n => format!("(the inner service has a capacity of {n} now)"),
        });
        drop(world);
        self.wake_waiting();
    }

    /// Sets whether each reservation takes two polls.
    pub(super) fn ready_in_two(&self, in_two: bool) {
        self.lock().ready_in_two = in_two;
    }

    /// Makes the next poll for readiness, of whatever handle, end badly, and wakes those that wait.
    pub(super) fn next_ready(&self, fate: Fate) {
        let mut world = self.lock();
        world.next_ready = Some(fate);
        world.note(format!("(the inner service's next poll_ready {fate})"));
        let woken = world.all_waiting();
        drop(world);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Makes the next call panic.
    pub(super) fn next_call_panics(&self) {
        let mut world = self.lock();
        world.next_call_panics = true;
        world.note("(the inner service's next call panics)".to_owned());
    }

    /// Makes the next request end badly.
    pub(super) fn next_answer(&self, fate: Fate) {
        let mut world = self.lock();
        world.next_answers.push_back(fate);
        world.note(format!("(the inner service's next response {fate})"));
    }

    /// Takes back every misfortune that hasn't struck yet, and says whether there was one.
    pub(super) fn forgive(&self) -> bool {
        let mut world = self.lock();
        let ready = world.next_ready.take().is_some();
        let call = mem::take(&mut world.next_call_panics);
        let answers = mem::take(&mut world.next_answers);
        ready || call || !answers.is_empty()
    }

    /// Makes each response take `polls` polls more.
    pub(super) fn answer_delay(&self, polls: usize) {
        self.lock().answer_delay = polls;
    }

    /// Answers no request until `release`.
    pub(super) fn hold(&self) {
        let mut world = self.lock();
        world.held = true;
        world.note("(the inner service holds its responses back now)".to_owned());
    }

    /// Answers the requests that were held back.
    pub(super) fn release(&self) {
        let mut world = self.lock();
        world.held = false;
        world.note("(the inner service lets its responses go now)".to_owned());
        let futures = world.futures.values_mut();
        let woken: Vec<Waker> = futures.filter_map(|answer| answer.waiting.take()).collect();
        drop(world);
        woken.into_iter().for_each(Waker::wake);
    }

    /// How many requests the inner service was called with.
    pub(super) fn calls(&self) -> usize {
        self.lock().calls
    }

    /// The most reservations and requests in flight that there were at once.
    pub(super) fn most_places(&self) -> usize {
        self.lock().most_places
    }

    /// How many handles hold a reservation.
    pub(super) fn reserved(&self) -> usize {
        let world = self.lock();
        world.handles.values().filter(|h| h.reserved).count()
    }

    /// How many handles there are.
    pub(super) fn handles(&self) -> usize {
        self.lock().handles.len()
    }

    /// How many response futures there are.
    pub(super) fn futures(&self) -> usize {
        self.lock().futures.len()
    }

    pub(super) fn breaches(&self) -> Vec<Breach> {
        self.lock().breaches.clone()
    }

    pub(super) fn note(&self, what: impl Into<String>) {
        self.lock().note(what.into());
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// Wakes the handles that wait, if there is anything to be had. Never under the lock: a waker
    /// may do whatever it likes.
    fn wake_waiting(&self) {
        let mut world = self.lock();
        if !world.has_capacity() {
            return;
        }
        let woken = world.all_waiting();
        drop(world);
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fails => "fails",
            Self::Panics => "panics",
        })
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CalledUnready { handle } => write!(
                f,
                "inner {handle} was called, though no poll_ready on this handle had said ready \
                 since its last call"
            ),
            Self::PolledAfterDone { future } => {
                write!(f, "inner future {future} was polled after it was done")
            }
        }
    }
}

impl World {
    fn new_handle(&mut self, how: &str) -> usize {
        let id = self.new_id();
        self.handles.insert(id, Handle::default());
        self.note(format!("  inner {id}: {how}"));
        id
    }

    fn new_id(&mut self) -> usize {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn has_capacity(&self) -> bool {
        self.places() < self.capacity
    }

    /// How many reservations and requests in flight there are.
    fn places(&self) -> usize {
        let reserved = self.handles.values().filter(|h| h.reserved).count();
        reserved + self.futures.values().filter(|f| f.permit).count()
    }

    fn all_waiting(&mut self) -> Vec<Waker> {
        let handles = self.handles.values_mut();
        handles.filter_map(|handle| handle.waiting.take()).collect()
    }

    /// Says how it went, and gives the waker that `waker` replaces.
    fn poll_ready(&mut self, id: usize, waker: &Waker) -> (Said, Option<Waker>) {
        let has_capacity = self.has_capacity();
        let in_two = self.ready_in_two;
        let fate = self.next_ready.take();
        let handle = self.handles.entry(id).or_default();
        if let Some(fate) = fate {
            handle.reserved = false;
            self.note(format!("  inner {id}: poll_ready {fate}"));
            return (Said::Ready(Some(fate)), None);
        }
        if handle.reserved {
            self.note(format!("  inner {id}: poll_ready is ready still"));
            return (Said::Ready(None), None);
        }
        if !has_capacity {
            let before = handle.waiting.replace(waker.clone());
            self.note(format!("  inner {id}: poll_ready is pending"));
            return (Said::Pending, before);
        }
        if in_two && !handle.asked {
            handle.asked = true;
            self.note(format!(
                "  inner {id}: poll_ready is pending, wakes at once"
            ));
            return (Said::Again, None);
        }
        handle.asked = false;
        handle.reserved = true;
        let before = handle.waiting.take();
        self.most_places = self.most_places.max(self.places());
        self.note(format!("  inner {id}: poll_ready is ready"));
        (Said::Ready(None), before)
    }

    /// Gives the id of the response, or nothing where the call shall panic.
    fn call(&mut self, id: usize) -> Option<usize> {
        let handle = self.handles.entry(id).or_default();
        let permit = mem::take(&mut handle.reserved);
        let unready = if permit { "" } else { " WITHOUT being ready" };
        if mem::take(&mut self.next_call_panics) {
            self.note_call(id, permit, format!("  inner {id}: called{unready}, panics"));
            return None;
        }
        let future = self.new_id();
        let answer = Answer {
            permit,
            done: false,
            delay: self.answer_delay,
            fate: self.next_answers.pop_front(),
            waiting: None,
        };
        self.calls += 1;
        self.futures.insert(future, answer);
        let what = format!("  inner {id}: called{unready}, makes inner future {future}");
        self.note_call(id, permit, what);
        Some(future)
    }

    fn note_call(&mut self, handle: usize, permit: bool, what: String) {
        self.note(what);
        if !permit {
            self.breach(Deed::CalledUnready { handle });
        }
    }

    /// A breach, of which the last line of the trace tells.
    fn breach(&mut self, deed: Deed) {
        let lines = self.trace.len();
        self.breaches.push(Breach { deed, lines });
    }

    /// Says how it went, and gives the waker that `waker` replaces.
    fn poll_answer(&mut self, id: usize, waker: &Waker) -> (Said, Option<Waker>) {
        let held = self.held;
        let Some(answer) = self.futures.get_mut(&id) else {
            unreachable!("a future is known until it is dropped");
        };
        if answer.done {
            self.note(format!("  inner future {id}: polled AFTER it was done"));
            self.breach(Deed::PolledAfterDone { future: id });
            return (Said::Ready(Some(Fate::Fails)), None);
        }
        if held {
            let before = answer.waiting.replace(waker.clone());
            self.note(format!("  inner future {id}: pending"));
            return (Said::Pending, before);
        }
        if answer.delay > 0 {
            answer.delay -= 1;
            self.note(format!("  inner future {id}: pending, wakes at once"));
            return (Said::Again, None);
        }
        answer.done = true;
        answer.permit = false;
        let fate = answer.fate;
        let before = answer.waiting.take();
        let how = fate.map_or("is done".to_owned(), |fate| fate.to_string());
        self.note(format!("  inner future {id}: {how}"));
        (Said::Ready(fate), before)
    }

    fn note(&mut self, what: String) {
        self.trace.push(what);
    }
}
