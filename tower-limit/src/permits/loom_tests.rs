use super::*;
use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize as Counter;
use loom::thread;
use std::future::{Future, poll_fn};

async fn acquire(permits: Permits) -> Permit {
    let mut waiter = None;
    poll_fn(|cx| match &mut waiter {
        None => match permits.acquire(cx) {
            Ok(permit) => Poll::Ready(permit),
            Err(new) => {
                waiter = Some(new);
                Poll::Pending
            }
        },
        Some(waiter) => waiter.poll(cx),
    })
    .await
}

/// Counts who is inside at once.
fn enter(inside: &Counter, max: usize) {
    assert!(inside.fetch_add(1, Ordering::Relaxed) < max);
    inside.fetch_sub(1, Ordering::Relaxed);
}

#[test]
fn loom_every_waiter_gets_its_permit_and_the_limit_holds() {
    loom::model(|| {
        let permits = Permits::new(1);
        let inside = Arc::new(Counter::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (permits, inside) = (permits.clone(), inside.clone());
                thread::spawn(move || {
                    let _permit = block_on(acquire(permits));
                    enter(&inside, 1);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(permits.available(), 1);
    });
}

#[test]
fn loom_what_one_holder_did_is_seen_by_the_next() {
    loom::model(|| {
        let permits = Permits::new(1);
        let cell = Arc::new(loom::cell::UnsafeCell::new(0));
        let other = {
            let (permits, cell) = (permits.clone(), cell.clone());
            thread::spawn(move || {
                if let Some(_permit) = permits.try_acquire() {
                    // loom fails the model if the two accesses race.
                    cell.with_mut(|_| ());
                }
            })
        };
        {
            let _permit = block_on(acquire(permits.clone()));
            cell.with_mut(|_| ());
        }
        other.join().unwrap();
    });
}

#[test]
fn loom_a_waiter_that_leaves_passes_its_permit_on() {
    loom::model(|| {
        let permits = Permits::new(1);
        let held = permits.try_acquire().unwrap();
        let leaver = {
            let mut cx = Context::from_waker(Waker::noop());
            permits.acquire(&mut cx).unwrap_err()
        };
        let release = thread::spawn(move || drop(held));
        // The permit comes by way of the queue's front, or straight to those behind it.
        let mut behind = Box::pin(acquire(permits.clone()));
        let mut cx = Context::from_waker(Waker::noop());
        let early = behind.as_mut().poll(&mut cx);
        drop(leaver);
        match early {
            Poll::Ready(permit) => drop(permit),
            Poll::Pending => drop(block_on(behind)),
        }
        release.join().unwrap();
        assert_eq!(permits.available(), 1);
    });
}

#[test]
fn loom_a_pool_retires_once_whoever_goes_last() {
    loom::model(|| {
        let permits = Permits::new(2);
        let slot = permits.slot;
        let threads = [permits.try_acquire(), permits.try_acquire()]
            .map(|permit| thread::spawn(move || drop(permit)));
        drop(permits);
        for thread in threads {
            thread.join().unwrap();
        }
        // `recycle` leaves this mark, and would have failed if it had been there.
        assert_eq!(slot.handles.load(Ordering::Relaxed), usize::MAX);
    });
}
