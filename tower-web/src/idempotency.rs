//! Requests that may be sent twice, and are done once: idempotency keys.
//!
//! A client that lost the answer to a `POST` can't know whether it was done. With [`IdempotencyKeys`], a [layer](crate::App::layer), it sends the
//! request again with the same `Idempotency-Key`, and gets the answer that it lost. The header is that of the IETF's draft
//! (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>).
//!
//! # When not to use it
//!
//! What is remembered is in this process. Where several serve one application, or a restart mustn't forget, let the key be a unique column of
//! a table that the work itself writes.

use std::collections::hash_map::{Entry as Slot, RandomState};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::hash::BuildHasher as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;
use crate::body::Body;
use crate::extract::Request;
use crate::problem::{IntoProblem, Location, Problem, Rejection};
use crate::respond::{IntoResponse, Response};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key, in bytes.
const MAX_KEY: usize = 255;

/// Does a request once, however often it is sent with the same `Idempotency-Key`.
///
/// It concerns `POST` and `PATCH`; other methods pass, and so does what has no key, unless one is [required](Self::with_required).
///
/// | the key | and | answer |
/// |---|---|---|
/// | is new | | that of what is inside, which is remembered |
/// | has been answered | the request is the same | the same answer, with `Idempotency-Replayed: true` |
/// | has been answered, or is being answered | the request is another | 422 |
/// | is being answered | | 409 |
///
/// An answer is remembered for a day, unless it says to try again (408, 425, 429 and all from 500 on), or is streamed or larger than 1 MiB.
/// All that is remembered has 64 MiB at most; then what is oldest is forgotten.
///
/// A key counts for one `Authorization`, so that nobody gets another's answers. Where users are known by a cookie, say by
/// [`with_scope`](Self::with_scope) who they are.
///
/// **Readiness** is that of what is inside. **Cancellation**: a client that goes away before its answer is there has not been answered, and
/// its next try does the work again. Where that is wrong, put [`Detach`](crate::detach::Detach) *around* this layer.
/// **Errors** are those of what is inside.
///
/// It reads a request's body whole, up to 2 MB.
///
/// # Example
///
/// ```
/// use tower_web::idempotency::IdempotencyKeys;
/// use tower_web::prelude::*;
///
/// #[post("/orders")]
/// async fn order(what: String) -> (StatusCode, String) {
///     (StatusCode::CREATED, format!("1 {what}"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let client = App::new().layer(IdempotencyKeys::new()).route(order).test();
/// let order = |what: &'static str| client.post("/orders").header("idempotency-key", "\"8e03978e\"").body(what);
/// order("tea").await.assert_status(201).assert_text("1 tea");
/// order("tea").await.assert_status(201).assert_header("idempotency-replayed", "true");
/// order("coffee").await.assert_problem(422);
/// # }
/// ```
#[derive(Clone)]
pub struct IdempotencyKeys {
    settings: Settings,
    scope: Scope,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    is_required: bool,
    age: Duration,
    max_request: u64,
    max_response: u64,
    max_bytes: usize,
}

type Scope = Arc<dyn Fn(&Request) -> u64 + Send + Sync>;

struct Shared {
    hasher: RandomState,
    table: Mutex<Table>,
}

impl IdempotencyKeys {
    /// Remembers answers for a day.
    pub fn new() -> Self {
        let hasher = RandomState::new();
        let scopes = hasher.clone();
        Self {
            settings: Settings {
                is_required: false,
                age: Duration::from_secs(24 * 3600),
                max_request: crate::DEFAULT_BODY_LIMIT,
                max_response: 1 << 20,
                max_bytes: 64 << 20,
            },
            scope: Arc::new(move |request| {
                let user = request.headers().get(AUTHORIZATION);
                scopes.hash_one(user.map(HeaderValue::as_bytes))
            }),
            shared: Arc::new(Shared {
                hasher,
                table: Mutex::new(Table::default()),
            }),
        }
    }

    /// Refuses requests without a key, with a 400.
    #[must_use]
    pub fn with_required(mut self) -> Self {
        self.settings.is_required = true;
        self
    }

