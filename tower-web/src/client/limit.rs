//! How many requests each client may make.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::ClientAddr;
use crate::extract::Request;
use crate::problem::Problem;
use crate::respond::{IntoResponse, Response};

/// How many clients are told apart at most, unless it is said otherwise.
const MAX_CLIENTS: usize = 100_000;

/// The longest period: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Refuses the requests of a client that makes too many, with a 429 and `Retry-After`.
///
/// So many requests may come at once, and then as they are earned back, one by one: the generic cell rate algorithm (ITU-T I.371). A client is
/// an IPv4 address, or an IPv6 network of 64 bits, which is what one subscriber has; see [`TrustedProxies`](super::TrustedProxies) for clients behind
/// proxies, and [`with_key`](Self::with_key) for others, as API keys. What can't be told apart counts as one client.
///
/// It is a [layer](crate::App::layer); around the application it counts all requests, around a resource or a route its own.
///
/// **Readiness**, **cancellation** and **errors** are those of what is inside. A request that is refused doesn't count.
///
/// It remembers at most 100 000 clients in two tables, some 6 MB in all, each for as long as the period is; those
/// that don't fit in share one limit.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_web::client::ClientLimit;
/// use tower_web::prelude::*;
///
/// #[get("/")]
/// async fn index() -> &'static str {
///     "hello"
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let limit = ClientLimit::new(2, Duration::from_secs(60));
/// let client = App::new().layer(limit).route(index).test();
/// client.get("/").await.assert_status(200);
/// client.get("/").await.assert_status(200);
/// client.get("/").await.assert_status(429).assert_header("retry-after", "30");
/// # }
/// ```
#[derive(Clone)]
pub struct ClientLimit {
    limiter: Arc<Limiter>,
    key: Key,
}

type Key = Arc<dyn Fn(&Request, &RandomState) -> u64 + Send + Sync>;

/// What all requests share.
struct Limiter {
    rule: Rule,
    max_clients: usize,
    hasher: RandomState,
    table: Mutex<Table>,
}

impl ClientLimit {
    /// Lets each client make `requests` in each `period`, which is a year at most. None at all is one.
    pub fn new(requests: u32, period: Duration) -> Self {
        Self {
            limiter: Arc::new(Limiter {
                rule: Rule::new(requests, period),
                max_clients: MAX_CLIENTS,
                hasher: RandomState::new(),
                table: Mutex::new(Table::new(Instant::now())),
            }),
            key: Arc::new(|request, hasher| {
                let client = ClientAddr::of_request(request);
                hasher.hash_one(client.map(|client| network(client.ip())))
            }),
        }
    }

    /// Tells clients apart by what `key` makes of a request, as by its credentials, once those are known to be genuine.
    #[must_use]
    pub fn with_key<K, T>(mut self, key: K) -> Self
    where
        K: Fn(&Request) -> T + Send + Sync + 'static,
        T: Hash,
    {
        self.key = Arc::new(move |request, hasher| hasher.hash_one(key(request)));
        self
    }

    /// Tells at most so many clients apart.
    #[must_use]
    pub fn with_max_clients(self, clients: usize) -> Self {
        let Self { limiter, key } = self;
        let limiter = Limiter {
            rule: limiter.rule,
            max_clients: clients,
            hasher: RandomState::new(),
            table: Mutex::new(Table::new(Instant::now())),
        };
        Self {
            limiter: Arc::new(limiter),
            key,
        }
    }

    /// Admits a request, or says how long its client has to wait.
    fn admit(&self, request: &Request) -> Result<(), Duration> {
        let key = (self.key)(request, &self.limiter.hasher);
        let Limiter {
            rule,
            max_clients,
            table,
            ..
        } = &*self.limiter;
        let now = Instant::now();
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.admit(*rule, *max_clients, key, now)
    }
}

/// What is one client.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    }
}

/// The generic cell rate algorithm: a client is known by the time at which all that it has used is earned back.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// In which one request is earned back.
    interval: Duration,
    period: Duration,
}

impl Rule {
    fn new(requests: u32, period: Duration) -> Self {
        // A clock can't count further than some centuries.
        let period = period.min(LONGEST);
        let interval = period / requests.max(1);
        Self { interval, period }
    }

    /// The time at which all is earned back once this request is counted, or how long it has to wait.
    fn admit(self, earned: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let earned = earned.map_or(now, |earned| earned.max(now)) + self.interval;
        match (earned - now).checked_sub(self.period) {
            None | Some(Duration::ZERO) => Ok(earned),
            Some(wait) => Err(wait),
        }
    }
}

/// When each client will have earned all back.
///
/// In two generations, each a period long: whoever asked for nothing in a whole period has earned all back, and is forgotten with
/// the older one, without a search.
struct Table {
    current: HashMap<u64, Instant>,
    previous: HashMap<u64, Instant>,
    /// When the current one began.
    since: Instant,
    /// Of those who don't fit in.
    others: Option<Instant>,
}

impl Table {
    fn new(now: Instant) -> Self {
        Self {
            current: HashMap::new(),
            previous: HashMap::new(),
            since: now,
            others: None,
        }
    }

    fn admit(&mut self, rule: Rule, max: usize, key: u64, now: Instant) -> Result<(), Duration> {
        self.turn(rule.period, now);
        let known = self.current.get(&key).or_else(|| self.previous.get(&key));
        let fits = self.current.len() < max || self.current.contains_key(&key);
        let earned = match known {
            Some(earned) => Some(*earned),
            None if fits => None,
            None => self.others,
        };
        let earned = rule.admit(earned, now)?;
        match fits {
            true => drop(self.current.insert(key, earned)),
            false => self.others = Some(earned),
        }
        Ok(())
    }

