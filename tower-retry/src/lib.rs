//! Retries failed requests under a policy, a budget and a backoff.
//!
//! [`Retry`] is for clients of services that fail now and then. A [`Policy`] decides about each result:
//! [`StandardPolicy`](standard::StandardPolicy) is a ready-made one, put together from a classifier, a
//! [`Budget`](budget::Budget) and a [`Backoff`](backoff::Backoff).
//!
//! It goes *outside* of what should hold for each try: a limit, each try's own timeout, the balancer,
//! so that another endpoint gets the next try; and inside of a timeout for all of them.
//!
//! # When not to use it
//!
//! - Where a request does harm if it is done twice, and the failure doesn't tell whether it was done. The
//!   policy sees the request and can say so.
//! - At more than one level of a system: three tries at each of three levels are 27 at the bottom.
//! - Without a budget, against a service that may be overloaded. See [`budget`].
//! - Against latency rather than failure. That is what hedging is for.
//!
//! # What it costs
//!
//! No allocation, lock or clock read of its own. For each request that can be tried again, one clone each of
//! the request, the policy and the inner service, all of which the response future holds. So make them
//! cheap to clone; a policy that declines to clone a request saves all three.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub mod backoff;
pub mod budget;
pub mod standard;

/// Decides whether, when and with what a request is tried again.
///
/// A clone of the policy goes with each request, so that it can count the tries and hold a backoff's session.
/// What requests share, such as a budget, it holds in an `Arc`.
///
/// # Example
///
/// ```
/// use std::future::{Ready, ready};
/// use tower_retry::Policy;
///
/// /// Tries idempotent requests again, at once, a few times.
/// #[derive(Clone)]
/// struct Attempts(usize);
///
/// impl Policy<String, u16, &'static str> for Attempts {
///     type Future = Ready<()>;
///
///     fn retry(&mut self, _: &mut String, result: &mut Result<u16, &'static str>) -> Option<Self::Future> {
///         result.err()?;
///         self.0 = self.0.checked_sub(1)?;
///         Some(ready(()))
///     }
///
///     fn clone_request(&mut self, request: &String) -> Option<String> {
///         request.starts_with("GET").then(|| request.clone())
///     }
/// }
///
/// let mut policy = Attempts(1);
/// assert!(policy.clone_request(&"POST /".to_owned()).is_none());
///
/// let mut request = "GET /".to_owned();
/// let mut failed = Err("connection reset");
/// assert!(policy.retry(&mut request, &mut failed).is_some());
/// assert!(policy.retry(&mut request, &mut failed).is_none());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a retry `Policy` for `{Req}`, answered by `Result<{Res}, {E}>`",
    label = "not a policy for these requests, responses and errors",
    note = "the policy's type parameters are those of the service inside: its request, its response and its error",
    note = "`tower::retry::standard::StandardPolicy` is a ready-made policy"
)]
pub trait Policy<Req, Res, E> {
    /// Ends when the request may be tried again. Made when the response future is polled.
    type Future: Future<Output = ()>;

    /// Says whether to try again, and from when on.
    ///
    /// `req` is the copy that would be sent. Both can be changed: the request for its next try (a header
    /// that counts the tries), the result for the caller where this is the last. `None` gives `result` to
    /// the caller. Isn't asked about a request that couldn't be cloned.
    fn retry(&mut self, req: &mut Req, result: &mut Result<Res, E>) -> Option<Self::Future>;

    /// Copies a request before each of its tries, in case there is another.
    ///
    /// `None` means that this is the last.
    fn clone_request(&mut self, req: &Req) -> Option<Req>;
}

/// Wraps services in [`Retry`].
#[derive(Clone, Debug)]
pub struct RetryLayer<P> {
    policy: P,
}

impl<P> RetryLayer<P> {
    /// Makes a layer whose services each have a clone of `policy`.
    pub const fn new(policy: P) -> Self {
        Self { policy }
    }
}

impl<P, S> Layer<S> for RetryLayer<P>
where
    P: Clone,
{
    type Service = Retry<P, S>;

    fn layer(&self, service: S) -> Self::Service {
        Retry::new(self.policy.clone(), service)
    }
}

