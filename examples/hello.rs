//! A real HTTP server behind a stack of middleware, to try with `curl`.
//!
//! ```sh
//! cargo run --example hello
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use examples::HttpResponse;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::util::find_source;
use tower::{BoxError, Service, ServiceBuilder};

const TIMEOUT: Duration = Duration::from_secs(1);
const IN_FLIGHT: usize = 2;
/// How many requests wait, besides the one whose turn is next.
const QUEUE: usize = 4;

/// The application: answers `/` at once, `/slow` after five seconds, and breaks down on `/fail`.
#[derive(Clone, Debug)]
struct Hello;

impl<B> Service<Request<B>> for Hello {
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        Box::pin(async move {
            match path.as_str() {
                "/" => Ok(text(StatusCode::OK, "hello, world\n")),
                "/slow" => {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    Ok(text(StatusCode::OK, "hello, patient world\n"))
                }
                "/fail" => Err("the database is on fire".into()),
                _ => Ok(text(StatusCode::NOT_FOUND, "nobody here\n")),
            }
        })
    }
}

/// Puts the stack around the application.
fn app<B>() -> impl Service<
    Request<B>,
    Response = HttpResponse,
    Error = BoxError,
    Future = impl Future<Output = Result<HttpResponse, BoxError>> + Send,
> + Clone
+ Send
where
    B: Send + 'static,
{
    ServiceBuilder::new()
        // Turns a request away at once where the queue is full, so that clients can go elsewhere.
        .load_shed()
        // Outside of the queue, so that the time that a request waits in it counts.
        .timeout(TIMEOUT)
        .buffer(QUEUE)
        .concurrency_limit(IN_FLIGHT)
        .service(Hello)
}

/// Tells the client what became of a request that the stack did not let through.
fn on_error(error: BoxError) -> HttpResponse {
    if find_source::<Elapsed>(&*error).is_some() {
        return text(StatusCode::GATEWAY_TIMEOUT, "that took too long\n");
    }
    if find_source::<Overloaded>(&*error).is_some() {
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "too busy\n");
        let seconds = header::HeaderValue::from(TIMEOUT.as_secs());
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        return response;
    }
    // What went wrong inside is for the log, not for the client.
    eprintln!("request failed: {error}");
    text(StatusCode::INTERNAL_SERVER_ERROR, "something broke\n")
}

fn text(status: StatusCode, body: &'static str) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let listener = examples::listen(SocketAddr::from(([127, 0, 0, 1], 3000))).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!(
        "Listening on {url}. Try, in another terminal:

    curl -i {url}/          # 200: hello, world
    curl -i {url}/slow      # 504: takes 5 s, and the timeout is {TIMEOUT:?}
    curl -i {url}/fail      # 500: the service broke down, and why is logged here

    # Twelve at once: {IN_FLIGHT} in flight, 1 next, {QUEUE} in the queue. For the rest, 503 with Retry-After:
    seq 12 | xargs -P 12 -I @ curl -si {url}/slow | grep -E 'HTTP|retry'

Ctrl-C stops."
    );
    tokio::select! {
        () = examples::serve(listener, app(), on_error) => {}
        stopped = examples::interrupted() => stopped?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    async fn get(
        app: impl Service<Request<()>, Response = HttpResponse, Error = BoxError>,
        path: &str,
    ) -> HttpResponse {
        let request = Request::get(path).body(()).unwrap();
        app.oneshot(request).await.unwrap_or_else(on_error)
    }

    #[tokio::test(start_paused = true)]
    async fn each_path_answers_as_promised() {
        let app = app();
        assert_eq!(get(app.clone(), "/").await.status(), 200);
        assert_eq!(get(app.clone(), "/nowhere").await.status(), 404);
        assert_eq!(get(app.clone(), "/slow").await.status(), 504);
        assert_eq!(get(app.clone(), "/fail").await.status(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn sheds_what_is_beyond_the_limit_and_the_queue_and_recovers() {
        let app = app();
        assert_eq!(get(app.clone(), "/").await.status(), 200);

        let responses = join_all((0..12).map(|_| get(app.clone(), "/slow"))).await;
        let shed: Vec<_> = responses.iter().filter(|r| r.status() == 503).collect();
        let late = responses.iter().filter(|r| r.status() == 504).count();
        // The queue's worker holds the request that is next, which no longer counts as queued.
        assert_eq!(late, IN_FLIGHT + 1 + QUEUE);
        assert_eq!(shed.len(), 12 - late);
        assert!(shed.iter().all(|r| r.headers()["retry-after"] == "1"));
        assert_eq!(get(app, "/").await.status(), 200);
    }

    #[tokio::test]
    async fn serves_over_a_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(examples::serve(listener, app(), on_error));

        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nhello, world\n"), "{response}");
    }
}
