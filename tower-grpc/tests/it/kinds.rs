//! The four kinds of methods, with what travels beside the messages.

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower_grpc::{Code, Request};

use crate::echo::{Say, client, say};

#[tokio::test]
async fn a_unary_call_is_answered() {
    let response = client().unary(say("hello")).await.unwrap();
    assert_eq!(response.into_inner(), say("hello"));
}

#[tokio::test]
async fn an_empty_message_is_a_message() {
    let response = client().unary(Say::default()).await.unwrap();
    assert_eq!(response.into_inner(), Say::default());
}

#[tokio::test]
async fn metadata_travels_before_and_after_the_message() {
    let mut request = Request::new(say("hello"));
    request.metadata_mut().insert("x-echo", "text").unwrap();
    request
        .metadata_mut()
        .append_bin("x-echo-bin", [0, 1])
        .unwrap();
    request
        .metadata_mut()
        .append_bin("x-echo-bin", [255])
        .unwrap();
    let response = client().unary(request).await.unwrap();
    assert_eq!(response.metadata().get("x-echo"), Some("text"));
    let trailers: Vec<_> = response.trailers().get_all_bin("x-echo-bin").collect();
    assert_eq!(trailers, [&[0, 1][..], &[255]]);
}

#[tokio::test]
async fn a_failure_has_its_code_message_and_metadata() {
    let status = client().unary(say("fail")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.message(), "said before");
    assert_eq!(status.metadata().get("x-why"), Some("echo"));
}

#[tokio::test]
async fn a_stream_to_the_server_is_collected() {
    let words = stream::iter(["a", "b", "c"]).map(say);
    let response = client().collect(words).await.unwrap();
    assert_eq!(response.get_ref().text, "abc");
    let nothing = client().collect(stream::empty()).await.unwrap();
    assert_eq!(nothing.get_ref().text, "");
}

#[tokio::test]
async fn a_stream_from_the_server_ends_with_its_trailers() {
    let request = Say {
        times: 3,
        ..say("x")
    };
    let mut messages = client().repeat(request).await.unwrap().into_inner();
    for _ in 0..3 {
        assert_eq!(messages.message().await.unwrap(), Some(say("x")));
        assert!(messages.trailers().is_none());
    }
    assert_eq!(messages.message().await.unwrap(), None);
    assert_eq!(messages.trailers().unwrap().get("x-end"), Some("true"));
    assert_eq!(messages.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_stream_that_fails_gives_what_came_before() {
    let request = Say {
        times: 2,
        data: b"fail".to_vec(),
        ..say("x")
    };
    let messages = client().repeat(request).await.unwrap().into_inner();
    let all: Vec<_> = messages.collect().await;
    assert_eq!(all.len(), 3);
    assert!(all[0].is_ok() && all[1].is_ok());
    assert_eq!(all[2].as_ref().unwrap_err().code(), Code::DataLoss);
}

#[tokio::test]
async fn a_stream_that_fails_has_the_responses_trailers_too() {
    let failing = Say {
        times: 1,
        data: b"fail".to_vec(),
        ..say("x")
    };
    let mut messages = client().repeat(failing).await.unwrap().into_inner();
    assert!(messages.message().await.unwrap().is_some());
    let status = messages.message().await.unwrap_err();
    assert_eq!(status.metadata().get("x-end"), Some("true"));
}

#[tokio::test]
async fn a_stream_that_fails_at_once_fails_the_call() {
    let status = client().repeat(say("fail")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn a_chat_goes_back_and_forth() {
    let (sender, receiver) = mpsc::channel(1);
    let mut answers = client().chat(ReceiverStream::new(receiver)).await.unwrap();
    for word in ["one", "two", "three"] {
        sender.send(say(word)).await.unwrap();
        assert_eq!(answers.message().await.unwrap(), Some(say(word)));
    }
    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
#[expect(deprecated, reason = "that is what the test is about")]
async fn a_deprecated_method_still_answers() {
    assert!(client().old(say("x")).await.is_ok());
}
