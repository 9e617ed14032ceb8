//! Makes connections over the streams of a connector.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::Body;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tower_service::Service;

use super::{Builder, Connection, Driver};
use crate::{Error, ErrorKind};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes [`Connection`]s over the byte streams of a connector: a `MakeService`.
///
/// `C` is a service from a target, such as an address, to a byte stream. The response is the connection's
/// handle, whose [`Driver`] runs in a task that ends with it. It is there once the peer has begun to speak HTTP/2: what
/// listens and doesn't is no connection.
///
/// **Readiness.** The connector's.
///
/// **Cancellation.** Dropping the future ends the attempt.
///
/// **Errors.** [`Error`] of kind [`Connect`](ErrorKind::Connect), whose source is the connector's error or
/// what else has failed.
pub struct Connect<C, B> {
    connector: C,
    builder: Builder,
    _body: PhantomData<fn(B)>,
}

impl<C, B> Connect<C, B> {
    /// Makes connections with the settings of `builder`.
    pub fn new(connector: C, builder: Builder) -> Self {
        Self {
            connector,
            builder,
            _body: PhantomData,
        }
    }
}

impl<C, B, T> Service<T> for Connect<C, B>
where
    // The connector.
    C: Service<T>,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    // The bodies of the requests.
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Connection<B>;
    type Error = Error;
    type Future = ConnectFuture<C::Future, C::Response, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.connector.poll_ready(cx).map_err(not_connected)
    }

    fn call(&mut self, target: T) -> Self::Future {
        ConnectFuture {
            step: Step::Connecting {
                connecting: self.connector.call(target),
                builder: Some(self.builder.clone()),
            },
        }
    }
}

type Handshake<IO, B> =
    Pin<Box<dyn Future<Output = Result<(Connection<B>, Driver<IO, B>), Error>> + Send>>;

pin_project! {
    /// The response of [`Connect`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ConnectFuture<F, IO, B>
    where
        IO: AsyncRead,
        IO: AsyncWrite,
        IO: Unpin,
        B: Body,
    {
        #[pin]
        step: Step<F, IO, B>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F, IO, B>
    where
        IO: AsyncRead,
        IO: AsyncWrite,
        IO: Unpin,
        B: Body,
    {
        Connecting {
            #[pin]
            connecting: F,
            builder: Option<Builder>,
        },
        Shaking {
            handshake: Handshake<IO, B>,
        },
    }
}

impl<F, IO, B, E> Future for ConnectFuture<F, IO, B>
where
    // The connector's.
    F: Future<Output = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    E: Into<BoxError>,
    // The bodies of the requests.
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Output = Result<Connection<B>, Error>;

    // Connecting -> Shaking.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut step = self.project().step;
        loop {
            match step.as_mut().project() {
                StepProj::Connecting {
                    connecting,
                    builder,
                } => {
                    let io = ready!(connecting.poll(cx)).map_err(not_connected)?;
                    let builder = builder.take().unwrap_or_default();
                    let handshake = Box::pin(async move {
                        let (connection, mut driver) = builder.handshake(io).await?;
                        poll_fn(|cx| driver.poll_greeted(cx)).await?;
                        Ok((connection, driver))
                    });
                    step.set(Step::Shaking { handshake });
                }
                StepProj::Shaking { handshake } => {
                    let (connection, driver) =
                        ready!(handshake.as_mut().poll(cx)).map_err(not_connected)?;
                    let runtime = Handle::try_current().map_err(not_connected)?;
                    // It ends with the last handle, so nobody has to end it.
                    drop(runtime.spawn(async move {
                        if let Err(error) = driver.await {
                            tracing::debug!(
                                error = &error as &dyn std::error::Error,
                                "connection ended"
                            );
                        }
                    }));
                    return Poll::Ready(Ok(connection));
                }
            }
        }
    }
}

fn not_connected(error: impl Into<BoxError>) -> Error {
    Error::because(ErrorKind::Connect, error).before_sending()
}

impl<C: Clone, B> Clone for Connect<C, B> {
    fn clone(&self) -> Self {
        Self::new(self.connector.clone(), self.builder.clone())
    }
}

impl<C: fmt::Debug, B> fmt::Debug for Connect<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("connector", &self.connector)
            .field("builder", &self.builder)
            .finish()
    }
}

impl<F, IO, B> fmt::Debug for ConnectFuture<F, IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectFuture").finish_non_exhaustive()
    }
}
