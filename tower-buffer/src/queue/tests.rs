use super::*;
use crate::caller::{Caller, Submitted};
use crate::sync::model;
use crate::{BoxError, Closed};
use loom::future::block_on;
use loom::thread;
use std::future::poll_fn;

/// Isn't ready as often as said, then answers requests with themselves.
struct Slow {
    unready: usize,
    mark: Mark,
}

/// Shows whether the service is alive. It is touched under the service, and before the service is tried: loom
/// looks only for orders of what touches the same thing, and doesn't see that an unlocked mutex does.
type Mark = Arc<AtomicUsize>;

const NEVER: usize = usize::MAX;

impl Serve<u32, u32> for Slow {
    fn serve(&mut self, req: u32, cx: &mut Context<'_>) -> Served<u32, u32> {
        if !matches!(self.unready, 0 | NEVER) {
            cx.waker().wake_by_ref();
        }
        // Last, so that the others may come between the wake and the end.
        self.mark.fetch_add(1, Ordering::Relaxed);
        match self.unready {
            0 => return Served::Called(req),
            NEVER => {}
            _ => self.unready -= 1,
        }
        Served::Pending(req)
    }
}

fn queue(bound: usize, unready: usize) -> (Arc<Queue<u32, u32>>, Caller<u32, u32>, Mark) {
    let mark = Arc::new(AtomicUsize::new(0));
    let service = Slow {
        unready,
        mark: Arc::clone(&mark),
    };
    let queue = Queue::new(Box::new(service), bound, None);
    let caller = Caller::new(Arc::clone(&queue));
    (queue, caller, mark)
}

fn run_worker(queue: &Arc<Queue<u32, u32>>) -> thread::JoinHandle<()> {
    let queue = Arc::clone(queue);
    thread::spawn(move || {
        block_on(poll_fn(|cx| queue.work(cx)));
        queue.close_for_good();
    })
}

fn submit(
    caller: &mut Caller<u32, u32>,
    req: u32,
    mark: &Mark,
) -> Result<Submitted<u32>, BoxError> {
    block_on(poll_fn(|cx| caller.poll_ready(cx)))?;
    mark.fetch_add(1, Ordering::Relaxed);
    Ok(caller.call(req).0)
}

fn answer(submitted: Submitted<u32>) -> Result<u32, BoxError> {
    match submitted {
        Submitted::Called(answer) => Ok(answer),
        Submitted::Queued(mut ticket) => block_on(poll_fn(|cx| ticket.poll(cx))),
        Submitted::Failed(error) => Err(error),
    }
}

/// Two callers that are ready call at once, while the worker, which has run before, sleeps.
fn two_callers_are_answered(preemptions: usize, unready: usize) {
    model(preemptions, move || {
        let (queue, caller, mark) = queue(2, unready);
        let noop = Context::from_waker(Waker::noop());
        assert!(queue.work(&noop).is_pending());
        let callers = [caller.clone(), caller.clone()].map(|mut caller| {
            assert!(caller.poll_ready(&noop).is_ready());
            let its_mark = Arc::clone(&mark);
            thread::spawn(move || {
                let submitted = submit(&mut caller, 1, &its_mark).unwrap();
                assert_eq!(answer(submitted).unwrap(), 1);
            })
        });
        drop(caller);
        block_on(poll_fn(|cx| queue.work(cx)));
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(Arc::strong_count(&mark), 1, "the service is dropped");
    });
}

#[test]
fn loom_callers_in_each_others_way_are_answered() {
    two_callers_are_answered(2, 0);
}

#[test]
fn loom_a_service_that_is_ready_late_answers_all() {
    two_callers_are_answered(1, 1);
}

#[test]
fn loom_the_worker_ends_when_the_last_request_is_taken_back() {
    model(3, || {
        let (queue, mut caller, mark) = queue(1, NEVER);
        let worker = run_worker(&queue);
        let submitted = submit(&mut caller, 1, &mark).unwrap();
        drop(caller);
        drop(submitted);
        worker.join().unwrap();
        assert_eq!(Arc::strong_count(&mark), 1, "the service is dropped");
    });
}

#[test]
fn loom_the_last_caller_is_answered_though_it_goes() {
    model(3, || {
        let (queue, mut caller, mark) = queue(1, 0);
        let worker = run_worker(&queue);
        let submitted = submit(&mut caller, 1, &mark).unwrap();
        drop(caller);
        assert_eq!(answer(submitted).unwrap(), 1);
        worker.join().unwrap();
        assert_eq!(Arc::strong_count(&mark), 1, "the service is dropped");
    });
}

#[test]
fn loom_a_caller_that_leaves_holds_nobody_up() {
    model(1, || {
        let (queue, mut caller, mark) = queue(1, 1);
        let worker = run_worker(&queue);
        let (mut other, its_mark) = (caller.clone(), Arc::clone(&mark));
        let thread = thread::spawn(move || drop(submit(&mut other, 1, &its_mark).unwrap()));
        let submitted = submit(&mut caller, 2, &mark).unwrap();
        drop(caller);
        assert_eq!(answer(submitted).unwrap(), 2);
        thread.join().unwrap();
        worker.join().unwrap();
        assert_eq!(Arc::strong_count(&mark), 1, "the service is dropped");
    });
}

#[test]
fn loom_closing_fails_those_that_wait_and_drops_the_service() {
    model(4, || {
        let (queue, mut caller, mark) = queue(1, 0);
        let noop = Context::from_waker(Waker::noop());
        assert!(queue.work(&noop).is_pending());
        let its_mark = Arc::clone(&mark);
        let thread = thread::spawn(move || {
            for req in 0..2 {
                match submit(&mut caller, req, &its_mark).and_then(answer) {
                    Ok(answered) => assert_eq!(answered, req),
                    Err(error) => assert!(error.is::<Closed>()),
                }
            }
            caller
        });
        mark.fetch_add(1, Ordering::Relaxed);
        queue.close_for_good();
        let caller = thread.join().unwrap();
        assert_eq!(Arc::strong_count(&mark), 1, "the service is dropped");
        drop(caller);
    });
}

#[test]
fn loom_draining_answers_what_it_took_and_ends_though_callers_stay() {
    model(3, || {
        let (queue, mut caller, mark) = queue(1, 0);
        let worker = run_worker(&queue);
        let its_mark = Arc::clone(&mark);
        let thread = thread::spawn(move || {
            match submit(&mut caller, 1, &its_mark).and_then(answer) {
                Ok(answered) => assert_eq!(answered, 1),
                Err(error) => assert!(error.is::<Closed>()),
            }
            caller
        });
        queue.drain();
        let caller = thread.join().unwrap();
        worker.join().unwrap();
        assert_eq!(Arc::strong_count(&mark), 1, "the service is dropped");
        drop(caller);
    });
}
