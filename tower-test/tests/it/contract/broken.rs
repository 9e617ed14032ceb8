//! For each rule a middleware that breaks it, and no other.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::mem;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::sleep;
use tower_test::contract::{self, Inner, Response, Rule};

use super::{BoxError, Hand, Reply, broken, call, call_inner, poll_inner, ready};

#[track_caller]
fn breaks<T: Clone + 'static>(rule: Rule, subject: impl Fn(Inner) -> Hand<T>) {
    let report = contract::check(subject);
    assert_eq!(broken(&report), [rule], "{report}");
    let said = report.to_string();
    for words in [rule.id(), rule.statement(), rule.reason(), rule.mend()] {
        assert!(said.contains(words), "{said}");
    }
}

/// A state that isn't passed on to clones.
#[derive(Default)]
struct Own<T>(T);

impl<T: Default> Clone for Own<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A limit of two, whose places are taken and given back by hand.
#[derive(Clone)]
struct Gate {
    state: Arc<Mutex<GateState>>,
    wake: fn(&mut VecDeque<Waker>) -> Vec<Waker>,
    mine: Own<Option<Place>>,
}

struct GateState {
    free: usize,
    waiting: VecDeque<Waker>,
}

/// Gives its place back when dropped.
struct Place {
    state: Arc<Mutex<GateState>>,
    wake: fn(&mut VecDeque<Waker>) -> Vec<Waker>,
}

impl Gate {
    fn new(wake: fn(&mut VecDeque<Waker>) -> Vec<Waker>) -> Self {
        let state = GateState {
            free: 2,
            waiting: VecDeque::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            wake,
            mine: Own(None),
        }
    }

    fn fair() -> Self {
        Self::new(|waiting| waiting.drain(..).collect())
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Place> {
        let mut state = self.state.lock().unwrap();
        if state.free == 0 {
            state.waiting.push_back(cx.waker().clone());
            return Poll::Pending;
        }
        state.free -= 1;
        Poll::Ready(self.place())
    }

    /// A place that was taken.
    fn place(&self) -> Place {
        Place {
            state: Arc::clone(&self.state),
            wake: self.wake,
        }
    }

    /// Takes a place for this handle, then polls the inner service.
    fn ready(
        inner: &mut Inner,
        gate: &mut Self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        if gate.mine.0.is_none() {
            let Poll::Ready(place) = gate.poll_take(cx) else {
                return Poll::Pending;
            };
            gate.mine.0 = Some(place);
        }
        poll_inner(inner, cx)
    }

    /// Holds the place until the response is dropped.
    fn call(inner: &mut Inner, gate: &mut Self) -> Reply {
        let place = gate.mine.0.take();
        let reply = call_inner(inner);
        Box::pin(async move {
            let _place = place;
            reply.await
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let woken = {
            let mut state = self.state.lock().unwrap();
            state.free += 1;
            (self.wake)(&mut state.waiting)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

#[test]
fn a_limit_without_a_mistake_keeps_every_rule() {
    contract::check(|inner| Hand {
        inner,
        state: Gate::fair(),
        ready: Gate::ready,
        call: Gate::call,
    })
    .assert();
}

#[test]
fn ordinary_request_bites_where_nothing_is_answered() {
    breaks(Rule::OrdinaryRequest, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |_, ()| Box::pin(async { Err("no".into()) }),
    });
}

#[test]
fn the_trace_of_a_breach_ends_with_it() {
    let report = contract::check(|inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| call_inner(&mut inner.clone()),
    });
    let violation = &report.violations()[0];
    let (seen, last) = (violation.observed(), violation.trace().last().unwrap());
    let who = seen.split(" was called").next().unwrap();
    assert!(
        last.contains(&format!("{who}: called WITHOUT being ready")),
        "{report}"
    );
}

#[test]
fn calls_what_is_ready_bites_where_call_clones() {
    breaks(Rule::CallsWhatIsReady, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let mut inner = inner.clone();
            Box::pin(async move { call_inner(&mut inner).await })
        },
    });
}

#[test]
fn calls_what_is_ready_bites_where_readiness_is_not_asked_for() {
    breaks(Rule::CallsWhatIsReady, |inner| Hand {
        inner,
        state: (),
        ready: |_, (), _| Poll::Ready(Ok(())),
        call,
    });
}

#[test]
fn calls_what_is_ready_bites_where_pending_is_taken_for_ready() {
    breaks(Rule::CallsWhatIsReady, |inner| Hand {
        inner,
        state: (),
        ready: |inner, (), cx| match poll_inner(inner, cx) {
            Poll::Pending => Poll::Ready(Ok(())),
            ready => ready,
        },
        call,
    });
}

#[test]
fn keeps_waker_bites_where_readiness_is_polled_with_another() {
    breaks(Rule::KeepsWaker, |inner| Hand {
        inner,
        state: (),
        ready: |inner, (), _| poll_inner(inner, &mut Context::from_waker(Waker::noop())),
        call,
    });
}

#[test]
fn keeps_waker_bites_where_a_response_is_polled_by_the_clock() {
    breaks(Rule::KeepsWaker, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let mut reply = call_inner(inner);
            let mut poll_once = move || {
                let mut cx = Context::from_waker(Waker::noop());
                reply.as_mut().poll(&mut cx)
            };
            Box::pin(async move {
                loop {
                    if let Poll::Ready(done) = poll_once() {
                        return done;
                    }
                    sleep(Duration::from_millis(10)).await;
                }
            })
        },
    });
}

