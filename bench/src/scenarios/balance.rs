// Balancing, and the loads and caches beneath it.

use std::sync::Arc;

use futures_util::stream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::sleep;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::limit::ConcurrencyLimit;
use tower::load::{CompleteOnResponse, Constant, Load, PeakEwma};
use tower::ready_cache::ReadyCache;
use tower::util::service_fn;
use tower::{BoxError, Service, ServiceExt};

use super::best;
use super::fakes::{Echo, Slow};
use crate::harness::{MS, Outcome, SECOND, Scale, patiently, paused, poll_once, settle};

type Endpoint = Constant<Echo, u64>;

pub fn stale_pick(_: Scale) -> Outcome {
    paused(async {
        let named =
            |name: &'static str| service_fn(move |_: u64| async move { Ok::<_, BoxError>(name) });
        let (changes, discover) = unbounded_channel();
        let insert = |name, load| {
            let change = Change::Insert(name, Constant::new(named(name), load));
            changes.send(Ok::<_, BoxError>(change)).ok().unwrap();
        };
        let mut balance = Balance::new(UnboundedReceiverStream::new(discover));
        insert("busy", 5);
        insert("idle", 1);
        balance.ready().await.unwrap();
        // It has picked the idle one of two, the second. Now the first goes, and a third comes.
        changes.send(Ok(Change::Remove("busy"))).ok().unwrap();
        insert("overloaded", 9);
        settle().await;
        let answer = balance.ready().await.unwrap().call(1).await.unwrap();
        let said = format!("the request goes to the {answer} one of two endpoints");
        Outcome::new(answer == "idle", said)
    })
}

pub fn no_endpoint(_: Scale) -> Outcome {
    paused(async {
        let none = stream::iter(Vec::<Result<Change<u64, Endpoint>, BoxError>>::new());
        let mut balance = best::failing_fast(Balance::new(none));
        let finished = patiently(balance.ready()).await.map(|ready| ready.err());

        let never = stream::pending::<Result<Change<u64, Endpoint>, BoxError>>();
        let mut balance = best::waiting_at_most(Balance::new(never), SECOND);
        let silent = match patiently(balance.ready()).await {
            Some(Ok(balance)) => Some(balance.call(1).await.err()),
            Some(Err(error)) => Some(Some(error)),
            None => None,
        };
        match (finished.flatten(), silent.flatten()) {
            (None, None) => Outcome::new(false, "it still waits after an hour"),
            (Some(finished), Some(silent)) => Outcome::new(
                true,
                format!("fails at once (`{finished}`), or after the longest wait (`{silent}`)"),
            ),
            _ => Outcome::new(false, "one of the options waits for ever"),
        }
    })
}

pub fn reading_the_load(_: Scale) -> Outcome {
    paused(async {
        let endpoint = || {
            let decay = 1e9;
            PeakEwma::new(Slow::new(SECOND), MS, decay, CompleteOnResponse::default())
        };
        let (mut read, mut unread) = (endpoint(), endpoint());
        // Both have a slow answer, two seconds of rest, and a quick answer.
        tokio::join!(read.call(1), unread.call(1)).0.unwrap();
        for _ in 0..2000 {
            sleep(MS).await;
            let _ = read.load();
        }
        let quick = async |service: &mut PeakEwma<Slow>| {
            let start = service.call(1);
            // It is cancelled after 100 ms, which counts as an answer that took as long.
            let _ = tokio::time::timeout(100 * MS, start).await;
        };
        tokio::join!(quick(&mut read), quick(&mut unread));
        let (read, unread) = (read.load(), unread.load());
        let same = read == unread;
        let millis = |cost| format!("{:.0} ms", number(&format!("{cost:?}")) / 1e6);
        let said = format!(
            "after the same answers: {} if it is read, {} if it isn't",
            millis(read),
            millis(unread)
        );
        Outcome::new(same, said)
    })
}

/// The number that is printed in `text`: a cost has no other way to tell it.
fn number(text: &str) -> f64 {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.trim_end_matches(')').parse().unwrap_or(f64::NAN)
}

pub fn cooperative_budget(_: Scale) -> Outcome {
    const SERVICES: usize = 1000;
    paused(async {
        let mut cache = ReadyCache::default();
        for key in 0..SERVICES {
            // Each takes some of the budget that tokio gives a task before it has to yield.
            let semaphore = Arc::new(Semaphore::new(1));
            cache.push(key, ConcurrencyLimit::with_semaphore(Echo, semaphore));
        }
        let filled = tokio::spawn(async move {
            let polled = std::future::poll_fn(|cx| cache.poll_pending(cx)).await;
            polled.is_ok() && cache.ready_len() == SERVICES
        });
        let filled = patiently(filled)
            .await
            .is_some_and(|filled| filled.unwrap_or(false));
        assert!(poll_once(Echo.ready()).is_ready());
        let said = if filled {
            "all of 1000 services become ready"
        } else {
            "it doesn't get ready"
        };
        Outcome::new(filled, said)
    })
}
