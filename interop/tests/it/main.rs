//! Every case, in memory: against the server as it is, and against servers that do one thing wrong.

mod broken;

use interop::answers::{Answers, test_service};
use interop::cases::{Cases, NAMES};
use tower_grpc::server::Router;
use tower_grpc::test::in_memory;

#[tokio::test]
async fn every_case_passes() {
    let router = Router::new().add_service(test_service(Answers));
    let cases = Cases::new(async || Ok(in_memory(router.clone())));
    for name in NAMES {
        if let Err(failure) = cases.run(name).await {
            panic!("{name}: {failure}");
        }
    }
}

#[tokio::test]
async fn no_case_passes_against_a_server_that_is_wrong_in_it() {
    for name in NAMES {
        let router = Router::new().add_service(test_service(broken::Broken::new(name)));
        let router = router.add_service(broken::implemented());
        let cases = Cases::new(async || Ok(in_memory(router.clone())));
        assert!(
            cases.run(name).await.is_err(),
            "{name} passes against a broken server"
        );
    }
}

#[tokio::test]
async fn an_unknown_case_names_those_there_are() {
    let router = Router::new().add_service(test_service(Answers));
    let cases = Cases::new(async || Ok(in_memory(router.clone())));
    let failure = cases.run("large_unray").await.unwrap_err();
    assert!(failure.to_string().contains("large_unary"), "{failure}");
}
