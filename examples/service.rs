//! A service, written twice: by hand, and as an asynchronous function.
//!
//! ```sh
//! cargo run --example service
//! ```

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::{Service, ServiceExt, service_fn};

/// Looks up what a word means.
#[derive(Clone, Debug)]
struct Dictionary {
    entries: Arc<HashMap<&'static str, &'static str>>,
}

/// The word isn't in the dictionary.
#[derive(Debug, PartialEq)]
struct UnknownWord(String);

impl Service<String> for Dictionary {
    type Response = &'static str;
    type Error = UnknownWord;
    // The answer is there at once, so the future is one that is ready. A service that waits for
    // something names its own future here, or boxes an `async` block.
    type Future = Ready<Result<&'static str, UnknownWord>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UnknownWord>> {
        // A map has no capacity that could run out. A service over a connection would say `Pending`
        // here while the connection is busy.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, word: String) -> Self::Future {
        ready(match self.entries.get(word.as_str()) {
            Some(meaning) => Ok(meaning),
            None => Err(UnknownWord(word)),
        })
    }
}

fn app() -> Dictionary {
    let entries = HashMap::from([
        (
            "service",
            "an asynchronous function from a request to a response",
        ),
        ("layer", "what decorates one service with another"),
    ]);
    Dictionary {
        entries: Arc::new(entries),
    }
}

/// The same in the fewest lines. It can't say `Pending`, and its type has no name.
fn short_app()
-> impl Service<String, Response = &'static str, Error = UnknownWord, Future: Send> + Clone {
    service_fn(async |word: String| match word.as_str() {
        "service" => Ok("an asynchronous function from a request to a response"),
        _ => Err(UnknownWord(word)),
    })
}

#[tokio::main]
async fn main() {
    let mut dictionary = app();
    for word in ["service", "layer", "towel"] {
        // First wait until the service has capacity, then call it.
        let ready = dictionary.ready().await.expect("a map is always ready");
        match ready.call(word.to_owned()).await {
            Ok(meaning) => println!("{word}: {meaning}"),
            Err(UnknownWord(word)) => println!("{word}: not in the dictionary"),
        }
    }

    // `oneshot` does both steps, for one request.
    let meaning = short_app().oneshot("service".to_owned()).await;
    println!("once more: {}", meaning.expect("the word is known"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finds_what_it_knows_and_names_what_it_does_not() {
        let meaning = app().oneshot("layer".to_owned()).await.unwrap();
        assert_eq!(meaning, "what decorates one service with another");
        let unknown = app().oneshot("towel".to_owned()).await.unwrap_err();
        assert_eq!(unknown, UnknownWord("towel".to_owned()));
    }

    #[tokio::test]
    async fn both_ways_of_writing_it_agree() {
        for word in ["service", "towel"] {
            assert_eq!(
                app().oneshot(word.to_owned()).await,
                short_app().oneshot(word.to_owned()).await
            );
        }
    }
}
