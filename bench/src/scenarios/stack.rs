// What a stack does to time and to errors.

use std::error::Error;
use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower::buffer::Buffer;
use tower::load_shed::LoadShed;
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;
use tower::util::ServiceFn;
use tower::{BoxError, Layer, Service, ServiceExt};

use super::best;
use super::fakes::{Stuck, Warming};
use crate::harness::{MS, Outcome, SECOND, Scale, implements, patiently, paused};

pub fn readiness(_: Scale) -> Outcome {
    paused(async {
        let stuck = best::timeout_of_readiness(Stuck, SECOND);
        match patiently(stuck.oneshot(1)).await {
            None => Outcome::new(false, "still waits after an hour"),
            Some(Err(error)) if error.is::<Elapsed>() => {
                Outcome::new(true, "fails with `Elapsed` after 1 s")
            }
            Some(_) => Outcome::new(false, "fails otherwise"),
        }
    })
}

pub fn total(_: Scale) -> Outcome {
    paused(async {
        let start = Instant::now();
        let service = best::timeout_of_all(Warming::new(600 * MS, 600 * MS), SECOND);
        let answer = patiently(service.oneshot(1)).await.unwrap();
        let after = start.elapsed().as_millis();
        match answer {
            Ok(_) => Outcome::new(false, format!("answered after {after} ms")),
            Err(error) => Outcome::new(error.is::<Elapsed>(), format!("fails after {after} ms")),
        }
    })
}

pub fn option_layer(_: Scale) -> Outcome {
    type Inner = ServiceFn<fn(u64) -> Ready<Result<u64, io::Error>>>;
    type Layered = <best::OptionLayer<TimeoutLayer> as Layer<Inner>>::Service;
    let is_service = implements!(Layered: Service<u64>);
    let is = if is_service {
        "a service"
    } else {
        "no service"
    };
    Outcome::new(
        is_service,
        format!("an optional `Timeout` over a service of `io::Error` is {is}"),
    )
}

/// What a caller would act on.
#[derive(Debug)]
struct Maintenance;

impl fmt::Display for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("down for maintenance")
    }
}

impl Error for Maintenance {}

#[derive(Clone, Debug)]
struct Down;

impl Service<u64> for Down {
    type Response = u64;
    type Error = Maintenance;
    type Future = Ready<Result<u64, Maintenance>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Maintenance>> {
        Poll::Ready(Err(Maintenance))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        ready(Err(Maintenance))
    }
}

pub fn find_error(_: Scale) -> Outcome {
    paused(async {
        let service = LoadShed::new(Buffer::new(Down, 8));
        let error: BoxError = patiently(service.oneshot(1)).await.unwrap().unwrap_err();
        let found = best::find::<Maintenance>(&*error).is_some();
        let said = match found {
            true => "one call finds the error of the service within a stack's",
            false => "the error of the service isn't what a downcast sees",
        };
        Outcome::new(found, said)
    })
}
