//! The response of a request, and what goes on until it is over.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::connection::{Placed, Ticket};
use crate::fields::announced_length;
use crate::{Error, ErrorKind, RecvBody};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What ends with a response: the place of its stream, and the request's body if that is still sent.
#[derive(Debug)]
pub(crate) struct Hold {
    upload: Option<Upload>,
    ticket: Ticket,
}

impl Hold {
    pub(super) fn new(upload: Option<Upload>, ticket: Ticket) -> Self {
        Self { upload, ticket }
    }

    /// The response was read to its end; the request's body may go on to its own, unless it isn't to.
    pub(crate) fn finish(mut self) {
        match &mut self.upload {
            Some(upload) if !self.ticket.drops_upload() => upload.0 = None,
            Some(_) | None => {}
        }
    }
}

/// The task that sends the rest of a request's body. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Upload(Option<AbortHandle>);

impl Upload {
    pub(super) fn spawn<B>(mut body: Placed<B>) -> Result<Self, Error>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let runtime = Handle::try_current().map_err(|_| {
            let why = "a body that has to wait needs a Tokio runtime to be sent in";
            Error::because(ErrorKind::Unsendable, why)
        })?;
        let task = runtime.spawn(async move {
            if let Some(body) = body.as_mut().as_pin_mut() {
                if let Err(error) = body.await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "request body ended early"
                    );
                }
            }
        });
        Ok(Self(Some(task.abort_handle())))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The response of a [`Connection`](super::Connection).
///
/// **Cancellation.** Dropping it resets the stream with CANCEL.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    state: State,
}

enum State {
    Failed {
        error: Option<Error>,
    },
    Waiting {
        response: h2::client::ResponseFuture,
        hold: Option<Hold>,
    },
}

impl ResponseFuture {
    pub(super) fn new(response: h2::client::ResponseFuture, hold: Hold) -> Self {
        Self {
            state: State::Waiting {
                response,
                hold: Some(hold),
            },
        }
    }

    pub(super) fn failed(error: Error) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<RecvBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Waiting { response, hold } => {
                let result = ready!(Pin::new(response).poll(cx));
                let hold = hold.take();
                Poll::Ready(match result {
                    Ok(response) => {
                        let length = announced_length(response.headers());
                        Ok(response.map(|stream| RecvBody::new(stream, length).with_hold(hold)))
                    }
                    Err(error) => Err(Error::from_h2(error)),
                })
            }
            State::Failed { error } => Poll::Ready(Err(error
                .take()
                .unwrap_or_else(|| Error::new(ErrorKind::Closed)))),
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
