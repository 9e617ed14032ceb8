//! The service that the tests call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tower_deadline::Deadline;
use tower_grpc::test::{InMemory, in_memory};
use tower_grpc::{Request, Response, Status, Streaming};

#[expect(unreachable_pub, reason = "the generator doesn't know where it is")]
pub(crate) mod pb {
    include!("proto/tower.grpc.test.rs");
}

pub(crate) use pb::Say;
use pb::client::EchoClient;
use pb::server::{Echo, EchoServer};

/// Says things again, and counts what was dropped before it was done.
#[derive(Clone, Default)]
pub(crate) struct Parrot {
    pub(crate) abandoned: Arc<AtomicUsize>,
}

/// Counts where it is dropped without being defused.
struct Alarm(Option<Arc<AtomicUsize>>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub(crate) fn say(text: &str) -> Say {
    Say {
        text: text.to_owned(),
        ..Say::default()
    }
}

impl Parrot {
    /// What some texts make of a call.
    async fn obey(&self, request: &Request<Say>) -> Result<String, Status> {
        let mut alarm = Alarm(Some(Arc::clone(&self.abandoned)));
        let said = request.get_ref().text.clone();
        let answer = match said.as_str() {
            "fail" => {
                let mut status = Status::already_exists("said before");
                status.metadata_mut().insert("x-why", "echo").unwrap();
                Err(status)
            }
            "hang" => std::future::pending().await,
            "left" => {
                let left = Deadline::current().map_or(Duration::MAX, Deadline::remaining);
                Ok(left.as_millis().to_string())
            }
            "compressed?" => Ok(request.was_compressed().to_string()),
            _ => Ok(said),
        };
        alarm.0 = None;
        answer
    }
}

impl Echo for Parrot {
    async fn unary(&self, request: Request<Say>) -> Result<Response<Say>, Status> {
        let text = self.obey(&request).await?;
        let mut response = Response::new(Say {
            text,
            ..request.get_ref().clone()
        });
        if let Some(value) = request.metadata().get("x-echo") {
            response.metadata_mut().insert("x-echo", value).unwrap();
        }
        for value in request.metadata().get_all_bin("x-echo-bin") {
            let trailers = response.trailers_mut();
            trailers.append_bin("x-echo-bin", value).unwrap();
        }
        Ok(response)
    }

    async fn collect(&self, request: Request<Streaming<Say>>) -> Result<Response<Say>, Status> {
        let mut messages = request.into_inner();
        let mut all = String::new();
        while let Some(message) = messages.message().await? {
            all.push_str(&message.text);
        }
        Ok(Response::new(say(&all)))
    }

    async fn repeat(
        &self,
        request: Request<Say>,
    ) -> Result<Response<impl Stream<Item = Result<Say, Status>> + Send + 'static>, Status> {
        let text = self.obey(&request).await?;
        let times = request.get_ref().times as usize;
        let end = match request.get_ref().data.as_slice() {
            b"fail" => Some(Err(Status::data_loss("forgot the rest"))),
            _ => None,
        };
        let hang = request.get_ref().data == b"hang";
        let mut alarm = Alarm(hang.then(|| Arc::clone(&self.abandoned)));
        let messages =
            stream::iter((0..times).map(move |_| Ok(say(&text)))).chain(stream::iter(end));
        let messages = messages.chain(stream::poll_fn(move |_| {
            // It holds the alarm while the stream is there.
            match alarm.0.as_mut() {
                Some(_) => std::task::Poll::Pending,
                None => std::task::Poll::Ready(None),
            }
        }));
        let mut response = Response::new(messages);
        response.trailers_mut().insert("x-end", "true").unwrap();
        Ok(response)
    }

    async fn chat(
        &self,
        request: Request<Streaming<Say>>,
    ) -> Result<Response<impl Stream<Item = Result<Say, Status>> + Send + 'static>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn old(&self, request: Request<Say>) -> Result<Response<Say>, Status> {
        self.unary(request).await
    }
}

pub(crate) fn server() -> EchoServer<Parrot> {
    EchoServer::new(Parrot::default())
}

pub(crate) fn client() -> EchoClient<InMemory<EchoServer<Parrot>>> {
    EchoClient::new(in_memory(server()))
}
