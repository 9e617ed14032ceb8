//! The combinators and helpers from outside.

mod call_all;
mod contract;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower_layer::{Identity, Layer, layer_fn};
use tower_service::Service;
use tower_test::mock::{self, Mock, Spawn};
use tower_util::{
    AndThen, BoxCloneService, BoxCloneServiceLayer, BoxCloneSyncService, BoxCloneSyncServiceLayer,
    BoxLayer, BoxService, Either, FutureService, MapErr, MapErrLayer, MapFuture, MapRequest,
    MapRequestLayer, MapResponse, MapResult, Oneshot, ServiceExt, Then, UnsyncBoxCloneService,
    UnsyncBoxService, find_source, future_service, option_layer, option_layer_into, optional,
    service_fn,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The error of a middleware that can fail by itself.
#[derive(Debug)]
struct Outer(BoxError);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("outer")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

impl From<BoxError> for Outer {
    fn from(error: BoxError) -> Self {
        Self(error)
    }
}

#[test]
fn ready_gives_the_service_when_it_has_capacity() {
    let (mut mock, mut handle) = mock::pair::<u8, u8>();
    handle.allow(0);
    let mut ready = task::spawn(mock.ready());
    assert_pending!(ready.poll());
    handle.allow(1);
    assert!(ready.is_woken());
    let service = assert_ready_ok!(ready.poll());
    drop(service.call(1));
    assert_eq!(assert_ready!(handle.poll_request()).unwrap().0, 1);
}

#[test]
fn ready_can_be_dropped_and_asked_again() {
    let (mut mock, mut handle) = mock::pair::<u8, u8>();
    handle.allow(0);
    assert_pending!(task::spawn(mock.ready()).poll());
    handle.allow(1);
    assert_ready_ok!(task::spawn(mock.ready()).poll());
    // Ready stays ready.
    assert_ready_ok!(task::spawn(mock.ready()).poll());
}

#[test]
fn ready_fails_when_readiness_does() {
    let (mut mock, mut handle) = mock::pair::<u8, u8>();
    handle.send_error("gone");
    let error = assert_ready!(task::spawn(mock.ready()).poll()).unwrap_err();
    assert_eq!(error.to_string(), "gone");
}

#[test]
fn ready_oneshot_gives_the_service_back() {
    let (mock, mut handle) = mock::pair::<u8, u8>();
    let mut service = assert_ready_ok!(task::spawn(mock.ready_oneshot()).poll());
    drop(service.call(1));
    assert!(handle.poll_request().is_ready());
}

#[test]
fn oneshot_waits_calls_and_drops_the_service() {
    let (mock, mut handle) = mock::pair::<u8, u8>();
    handle.allow(0);
    let mut oneshot = task::spawn(mock.oneshot(7));
    assert_pending!(oneshot.poll());
    assert!(handle.poll_request().is_pending());

    handle.allow(1);
    assert!(oneshot.is_woken());
    assert_pending!(oneshot.poll());
    let (request, send) = assert_ready!(handle.poll_request()).unwrap();
    assert_eq!(request, 7);
    // The service is gone, though the response is still to come.
    assert!(matches!(handle.poll_request(), Poll::Ready(None)));

    send.send_response(8);
    assert!(oneshot.is_woken());
    assert_eq!(assert_ready_ok!(oneshot.poll()), 8);
}

#[test]
fn oneshot_fails_when_readiness_does() {
    let (mock, mut handle) = mock::pair::<u8, u8>();
    handle.send_error("gone");
    let error = assert_ready!(task::spawn(mock.oneshot(7)).poll()).unwrap_err();
    assert_eq!(error.to_string(), "gone");
    assert!(matches!(handle.poll_request(), Poll::Ready(None)));
}

#[test]
#[should_panic(expected = "polled after complete")]
fn oneshot_panics_when_polled_again() {
    let mut oneshot = task::spawn(service_fn(|n: u8| ready(Ok::<_, Infallible>(n))).oneshot(1));
    assert_ready_ok!(oneshot.poll());
    let _ = oneshot.poll();
}

#[test]
fn oneshot_prints_its_state() {
    #[derive(Debug)]
    struct Echo;
    impl Service<u8> for Echo {
        type Response = u8;
        type Error = Infallible;
        type Future = std::future::Ready<Result<u8, Infallible>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, req: u8) -> Self::Future {
            ready(Ok(req))
        }
    }
    let mut oneshot = Oneshot::new(Echo, 7);
    assert_eq!(
        format!("{oneshot:?}"),
        "Oneshot::NotReady { service: Echo, req: Some(7) }"
    );
    assert_ready_ok!(task::spawn(&mut oneshot).poll());
    assert_eq!(format!("{oneshot:?}"), "Oneshot::Done");
    assert_eq!(
        format!("{:?}", ServiceExt::<u8>::ready(&mut Echo)),
        "Ready(ReadyOneshot { service: Some(Echo) })"
    );
}

