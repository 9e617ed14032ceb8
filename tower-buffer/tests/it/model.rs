//! A buffer beside a naive model of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio_test::task;
use tower_buffer::{AtCapacity, BufferLayer, ResponseFuture};
use tower_service::Service;

/// A service that is ready as often as allowed, and says what it served.
#[derive(Default)]
struct Script {
    allowed: u32,
    served: Vec<u32>,
    waker: Option<Waker>,
}

struct Scripted(Arc<Mutex<Script>>);

impl Service<u32> for Scripted {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let mut script = self.0.lock().unwrap();
        if script.allowed > 0 {
            return Poll::Ready(Ok(()));
        }
        script.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, req: u32) -> Self::Future {
        let mut script = self.0.lock().unwrap();
        script.allowed -= 1;
        script.served.push(req);
        ready(Ok(req))
    }
}

/// What a buffer is, with no regard to speed.
struct Model {
    bound: usize,
    limit: usize,
    allowed: u32,
    line: VecDeque<u32>,
    reserved: Vec<usize>,
    waiting: VecDeque<usize>,
    served: Vec<u32>,
    /// Requests whose response is neither there nor dropped.
    in_flight: Vec<u32>,
}

impl Model {
    fn has_room(&self) -> bool {
        let slots = self.reserved.len() + self.line.len().saturating_sub(1);
        slots < self.bound && self.reserved.len() + self.in_flight.len() < self.limit
    }

    /// Serves the line, and gives free slots to those that wait.
    fn settle(&mut self) {
        while self.allowed > 0 {
            let Some(req) = self.line.pop_front() else {
                break;
            };
            self.allowed -= 1;
            self.served.push(req);
        }
        while self.has_room() {
            let Some(handle) = self.waiting.pop_front() else {
                break;
            };
            self.reserved.push(handle);
        }
    }

    fn poll_ready(&mut self, handle: usize) -> bool {
        if !self.reserved.contains(&handle) && !self.waiting.contains(&handle) {
            self.waiting.push_back(handle);
        }
        self.settle();
        self.reserved.contains(&handle)
    }

    fn call(&mut self, handle: usize, req: u32) -> bool {
        let reserved = self.reserved.contains(&handle);
        self.waiting.retain(|&h| h != handle);
        self.reserved.retain(|&h| h != handle);
        let taken = reserved || self.waiting.is_empty() && self.has_room();
        if taken {
            self.line.push_back(req);
            self.in_flight.push(req);
        }
        self.settle();
        taken
    }

    fn forget_handle(&mut self, handle: usize) {
        self.waiting.retain(|&h| h != handle);
        self.reserved.retain(|&h| h != handle);
        self.settle();
    }

    fn end(&mut self, req: u32) {
        self.line.retain(|&r| r != req);
        self.in_flight.retain(|&r| r != req);
        self.settle();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Clone(usize),
    DropHandle(usize),
    PollReady(usize),
    Call(usize),
    PollResponse(usize),
    DropResponse(usize),
    Allow(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..6_usize;
    prop_oneof![
        1 => at().prop_map(Step::Clone),
        1 => at().prop_map(Step::DropHandle),
        4 => at().prop_map(Step::PollReady),
        4 => at().prop_map(Step::Call),
        3 => at().prop_map(Step::PollResponse),
        2 => at().prop_map(Step::DropResponse),
        2 => (1..4_u32).prop_map(Step::Allow),
    ]
}

proptest! {
    #[test]
    fn a_buffer_does_what_the_naive_model_does(
        bound in 1..4_usize,
        limit in prop::option::of(1..5_usize),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut layer = BufferLayer::new(bound);
        if let Some(limit) = limit {
            layer = layer.with_in_flight_limit(limit);
        }
        let script = Arc::new(Mutex::new(Script::default()));
        let (buffer, worker) = layer.pair(Scripted(Arc::clone(&script)));
        let mut worker = task::spawn(worker);
        prop_assert!(worker.poll().is_pending());
        let mut model = Model {
            bound,
            limit: limit.unwrap_or(usize::MAX),
            allowed: 0,
            line: VecDeque::new(),
            reserved: Vec::new(),
            waiting: VecDeque::new(),
            served: Vec::new(),
            in_flight: Vec::new(),
        };
        let mut handles = vec![(0, buffer)];
        let mut responses: Vec<(u32, ResponseFuture<_>)> = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());

        for (name, step) in (1..).zip(steps) {
            match step {
                Step::Clone(at) if at < handles.len() => {
                    let clone = handles[at].1.clone();
                    handles.push((name, clone));
                }
                Step::DropHandle(at) if at < handles.len() && handles.len() > 1 => {
                    let (handle, _) = handles.remove(at);
                    model.forget_handle(handle);
                }
                Step::PollReady(at) if at < handles.len() => {
                    let (handle, buffer) = &mut handles[at];
                    let ready = buffer.poll_ready(&mut cx).is_ready();
                    prop_assert_eq!(ready, model.poll_ready(*handle));
                }
                Step::Call(at) if at < handles.len() => {
                    let (handle, buffer) = &mut handles[at];
                    let req = u32::try_from(name).unwrap();
                    let mut response = buffer.call(req);
                    if model.call(*handle, req) {
                        responses.push((req, response));
                    } else {
                        let response = Pin::new(&mut response).poll(&mut cx);
                        let Poll::Ready(Err(error)) = response else {
                            panic!("{response:?}");
                        };
                        prop_assert!(error.is::<AtCapacity>());
                    }
                }
                Step::PollResponse(at) if at < responses.len() => {
                    let (req, response) = &mut responses[at];
                    let req = *req;
                    let response = Pin::new(response).poll(&mut cx);
                    prop_assert_eq!(response.is_ready(), model.served.contains(&req));
                    if let Poll::Ready(response) = response {
                        prop_assert_eq!(response.unwrap(), req);
                        model.end(req);
                        drop(responses.remove(at));
                    }
                }
                Step::DropResponse(at) if at < responses.len() => {
                    let (req, _) = responses.remove(at);
                    model.end(req);
                }
                Step::Allow(more) => {
                    let waker = {
                        let mut script = script.lock().unwrap();
                        script.allowed += more;
                        script.waker.take()
                    };
                    waker.into_iter().for_each(Waker::wake);
                    model.allowed += more;
                    model.settle();
                }
                _ => {}
            }
            // A worker that isn't woken isn't run.
            if worker.is_woken() {
                prop_assert!(worker.poll().is_pending());
            }
            prop_assert_eq!(&script.lock().unwrap().served, &model.served);
        }
    }
}
