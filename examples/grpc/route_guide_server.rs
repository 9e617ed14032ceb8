//! A server with all four kinds of methods, health, reflection, and an end without loss.
//!
//! ```sh
//! cargo run --example route-guide-server
//! ```
//!
//! Ask it with `cargo run --example route-guide-client`, or with `grpcurl -plaintext '[::1]:50052' list`. Ctrl-C ends
//! it once the calls under way have.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use examples_grpc::routeguide::server::{RouteGuide, RouteGuideServer};
use examples_grpc::routeguide::{DESCRIPTOR, Feature, Point, Rectangle, RouteNote, RouteSummary};
use futures_util::{Stream, StreamExt, stream};
use tower_grpc::health::{Health, health_reporter};
use tower_grpc::reflection::Reflection;
use tower_grpc::server::Server;
use tower_grpc::{Request, Response, Status, Streaming};

/// The places, and the notes that were left.
struct Guide {
    features: Vec<Feature>,
    notes: Arc<Mutex<HashMap<Point, Vec<RouteNote>>>>,
}

impl Guide {
    fn new() -> Self {
        let feature = |name: &str, latitude, longitude| Feature {
            name: name.to_owned(),
            location: Some(Point {
                latitude,
                longitude,
            }),
        };
        Self {
            features: vec![
                feature("Patriots Path, Mendham, NJ", 407_838_351, -746_143_763),
                feature("101 New Jersey 10, Whippany, NJ", 408_122_808, -743_999_179),
                feature("U.S. 6, Shohola, PA", 413_628_156, -749_015_468),
            ],
            notes: Arc::default(),
        }
    }

    fn at(&self, point: Point) -> Option<&Feature> {
        self.features
            .iter()
            .find(|feature| feature.location == Some(point))
    }
}

impl RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Response<Feature>, Status> {
        match self.at(request.into_inner()) {
            Some(feature) => Ok(Response::new(feature.clone())),
            None => Err(Status::not_found("there is nothing with a name")),
        }
    }

    async fn list_features(
        &self,
        request: Request<Rectangle>,
    ) -> Result<Response<impl Stream<Item = Result<Feature, Status>> + Send + 'static>, Status>
    {
        let Rectangle {
            lo: Some(lo),
            hi: Some(hi),
        } = request.into_inner()
        else {
            return Err(Status::invalid_argument("a rectangle has two corners"));
        };
        let is_inside = |feature: &&Feature| {
            feature.location.is_some_and(|point| {
                (lo.latitude..=hi.latitude).contains(&point.latitude)
                    && (lo.longitude..=hi.longitude).contains(&point.longitude)
            })
        };
        let inside: Vec<_> = self.features.iter().filter(is_inside).cloned().collect();
        Ok(Response::new(stream::iter(inside).map(Ok)))
    }

    async fn record_route(
        &self,
        request: Request<Streaming<Point>>,
    ) -> Result<Response<RouteSummary>, Status> {
        let start = Instant::now();
        let mut points = request.into_inner();
        let mut summary = RouteSummary::default();
        let mut metres = 0.0;
        let mut last = None;
        while let Some(point) = points.message().await? {
            summary.point_count += 1;
            summary.feature_count += i32::from(self.at(point).is_some());
            metres += last.map_or(0.0, |last| distance(last, point));
            last = Some(point);
        }
        summary.distance = metres as i32;
        summary.elapsed_time = start.elapsed().as_secs() as i32;
        Ok(Response::new(summary))
    }

    async fn route_chat(
        &self,
        request: Request<Streaming<RouteNote>>,
    ) -> Result<Response<impl Stream<Item = Result<RouteNote, Status>> + Send + 'static>, Status>
    {
        let notes = Arc::clone(&self.notes);
        let answers = request.into_inner().flat_map(move |note| {
            let answers = match note {
                Ok(note) => leave(&notes, note).into_iter().map(Ok).collect(),
                Err(status) => vec![Err(status)],
            };
            stream::iter(answers)
        });
        Ok(Response::new(answers))
    }
}

