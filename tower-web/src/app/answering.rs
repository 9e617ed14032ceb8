//! The application that has been built: what it does with each request, and its beginning and end.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use tower_deadline::Deadline;
use tower_service::Service;

use super::{Hook, Rewrite};
use crate::BoxError;
use crate::body::Body;
use crate::defaults::current::{self, AppId};
use crate::defaults::shell::{Shared, Shell};
use crate::extract::{Request, RequestHead, Route};
use crate::handler::{Call, taken};
use crate::health::Health;
use crate::layered::{BoxFuture, CatchPanic, Next, Stage, panicked};
use crate::respond::{IntoResponse, Response};
use crate::routing::Router;
use crate::shutdown::ShutdownSource;

/// An application that has been built, as a Tower service.
///
/// **Readiness.** Always. **Errors.** None: all of them are responses. **Cancellation.** Dropping the future drops the handler.
/// Clones are handles of one and the same.
#[derive(Clone)]
pub struct AppService {
    pub(super) built: Arc<Built>,
}

pub(super) struct Built {
    pub(super) core: Arc<Core>,
    pub(super) layers: Option<Next>,
    /// `None` where nothing is to be done for each request.
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) health: Option<Arc<Health>>,
    #[cfg(feature = "server")]
    pub(super) drain_delay: Duration,
    pub(super) shutdown: ShutdownSource,
    pub(super) hooks: std::sync::Mutex<Hooks>,
}

#[derive(Default)]
pub(super) struct Hooks {
    pub(super) on_start: Vec<Hook>,
    pub(super) on_shutdown: Vec<Hook>,
}

/// What is inside of all layers.
pub(super) struct Core {
    pub(super) app: AppId,
    /// See [`Shared::shorter_times`].
    pub(super) shorter_times: Vec<Option<Duration>>,
    pub(super) router: Router,
    pub(super) rewrites: Vec<Rewrite>,
}

impl Core {
    #[inline]
    fn answer(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        if let (Some(call), false) = (&mut *call, self.rewrites.is_empty()) {
            let parts = &mut call.head.parts;
            let rewrite = || self.rewrites.iter().for_each(|rewrite| rewrite(parts));
            if let Err(panic) = catch_unwind(AssertUnwindSafe(rewrite)) {
                return Box::pin(std::future::ready(panicked(&*panic).into_response()));
            }
        }
        self.router.answer(call)
    }

    /// When the current request's route has no time left, where that comes sooner than what the layers knew of: a layer that has waited
    /// is polled with the longest time of any route until it is polled again.
    #[inline]
    fn deadline(&self) -> Option<Deadline> {
        match self.shorter_times.is_empty() {
            true => None,
            false => self.shorter_deadline(),
        }
    }

    #[cold]
    fn shorter_deadline(&self) -> Option<Deadline> {
        current::with(|facts| {
            if facts.app != self.app {
                return None;
            }
            let number = usize::try_from(facts.route).ok()?;
            let own = (*self.shorter_times.get(number)?)?;
            facts.came?.checked_add(own).map(Deadline::at)
        })
    }
}

impl Stage for Arc<Core> {
    fn run(&self, request: Request) -> BoxFuture<Response> {
        let (head, body) = RequestHead::new(request);
        let answer = CatchPanic::new(self.answer(&mut Some(Call { head, body })));
        match self.deadline() {
            Some(deadline) => Box::pin(deadline.scope(answer)),
            None => Box::pin(answer),
        }
    }
}

impl AppService {
    /// Runs what [`App::on_start`](super::App::on_start) was given, once.
    ///
    /// # Errors
    ///
    /// Fails where one of the hooks does; the others don't run then.
    pub async fn start(&self) -> Result<(), BoxError> {
        let hooks = std::mem::take(&mut self.hooks().on_start);
        for hook in hooks {
            hook().await?;
        }
        Ok(())
    }

    /// Tells handlers that the application [shuts down](crate::Shutdown), and whoever asks `/readyz`.
    pub fn begin_shutdown(&self) {
        self.built.shutdown.begin(None);
    }

    /// The same, with the time at which what is still open is cut.
    #[cfg(feature = "server")]
    pub(crate) fn begin_shutdown_by(&self, deadline: tokio::time::Instant) {
        self.built.shutdown.begin(Some(deadline));
    }

    /// Answers for the application's health, if it does so at all and this is a path for it.
    #[cfg(feature = "server")]
    pub(crate) fn health(&self, method: &Method, path: &str) -> Option<BoxFuture<Response>> {
        let health = self.built.health.as_ref()?;
        health.answers(path).then(|| health.answer(method, path))
    }

    /// When what is still open is cut. `None` before the shutdown.
    #[cfg(feature = "server")]
    pub(crate) fn shutdown_deadline(&self) -> Option<tokio::time::Instant> {
        self.built.shutdown.subscribe().deadline()
    }

    /// How long requests are still taken after that.
    #[cfg(feature = "server")]
    pub(crate) fn drain_delay(&self) -> Duration {
        self.built.drain_delay
    }

    /// Turns new requests away, where anybody asks.
    #[cfg(feature = "server")]
    pub(crate) fn drain(&self) {
        self.built.shutdown.drain();
    }

