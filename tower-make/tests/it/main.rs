//! The makers from outside.

use std::convert::Infallible;
use std::future::ready;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_test::{assert_pending, assert_ready_ok};
use tower_make::{MakeConnection, MakeService, Shared};
use tower_service::Service;
use tower_test::mock;
use tower_util::{ServiceExt, service_fn};

#[tokio::test]
async fn a_service_of_services_is_a_make_service() {
    async fn ask<M>(mut make: M, target: u32, request: u32) -> u32
    where
        M: MakeService<u32, u32, Response = u32, Error = Infallible, MakeError = io::Error>,
    {
        std::future::poll_fn(|cx| make.poll_ready(cx))
            .await
            .unwrap();
        let service = make.make_service(target).await.unwrap();
        service.oneshot(request).await.unwrap()
    }

    let make = service_fn(|target: u32| {
        let add = service_fn(move |request: u32| ready(Ok::<_, Infallible>(target + request)));
        ready(Ok::<_, io::Error>(add))
    });
    assert_eq!(ask(make, 10, 3).await, 13);
}

#[tokio::test]
async fn a_make_service_turns_back_into_a_service() {
    let negate = service_fn(|n: u32| ready(Ok::<_, Infallible>(!n)));
    let mut make = Shared::new(negate);
    let made = MakeService::<(), u32>::as_service(&mut make)
        .oneshot(())
        .await
        .unwrap();
    assert_eq!(made.oneshot(1).await, Ok(!1));
    let made = MakeService::<(), u32>::into_service(make)
        .oneshot(())
        .await
        .unwrap();
    assert_eq!(made.oneshot(2).await, Ok(!2));
}

#[tokio::test]
async fn a_service_of_byte_streams_is_a_make_connection() {
    async fn connect<M>(mut connector: M) -> M::Connection
    where
        M: MakeConnection<&'static str, Error = io::Error>,
    {
        std::future::poll_fn(|cx| connector.poll_ready(cx))
            .await
            .unwrap();
        connector.make_connection("here").await.unwrap()
    }

    let (near, mut far) = tokio::io::duplex(8);
    let mut near = Some(near);
    let connector = service_fn(move |_: &'static str| {
        ready(near.take().ok_or(io::ErrorKind::NotConnected.into()))
    });
    let mut connection: DuplexStream = connect(connector).await;
    connection.write_all(b"ping").await.unwrap();
    drop(connection);
    let mut read = String::new();
    far.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "ping");
}

#[tokio::test]
async fn shared_makes_clones_that_are_not_ready() {
    let (mut mock, mut handle) = mock::pair::<u32, u32>();
    handle.allow(1);
    mock.ready().await.unwrap();

    let mut make = Shared::new(mock);
    let made = (&mut make).oneshot("anyone").await.unwrap();
    assert_pending!(
        mock::Spawn::new(made).poll_ready(),
        "the one permit is the original's"
    );
}

#[test]
fn readiness_of_the_maker_is_forwarded() {
    type Made = mock::Mock<(), ()>;
    let (mock, mut handle) = mock::pair::<(), Made>();
    handle.allow(0);
    let mut service = mock::Spawn::new(MakeService::<(), ()>::into_service(mock));
    assert_pending!(service.poll_ready::<()>());
    handle.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready::<()>());
}

#[test]
fn wrappers_print_the_maker_and_the_future_prints() {
    #[derive(Debug, Clone, Copy)]
    struct Echo;
    let mut make = Shared::new(Echo);
    assert_eq!(format!("{make:?}"), "Shared { service: Echo }");
    assert_eq!(format!("{:?}", make.call(())), "SharedFuture { .. }");

    let mut make = Shared::new(service_fn(|(): ()| ready(Ok::<_, ()>(()))));
    let printed = format!("{:?}", MakeService::<(), ()>::as_service(&mut make));
    assert!(printed.starts_with("AsService { make: Shared"), "{printed}");
    let printed = format!("{:?}", MakeService::<(), ()>::into_service(make));
    assert!(
        printed.starts_with("IntoService { make: Shared"),
        "{printed}"
    );
}