#[test]
fn keeps_waker_bites_where_a_response_never_goes_on_by_itself() {
    // It says pending after a change of state, and nothing that it polled has its waker.
    breaks(Rule::KeepsWaker, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let mut reply = call_inner(inner);
            let mut begun = false;
            Box::pin(poll_fn(move |cx| {
                if mem::replace(&mut begun, true) {
                    reply.as_mut().poll(cx)
                } else {
                    Poll::Pending
                }
            }))
        },
    });
}

#[test]
fn wakes_latest_bites_where_the_first_waker_is_kept() {
    breaks(Rule::WakesLatest, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let mut reply = call_inner(inner);
            let mut first = None;
            Box::pin(poll_fn(move |cx| {
                let waker = first.get_or_insert_with(|| cx.waker().clone());
                reply.as_mut().poll(&mut Context::from_waker(waker))
            }))
        },
    });
    breaks(Rule::WakesLatest, |inner| Hand {
        inner,
        state: Own::<Option<Waker>>::default(),
        ready: |inner, first, cx| {
            let waker = first.0.get_or_insert_with(|| cx.waker().clone());
            poll_inner(inner, &mut Context::from_waker(waker))
        },
        call,
    });
}

#[test]
fn spurious_polls_bites_where_polls_are_counted() {
    breaks(Rule::SpuriousPolls, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let mut reply = call_inner(inner);
            let mut polls = 0;
            Box::pin(poll_fn(move |cx| {
                polls += 1;
                match reply.as_mut().poll(cx) {
                    Poll::Pending if polls > 5 => Poll::Ready(Err("too slow".into())),
                    polled => polled,
                }
            }))
        },
    });
}

#[test]
fn call_without_ready_bites_where_call_insists() {
    breaks(Rule::CallWithoutReady, |inner| Hand {
        inner,
        state: Own(false),
        ready: |inner, is_ready, cx| {
            let polled = poll_inner(inner, cx);
            is_ready.0 = polled.is_ready();
            polled
        },
        call: |inner, is_ready| {
            assert!(
                mem::take(&mut is_ready.0),
                "poll_ready must be called first"
            );
            call_inner(inner)
        },
    });
}

#[test]
fn ready_then_drop_bites_where_only_the_future_gives_back() {
    breaks(Rule::ReadyThenDrop, |inner| Hand {
        inner,
        // A permit that was forgotten, and a flag in its stead.
        state: (Gate::fair(), Own(false)),
        ready: |inner, (gate, taken), cx| {
            if !taken.0 {
                let Poll::Ready(place) = gate.poll_take(cx) else {
                    return Poll::Pending;
                };
                mem::forget(place);
                taken.0 = true;
            }
            poll_inner(inner, cx)
        },
        call: |inner, (gate, taken)| {
            if mem::take(&mut taken.0) {
                gate.mine.0 = Some(gate.place());
            }
            Gate::call(inner, gate)
        },
    });
}