#[tokio::test]
async fn the_functions_of_the_combinators_see_requests_responses_and_errors() {
    let half = service_fn(|n: u32| ready(if n % 2 == 0 { Ok(n / 2) } else { Err("odd") }));

    let service = half.map_request(|text: &str| text.len() as u32);
    assert_eq!(service.oneshot("four").await, Ok(2));

    let service = half.map_response(|n| n + 100);
    assert_eq!(service.clone().oneshot(4).await, Ok(102));
    assert_eq!(service.oneshot(5).await, Err("odd"));

    let service = half.map_err(str::len);
    assert_eq!(service.clone().oneshot(4).await, Ok(2));
    assert_eq!(service.oneshot(5).await, Err(3));

    let service = half.map_result(|result| Ok::<_, &str>(result.is_ok()));
    assert_eq!(service.clone().oneshot(4).await, Ok(true));
    assert_eq!(service.oneshot(5).await, Ok(false));

    let service = half.and_then(|n| ready(if n > 10 { Err("big") } else { Ok(n) }));
    assert_eq!(service.clone().oneshot(4).await, Ok(2));
    assert_eq!(service.clone().oneshot(40).await, Err("big"));
    assert_eq!(service.oneshot(5).await, Err("odd"));

    let service = half.then(|result| ready(Ok::<_, &str>(result.unwrap_or(0))));
    assert_eq!(service.clone().oneshot(4).await, Ok(2));
    assert_eq!(service.oneshot(5).await, Ok(0));

    let service = half.map_future(|response| async move { response.await.map(|n| n + 1) });
    assert_eq!(service.clone().oneshot(4).await, Ok(3));
    assert_eq!(service.oneshot(5).await, Err("odd"));
}