    fn turn(&mut self, period: Duration, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < period {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if age >= period * 2 {
            self.previous.clear();
        }
        self.since = now;
    }
}

impl fmt::Debug for ClientLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLimit")
            .field("rule", &self.limiter.rule)
            .field("max_clients", &self.limiter.max_clients)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ClientLimit {
    type Service = ClientLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ClientLimitService {
            limit: self.clone(),
            inner,
        }
    }
}

/// What [`ClientLimit`] makes of a service.
#[derive(Debug, Clone)]
pub struct ClientLimitService<S> {
    limit: ClientLimit,
    inner: S,
}

impl<S> Service<Request> for ClientLimitService<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = ClientLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let state = match self.limit.admit(&request) {
            Ok(()) => State::Admitted {
                future: self.inner.call(request),
            },
            Err(wait) => State::Refused { wait },
        };
        ClientLimitFuture { state }
    }
}

pin_project! {
    /// The answer of a [`ClientLimitService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ClientLimitFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Admitted { #[pin] future: F },
        Refused { wait: Duration },
    }
}

impl<F, E> Future for ClientLimitFuture<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Admitted { future } => future.poll(cx),
            StateProj::Refused { wait } => Poll::Ready(Ok(refuse(*wait))),
        }
    }
}

fn refuse(wait: Duration) -> Response {
    // Sooner it would be refused again.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(StatusCode::TOO_MANY_REQUESTS)
        .with_detail("this client makes too many requests")
        .with_header(RETRY_AFTER, HeaderValue::from(seconds))
        .into_response()
}

impl<F> fmt::Debug for ClientLimitFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLimitFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    /// The admission times of each client, in full.
    #[derive(Default)]
    struct Oracle {
        earned: HashMap<u64, Instant>,
    }

    impl Oracle {
        fn admit(&mut self, rule: Rule, key: u64, now: Instant) -> bool {
            match rule.admit(self.earned.get(&key).copied(), now) {
                Ok(earned) => {
                    self.earned.insert(key, earned);
                    true
                }
                Err(_) => false,
            }
        }
    }

    proptest! {
        #[test]
        fn forgetting_changes_no_answer(
            requests in 1..5_u32,
            asked in prop::collection::vec((0..4_u64, 0..30_000_u64), 1..200),
        ) {
            let rule = Rule::new(requests, PERIOD);
            let mut now = Instant::now();
            let mut table = Table::new(now);
            let mut oracle = Oracle::default();
            for (key, pause) in asked {
                now += Duration::from_millis(pause / 10);
                let admitted = table.admit(rule, 100, key, now).is_ok();
                prop_assert_eq!(admitted, oracle.admit(rule, key, now));
            }
        }

        #[test]
        fn no_period_has_more_than_twice_the_requests_and_no_moment_more_than_them(
            requests in 1..6_u32,
            pauses in prop::collection::vec(0..4_000_u64, 1..200),
        ) {
            let rule = Rule::new(requests, PERIOD);
            let mut now = Instant::now();
            let mut table = Table::new(now);
            let mut admitted = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                if table.admit(rule, 100, 1, now).is_ok() {
                    admitted.push(now);
                }
            }
            let limit = requests as usize;
            prop_assert!(admitted.windows(limit + 1).all(|window| window[0] < window[limit]));
            prop_assert!(admitted.windows(2 * limit + 1).all(|window| window[2 * limit] - window[0] >= PERIOD));
        }

        #[test]
        fn a_wait_that_was_told_is_enough_and_no_longer_than_it_must(requests in 1..6_u32) {
            let rule = Rule::new(requests, PERIOD);
            let now = Instant::now();
            let mut table = Table::new(now);
            for _ in 0..requests {
                table.admit(rule, 100, 1, now).unwrap();
            }
            let wait = table.admit(rule, 100, 1, now).unwrap_err();
            prop_assert!(table.admit(rule, 100, 1, now + wait - Duration::from_nanos(1)).is_err());
            prop_assert!(table.admit(rule, 100, 1, now + wait).is_ok());
        }
    }

    #[test]
    fn those_who_do_not_fit_in_share_a_limit_and_the_table_stays_small() {
        let rule = Rule::new(1, PERIOD);
        let now = Instant::now();
        let mut table = Table::new(now);
        let admitted = (0..1000).filter(|key| table.admit(rule, 10, *key, now).is_ok());
        assert_eq!(admitted.count(), 11);
        assert_eq!(table.current.len(), 10);
        // A period later they are forgotten.
        assert!(table.admit(rule, 10, 999, now + PERIOD).is_ok());
        assert_eq!((table.current.len(), table.previous.len()), (1, 10));
        assert!(table.admit(rule, 10, 5, now + PERIOD * 3).is_ok());
        assert_eq!((table.current.len(), table.previous.len()), (1, 0));
    }

    #[test]
    fn no_period_is_too_long_or_too_short() {
        let now = Instant::now();
        for (period, admitted) in [(Duration::MAX, 1), (Duration::ZERO, 3)] {
            let rule = Rule::new(0, period);
            let mut table = Table::new(now);
            let tries = (0..3).filter(|_| table.admit(rule, 10, 1, now).is_ok());
            assert_eq!(tries.count(), admitted);
        }
    }

    #[test]
    fn a_subscriber_s_network_is_one_client() {
        let same = |one: &str, other: &str| {
            network(one.parse().unwrap()) == network(other.parse().unwrap())
        };
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