    /// How long an answer is remembered.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.settings.age = age;
        self
    }

    /// How large a request may be, in bytes.
    #[must_use]
    pub fn with_max_request(mut self, bytes: u64) -> Self {
        self.settings.max_request = bytes;
        self
    }

    /// How much is remembered in all, in bytes of bodies and of headers.
    #[must_use]
    pub fn with_max_memory(mut self, bytes: usize) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// Says whom a key belongs to. Nobody gets the answer of another.
    #[must_use]
    pub fn with_scope<F, T>(mut self, scope: F) -> Self
    where
        F: Fn(&Request) -> T + Send + Sync + 'static,
        T: std::hash::Hash,
    {
        let hasher = self.shared.hasher.clone();
        self.scope = Arc::new(move |request| hasher.hash_one(scope(request)));
        self
    }

    /// The key of a request that this concerns.
    fn key(&self, request: &Request) -> Result<Option<String>, Problem> {
        if ![Method::POST, Method::PATCH].contains(request.method()) {
            return Ok(None);
        }
        let refuse = |detail| {
            let rejection = Rejection::new(StatusCode::BAD_REQUEST, detail);
            rejection
                .at(Location::Header, "idempotency-key")
                .into_problem()
        };
        let mut keys = request.headers().get_all(IDEMPOTENCY_KEY).iter();
        match (keys.next(), keys.next()) {
            (None, _) if self.settings.is_required => {
                Err(refuse("is missing: send one that is new for each request"))
            }
            (None, _) => Ok(None),
            (Some(key), None) => match read_key(key) {
                Some(key) => Ok(Some(key)),
                None => Err(refuse("must be a text of 1 to 255 bytes, in quotes")),
            },
            (Some(_), Some(_)) => Err(refuse("stands there twice")),
        }
    }
}

impl Default for IdempotencyKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for IdempotencyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyKeys")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A string of RFC 8941, or what stands there without quotes, as many clients have it.
fn read_key(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?.trim();
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    let is_plain = !key.contains(['"', '\\']);
    (is_plain && (1..=MAX_KEY).contains(&key.len())).then(|| key.to_owned())
}

/// Who has sent which key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Id {
    scope: u64,
    key: String,
}

/// What is remembered of an answer.
#[derive(Debug, Clone)]
struct Recorded {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Recorded {
    fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
        self.body.len() + headers.sum::<usize>()
    }

    fn to_response(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// How far a request with a key has come.
enum Entry {
    Running { request: u64 },
    Done { request: u64, answer: Recorded },
}

#[derive(Default)]
struct Table {
    entries: HashMap<Id, Entry>,
    /// Those that are done, in the order in which they are to be forgotten.
    order: VecDeque<(Instant, Id)>,
    bytes: usize,
}

/// What becomes of a request.
enum Verdict {
    Do,
    Replay(Recorded),
    Refuse(Problem),
}

impl Table {
    fn begin(&mut self, id: Id, request: u64, now: Instant) -> Verdict {
        self.forget_until(now);
        let entry = match self.entries.entry(id) {
            Slot::Vacant(slot) => {
                slot.insert(Entry::Running { request });
                return Verdict::Do;
            }
            Slot::Occupied(slot) => slot.into_mut(),
        };
        let (Entry::Running { request: first } | Entry::Done { request: first, .. }) = &*entry;
        if *first != request {
            return Verdict::Refuse(
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
                    .with_detail("this `Idempotency-Key` has been used for another request"),
            );
        }
        match entry {
            Entry::Done { answer, .. } => Verdict::Replay(answer.clone()),
            Entry::Running { .. } => {
                Verdict::Refuse(Problem::new(StatusCode::CONFLICT).with_detail(
                    "the first request with this `Idempotency-Key` isn't answered yet",
                ))
            }
        }
    }

    fn finish(&mut self, id: &Id, answer: Recorded, end: Instant, max_bytes: usize) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let Entry::Running { request } = *entry else {
            return;
        };
        self.bytes += answer.size();
        *entry = Entry::Done { request, answer };
        self.order.push_back((end, id.clone()));
        while self.bytes > max_bytes {
            let Some((_, oldest)) = self.order.pop_front() else {
                break;
            };
            self.remove(&oldest);
        }
    }

    fn forget_until(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(end, _)| *end <= now) {
            if let Some((_, id)) = self.order.pop_front() {
                self.remove(&id);
            }
        }
    }