#[test]
fn every_combinator_forwards_readiness_and_converts_its_error() {
    /// Waits for the allowance of one, then fails with the error `expected`.
    fn check<S>(combine: impl FnOnce(Mock<u8, u8>) -> S, expected: &str)
    where
        S: Service<u8>,
        S::Error: ToString + std::fmt::Debug,
    {
        let (mock, mut handle) = mock::pair();
        handle.allow(0);
        let mut service = Spawn::new(combine(mock));
        assert_pending!(service.poll_ready());
        handle.allow(1);
        assert!(service.is_woken(), "the waker is lost");
        assert!(assert_ready!(service.poll_ready()).is_ok());
        handle.send_error("gone");
        let error = assert_ready!(service.poll_ready()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    check(|mock| MapRequest::new(mock, |n: u8| n), "gone");
    check(|mock| MapResponse::new(mock, |n: u8| n), "gone");
    check(
        |mock| MapErr::new(mock, |error| format!("so {error}")),
        "so gone",
    );
    check(|mock| MapResult::new(mock, |_| Ok::<u8, Outer>(0)), "outer");
    check(
        |mock| AndThen::new(mock, |n| ready(Ok::<u8, Outer>(n))),
        "outer",
    );
    check(
        |mock| Then::new(mock, |_| ready(Ok::<u8, Outer>(0))),
        "outer",
    );
    check(
        |mock| MapFuture::new(mock, |_| ready(Ok::<u8, Outer>(0))),
        "outer",
    );
    check(|mock| mock.boxed(), "gone");
    check(|mock| mock.boxed_clone(), "gone");
    check(|mock| mock.boxed_unsync(), "gone");
    check(|mock| mock.boxed_clone_unsync(), "gone");
    check(BoxCloneSyncService::new, "gone");
    check(Either::<_, Mock<u8, u8>>::Left, "gone");
    check(Either::<Mock<u8, u8>, _>::Right, "gone");
    check(
        |mock| option_layer_into(None::<Identity>).layer(mock),
        "gone",
    );
    check(|mock| optional::Optional::new(Some(mock)), "gone");
    check(
        |mock| FutureService::new(ready(Ok::<_, BoxError>(mock))),
        "gone",
    );
}

#[test]
fn map_err_clones_its_function_only_for_an_error() {
    let held = Rc::new(());
    let watched = Rc::clone(&held);
    let count_on_error = move |error: BoxError| {
        assert_eq!(Rc::strong_count(&watched), 3);
        error
    };
    let (mut service, mut handle) =
        mock::spawn_with(|mock: Mock<u8, u8>| mock.map_err(count_on_error.clone()));
    drop(count_on_error);
    assert_ready_ok!(service.poll_ready());
    assert_eq!(Rc::strong_count(&held), 2);
    handle.send_error("gone");
    assert!(assert_ready!(service.poll_ready()).is_err());
}

#[test]
fn layers_make_what_their_services_constructors_make() {
    let (mut service, mut handle) =
        mock::spawn_layer::<u32, u8, _>(MapRequestLayer::new(|text: &str| text.len() as u32));
    assert_ready_ok!(service.poll_ready());
    drop(service.call("four"));
    assert_eq!(assert_ready!(handle.poll_request()).unwrap().0, 4);
    // By the associated function, too.
    let layer = MapRequest::<(), _>::layer(|n: u8| n);
    let _: MapRequest<u8, _> = layer.layer(1);
}

#[test]
fn combinators_print_the_service_and_the_function() {
    fn f(n: u8) -> u8 {
        n
    }
    let name = std::any::type_name_of_val(&f);
    assert_eq!(
        format!("{:?}", MapRequest::new(7, f)),
        format!("MapRequest {{ inner: 7, f: {name} }}")
    );
    assert_eq!(
        format!("{:?}", service_fn(f)),
        format!("ServiceFn {{ f: {name} }}")
    );
    assert_eq!(
        format!("{:?}", MapFuture::<(), _>::layer(f)),
        format!("MapFutureLayer {{ f: {name} }}")
    );
    let mut service = service_fn(|n: u8| ready(Ok::<_, Infallible>(n))).map_response(f);
    assert_eq!(format!("{:?}", service.call(1)), "MapResponseFuture { .. }");
}

#[test]
fn boxed_services_have_the_auto_traits_that_they_promise() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    fn clone<T: Clone>() {}
    fn unpin<T: Unpin>() {}
    // The requests and responses need none of them.
    type Not = *const ();
    send::<BoxService<Not, Not, Not>>();
    sync::<BoxService<Not, Not, Not>>();
    send::<BoxCloneService<Not, Not, Not>>();
    clone::<BoxCloneService<Not, Not, Not>>();
    send::<BoxCloneSyncService<Not, Not, Not>>();
    sync::<BoxCloneSyncService<Not, Not, Not>>();
    clone::<BoxCloneSyncService<Not, Not, Not>>();
    clone::<UnsyncBoxCloneService<Not, Not, Not>>();
    unpin::<UnsyncBoxService<Not, Not, Not>>();
    send::<BoxLayer<Not, Not, Not, Not>>();
    sync::<BoxLayer<Not, Not, Not, Not>>();
    clone::<BoxCloneServiceLayer<Not, Not, Not, Not>>();
    clone::<BoxCloneSyncServiceLayer<Not, Not, Not, Not>>();
}

#[tokio::test]
async fn a_service_that_is_not_sync_becomes_so_in_a_box() {
    let cell = std::cell::Cell::new(0);
    let count = service_fn(move |n: u32| {
        cell.set(cell.get() + n);
        ready(Ok::<_, Infallible>(cell.get()))
    });
    let service: BoxService<u32, u32, Infallible> = count.boxed();
    let shared = std::sync::Mutex::new(Some(service));
    let service = std::thread::scope(|scope| {
        let take = scope.spawn(|| shared.lock().unwrap().take().unwrap());
        take.join().unwrap()
    });
    assert_eq!(service.oneshot(3).await, Ok(3));
}

#[test]
fn a_clone_of_a_boxed_service_that_is_ready_is_not_ready() {
    fn check<S>(boxed: impl FnOnce(Mock<u8, u8>) -> S)
    where
        S: Service<u8, Response = u8, Error = BoxError> + Clone,
    {
        let (mock, mut handle) = mock::pair();
        handle.allow(1);
        let mut service = Spawn::new(boxed(mock));
        assert_ready_ok!(service.poll_ready());
        assert_pending!(service.clone().poll_ready());
        drop(service.call(1));
        assert_eq!(assert_ready!(handle.poll_request()).unwrap().0, 1);
    }
    check(BoxCloneService::new);
    check(BoxCloneSyncService::new);
    check(UnsyncBoxCloneService::new);
    check(|mock| mock.map_response(|n| n));
    check(Either::<_, Mock<u8, u8>>::Left);
}

#[tokio::test]
async fn boxed_layers_make_boxed_services_of_any_service() {
    let double = MapRequestLayer::new(|n: u32| n * 2);
    let echo = service_fn(|n: u32| ready(Ok::<_, Infallible>(n)));
    let layer = BoxLayer::new(double.clone()).clone();
    assert_eq!(layer.layer(echo).oneshot(4).await, Ok(8));
    let layer = BoxCloneServiceLayer::new(double.clone());
    assert_eq!(layer.layer(echo).clone().oneshot(4).await, Ok(8));
    let layer = BoxCloneSyncServiceLayer::new(double);
    assert_eq!(layer.layer(echo).clone().oneshot(4).await, Ok(8));
    assert_eq!(format!("{layer:?}"), "BoxCloneSyncServiceLayer");

    assert_eq!(BoxService::layer().layer(echo).oneshot(1).await, Ok(1));
    assert_eq!(BoxCloneService::layer().layer(echo).oneshot(1).await, Ok(1));
    assert_eq!(
        UnsyncBoxCloneService::layer().layer(echo).oneshot(1).await,
        Ok(1)
    );
    assert_eq!(format!("{:?}", echo.boxed_unsync()), "UnsyncBoxService");
    assert_eq!(
        format!("{:?}", echo.boxed_clone_unsync()),
        "UnsyncBoxCloneService"
    );
}

#[tokio::test]
async fn an_optional_layer_is_taken_or_left() {
    let echo = service_fn(|n: u32| ready(Ok::<_, Infallible>(n)));
    let double = MapRequestLayer::new(|n: u32| n * 2);
    assert_eq!(
        option_layer(Some(double.clone()))
            .layer(echo)
            .oneshot(4)
            .await,
        Ok(8)
    );
    assert_eq!(
        option_layer(Some(double).filter(|_| false))
            .layer(echo)
            .oneshot(4)
            .await,
        Ok(4)
    );
}

#[tokio::test]
async fn an_optional_layer_that_changes_the_error_type_still_makes_a_service() {
    let fails = service_fn(|kind: io::ErrorKind| ready(Err::<(), _>(io::Error::from(kind))));
    let wrap = |error: io::Error| -> BoxError { Outer(error.into()).into() };
    let layer = MapErrLayer::new(wrap);

    for (wanted, message) in [(true, "outer"), (false, "connection reset")] {
        let service = option_layer_into(wanted.then(|| layer.clone())).layer(fails);
        let service: BoxCloneService<io::ErrorKind, (), BoxError> = service.boxed_clone();
        let error = service
            .oneshot(io::ErrorKind::ConnectionReset)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), message);
        // Wrapped or not, the cause is found.
        let cause = find_source::<io::Error>(&*error).unwrap();
        assert_eq!(cause.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn an_optional_layer_left_out_converts_errors_of_readiness() {
    let layer = option_layer_into(None::<MapErrLayer<fn(BoxError) -> Outer>>);
    let (mut service, mut handle) = mock::spawn_layer::<u8, u8, _>(layer);
    handle.send_error("gone");
    let error: Outer = assert_ready!(service.poll_ready()).unwrap_err();
    assert_eq!(error.0.to_string(), "gone");
}

#[test]
fn either_is_a_layer_and_prints() {
    let layer: Either<_, Identity> = Either::Left(layer_fn(|n: u8| (n, n)));
    assert_eq!(format!("{:?}", layer.layer(1)), "Left((1, 1))");
    assert_eq!(format!("{:?}", Either::<Identity, _>::Right(7)), "Right(7)");
}

#[tokio::test]
async fn a_missing_service_fails_with_none() {
    let service = optional::Optional::new(None::<BoxService<u8, u8, BoxError>>);
    let error = service.oneshot(1).await.unwrap_err();
    assert_eq!(error.to_string(), "None");
    assert!(find_source::<optional::None>(&*error).is_some());
}

#[tokio::test]
async fn a_future_service_waits_for_its_service() {
    let (send, receive) = tokio::sync::oneshot::channel();
    let mut service = Spawn::new(future_service(receive));
    assert_pending!(service.poll_ready::<u8>());
    let _ = send.send(service_fn(|n: u8| ready(Ok(n))));
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready::<u8>());
    assert_eq!(service.call(7).await, Ok(7));
}

#[tokio::test]
async fn a_future_service_fails_with_the_error_of_its_future() {
    type Inner = BoxService<u8, u8, &'static str>;
    let mut service = FutureService::new(ready(Err::<Inner, _>("no connection")));
    let result = poll_fn(|cx| service.poll_ready(cx)).await;
    assert_eq!(result, Err("no connection"));
}

#[test]
#[should_panic(expected = "FutureService::call was called before FutureService::poll_ready")]
fn a_future_service_called_before_it_resolved_panics() {
    let mut service = future_service(ready(Ok::<_, Infallible>(service_fn(|n: u8| ready(Ok(n))))));
    drop(service.call(1));
}

#[test]
fn nothing_of_a_stack_of_combinators_outlives_its_drop() {
    let dropped = Arc::new(());
    let log = RefCell::new(Vec::new());
    {
        let held = Arc::clone(&dropped);
        let service = service_fn(move |n: u8| {
            let held = Arc::clone(&held);
            async move {
                let _held = held;
                std::future::pending::<()>().await;
                Ok::<_, Infallible>(n)
            }
        });
        let response = service.map_response(|n| n).boxed().oneshot(1);
        let mut response = pin!(response);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(response.as_mut().poll(&mut cx).is_pending());
        log.borrow_mut().push(Arc::strong_count(&dropped));
    }
    log.borrow_mut().push(Arc::strong_count(&dropped));
    // The response holds one while it runs, though the service is gone already.
    assert_eq!(log.into_inner(), [2, 1]);
}

#[cfg(feature = "filter")]
#[tokio::test]
async fn the_extension_filters_requests_at_once_or_later() {
    let echo = service_fn(|n: u32| ready(Ok::<_, Infallible>(n)));
    let service = echo.filter(|n: u32| n.checked_sub(1).ok_or("zero"));
    assert_eq!(service.clone().oneshot(1).await.unwrap(), 0);
    assert_eq!(service.oneshot(0).await.unwrap_err().to_string(), "zero");

    let service = echo.filter_async(|n: u32| ready(n.checked_sub(1).ok_or("zero")));
    assert_eq!(service.clone().oneshot(1).await.unwrap(), 0);
    assert_eq!(service.oneshot(0).await.unwrap_err().to_string(), "zero");
}

#[cfg(feature = "buffer")]
#[tokio::test]
async fn the_extension_puts_a_queue_in_front() {
    let mut sum = 0;
    let sum = service_fn(move |n: u32| {
        sum += n;
        ready(Ok::<_, Infallible>(sum))
    });
    let service = sum.buffered(2);
    assert_eq!(service.clone().oneshot(3).await.unwrap(), 3);
    assert_eq!(service.oneshot(4).await.unwrap(), 7);
}

#[cfg(feature = "retry")]
#[tokio::test]
async fn the_extension_retries() {
    #[derive(Clone)]
    struct Times(u32);
    impl<Res, E> tower_retry::Policy<u32, Res, E> for Times {
        type Future = std::future::Ready<()>;

        fn retry(&mut self, req: &mut u32, result: &mut Result<Res, E>) -> Option<Self::Future> {
            *req += 1;
            self.0 = self.0.checked_sub(1)?;
            result.is_err().then(|| ready(()))
        }

        fn clone_request(&mut self, req: &u32) -> Option<u32> {
            Some(*req)
        }
    }

    let at_three = service_fn(|n: u32| ready(if n == 3 { Ok(n) } else { Err("not yet") }));
    assert_eq!(at_three.retry(Times(2)).oneshot(1).await, Ok(3));
    assert_eq!(at_three.retry(Times(1)).oneshot(1).await, Err("not yet"));
}