#[test]
fn ready_twice_bites_where_each_poll_reserves() {
    /// The clones of the inner service that are ready, and the one that isn't yet.
    #[derive(Default)]
    struct Polled {
        ready: Vec<Inner>,
        pending: Option<Inner>,
    }
    breaks(Rule::ReadyTwice, |inner| Hand {
        inner,
        state: Own::<Polled>::default(),
        ready: |inner, polled, cx| {
            let mut next = polled.0.pending.take().unwrap_or_else(|| inner.clone());
            let ready = poll_inner(&mut next, cx);
            if ready.is_pending() {
                polled.0.pending = Some(next);
            } else {
                polled.0.ready.push(next);
            }
            ready
        },
        call: |inner, polled| {
            let mut ready = mem::take(&mut polled.0).ready;
            match ready.pop() {
                Some(mut inner) => call_inner(&mut inner),
                None => call_inner(inner),
            }
        },
    });
}

#[test]
fn clone_inherits_nothing_bites_where_the_flag_is_cloned() {
    // The clone says ready, on the word of its original.
    breaks(Rule::CloneInheritsNothing, |inner| Hand {
        inner,
        state: false,
        ready: |inner, is_ready, cx| {
            if *is_ready {
                return Poll::Ready(Ok(()));
            }
            let polled = poll_inner(inner, cx);
            *is_ready = matches!(polled, Poll::Ready(Ok(())));
            polled
        },
        call: |inner, is_ready| {
            *is_ready = false;
            call_inner(inner)
        },
    });
    // The clone asks when it is polled, but acts on the word of its original when it is not.
    breaks(Rule::CloneInheritsNothing, |inner| Hand {
        inner,
        state: false,
        ready: |inner, is_ready, cx| {
            let polled = poll_inner(inner, cx);
            *is_ready = matches!(polled, Poll::Ready(Ok(())));
            match polled {
                Poll::Pending => Poll::Ready(Ok(())),
                ready => ready,
            }
        },
        call: |inner, is_ready| {
            if mem::take(is_ready) {
                call_inner(inner)
            } else {
                Box::pin(async { Err("overloaded".into()) })
            }
        },
    });
}

#[test]
fn clones_never_starve_bites_where_a_wake_goes_to_who_left() {
    breaks(Rule::ClonesNeverStarve, |inner| Hand {
        inner,
        state: Gate::new(|waiting| waiting.pop_front().into_iter().collect()),
        ready: Gate::ready,
        call: Gate::call,
    });
}

#[test]
fn clones_never_starve_bites_where_all_wait_in_one_place() {
    breaks(Rule::ClonesNeverStarve, |inner| Hand {
        inner,
        state: Gate::new(|waiting| {
            let last = waiting.pop_back();
            waiting.clear();
            last.into_iter().collect()
        }),
        ready: Gate::ready,
        call: Gate::call,
    });
}

#[test]
fn cancellation_bites_where_only_a_finished_response_gives_its_place_back() {
    breaks(Rule::Cancellation, |inner| Hand {
        inner,
        state: Gate::fair(),
        ready: Gate::ready,
        call: |inner, gate| {
            let reply = call_inner(inner);
            let place = mem::ManuallyDrop::new(gate.mine.0.take());
            Box::pin(async move {
                let done = reply.await;
                drop(mem::ManuallyDrop::into_inner(place));
                done
            })
        },
    });
}

#[test]
fn cancellation_bites_where_the_inner_response_runs_on() {
    breaks(Rule::Cancellation, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let reply = call_inner(inner);
            Box::pin(async move { tokio::spawn(reply).await? })
        },
    });
}

