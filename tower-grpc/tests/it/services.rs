//! Health and reflection.

use futures_util::{StreamExt, stream};
use prost::Message;
use prost_types::FileDescriptorProto;
use tower_grpc::Code;
use tower_grpc::health::pb::HealthCheckRequest;
use tower_grpc::health::pb::client::HealthClient;
use tower_grpc::health::pb::health_check_response::ServingStatus;
use tower_grpc::health::{Health, health_reporter};
use tower_grpc::reflection::v1::client::ServerReflectionClient;
use tower_grpc::reflection::v1::server_reflection_request::MessageRequest;
use tower_grpc::reflection::v1::server_reflection_response::MessageResponse;
use tower_grpc::reflection::v1::{ExtensionRequest, ServerReflectionRequest};
use tower_grpc::reflection::{Reflection, v1alpha};
use tower_grpc::test::in_memory;

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn health_is_told_by_service() {
    let (reporter, server) = health_reporter();
    let mut client = HealthClient::new(in_memory(server));
    let status = client.check(of("")).await.unwrap().get_ref().status();
    assert_eq!(status, ServingStatus::Serving);
    let unknown = client.check(of("shop")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    reporter.set("shop", Health::NotServing);
    let status = client.check(of("shop")).await.unwrap().get_ref().status();
    assert_eq!(status, ServingStatus::NotServing);
    reporter.clear("shop");
    assert_eq!(
        client.check(of("shop")).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_watcher_is_told_each_change_and_nothing_else() {
    let (reporter, server) = health_reporter();
    let mut client = HealthClient::new(in_memory(server));
    let mut changes = client.watch(of("shop")).await.unwrap().into_inner();
    let mut next = async || changes.message().await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::ServiceUnknown);
    reporter.set("shop", Health::Serving);
    assert_eq!(next().await, ServingStatus::Serving);
    reporter.set("shop", Health::Serving);
    reporter.set("shop", Health::NotServing);
    assert_eq!(next().await, ServingStatus::NotServing);
    reporter.clear("shop");
    assert_eq!(next().await, ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn after_a_shut_down_nothing_serves_again() {
    let (reporter, server) = health_reporter();
    let mut client = HealthClient::new(in_memory(server));
    reporter.set("shop", Health::Serving);
    let mut changes = client.watch(of("shop")).await.unwrap().into_inner();
    assert!(changes.message().await.unwrap().is_some());
    reporter.shut_down();
    reporter.set("shop", Health::Serving);
    let change = changes.message().await.unwrap().unwrap();
    assert_eq!(change.status(), ServingStatus::NotServing);
    let whole = client.check(of("")).await.unwrap();
    assert_eq!(whole.get_ref().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn names_that_clients_make_up_are_bounded() {
    let (_reporter, server) = health_reporter();
    let mut client = HealthClient::new(in_memory(server));
    let mut kept = Vec::new();
    for number in 0..1000 {
        kept.push(client.watch(of(&number.to_string())).await.unwrap());
    }
    let refused = client.watch(of("one more")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    kept.clear();
    assert!(client.watch(of("one more")).await.is_ok());
}

async fn ask(question: MessageRequest) -> MessageResponse {
    let echo: &[u8] = include_bytes!("proto/echo.bin");
    let server = Reflection::new(&[echo]).unwrap().v1();
    let request = ServerReflectionRequest {
        host: "here".to_owned(),
        message_request: Some(question),
    };
    let mut client = ServerReflectionClient::new(in_memory(server));
    let mut answers = client
        .server_reflection_info(stream::iter([request.clone()]))
        .await
        .unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.original_request, Some(request));
    assert_eq!(answers.message().await.unwrap(), None);
    answer.message_response.unwrap()
}

fn file_names(answer: MessageResponse) -> Vec<String> {
    let MessageResponse::FileDescriptorResponse(files) = answer else {
        panic!("these are no files: {answer:?}");
    };
    let decode = |file: &Vec<u8>| {
        FileDescriptorProto::decode(&file[..])
            .unwrap()
            .name()
            .to_owned()
    };
    files.file_descriptor_proto.iter().map(decode).collect()
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let answer = ask(MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("this is no list: {answer:?}");
    };
    let names: Vec<_> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert!(names.contains(&"tower.grpc.test.Echo"));
    assert!(names.contains(&"grpc.reflection.v1.ServerReflection"));
    assert!(names.contains(&"grpc.reflection.v1alpha.ServerReflection"));
}

#[tokio::test]
async fn reflection_finds_files_by_name_and_by_every_kind_of_symbol() {
    let by_name = ask(MessageRequest::FileByFilename("echo.proto".to_owned())).await;
    assert_eq!(file_names(by_name), ["echo.proto"]);
    for symbol in [
        "tower.grpc.test.Echo",
        "tower.grpc.test.Echo.Unary",
        "tower.grpc.test.Say",
        "tower.grpc.test.Say.text",
        ".tower.grpc.test.Say",
    ] {
        let answer = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
        assert_eq!(file_names(answer), ["echo.proto"], "{symbol}");
    }
}

#[tokio::test]
async fn reflection_says_what_it_does_not_know() {
    let extension = ExtensionRequest {
        containing_type: "tower.grpc.test.Say".to_owned(),
        extension_number: 1,
    };
    for question in [
        MessageRequest::FileByFilename("no.proto".to_owned()),
        MessageRequest::FileContainingSymbol("no.Symbol".to_owned()),
        MessageRequest::FileContainingExtension(extension),
        MessageRequest::AllExtensionNumbersOfType("no.Type".to_owned()),
    ] {
        match ask(question).await {
            MessageResponse::ErrorResponse(error) => assert_eq!(error.error_code, 5),
            answer => panic!("it knows {answer:?}"),
        }
    }
    let known = ask(MessageRequest::AllExtensionNumbersOfType(
        "tower.grpc.test.Say".to_owned(),
    ))
    .await;
    assert!(matches!(
        known,
        MessageResponse::AllExtensionNumbersResponse(_)
    ));
}

#[tokio::test]
async fn reflection_answers_in_the_older_version_too() {
    let server = Reflection::new(&[]).unwrap().v1alpha();
    let mut client = v1alpha::client::ServerReflectionClient::new(in_memory(server));
    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(list),
        ..Default::default()
    };
    let answers = client
        .server_reflection_info(stream::iter([request.clone(), request]))
        .await
        .unwrap();
    assert_eq!(answers.count().await, 2);
}

#[test]
fn what_is_no_descriptor_set_is_refused() {
    assert!(Reflection::new(&[b"\xff\xff"]).is_err());
}