/// Leaves a note, and gives those that were there.
fn leave(notes: &Mutex<HashMap<Point, Vec<RouteNote>>>, note: RouteNote) -> Vec<RouteNote> {
    let point = note.location.unwrap_or_default();
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    let here = notes.entry(point).or_default();
    let before = here.clone();
    here.push(note);
    before
}

/// Metres between two points, on a sphere.
fn distance(from: Point, to: Point) -> f64 {
    let radians = |e7: i32| (f64::from(e7) / 1e7).to_radians();
    let half_sine = |a: i32, b: i32| ((radians(b) - radians(a)) / 2.0).sin().powi(2);
    let cosines = radians(from.latitude).cos() * radians(to.latitude).cos();
    let haversine =
        half_sine(from.latitude, to.latitude) + cosines * half_sine(from.longitude, to.longitude);
    2.0 * 6_371_000.0 * haversine.sqrt().asin()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (health, health_server) = health_reporter();
    let reflection = Reflection::new(&[DESCRIPTOR])?;
    let guide = RouteGuideServer::new(Guide::new());
    health.set("routeguide.RouteGuide", Health::Serving);

    let address = "[::1]:50052";
    println!("listening on {address}");
    Server::builder()
        .add_service(guide)
        .add_service(health_server)
        .add_service(reflection.v1())
        .add_service(reflection.v1alpha())
        .serve_with_shutdown(address, async {
            let _ = tokio::signal::ctrl_c().await;
            println!("ending");
            health.shut_down();
        })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use examples_grpc::routeguide::client::RouteGuideClient;
    use tower_grpc::Code;
    use tower_grpc::test::{InMemory, in_memory};

    use super::*;

    fn client() -> RouteGuideClient<InMemory<RouteGuideServer<Guide>>> {
        RouteGuideClient::new(in_memory(RouteGuideServer::new(Guide::new())))
    }

    fn point(latitude: i32, longitude: i32) -> Point {
        Point {
            latitude,
            longitude,
        }
    }

    #[tokio::test]
    async fn finds_what_is_at_a_point() {
        let feature = client().get_feature(point(407_838_351, -746_143_763)).await;
        assert_eq!(
            feature.unwrap().into_inner().name,
            "Patriots Path, Mendham, NJ"
        );
        let nothing = client().get_feature(point(0, 0)).await.unwrap_err();
        assert_eq!(nothing.code(), Code::NotFound);
    }

    #[tokio::test]
    async fn lists_what_is_in_a_rectangle() {
        let rectangle = Rectangle {
            lo: Some(point(400_000_000, -750_000_000)),
            hi: Some(point(410_000_000, -740_000_000)),
        };
        let features = client().list_features(rectangle).await.unwrap();
        assert_eq!(features.into_inner().count().await, 2);
    }

    #[tokio::test]
    async fn sums_a_way_up() {
        let way = stream::iter([
            point(407_838_351, -746_143_763),
            point(417_838_351, -746_143_763),
        ]);
        let summary = client().record_route(way).await.unwrap().into_inner();
        assert_eq!((summary.point_count, summary.feature_count), (2, 1));
        // A degree of latitude.
        assert!(
            (111_000..111_300).contains(&summary.distance),
            "{summary:?}"
        );
    }

    #[tokio::test]
    async fn tells_what_was_noted_before() {
        let note = |message: &str| RouteNote {
            location: Some(point(1, 1)),
            message: message.to_owned(),
        };
        let notes = stream::iter([note("first"), note("second"), note("third")]);
        let answers = client().route_chat(notes).await.unwrap();
        let answers: Vec<_> = answers.map(|note| note.unwrap().message).collect().await;
        assert_eq!(answers, ["first", "first", "second"]);
    }
}