#[test]
fn readiness_error_bites_where_it_is_taken_for_pending() {
    breaks(Rule::ReadinessError, |inner| Hand {
        inner,
        state: (),
        ready: |inner, (), cx| match poll_inner(inner, cx) {
            Poll::Ready(Err(_)) => Poll::Pending,
            polled => polled,
        },
        call,
    });
}

#[test]
fn readiness_error_bites_where_it_is_taken_for_ready() {
    breaks(Rule::ReadinessError, |inner| Hand {
        inner,
        state: (),
        ready: |inner, (), cx| poll_inner(inner, cx).map(|_| Ok(())),
        call,
    });
}

#[test]
fn response_error_bites_where_it_is_swallowed() {
    breaks(Rule::ResponseError, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let reply = call_inner(inner);
            Box::pin(async move {
                match reply.await {
                    Err(_) => pending().await,
                    done => done,
                }
            })
        },
    });
    breaks(Rule::ResponseError, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let reply = call_inner(inner);
            Box::pin(async move { Ok(reply.await.unwrap_or_default()) })
        },
    });
}

#[test]
fn inner_panic_bites_where_a_lock_is_held_meanwhile() {
    breaks(Rule::InnerPanic, |inner| Hand {
        inner,
        state: Arc::new(Mutex::new(())),
        ready: |inner, lock, cx| {
            let _guard = lock.lock().unwrap();
            poll_inner(inner, cx)
        },
        call,
    });
}

#[test]
fn inner_panic_bites_where_a_place_is_put_back_by_hand() {
    breaks(Rule::InnerPanic, |inner| Hand {
        inner,
        state: Gate::fair(),
        ready: Gate::ready,
        call: |inner, gate| {
            let place = mem::ManuallyDrop::new(gate.mine.0.take());
            let reply = call_inner(inner);
            let place = mem::ManuallyDrop::into_inner(place);
            Box::pin(async move {
                let _place = place;
                reply.await
            })
        },
    });
}

#[test]
fn off_task_bites_where_call_makes_a_timer() {
    breaks(Rule::OffTask, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let mut reply = call_inner(inner);
            let mut timer = Box::pin(sleep(Duration::from_secs(1)));
            Box::pin(poll_fn(move |cx| match reply.as_mut().poll(cx) {
                Poll::Pending => timer.as_mut().poll(cx).map(|()| Err("time is up".into())),
                done => done,
            }))
        },
    });
}

#[test]
fn drop_order_bites_where_a_response_needs_the_service() {
    breaks(Rule::DropOrder, |inner| Hand {
        inner,
        state: Arc::new(()),
        ready,
        call: |inner, service| {
            let reply = call_inner(inner);
            let service: Weak<()> = Arc::downgrade(service);
            Box::pin(async move {
                service.upgrade().ok_or("the service is gone")?;
                reply.await
            })
        },
    });
}

#[test]
fn leak_bites_where_a_task_keeps_the_inner_service() {
    breaks(Rule::Leak, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let reply = call_inner(inner);
            let keep = inner.clone();
            Box::pin(async move {
                tokio::spawn(async move {
                    let _keep = keep;
                    pending::<()>().await
                });
                reply.await
            })
        },
    });
}

#[test]
fn polled_after_done_bites_where_a_result_is_fetched_by_another_poll() {
    breaks(Rule::PolledAfterDone, |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, ()| {
            let mut reply = call_inner(inner);
            let mut done: Option<Result<Response, BoxError>> = None;
            Box::pin(poll_fn(move |cx| {
                let polled = reply.as_mut().poll(cx);
                if let Some(done) = done.take() {
                    return Poll::Ready(done);
                }
                if let Poll::Ready(first) = polled {
                    done = Some(first);
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }))
        },
    });
}

#[test]
fn what_cannot_be_judged_is_listed() {
    let report = contract::check(|inner| Hand {
        inner,
        state: (),
        ready: |_, (), _| Poll::Ready(Err("no".into())),
        call,
    });
    assert_eq!(broken(&report), [Rule::OrdinaryRequest]);
    assert_eq!(report.unchecked(), &Rule::ALL[1..]);
    assert!(
        report
            .to_string()
            .contains("not judged until this is mended")
    );
}
