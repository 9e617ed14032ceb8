//! The task of a pool: it follows discovery, makes connections, and decides who is ready.
//!
//! All that it decides about an endpoint is written down in its [`Entry`]; [`Driver::settle`] then brings the
//! endpoint into line with it, and may be called again at any time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Abortable, Aborted};
use futures_util::stream::FuturesUnordered;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_close::Signal;
use tower_discover::{Change, Discover};
use tower_make::MakeService;
use tower_rng::SplitMix64;
use tower_service::Service;

use super::alarms::{AlarmId, Alarms};
use super::builder::Settings;
use super::entry::{Draining, Entries, Entry};
use super::gauge::{Gauge, Gauges};
use super::latch::TurnedAway;
use super::link::{LEAST_SHARE, Phase};
use super::numbers::Metrics;
use super::observe::Newcomers;
use super::roster::Roster;
use super::shared::{Shared, panicked};
use super::shortage::{Census, Reason};

mod connections;
mod health;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How many changes of discovery are taken in before other tasks have their turn.
const CHANGES_AT_ONCE: usize = 128;

/// How often the share of a new endpoint grows.
const RAMP_STEPS: u32 = 10;

pub(super) struct Driver<D, M, S, G, Req>
where
    D: Discover,
    M: MakeService<D::Service, Req, Service = S>,
    G: Gauge,
{
    settings: Settings,
    gauges: Gauges<G, S>,
    shared: Arc<Shared<S, G>>,
    roster: Roster<D::Key>,
    /// None once it has ended.
    discover: Option<Pin<Box<D>>>,
    /// It has failed, and is asked again after a while, however often the task is woken meanwhile.
    is_discovery_resting: bool,
    make: M,
    /// By the indices of the endpoints.
    entries: Entries<D::Key, D::Service, S>,
    free: Vec<u32>,
    keys: HashMap<D::Key, u32>,
    /// Those whose turn to connect will come, with a number that tells those that have gone meanwhile.
    turns: VecDeque<(u32, u64)>,
    connecting: FuturesUnordered<Attempt<Abortable<M::Future>>>,
    ejected: BTreeSet<u32>,
    idle: BTreeSet<u32>,
    ramping: BTreeSet<u32>,
    is_ramp_set: bool,
    /// What those that have been up for longest get of their share, where all are new.
    top_share: f32,
    is_panicking: bool,
    alarms: Alarms<Alarm>,
    /// Numbers the entries.
    counter: u64,
    rng: SplitMix64,
    now: Instant,
    _request: PhantomData<fn(Req)>,
}

#[derive(Clone, Copy)]
enum Alarm {
    /// Connecting takes too long, a backoff is over, or draining takes too long.
    Entry(u32),
    Outliers,
    Idle,
    Ramp,
    /// The numbers are told again.
    Census,
    /// Discovery may be asked again after an error.
    Discovery,
}

pin_project! {
    /// The making of a connection.
    struct Attempt<F> {
        index: u32,
        number: u64,
        #[pin]
        future: F,
    }
}

