//! A client that calls all four kinds of methods, with a deadline and metadata.
//!
//! ```sh
//! cargo run --example route-guide-client
//! ```

use std::error::Error;
use std::time::Duration;

use examples_grpc::routeguide::client::RouteGuideClient;
use examples_grpc::routeguide::{Point, Rectangle, RouteNote};
use futures_util::{Stream, StreamExt, stream};
use tower_grpc::client::Channel;
use tower_grpc::{Code, Request, Status};

type Guide = RouteGuideClient<Channel>;

async fn print_feature(guide: &mut Guide, point: Point) -> Result<(), Status> {
    let mut request = Request::new(point).with_timeout(Duration::from_secs(1));
    let named = request.metadata_mut().insert("x-client", "route-guide");
    named.map_err(|error| Status::internal(error.to_string()))?;
    match guide.get_feature(request).await {
        Ok(feature) => println!("here is {}", feature.get_ref().name),
        Err(status) if status.code() == Code::NotFound => println!("here is nothing"),
        Err(status) => return Err(status),
    }
    Ok(())
}

async fn print_features(guide: &mut Guide, area: Rectangle) -> Result<(), Status> {
    let mut features = guide.list_features(area).await?.into_inner();
    while let Some(feature) = features.message().await? {
        println!("there is {}", feature.name);
    }
    Ok(())
}

async fn measure(guide: &mut Guide, way: Vec<Point>) -> Result<(), Status> {
    let summary = guide.record_route(stream::iter(way)).await?.into_inner();
    println!(
        "{} points, {} of them with a name, in {} km",
        summary.point_count,
        summary.feature_count,
        summary.distance / 1000
    );
    Ok(())
}

/// A note each second, at two places in turn.
fn notes() -> impl Stream<Item = RouteNote> + Send + 'static {
    stream::iter(1..=4).then(|number| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let location = Point {
            latitude: number % 2,
            longitude: 0,
        };
        RouteNote {
            location: Some(location),
            message: format!("note {number}"),
        }
    })
}

async fn chat(guide: &mut Guide) -> Result<(), Status> {
    // The answers begin before the notes have ended.
    let mut answers = guide.route_chat(notes()).await?;
    while let Some(note) = answers.message().await? {
        println!("someone left {:?}", note.message);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut guide = Guide::new(Channel::connect("http://[::1]:50052").await?);
    let path = Point {
        latitude: 407_838_351,
        longitude: -746_143_763,
    };
    let north = Point {
        latitude: 413_628_156,
        longitude: -749_015_468,
    };
    print_feature(&mut guide, path).await?;
    print_feature(&mut guide, Point::default()).await?;
    let area = Rectangle {
        lo: Some(Point {
            latitude: 400_000_000,
            longitude: -750_000_000,
        }),
        hi: Some(Point {
            latitude: 420_000_000,
            longitude: -730_000_000,
        }),
    };
    print_features(&mut guide, area).await?;
    measure(&mut guide, vec![path, north]).await?;
    chat(&mut guide).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn notes_are_left_at_two_places() {
        let notes: Vec<_> = notes().collect().await;
        assert_eq!(notes.len(), 4);
        assert_eq!(notes[0].location, notes[2].location);
        assert_ne!(notes[0].location, notes[1].location);
    }
}