/// Sends a request again if its [`Policy`] says so.
///
/// **Readiness.** That of the inner service, whose ready instance makes the first try. The others are made
/// by a clone, which the response future polls to readiness when the policy's future has ended.
///
/// **Cancellation.** Dropping the response future drops the try or the wait that is under way, and the clone.
///
/// **Errors.** The last try's, or what the policy has put in its place. If the clone fails to become ready, that
/// error, without asking the policy.
///
/// # Example
///
/// ```
/// use tower_layer::Layer;
/// use tower_retry::RetryLayer;
/// use tower_classify::EveryErrorIsRetryable;
/// use tower_retry::standard::StandardPolicy;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let (mock, mut handle) = mock::pair::<&str, &str>();
/// let mut service = RetryLayer::new(StandardPolicy::new(EveryErrorIsRetryable)).layer(mock);
///
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = tokio::spawn(service.call("hello"));
///
/// let (_, first) = handle.next_request().await.unwrap();
/// first.send_error("connection reset");
/// let (request, second) = handle.next_request().await.unwrap();
/// assert_eq!(request, "hello");
/// second.send_response("world");
/// assert_eq!(response.await??, "world");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Retry<P, S> {
    policy: P,
    service: S,
}

// No field is ever pinned.
impl<P, S> Unpin for Retry<P, S> {}

impl<P, S> Retry<P, S> {
    /// Retries what `policy` says of the requests to `service`.
    pub const fn new(policy: P, service: S) -> Self {
        Self { policy, service }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.service
    }

    /// The inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// Gives back the inner service.
    pub fn into_inner(self) -> S {
        self.service
    }
}

impl<P, S, Request> Service<Request> for Retry<P, S>
where
    P: Policy<Request, S::Response, S::Error> + Clone,
    S: Service<Request> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<P, S, Request>;

    // These three always: else the future of all that is inside is handed over through memory.
    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, request: Request) -> Self::Future {
        let copy = self.policy.clone_request(&request);
        // The ready instance makes the call, and the clone, which is not, waits in the future.
        let spare = copy.map(|request| Spare {
            request,
            policy: self.policy.clone(),
            service: self.service.clone(),
        });
        ResponseFuture {
            spare,
            state: State::Called {
                future: self.service.call(request),
            },
        }
    }
}

pin_project! {
    /// The response of a [`Retry`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct ResponseFuture<P, S, Request>
    where
        P: Policy<Request, S::Response, S::Error>,
        S: Service<Request>,
    {
        // What another try would take. `None` where there can't be one.
        spare: Option<Spare<P, S, Request>>,
        #[pin]
        state: State<S::Future, P::Future>,
    }
}

#[derive(Debug)]
struct Spare<P, S, Request> {
    request: Request,
    policy: P,
    service: S,
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, W> {
        // A try is under way.
        Called { #[pin] future: F },
        // The policy wants another, later.
        Waiting { #[pin] wait: W },
        // It is time, and the clone isn't ready yet.
        Readying,
    }
}

impl<P, S, Request> Future for ResponseFuture<P, S, Request>
where
    P: Policy<Request, S::Response, S::Error>,
    S: Service<Request>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.as_mut().poll_try(cx)) {
            Some(result) => Poll::Ready(result),
            None => self.poll_again(cx),
        }
    }
}

impl<P, S, Request> ResponseFuture<P, S, Request>
where
    P: Policy<Request, S::Response, S::Error>,
    S: Service<Request>,
{
    /// Polls the try that is under way, if one is. `None` where another is wanted.
    ///
    /// - Called → Waiting, or done.
    #[inline(always)]
    fn poll_try(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<S::Response, S::Error>>> {
        let mut this = self.project();
        let StateProj::Called { future } = this.state.as_mut().project() else {
            return Poll::Ready(None);
        };
        let mut result = ready!(future.poll(cx));
        let wait = match this.spare {
            Some(spare) => spare.policy.retry(&mut spare.request, &mut result),
            None => None,
        };
        match wait {
            None => Poll::Ready(Some(result)),
            Some(wait) => {
                this.state.set(State::Waiting { wait });
                Poll::Ready(None)
            }
        }
    }

    /// Goes on to another try. Apart, so that the first one, mostly the only one, is short.
    #[cold]
    fn poll_again(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        loop {
            let mut this = self.as_mut().project();
            // Waiting → Readying
            if let StateProj::Waiting { wait } = this.state.as_mut().project() {
                ready!(wait.poll(cx));
                this.state.set(State::Readying);
            }
            // Readying → Called, with a new copy in case of yet another try; or done.
            if let StateProj::Readying = this.state.as_mut().project() {
                let spare = this.spare.as_mut().expect("only a spare is retried");
                ready!(spare.service.poll_ready(cx))?;
                let copy = spare.policy.clone_request(&spare.request);
                let future = match copy {
                    Some(copy) => {
                        let request = std::mem::replace(&mut spare.request, copy);
                        spare.service.call(request)
                    }
                    None => {
                        let mut last = this.spare.take().expect("it was there just now");
                        last.service.call(last.request)
                    }
                };
                this.state.set(State::Called { future });
            }
            if let Some(result) = ready!(self.as_mut().poll_try(cx)) {
                return Poll::Ready(result);
            }
        }
    }
}