    fn remove(&mut self, id: &Id) {
        if let Some(Entry::Done { answer, .. }) = self.entries.remove(id) {
            self.bytes -= answer.size();
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered. What isn't finished is as if it had never come.
struct Running {
    shared: Arc<Shared>,
    id: Id,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        if let Some(Entry::Running { .. }) = table.entries.get(&self.id) {
            table.entries.remove(&self.id);
        }
    }
}

impl<S: Clone> Layer<S> for IdempotencyKeys {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService {
            keys: self.clone(),
            inner,
        }
    }
}

/// What [`IdempotencyKeys`] makes of a service.
#[derive(Debug, Clone)]
pub struct IdempotencyService<S> {
    keys: IdempotencyKeys,
    inner: S,
}

impl<S> Service<Request> for IdempotencyService<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = BoxError;
    type Future = IdempotencyFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> IdempotencyFuture {
        let answer: Answer = match self.keys.key(&request) {
            Err(problem) => Box::pin(std::future::ready(Ok(problem.into_response()))),
            Ok(None) => {
                let answer = self.inner.call(request);
                Box::pin(async { answer.await.map_err(Into::into) })
            }
            Ok(Some(key)) => {
                // The one that is ready goes along.
                let next = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, next);
                Box::pin(once(self.keys.clone(), key, inner, request))
            }
        };
        IdempotencyFuture { answer }
    }
}

async fn once<S>(
    keys: IdempotencyKeys,
    key: String,
    mut inner: S,
    request: Request,
) -> Result<Response, BoxError>
where
    S: Service<Request, Response = Response>,
    S::Error: Into<BoxError>,
{
    let IdempotencyKeys {
        settings,
        scope,
        shared,
    } = keys;
    let scope = scope(&request);
    let id = Id { scope, key };
    let (parts, body) = request.into_parts();
    let body = body.with_limit(settings.max_request).bytes().await?;
    let print = shared.hasher.hash_one((
        &parts.method,
        &parts.uri,
        parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes),
        &body,
    ));
    let verdict = shared.table().begin(id.clone(), print, Instant::now());
    match verdict {
        Verdict::Replay(answer) => {
            let mut response = answer.to_response();
            let replayed = HeaderValue::from_static("true");
            response
                .headers_mut()
                .insert(IDEMPOTENCY_REPLAYED, replayed);
            return Ok(response);
        }
        Verdict::Refuse(problem) => return Ok(problem.into_response()),
        Verdict::Do => {}
    }
    let running = Running { shared, id };
    let request = Request::from_parts(parts, Body::from(body));
    let response = inner.call(request).await.map_err(Into::into)?;
    if is_passing(response.status()) || !fits(response.body(), settings.max_response) {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let answer = Recorded {
        status: parts.status,
        headers: parts.headers.clone(),
        body: body.bytes().await?,
    };
    let response = Response::from_parts(parts, Body::from(answer.body.clone()));
    let now = Instant::now();
    let end = now.checked_add(settings.age).unwrap_or(now);
    let mut table = running.shared.table();
    table.finish(&running.id, answer, end, settings.max_bytes);
    drop(table);
    Ok(response)
}

/// Whether it is said that another try may end otherwise.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || [408, 425, 429].contains(&status.as_u16())
}

/// Whether the length of a body is known, and no more than that.
fn fits(body: &Body, max: u64) -> bool {
    body.size_hint().exact().is_some_and(|size| size <= max)
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

/// The answer of an [`IdempotencyService`].
#[must_use = "futures do nothing unless polled"]
pub struct IdempotencyFuture {
    answer: Answer,
}

impl Future for IdempotencyFuture {
    type Output = Result<Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx)
    }
}

impl fmt::Debug for IdempotencyFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_with_quotes_and_without() {
        let read = |text: &'static str| read_key(&HeaderValue::from_static(text));
        assert_eq!(read("\"a b\"").unwrap(), "a b");
        assert_eq!(read("8e03978e-40d5").unwrap(), "8e03978e-40d5");
        for bad in ["", "\"\"", "\"a", "a\\\"b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let long = HeaderValue::try_from("x".repeat(256)).unwrap();
        assert_eq!(read_key(&long), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_is_forgotten_first() {
        let mut table = Table::default();
        let now = Instant::now();
        let end = now + Duration::from_secs(60);
        let id = |number: usize| Id {
            scope: 0,
            key: number.to_string(),
        };
        for number in 0..10 {
            assert!(matches!(table.begin(id(number), 0, now), Verdict::Do));
            let answer = Recorded {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: vec![0; 100].into(),
            };
            table.finish(&id(number), answer, end, 350);
        }
        assert_eq!((table.entries.len(), table.bytes), (3, 300));
        assert!(matches!(table.begin(id(9), 0, now), Verdict::Replay(_)));
        assert!(matches!(table.begin(id(0), 0, now), Verdict::Do));
        // In time, all are forgotten but the one that runs.
        assert!(matches!(table.begin(id(9), 0, end), Verdict::Do));
        assert_eq!(
            (table.entries.len(), table.bytes, table.order.len()),
            (2, 0, 0)
        );
    }
}
