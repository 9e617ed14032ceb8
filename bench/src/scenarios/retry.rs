// Trying again: when, how often, and at whose cost.

use std::collections::BTreeSet;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, advance, sleep, timeout};
use tower::retry::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff};
use tower::retry::budget::{Budget, TpsBudget};
use tower::util::rng::Rng;
use tower::util::service_fn;
use tower::{BoxError, Service, ServiceExt};

use super::best;
use super::fakes::Echo;
use crate::harness::{Dice, MS, Outcome, SECOND, Scale, patiently, paused, percent};

impl Rng for Dice {
    fn next_u64(&mut self) -> u64 {
        Self::next_u64(self)
    }
}

fn maker(seed: u64) -> ExponentialBackoffMaker<Dice> {
    ExponentialBackoffMaker::new(SECOND, 100 * SECOND, 0.5, Dice(seed)).unwrap()
}

/// How long the next wait of a session is.
fn next_delay(backoff: &mut impl Backoff<Future = tokio::time::Sleep>) -> Duration {
    backoff.next_backoff().deadline() - Instant::now()
}

pub fn sessions(_: Scale) -> Outcome {
    const SESSIONS: usize = 1000;
    paused(async {
        let mut maker = ExponentialBackoffMaker::new(10 * MS, 100 * SECOND, 99.0, Dice(1)).unwrap();
        let mut sequences = BTreeSet::new();
        for session in 0..SESSIONS {
            // Half of the sessions as a retry makes them, which clones its policy for each request.
            let mut backoff = match session % 2 {
                0 => maker.make_backoff(),
                _ => maker.clone().make_backoff(),
            };
            sequences.insert([(); 5].map(|()| next_delay(&mut backoff)));
        }
        let different = sequences.len();
        let said = format!("{different} different sequences in {SESSIONS} sessions");
        Outcome::new(different == SESSIONS, said)
    })
}

pub fn jitter(_: Scale) -> Outcome {
    paused(async {
        let delays = (0..1000).map(|seed| next_delay(&mut maker(seed).make_backoff()));
        let millis: Vec<_> = delays.map(|delay| delay.as_millis()).collect();
        let (least, most) = (millis.iter().min().unwrap(), millis.iter().max().unwrap());
        let said = format!("from {least} to {most} ms in 1000 draws");
        Outcome::new(*least < 1010 && (1490..=1500).contains(most), said)
    })
}

pub fn ratio(_: Scale) -> Outcome {
    const DEPOSITS: u32 = 10_000;
    paused(async {
        let ratios = [0.3, 0.4, 0.6];
        let granted = ratios.map(|ratio| {
            let budget = TpsBudget::new(10 * SECOND, 0, ratio);
            (0..DEPOSITS).for_each(|_| budget.deposit());
            let granted = (0..2 * DEPOSITS).filter(|_| budget.withdraw()).count();
            granted as f64 / f64::from(DEPOSITS)
        });
        let sound = ratios
            .iter()
            .zip(granted)
            .all(|(r, g)| (f64::from(*r) - g).abs() <= 0.001);
        let said = ratios
            .iter()
            .zip(granted)
            .map(|(r, g)| format!("{r} allows {}", percent(g)));
        Outcome::new(sound, said.collect::<Vec<_>>().join(", "))
    })
}

pub fn idle(_: Scale) -> Outcome {
    // The least of several, so that a thread that the system holds up doesn't count.
    let took = (0..5).map(|_| {
        paused(async {
            let budget = TpsBudget::default();
            budget.deposit();
            advance(30 * 24 * 3600 * SECOND).await;
            let start = std::time::Instant::now();
            budget.deposit();
            start.elapsed()
        })
    });
    let took = took.min().unwrap();
    let said = match took < Duration::from_micros(100) {
        true => "below 0.1 ms".to_owned(),
        false => format!("{:.1} ms", took.as_secs_f64() * 1000.0),
    };
    Outcome::new(took < MS, said)
}

pub fn reserve(_: Scale) -> Outcome {
    let granted = |budget: TpsBudget| (0..1000).filter(|_| budget.withdraw()).count();
    paused(async {
        let by_default = granted(TpsBudget::default());
        let without = granted(TpsBudget::new(10 * SECOND, 0, 0.2));
        let said = format!("{by_default} by default, {without} where the reserve is set to zero");
        Outcome::new(by_default == 100 && without == 0, said)
    })
}

pub fn ready_made(_: Scale) -> Outcome {
    paused(async {
        let tries = Arc::new(AtomicU64::new(0));
        let service = {
            let tries = Arc::clone(&tries);
            service_fn(move |n: u64| match tries.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => ready(Err::<u64, BoxError>("connection reset".into())),
                _ => ready(Ok(n)),
            })
        };
        let Some(service) = best::retried(service) else {
            return Outcome::missing("there is no policy");
        };
        let answer = patiently(service.oneshot(7)).await.unwrap();
        let tries = tries.load(Ordering::Relaxed);
        let sound = answer.is_ok_and(|n| n == 7) && tries == 3;
        Outcome::new(sound, format!("the try that succeeds is number {tries}"))
    })
}

pub fn reconnects(_: Scale) -> Outcome {
    let attempts = Arc::new(AtomicU64::new(0));
    let connect = {
        let attempts = Arc::clone(&attempts);
        service_fn(move |()| -> Ready<Result<Echo, BoxError>> {
            attempts.fetch_add(1, Ordering::Relaxed);
            ready(Err("connection refused".into()))
        })
    };
    paused(async {
        let mut service = best::reconnect(connect, (), 100 * MS, 5 * SECOND);
        // A caller that asks every 10 ms.
        let asking = async {
            loop {
                let _refused = service.ready().await.unwrap().call(1).await;
                sleep(10 * MS).await;
            }
        };
        let _: Result<(), _> = timeout(60 * SECOND, asking).await;
    });
    let attempts = attempts.load(Ordering::Relaxed);
    let said = format!("{attempts} attempts to connect in a minute");
    Outcome::new((10..=30).contains(&attempts), said)
}