    /// Waits until nobody holds a [`Shutdown`](crate::Shutdown) any more: WebSockets among others.
    #[cfg(feature = "server")]
    pub(crate) async fn released(&self) {
        self.built.shutdown.released().await;
    }

    /// Runs what [`App::on_shutdown`](super::App::on_shutdown) was given, once. All of them run.
    ///
    /// # Errors
    ///
    /// Fails with the error of the first that does.
    pub async fn stop(&self) -> Result<(), BoxError> {
        let hooks = std::mem::take(&mut self.hooks().on_shutdown);
        let mut result = Ok(());
        for hook in hooks.into_iter().rev() {
            result = result.and(hook().await);
        }
        result
    }

    fn hooks(&self) -> std::sync::MutexGuard<'_, Hooks> {
        self.built
            .hooks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for AppService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppService").finish_non_exhaustive()
    }
}

impl<B> Service<http::Request<B>> for AppService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = AppFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(
        &mut self,
        #[cfg_attr(
            not(all(feature = "http2", feature = "websocket")),
            allow(
                unused_mut,
                reason = "only a WebSocket over HTTP/2 is asked for otherwise"
            )
        )]
        mut request: http::Request<B>,
    ) -> AppFuture {
        #[cfg(all(feature = "http2", feature = "websocket"))]
        crate::websocket::route_tunnel(&mut request);
        let is_head = *request.method() == Method::HEAD;
        let (parts, body) = request.into_parts();
        let body = Body::new(body);
        // From here on it stays where it is, as to move it is what costs most.
        let mut call = Some(Call {
            head: RequestHead {
                parts,
                route: Route::default(),
            },
            body,
        });
        let mut shell = match (&self.built.shared, &call) {
            // An application that is mounted in another is within its shell already.
            (Some(shared), Some(call)) if !current::is_inside() => {
                Some(Box::new(Shell::new(shared, &call.head.parts)))
            }
            _ => None,
        };
        let running = match &mut shell {
            Some(shell) => self.built.receive(shell, &mut call),
            None => self.built.begin(&mut call),
        };
        AppFuture {
            running: CatchPanic::new(running),
            shell,
            is_head,
        }
    }
}

impl Built {
    /// Begins to answer a request, unless it is answered or refused before.
    #[inline]
    fn receive(&self, shell: &mut Shell, call: &mut Option<Call>) -> BoxFuture<Response> {
        if let (Some(health), Some(call)) = (&self.health, &*call) {
            let parts = &call.head.parts;
            // An orchestrator that isn't answered would end what is only busy.
            if health.answers(parts.uri.path()) {
                return health.answer(&parts.method, parts.uri.path());
            }
        }
        match shell.refusal() {
            None => shell.enter(|| self.begin(call)),
            Some(problem) => Box::pin(std::future::ready(problem.into_response())),
        }
    }

    #[inline]
    fn begin(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        let Some(layers) = &self.layers else {
            return self.core.answer(call);
        };
        match call.take() {
            Some(Call { head, body }) => layers.run(Request::from_parts(head.parts, body)),
            None => taken(),
        }
    }
}

/// The response of an [`AppService`].
#[must_use = "futures do nothing unless polled"]
pub struct AppFuture {
    running: CatchPanic,
    /// `None` where nothing is to be done for the request, and once it is answered.
    /// Boxed, as it is large, and a future is moved to its place by whoever polls it.
    shell: Option<Box<Shell>>,
    /// Whether the response goes without its body.
    is_head: bool,
}

impl Future for AppFuture {
    type Output = Result<Response, std::convert::Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A response is moved as seldom as can be.
        let mut polled = Poll::Pending;
        if self.shell.is_some() || self.is_head {
            self.poll_around(&mut polled, cx);
        } else {
            self.running.poll_into(&mut polled, Ok, cx);
        }
        polled
    }
}

impl AppFuture {
    /// Polls it, and does what is done around a request.
    fn poll_around(
        &mut self,
        polled: &mut Poll<Result<Response, std::convert::Infallible>>,
        cx: &mut Context<'_>,
    ) {
        let running = &mut self.running;
        match &mut self.shell {
            None => running.poll_into(polled, Ok, cx),
            Some(shell) => {
                shell.enter(|| running.poll_into(polled, Ok, cx));
                if polled.is_pending() {
                    let Poll::Ready(late) = shell.poll_late(cx) else {
                        return;
                    };
                    shell.enter(|| running.cancel());
                    *polled = Poll::Ready(Ok(late.into_response()));
                }
                if let Poll::Ready(Ok(response)) = polled {
                    shell.finish(response, self.is_head);
                }
                // It counts no longer.
                self.shell = None;
            }
        }
        if let (true, Poll::Ready(Ok(response))) = (self.is_head, polled) {
            drop_body(response);
        }
    }
}

impl fmt::Debug for AppFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppFuture").finish_non_exhaustive()
    }
}

/// Takes the body away; its length is told nevertheless.
#[cold]
fn drop_body(response: &mut Response) {
    use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

    let headers = response.headers();
    let told = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if let (false, Some(length)) = (told, http_body::Body::size_hint(response.body()).exact()) {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::empty();
}
