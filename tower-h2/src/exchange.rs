//! One request on its way through the service of a server, and its response.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::response::Parts;
use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::failure::reason_for;
use crate::fields::{announce_length, strip_connection_fields};
use crate::pace::Pace;
use crate::send_body::{SendBody, SendBuf};
use crate::{Error, ErrorKind};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// What is left to do for one request.
    #[project = StepProj]
    enum Step<F, B>
    where
        B: Body,
    {
        /// The service is at work.
        Calling {
            #[pin]
            call: F,
            respond: SendResponse<SendBuf<B::Data>>,
            manner: Manner,
        },
        /// The head is sent, and the body follows.
        Sending {
            #[pin]
            body: SendBody<B>,
        },
        Done,
    }
}

/// How a response is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// It has no content, whatever the service says.
    pub(crate) head_only: bool,
    /// How long the peer may keep the stream's window shut.
    pub(crate) timeout: Option<Duration>,
}

pin_project! {
    /// Answers one request: polls the service's future, then sends what it gives.
    pub(crate) struct Exchange<F, B>
    where
        B: Body,
    {
        #[pin]
        step: Step<F, B>,
    }
}

impl<F, B, E> Exchange<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    /// An exchange whose response is sent in this manner.
    pub(crate) fn new(call: F, respond: SendResponse<SendBuf<B::Data>>, manner: Manner) -> Self {
        Self {
            step: Step::Calling {
                call,
                respond,
                manner,
            },
        }
    }

    /// Puts another exchange in the place of this one, which is over.
    pub(crate) fn renew(
        self: Pin<&mut Self>,
        call: F,
        respond: SendResponse<SendBuf<B::Data>>,
        manner: Manner,
    ) {
        self.project().step.set(Step::Calling {
            call,
            respond,
            manner,
        });
    }

    // Calling -> Calling, Sending, Done; Sending -> Sending, Done.
    fn poll_steps(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut step = self.project().step;
        loop {
            match step.as_mut().project() {
                StepProj::Calling {
                    call,
                    respond,
                    manner,
                } => {
                    let Poll::Ready(answer) = call.poll(cx) else {
                        return poll_reset(respond, cx).map(Err);
                    };
                    let response = match answer {
                        Ok(response) => response,
                        Err(error) => {
                            let error = error.into();
                            respond.send_reset(reason_for(&*error));
                            return Poll::Ready(Err(Error::because(ErrorKind::Service, error)));
                        }
                    };
                    let (head, body) = response.into_parts();
                    let timeout = manner.timeout;
                    match send_head(respond, head, &body, *manner)? {
                        Some(stream) => step.set(Step::Sending {
                            body: SendBody::new(stream, body, timeout),
                        }),
                        None => return Poll::Ready(Ok(())),
                    }
                }
                StepProj::Sending { body } => return body.poll(cx),
                StepProj::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    fn after_panic(self: Pin<&mut Self>, panic: &(dyn Any + Send)) -> Error {
        match self.project().step.project() {
            StepProj::Calling { respond, .. } => respond.send_reset(Reason::INTERNAL_ERROR),
            StepProj::Sending { body } => body.reset(Reason::INTERNAL_ERROR),
            StepProj::Done => {}
        }
        let message = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Error::because(
            ErrorKind::Service,
            format!("the service panicked: {message}"),
        )
    }
}

impl<F, B, E> Future for Exchange<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = ();

    /// Polls the service within a net: a panic ends this exchange, and not the connection.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.as_mut().poll_steps(cx)));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(panic) => Err(self.as_mut().after_panic(&*panic)),
        };
        if let Err(error) = result {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "exchange ended early"
            );
        }
        self.project().step.set(Step::Done);
        Poll::Ready(())
    }
}

/// Sends the head, and gives the stream where the body is to follow.
fn send_head<B>(
    respond: &mut SendResponse<SendBuf<B::Data>>,
    mut head: Parts,
    body: &B,
    manner: Manner,
) -> Result<Option<SendStream<SendBuf<B::Data>>>, Error>
where
    B: Body,
{
    strip_connection_fields(&mut head.headers);
    // An interim response isn't an answer, and the statuses after it have no content by definition.
    if head.status.is_informational() {
        respond.send_reset(Reason::INTERNAL_ERROR);
        let why = "an informational status can't be a response";
        return Err(Error::because(ErrorKind::Service, why));
    }
    let bodiless = manner.head_only
        || head.status == StatusCode::NO_CONTENT
        || head.status == StatusCode::NOT_MODIFIED;
    let last = bodiless || body.is_end_stream();
    if !bodiless {
        announce_length(&mut head.headers, body);
    }
    let stream = respond
        .send_response(Response::from_parts(head, ()), last)
        .map_err(Error::from_h2)?;
    Ok((!last).then_some(stream))
}

/// While the service is at work, a reset by the peer, or the end of the connection, ends the exchange.
fn poll_reset<D: bytes::Buf>(
    respond: &mut SendResponse<SendBuf<D>>,
    cx: &mut Context<'_>,
) -> Poll<Error> {
    respond.poll_reset(cx).map(|reset| match reset {
        Ok(reason) => Error::reset(reason),
        Err(error) => Error::from_h2(error),
    })
}

pin_project! {
    /// An exchange in a task of its own, which tells how long its first poll took.
    pub(crate) struct Paced<F> {
        #[pin]
        exchange: F,
        watch: Option<(Arc<Pace>, Duration)>,
    }
}

impl<F> Paced<F> {
    /// Tells `pace` whether the first poll takes longer than `bar`.
    pub(crate) fn new(exchange: F, pace: Arc<Pace>, bar: Duration) -> Self {
        Self {
            exchange,
            watch: Some((pace, bar)),
        }
    }

    /// An exchange that was polled already.
    pub(crate) fn begun(exchange: F) -> Self {
        Self {
            exchange,
            watch: None,
        }
    }

    /// The exchange, where it won't have a task after all.
    pub(crate) fn into_inner(self) -> F {
        self.exchange
    }
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some((pace, bar)) = this.watch.take() else {
            return this.exchange.poll(cx);
        };
        let start = Instant::now();
        let polled = this.exchange.poll(cx);
        pace.observe(start, Instant::now(), bar);
        polled
    }
}
