//! Who is connected to, in turn, and what becomes of it: a service, or another try later.

use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::future::{AbortHandle, Abortable};
use tower_discover::Discover;
use tower_make::MakeService;
use tower_rng::Rng;
use tower_service::Service;

use super::{Attempt, BoxError, Driver};
use crate::pool::entry::{Draining, Entry};
use crate::pool::gauge::Gauge;
use crate::pool::link::Phase;

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
    /// Starts what may be started, and takes in what is done.
    pub(super) fn connect(&mut self, cx: &mut Context<'_>) {
        loop {
            self.start_attempts(cx);
            match Pin::new(&mut self.connecting).poll_next(cx) {
                Poll::Ready(Some(Some((index, number, result)))) => {
                    self.connected(index, number, result);
                }
                // It was given up.
                Poll::Ready(Some(None)) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn start_attempts(&mut self, cx: &mut Context<'_>) {
        while self.connecting.len() < self.settings.max_connecting {
            let Some(&(index, number)) = self.turns.front() else {
                return;
            };
            let is_due = |entry: &&mut Entry<_, _, _>| {
                entry.number == number
                    && entry.draining == Draining::No
                    && entry.link.phase() == Phase::Queued
            };
            if self.entry(index).filter(is_due).is_none() {
                self.turns.pop_front();
                continue;
            }
            let made = match self.make.poll_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => Ok(()),
                Poll::Ready(Err(error)) => Err(error.into()),
            };
            self.turns.pop_front();
            match made {
                Ok(()) => self.attempt(index),
                Err(error) => self.fault(index, error.to_string().into()),
            }
        }
    }

    fn attempt(&mut self, index: u32) {
        let Some(entry) = self.entry(index) else {
            return;
        };
        entry.link.connect();
        let number = entry.number;
        let target = entry.target.clone();
        let (abort, registration) = AbortHandle::new_pair();
        entry.attempt = Some(abort);
        let future = self.make.make_service(target);
        self.connecting.push(Attempt {
            index,
            number,
            future: Abortable::new(future, registration),
        });
        self.set_entry_alarm(index, self.settings.connect_timeout);
        self.show(index);
    }

    fn connected(&mut self, index: u32, number: u64, result: Result<S, Arc<str>>) {
        let Some(entry) = self.entry(index).filter(|entry| entry.number == number) else {
            return;
        };
        entry.attempt = None;
        match result {
            Ok(mut service) => {
                if let Some(endpoint) = self.shared.endpoint(index) {
                    (self.gauges.attach)(&endpoint.member.gauge, &mut service);
                }
                if let Some(entry) = self.entry(index) {
                    entry.arrival = Some(service);
                }
                self.settle(index);
            }
            Err(failure) => self.fault(index, failure),
        }
    }

    /// A connection couldn't be made, or is lost.
    pub(super) fn fault(&mut self, index: u32, failure: Arc<str>) {
        let (now, random) = (self.now, self.rng.next_f64());
        let backoff = self.settings.backoff;
        tracing::debug!(%failure, "endpoint failed");
        self.shared.metrics.failed();
        self.roster.failed(failure);
        self.shared.make_unready(index);
        self.clear_alarm(index);
        self.ramping.remove(&index);
        let Some(entry) = self.entry(index) else {
            return;
        };
        if let Some(attempt) = entry.attempt.take() {
            attempt.abort();
        }
        entry.arrival = None;
        self.detach(index);
        let Some(entry) = self.entry(index) else {
            return;
        };
        if entry.draining == Draining::No {
            entry.link.fault(now, &backoff, random);
            let number = entry.number;
            match entry.link.phase() {
                Phase::Queued => self.turns.push_back((index, number)),
                Phase::Down { until } => {
                    self.set_entry_alarm(index, until.duration_since(now));
                }
                Phase::Idle | Phase::Connecting | Phase::Up { .. } => {}
            }
        }
        // Whoever has asked for it waits for another one now.
        if self.shared.is_waited_for() {
            self.want(1);
        }
        self.show(index);
        self.weigh_panic();
    }
}
