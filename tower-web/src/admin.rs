//! A port for those who run the service, apart from those who use it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::StatusCode;
use tower_hyper::{Incoming, Server, Tcp};
use tower_service::Service;

use crate::AppService;
use crate::layered::BoxFuture;
use crate::problem::Problem;
use crate::respond::{IntoResponse, Response};

/// How many connections there may be. Those who ask are few.
const CONNECTIONS: usize = 64;

/// What is served there.
pub(crate) struct Admin {
    pub(crate) server: Server<Tcp>,
    pub(crate) service: AppService,
    #[cfg(feature = "prometheus")]
    pub(crate) recorder: Option<Recorder>,
}

impl Admin {
    /// Serves until it is dropped.
    pub(crate) async fn serve(self) -> crate::Result {
        if let Ok(address) = self.server.local_addr() {
            tracing::info!(%address, "listening for administration");
        }
        let server = self.server.with_max_connections(CONNECTIONS);
        let answers = Answers {
            service: self.service,
            #[cfg(feature = "prometheus")]
            recorder: self.recorder.clone(),
        };
        let serving = server.serve(answers);
        #[cfg(feature = "prometheus")]
        if let Some(recorder) = self.recorder {
            tokio::select! {
                served = serving => served?,
                never = recorder.upkeep() => match never {},
            }
            return Ok(());
        }
        serving.await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Answers {
    service: AppService,
    #[cfg(feature = "prometheus")]
    recorder: Option<Recorder>,
}

impl Service<http::Request<Incoming>> for Answers {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        if let Some(health) = self.service.health(request.method(), path) {
            return Box::pin(async move { Ok(health.await) });
        }
        #[cfg(feature = "prometheus")]
        if let (METRICS, Some(recorder)) = (path, &self.recorder) {
            let response = recorder.response();
            return Box::pin(std::future::ready(Ok(response)));
        }
        let unknown = Problem::new(StatusCode::NOT_FOUND).into_response();
        Box::pin(std::future::ready(Ok(unknown)))
    }
}

#[cfg(feature = "prometheus")]
const METRICS: &str = "/metrics";

/// What collects metrics, and writes them for Prometheus.
#[cfg(feature = "prometheus")]
#[derive(Clone)]
pub(crate) struct Recorder(metrics_exporter_prometheus::PrometheusHandle);

#[cfg(feature = "prometheus")]
impl Recorder {
    /// Makes it the process's recorder. `None` where there is another already, which is kept to.
    pub(crate) fn install() -> Option<Self> {
        /// From 1 ms to 30 s, which is when a handler is ended.
        const SECONDS: [f64; 14] = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ];
        let builder = metrics_exporter_prometheus::PrometheusBuilder::new();
        // Of times only: nobody knows what others are counted in.
        let times = metrics_exporter_prometheus::Matcher::Suffix("_seconds".to_owned());
        let installed = builder
            .set_buckets_for_metric(times, &SECONDS)
            .and_then(|builder| builder.install_recorder());
        match installed {
            Ok(handle) => Some(Self(handle)),
            Err(error) => {
                tracing::warn!(%error, "there is no /metrics: another recorder is installed");
                None
            }
        }
    }

    fn response(&self) -> Response {
        const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
        ([("content-type", TEXT)], self.0.render()).into_response()
    }

    /// Keeps what nobody asks for from growing.
    async fn upkeep(self) -> Infallible {
        const EACH: std::time::Duration = std::time::Duration::from_secs(5);
        loop {
            tokio::time::sleep(EACH).await;
            self.0.run_upkeep();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::App;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn it_tells_health_and_nothing_else_by_default() {
        let admin = Admin {
            server: Server::bind("127.0.0.1:0").await.unwrap(),
            service: App::new().build().unwrap(),
            #[cfg(feature = "prometheus")]
            recorder: None,
        };
        let address = admin.server.local_addr().unwrap();
        let service = admin.service.clone();
        let asking = async {
            assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
            assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
            assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 404"));
            service.begin_shutdown();
            assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        };
        tokio::select! {
            ended = admin.serve() => panic!("{ended:?}"),
            () = asking => {}
        }
    }

    #[cfg(feature = "prometheus")]
    #[tokio::test]
    async fn it_tells_metrics_in_the_form_of_prometheus() {
        use tower_service::Service as _;

        let recorder = Recorder::install().unwrap();
        assert!(Recorder::install().is_none(), "there can be one only");
        let mut service = App::new().build().unwrap();
        let request = http::Request::get("/nowhere").body(crate::Body::empty());
        let response = service.call(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 404);
        let admin = Admin {
            server: Server::bind("127.0.0.1:0").await.unwrap(),
            service,
            recorder: Some(recorder),
        };
        let address = admin.server.local_addr().unwrap();
        let text = tokio::select! {
            ended = admin.serve() => panic!("{ended:?}"),
            text = get(address, "/metrics") => text,
        };
        let line = "http_requests_total{method=\"GET\",route=\"(none)\",status=\"4xx\"}";
        assert!(text.contains(line), "{text}");
    }
}
