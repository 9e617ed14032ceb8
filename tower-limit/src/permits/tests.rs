use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio_test::task;

/// One who takes permits, on a mock task.
struct Client {
    task: task::Spawn<()>,
    place: Place,
}

enum Place {
    Out,
    Waiting(Waiter),
    Holding(#[allow(dead_code, reason = "held, to be dropped")] Permit),
}

impl Client {
    fn new() -> Self {
        Self {
            task: task::spawn(()),
            place: Place::Out,
        }
    }

    fn poll(&mut self, permits: &Permits) -> bool {
        let Self { task, place } = self;
        task.enter(|cx, _| match place {
            Place::Holding(_) => {}
            Place::Out => {
                *place = match permits.acquire(cx) {
                    Ok(permit) => Place::Holding(permit),
                    Err(waiter) => Place::Waiting(waiter),
                }
            }
            Place::Waiting(waiter) => {
                if let Poll::Ready(permit) = waiter.poll(cx) {
                    *place = Place::Holding(permit);
                }
            }
        });
        matches!(self.place, Place::Holding(_))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Poll(usize),
    Try(usize),
    Drop(usize),
}

/// The same rules, without any cleverness.
struct Oracle {
    free: usize,
    queue: VecDeque<usize>,
    /// Holders, and waiters that a permit was passed to.
    granted: [bool; CLIENTS],
}

const CLIENTS: usize = 5;

impl Oracle {
    fn take(&mut self, client: usize) -> bool {
        if !self.granted[client] && !self.queue.contains(&client) && self.free > 0 {
            self.free -= 1;
            self.granted[client] = true;
        }
        self.granted[client]
    }

    fn poll(&mut self, client: usize) -> bool {
        let granted = self.take(client);
        if !granted && !self.queue.contains(&client) {
            self.queue.push_back(client);
        }
        granted
    }

    fn drop(&mut self, client: usize) {
        self.queue.retain(|&other| other != client);
        if mem::take(&mut self.granted[client]) {
            match self.queue.pop_front() {
                Some(next) => self.granted[next] = true,
                None => self.free += 1,
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..CLIENTS, 0..4_u8).prop_map(|(client, kind)| match kind {
        0 | 1 => Step::Poll(client),
        2 => Step::Try(client),
        _ => Step::Drop(client),
    });
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn agrees_with_a_naive_oracle(max in 0..4_usize, steps in steps()) {
        let permits = Permits::new(max);
        let mut clients: [Client; CLIENTS] = std::array::from_fn(|_| Client::new());
        let mut oracle = Oracle { free: max, queue: VecDeque::new(), granted: [false; CLIENTS] };
        for step in steps {
            match step {
                Step::Poll(i) => prop_assert_eq!(clients[i].poll(&permits), oracle.poll(i)),
                Step::Try(i) => {
                    if let Place::Out = clients[i].place {
                        let permit = permits.try_acquire();
                        prop_assert_eq!(permit.is_some(), oracle.take(i));
                        if let Some(permit) = permit {
                            clients[i].place = Place::Holding(permit);
                        }
                    }
                }
                Step::Drop(i) => {
                    clients[i] = Client::new();
                    oracle.drop(i);
                }
            }
            for (i, client) in clients.iter().enumerate() {
                // A waiter that was given a permit has been told.
                if let Place::Waiting(_) = client.place {
                    prop_assert_eq!(client.task.is_woken(), oracle.granted[i]);
                }
            }
            prop_assert_eq!(permits.available(), oracle.free);
        }
    }
}

/// Releases a permit when it is woken, or dropped.
struct Releases(Mutex<Option<Permit>>);

impl std::task::Wake for Releases {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().take();
    }
}

#[test]
fn a_waker_that_is_woken_may_release_a_permit_of_the_same_pool() {
    let permits = Permits::new(2);
    let first = permits.try_acquire().unwrap();
    let second = Mutex::new(permits.try_acquire());
    let waker = Waker::from(Arc::new(Releases(second)));
    let waiter = permits.acquire(&mut Context::from_waker(&waker));
    assert!(waiter.is_err());
    drop(first);
    assert_eq!(permits.available(), 1);
    drop(waiter);
    assert_eq!(permits.available(), 2);
}

#[test]
fn a_waker_that_is_dropped_may_release_a_permit_of_the_same_pool() {
    let permits = Permits::new(1);
    let held = Mutex::new(permits.try_acquire());
    let waker = Waker::from(Arc::new(Releases(held)));
    let mut waiter = permits
        .acquire(&mut Context::from_waker(&waker))
        .unwrap_err();
    drop(waker);
    // The first poll replaces the waker, whose permit goes to the waiter itself.
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiter.poll(&mut cx).is_pending());
    assert!(waiter.poll(&mut cx).is_ready());
}

#[test]
fn a_permit_outlives_its_pool_whose_slot_is_used_again_after_it() {
    let is_same = |permits: &Permits, slot: &'static Slot| std::ptr::eq(permits.slot, slot);
    let permits = Permits::new(3);
    let slot = permits.slot;
    let (first, second) = (permits.try_acquire(), permits.clone().try_acquire());
    drop((permits, first));
    assert_eq!(slot.lock().retiring, Some(1));
    // Not while a permit is out. (Other tests use slots at the same time, so ask only for this one.)
    assert!(!is_same(&Permits::new(1), slot));
    drop(second);
    for max in 0..3 {
        let permits = Permits::new(max);
        assert_eq!(permits.available(), max);
        let held: Vec<_> = std::iter::from_fn(|| permits.try_acquire()).collect();
        assert_eq!(held.len(), max);
    }
}

#[test]
fn slots_are_not_mixed_up_by_threads() {
    std::thread::scope(|scope| {
        for seed in 1..5_usize {
            scope.spawn(move || {
                for i in 0..500 {
                    let max = (i * seed) % 4 + 1;
                    let permits = Permits::new(max);
                    let held: Vec<_> = std::iter::from_fn(|| permits.try_acquire()).collect();
                    assert_eq!(held.len(), max);
                    let other = std::thread::spawn(move || drop(held));
                    drop(permits);
                    if i % 2 == 0 {
                        other.join().unwrap();
                    }
                }
            });
        }
    });
}

#[test]
fn the_greatest_limit_is_no_overflow() {
    let permits = Permits::new(usize::MAX);
    assert_eq!(permits.available(), Permits::MAX);
    drop(permits.try_acquire());
    assert_eq!(permits.available(), Permits::MAX);
}
