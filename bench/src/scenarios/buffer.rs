// A queue in front of a service that panics, of callers that leave, and under a load shedder.

use std::future::{Ready, poll_fn, ready};
use std::task::Poll;

use tower::buffer::Buffer;
use tower::load_shed::LoadShed;
use tower::load_shed::error::Overloaded;
use tower::util::service_fn;
use tower::{BoxError, Service, ServiceExt};

use super::best;
use super::fakes::{Echo, Slow, Stuck};
use crate::harness::{MS, Outcome, Scale, chain, patiently, paused, poll_once, settle};

fn panics_at_two(n: u64) -> Ready<Result<u64, BoxError>> {
    assert!(n != 2, "no such user");
    ready(Ok(n))
}

pub fn panic(_: Scale) -> Outcome {
    paused(async {
        let service = Buffer::new(service_fn(panics_at_two), 8);
        let mut errors = Vec::new();
        for n in 1..=4 {
            if let Err(error) = patiently(service.clone().oneshot(n)).await.unwrap() {
                errors.push(chain(&*error));
            }
        }
        let tell = errors
            .iter()
            .filter(|error| error.contains("no such user"))
            .count();
        let said = format!(
            "{tell} of {} errors tell of the panic: `{}`",
            errors.len(),
            errors.last().map_or("", String::as_str)
        );
        Outcome::new(errors.len() == 3 && tell == 3, said)
    })
}

pub fn after_a_panic(_: Scale) -> Outcome {
    paused(async {
        let service = best::rebuilding_buffer(|| service_fn(panics_at_two), 8);
        let mut served = 0;
        for n in 1..=10 {
            let response = patiently(service.clone().oneshot(n)).await.unwrap();
            served += u32::from(response.is_ok());
        }
        Outcome::new(served == 9, format!("{served} of 10 requests are answered"))
    })
}

pub fn abandoned(_: Scale) -> Outcome {
    paused(async {
        let service = Buffer::new(Stuck, 8);
        let responses = fill(&service).await;
        let taken = responses.len();
        drop(responses);
        settle().await;
        let free = fill(&service).await.len();
        Outcome::new(
            free == taken,
            format!("{free} of {taken} slots are free again"),
        )
    })
}

/// Makes as many requests as can be queued.
async fn fill<F>(service: &Buffer<u64, F>) -> Vec<<Buffer<u64, F> as Service<u64>>::Future>
where
    F: Future<Output = Result<u64, BoxError>> + Send + 'static,
{
    let mut responses = Vec::new();
    loop {
        // The worker takes one of them out of the queue.
        settle().await;
        let mut handle = service.clone();
        if poll_once(handle.ready()).is_pending() {
            return responses;
        }
        responses.push(handle.call(1));
    }
}

pub fn shed(_: Scale) -> Outcome {
    paused(async {
        let idle = shed_of_400(Buffer::new(Echo, 10_000)).await;
        let full = shed_of_400(Buffer::new(Stuck, 100)).await;
        let said = format!(
            "{idle} of 400 requests are shed ({full} where the capacity is 100 and the service stuck)"
        );
        // The service may have taken one out of the queue.
        Outcome::new(idle == 0 && (299..=300).contains(&full), said)
    })
}

async fn shed_of_400<F>(buffer: Buffer<u64, F>) -> usize
where
    F: Future<Output = Result<u64, BoxError>> + Send + 'static,
{
    let service = LoadShed::new(buffer);
    // In one poll of one task, as a server does that has read many requests.
    let burst = poll_fn(move |cx| {
        let responses = (0..400).map(|n| {
            let mut handle = service.clone();
            assert!(handle.poll_ready(cx).is_ready());
            handle.call(n)
        });
        Poll::Ready(responses.collect::<Vec<_>>())
    });
    let responses = tokio::spawn(burst).await.unwrap();
    let polled = responses.into_iter().map(poll_once);
    polled
        .filter(|polled| matches!(polled, Poll::Ready(Err(error)) if error.is::<Overloaded>()))
        .count()
}

pub fn in_flight(_: Scale) -> Outcome {
    const LIMIT: usize = 4;
    paused(async {
        let slow = Slow::new(100 * MS);
        let flights = slow.flights.clone();
        let service = best::buffer_in_flight(slow, 100, LIMIT);
        let callers: Vec<_> = (0..50)
            .map(|n| tokio::spawn(service.clone().oneshot(n)))
            .collect();
        for caller in callers {
            patiently(caller).await.unwrap().unwrap().unwrap();
        }
        let peak = flights.peak();
        Outcome::new(
            peak == LIMIT,
            format!("{peak} of 50 requests in flight at once"),
        )
    })
}