impl<D, M, S, G, Req> Driver<D, M, S, G, Req>
where
    D: Discover,
    D::Key: Hash + Clone,
    D::Error: Into<BoxError>,
    D::Service: Clone,
    M: MakeService<D::Service, Req, Service = S>,
    M::MakeError: Into<BoxError>,
    S: Service<Req>,
    S::Error: Into<BoxError>,
    G: Gauge,
{
    pub(super) fn new(
        discover: D,
        make: M,
        gauges: Gauges<G, S>,
        settings: Settings,
        rng: SplitMix64,
        shared: Arc<Shared<S, G>>,
        newcomers: Arc<Newcomers<D::Key>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            settings,
            gauges,
            shared,
            roster: Roster::new(newcomers),
            discover: Some(Box::pin(discover)),
            is_discovery_resting: false,
            make,
            entries: Vec::new(),
            free: Vec::new(),
            keys: HashMap::new(),
            turns: VecDeque::new(),
            connecting: FuturesUnordered::new(),
            ejected: BTreeSet::new(),
            idle: BTreeSet::new(),
            ramping: BTreeSet::new(),
            is_ramp_set: false,
            top_share: LEAST_SHARE,
            is_panicking: false,
            alarms: Alarms::new(),
            counter: 0,
            rng,
            now,
            _request: PhantomData,
        }
    }

    /// Works until it is closed and nothing is left to do.
    pub(super) async fn run(mut self, mut signal: Signal) {
        self.tell_census();
        if let Some(ejection) = self.settings.ejection {
            self.set_alarm(ejection.interval(), Alarm::Outliers);
        }
        if let Some(most) = self.settings.idle_timeout {
            self.set_alarm(most / 2, Alarm::Idle);
        }
        tokio::select! {
            biased;
            _ = signal.closing() => {}
            () = poll_fn(|cx| self.poll(cx)) => {}
        }
        self.shared.begin_closing();
        // Those that wait still get what they came for; the deadline is the signal's.
        poll_fn(|cx| match self.poll(cx) {
            Poll::Pending if self.shared.waiting() > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
        self.discover = None;
        for index in 0..self.entries.len() as u32 {
            self.drain(index);
        }
        poll_fn(|cx| {
            let polled = self.poll(cx);
            if self.entries.iter().all(Option::is_none) {
                return Poll::Ready(());
            }
            polled
        })
        .await;
    }

    /// Does what there is to do. It has never done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.wakes.register(cx.waker());
        self.now = Instant::now();
        self.roster.take_newcomers();
        self.follow_discovery(cx);
        self.look_at_woken();
        self.serve_demand();
        loop {
            self.connect(cx);
            // Connecting sets alarms, and alarms have it connect.
            if !self.ring_alarms(cx) {
                break;
            }
        }
        self.catch_observers_up();
        self.publish();
        Poll::Pending
    }

    // Discovery.

    fn follow_discovery(&mut self, cx: &mut Context<'_>) {
        if self.is_discovery_resting {
            return;
        }
        for _ in 0..CHANGES_AT_ONCE {
            let Some(discover) = &mut self.discover else {
                return;
            };
            match discover.as_mut().poll_discover(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(Change::Insert(key, target)))) => self.insert(key, target),
                Poll::Ready(Some(Ok(Change::Remove(key)))) => self.remove(&key),
                Poll::Ready(Some(Err(error))) => {
                    let error: BoxError = error.into();
                    tracing::debug!(%error, "discovery failed");
                    self.roster
                        .failed(format!("discovery failed: {error}").into());
                    // One that fails over and over must not keep the task busy.
                    self.is_discovery_resting = true;
                    self.set_alarm(self.settings.backoff.min, Alarm::Discovery);
                    return;
                }
                Poll::Ready(None) => {
                    self.discover = None;
                    self.roster.touch();
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    fn insert(&mut self, key: D::Key, target: D::Service) {
        let index = self.free.pop().unwrap_or(self.entries.len() as u32);
        let replaced = self.keys.insert(key.clone(), index);
        let predecessor = replaced.and_then(|old| self.give_way(old));
        self.counter += 1;
        let entry = Entry::new(key, target, self.counter, predecessor);
        self.shared.settle(index, &self.gauges.first);
        self.turns.push_back((index, entry.number));
        match self.entries.get_mut(index as usize) {
            Some(place) => *place = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        self.show(index);
    }

    /// The endpoint that goes on until the one that replaces `index` is ready: that, or its own predecessor.
    fn give_way(&mut self, index: u32) -> Option<u32> {
        let entry = self.entry(index)?;
        if matches!(entry.link.phase(), Phase::Up { .. }) {
            return Some(index);
        }
        let predecessor = entry.predecessor.take();
        self.drain(index);
        predecessor
    }

    fn remove(&mut self, key: &D::Key) {
        if let Some(index) = self.keys.remove(key) {
            self.drain(index);
        }
    }

    /// Sends nothing to an endpoint any more, and drops it when its requests have ended.
    fn drain(&mut self, index: u32) {
        let Some(entry) = self.entry(index) else {
            return;
        };
        if entry.draining != Draining::No {
            return;
        }
        entry.draining = Draining::Yes;
        entry.arrival = None;
        if let Some(attempt) = entry.attempt.take() {
            attempt.abort();
        }
        let predecessor = entry.predecessor.take();
        self.shared.make_unready(index);
        self.ejected.remove(&index);
        self.idle.remove(&index);
        self.ramping.remove(&index);
        if let Some(endpoint) = self.shared.endpoint(index) {
            endpoint.drain();
        }
        self.clear_alarm(index);
        self.show(index);
        self.settle(index);
        if self.entry(index).is_some() {
            self.set_entry_alarm(index, self.settings.drain_timeout);
        }
        if let Some(predecessor) = predecessor {
            self.drain(predecessor);
        }
        self.weigh_panic();
    }

    // Endpoints.

    fn detach(&self, index: u32) {
        if let Some(endpoint) = self.shared.endpoint(index) {
            (self.gauges.detach)(&endpoint.member.gauge);
        }
    }

    fn look_at_woken(&mut self) {
        for index in self.shared.wakes.take() {
            let Some(endpoint) = self.shared.endpoint(index) else {
                continue;
            };
            endpoint.looked_at();
            if endpoint.take_suspicion() {
                self.eject(index);
            }
            self.settle(index);
        }
    }

    /// Brings an endpoint into line with what is decided about it. If somebody has its latch, that one has
    /// this called again.
    fn settle(&mut self, index: u32) {
        let shared = Arc::clone(&self.shared);
        let (now, is_panicking) = (self.now, self.is_panicking);
        let Some(endpoint) = shared.endpoint(index) else {
            return;
        };
        let Some(entry) = self.entry(index) else {
            return;
        };
        let Some(mut visit) = shared.visit(index, TurnedAway::DRIVER) else {
            return;
        };
        let is_unused = endpoint.member.is_unused();
        let is_over = match entry.draining {
            Draining::No => entry.link.phase() == Phase::Idle,
            Draining::Yes => is_unused,
            Draining::Over => true,
        };
        let arrival = entry.arrival.take();
        let mut dropped = None;
        if let Some(seat) = visit.seat() {
            if arrival.is_some() {
                seat.failure = None;
                dropped = mem::replace(&mut seat.service, arrival);
            }
            if is_over {
                dropped = seat.service.take();
            }
        }
        let polled = match entry.draining {
            Draining::No if !is_over => visit.poll_guarded::<Req>(),
            _ => Poll::Pending,
        };
        visit.is_well();
        let is_proved = polled == Poll::Ready(true) && entry.link.proved(now);
        let is_usable = entry.record.ejected_at.is_none() || is_panicking;
        if polled == Poll::Ready(true) && is_usable {
            shared.make_ready(index);
        } else if entry.draining == Draining::No && !is_usable {
            shared.make_unready(index);
        }
        let failure = visit.seat().and_then(|seat| seat.failure.take());
        drop(visit);
        if is_over {
            self.detach(index);
        }
        drop(dropped);
        if let Some(failure) = failure {
            self.fault(index, failure);
        } else if is_proved {
            self.proved(index);
        }
        self.free_drained(index, is_unused);
    }

    /// An endpoint is ready for the first time since it was connected to.
    fn proved(&mut self, index: u32) {
        self.clear_alarm(index);
        self.begin_ramp(index);
        self.show(index);
        let predecessor = self.entry(index).and_then(|entry| entry.predecessor.take());
        if let Some(predecessor) = predecessor {
            self.drain(predecessor);
        }
        self.weigh_panic();
    }

    /// Forgets an endpoint that has drained.
    fn free_drained(&mut self, index: u32, is_unused: bool) {
        let is_drained = |entry: &&mut Entry<_, _, _>| entry.draining != Draining::No;
        if !is_unused || self.entry(index).filter(is_drained).is_none() {
            return;
        }
        self.clear_alarm(index);
        if let Some(entry) = self.entries[index as usize].take() {
            self.roster.changed(&entry.key, entry.shown, None);
            self.free.push(index);
        }
    }

    fn entry(&mut self, index: u32) -> Option<&mut Entry<D::Key, D::Service, S>> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    // Alarms.

    fn set_alarm(&mut self, after: Duration, alarm: Alarm) -> Option<AlarmId> {
        self.alarms.set(self.now, after, alarm)
    }

    fn set_entry_alarm(&mut self, index: u32, after: Duration) {
        self.clear_alarm(index);
        let alarm = self.set_alarm(after, Alarm::Entry(index));
        if let Some(entry) = self.entry(index) {
            entry.alarm = alarm;
        }
    }

    fn clear_alarm(&mut self, index: u32) {
        if let Some(alarm) = self.entry(index).and_then(|entry| entry.alarm.take()) {
            self.alarms.clear(alarm);
        }
    }

    /// Rings those that are due, and waits for the next. Says whether any was due.
    fn ring_alarms(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_rung = false;
        loop {
            while let Some(alarm) = self.alarms.take_due(self.now) {
                self.ring(alarm, cx);
                has_rung = true;
            }
            match self.alarms.poll(cx) {
                Poll::Pending => return has_rung,
                Poll::Ready(at) => self.now = Instant::now().max(at),
            }
        }
    }

    fn ring(&mut self, alarm: Alarm, cx: &mut Context<'_>) {
        match alarm {
            Alarm::Outliers => self.sweep_outliers(),
            Alarm::Idle => self.retire_unused(),
            Alarm::Ramp => self.ramp(),
            Alarm::Census => self.tell_census(),
            Alarm::Discovery => {
                self.is_discovery_resting = false;
                self.follow_discovery(cx);
            }
            Alarm::Entry(index) => {
                let now = self.now;
                let Some(entry) = self.entry(index) else {
                    return;
                };
                entry.alarm = None;
                if entry.draining != Draining::No {
                    entry.draining = Draining::Over;
                    self.settle(index);
                } else if entry.link.retry(now) {
                    let turn = (index, entry.number);
                    self.turns.push_back(turn);
                } else if entry.link.phase() == Phase::Connecting {
                    // It never became ready, and so nobody but this task enters it.
                    self.shared.drop_service(index);
                    let bound = self.settings.connect_timeout;
                    self.fault(index, format!("not connected within {bound:?}").into());
                }
            }
        }
    }

    // What is told.

    /// Tells the numbers again, if they are told at all.
    fn tell_census(&mut self) {
        self.shared.metrics.census(self.roster.census());
        if let Some(every) = Metrics::EVERY {
            self.set_alarm(every, Alarm::Census);
        }
    }

    /// Tells a change of an endpoint's state, if there is one.
    fn show(&mut self, index: u32) {
        let Some(Some(entry)) = self.entries.get_mut(index as usize) else {
            return;
        };
        let state = entry.state();
        let shown = entry.shown.replace(state);
        if shown != Some(state) {
            self.roster.changed(&entry.key, shown, Some(state));
        }
    }

    fn catch_observers_up(&mut self) {
        let entries = &self.entries;
        self.roster.catch_observers_up(|| {
            let known = entries.iter().flatten();
            known
                .filter_map(|entry| Some((entry.key.clone(), entry.shown?)))
                .collect()
        });
    }

    /// Lets callers know why nothing is ready.
    fn publish(&mut self) {
        let Some(report) = self.roster.take_report() else {
            return;
        };
        self.shared.metrics.census(&report.census);
        *self.shared.report() = report;
        // Whoever waits then waits in vain.
        let is_empty = self.discover.is_none() && self.known() == 0;
        if is_empty && !self.shared.is_closing() {
            self.shared.close(Reason::NoneLeft);
        }
    }
}

impl<D, M, S, G, Req> Drop for Driver<D, M, S, G, Req>
where
    D: Discover,
    M: MakeService<D::Service, Req, Service = S>,
    G: Gauge,
{
    fn drop(&mut self) {
        self.shared.metrics.census(&Census::default());
        // Whether it has panicked its owner knows.
        self.shared.close(Reason::Closed);
        // Cut off or aborted, it leaves services behind, which handles would keep.
        self.shared.abandon();
        for index in 0..self.entries.len() as u32 {
            if let Some(endpoint) = self.shared.endpoint(index) {
                (self.gauges.detach)(&endpoint.member.gauge);
            }
            self.shared.make_unready(index);
            self.shared.drop_service(index);
        }
    }
}

impl<F, T, E> Future for Attempt<Abortable<F>>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    /// None if it was given up; else what was made, or why nothing was.
    type Output = Option<(u32, u64, Result<T, Arc<str>>)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let poll = || this.future.poll(cx);
        // A panic is the failure of one endpoint. The future isn't polled again.
        let made = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(polled) => match ready!(polled) {
                Ok(made) => made.map_err(|error| error.into().to_string().into()),
                Err(Aborted) => return Poll::Ready(None),
            },
            Err(panic) => Err(panicked("connecting", &*panic)),
        };
        Poll::Ready(Some((*this.index, *this.number, made)))
    }
}

impl<D, M, S, G, Req> fmt::Debug for Driver<D, M, S, G, Req>
where
    D: Discover,
    M: MakeService<D::Service, Req, Service = S>,
    G: Gauge,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("census", self.roster.census())
            .finish_non_exhaustive()
    }
}
