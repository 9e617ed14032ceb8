//! A clock that tells the time to every page that listens, by server-sent events.
//!
//! ```sh
//! cargo run --example events
//! ```
//!
//! Then open <http://127.0.0.1:8080>, or listen with
//!
//! ```sh
//! curl -N http://127.0.0.1:8080/ticks
//! ```
//!
//! A page that has lost its connection comes back with the last tick it has seen, and is told what it missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt as _, iter};
use tower_web::prelude::*;

/// Counts the seconds, and remembers the last minute of them.
#[derive(Clone)]
struct Clock {
    past: Arc<Mutex<VecDeque<u64>>>,
    ticks: broadcast::Sender<u64>,
}

const REMEMBERED: usize = 60;

#[resource("/")]
impl Clock {
    #[get("/")]
    async fn page(&self) -> Html<&'static str> {
        Html(include_str!("pages/events.html"))
    }

    /// The ticks that the listener missed, and then each as it comes.
    ///
    /// The stream outlives the call, so it says that it borrows nothing: `use<>`.
    #[get("/ticks")]
    async fn listen(
        &self,
        last: Option<LastEventId>,
    ) -> Sse<impl Stream<Item = Result<Event, BroadcastStreamRecvError>> + use<>> {
        let seen = last.and_then(|last| last.0.parse::<u64>().ok());
        // Under the lock no tick comes between what is remembered and what is listened to.
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let missed: Vec<u64> = past
            .iter()
            .copied()
            .filter(|&tick| seen.is_some_and(|seen| tick > seen))
            .collect();
        let coming = BroadcastStream::new(self.ticks.subscribe());
        drop(past);
        let ticks = iter(missed).map(Ok).chain(coming);
        // One that lags too far behind ends with an error, and comes back.
        Sse::new(ticks.map(|tick| Ok(event(tick?))))
    }
}

fn event(tick: u64) -> Event {
    Event::new(format!("{tick} s"))
        .with_name("tick")
        .with_id(tick.to_string())
        .with_retry(Duration::from_secs(1))
}

impl Clock {
    fn new() -> Self {
        Self {
            past: Arc::default(),
            ticks: broadcast::channel(REMEMBERED).0,
        }
    }

    fn tick(&self, tick: u64) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.push_back(tick);
        if past.len() > REMEMBERED {
            past.pop_front();
        }
        // Fails where nobody listens.
        let _ = self.ticks.send(tick);
    }

    async fn run(self) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        for tick in 0.. {
            seconds.tick().await;
            self.tick(tick);
        }
    }
}

fn app() -> App {
    let clock = Clock::new();
    App::new().resource(clock.clone()).on_start(async move || {
        tokio::spawn(clock.run());
        Ok(())
    })
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    println!("http://127.0.0.1:8080");
    app().serve("127.0.0.1:8080").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_second_is_told() {
        let client = app().test();
        let mut events = client.get("/ticks").events().await;
        for tick in 0..5 {
            let event = events.next().await.unwrap();
            assert_eq!((&*event.name, event.data), ("tick", format!("{tick} s")));
        }
        client.service().begin_shutdown();
        assert!(events.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_told_what_was_missed() {
        let client = app().test();
        let mut events = client.get("/ticks").events().await;
        let seen = events.next().await.unwrap().id;
        drop(events);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut events = client
            .get("/ticks")
            .header("last-event-id", seen)
            .events()
            .await;
        assert_eq!(events.next().await.unwrap().id, "1");
        assert_eq!(events.next().await.unwrap().id, "2");
    }
}
