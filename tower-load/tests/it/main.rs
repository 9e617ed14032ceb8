//! The metrics as a balancer and its callers see them.

use std::time::Duration;

use tokio::time::{Instant, advance};
use tokio_test::{assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_load::meter::{Meter, Metered};
use tower_load::outcome::OutcomeLoad;
use tower_load::peak_ewma::PeakEwma;
use tower_load::pending_requests::{Count, PendingRequests};
use tower_load::reported::{Flight, ReportedLoad};
use tower_load::{CompleteOnResponse, Constant, Load, TrackCompletion};
use tower_service::Service;
use tower_test::{contract, mock};

const MS: Duration = Duration::from_millis(1);
const TAU_NS: f64 = 1e9;

fn peak_ewma<S>(service: S) -> PeakEwma<S, CompleteOnResponse> {
    PeakEwma::new(service, 10 * MS, TAU_NS, CompleteOnResponse::default())
}

/// Sends a request and answers it after `rtt`.
async fn round_trip<S>(
    service: &mut mock::Spawn<S>,
    handle: &mut mock::Handle<(), ()>,
    rtt: Duration,
) where
    S: Service<(), Response = (), Error: std::fmt::Debug>,
{
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(()));
    let (_, send) = handle.next_request().await.unwrap();
    advance(rtt).await;
    send.send_response(());
    assert_ready_ok!(response.poll());
}

/// Sends a slow request and later a fast one, with `readings` of the load in between.
async fn load_after_readings(readings: u32) -> String {
    let (mut service, mut handle) = mock::spawn_with::<(), (), _, _>(peak_ewma);
    round_trip(&mut service, &mut handle, 400 * MS).await;
    for _ in 0..readings {
        advance(600 * MS / readings).await;
        let _ = service.get_ref().load();
    }
    if readings == 0 {
        advance(600 * MS).await;
    }
    round_trip(&mut service, &mut handle, MS).await;
    format!("{:?}", service.get_ref().load())
}

#[tokio::test(start_paused = true)]
async fn reading_the_load_changes_nothing() {
    let unread = load_after_readings(0).await;
    assert_eq!(load_after_readings(1).await, unread);
    assert_eq!(load_after_readings(600).await, unread);
}

#[tokio::test(start_paused = true)]
async fn a_slow_response_raises_the_load_at_once() {
    let (mut service, mut handle) = mock::spawn_with::<(), (), _, _>(peak_ewma);
    let before = service.get_ref().load();
    round_trip(&mut service, &mut handle, 500 * MS).await;
    assert!(service.get_ref().load() > before);
}

#[tokio::test(start_paused = true)]
async fn the_load_falls_with_time() {
    let service = peak_ewma(());
    assert_eq!(format!("{:?}", service.load()), "Cost(10000000.0)");
    let before = service.load();
    advance(100 * MS).await;
    let after = service.load();
    assert!(after < before);
    assert_eq!(after, service.load_at(Instant::now()));
    assert!(service.load_at(Instant::now() + MS) < after);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_multiply_the_cost() {
    let (mut service, _handle) = mock::spawn_with::<(), (), _, _>(peak_ewma);
    assert_ready_ok!(service.poll_ready());
    let _first = service.call(());
    assert_eq!(
        format!("{:?}", service.get_ref().load()),
        "Cost(20000000.0)"
    );
    assert_ready_ok!(service.poll_ready());
    let _second = service.call(());
    assert_eq!(
        format!("{:?}", service.get_ref().load()),
        "Cost(30000000.0)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_completes_before_its_future_is_dropped() {
    let (mut service, mut handle) = mock::spawn_with::<(), (), _, _>(|inner| {
        PendingRequests::new(inner, CompleteOnResponse::default())
    });
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(()));
    assert!(service.get_ref().load() > Count::default());

    handle.next_request().await.unwrap().1.send_error("broken");
    assert_ready_err!(response.poll());
    assert_eq!(service.get_ref().load(), Count::default());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_no_longer_counts_and_what_it_took_is_recorded() {
    let (mut service, _handle) = mock::spawn_with::<(), (), _, _>(peak_ewma);
    assert_ready_ok!(service.poll_ready());
    let response = service.call(());
    advance(700 * MS).await;
    drop(response);
    assert_eq!(
        format!("{:?}", service.get_ref().load()),
        "Cost(700000000.0)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_completion_can_keep_the_request_in_flight_after_the_response() {
    #[derive(Clone)]
    struct WithHandle;
    impl<H> TrackCompletion<H, ()> for WithHandle {
        type Output = H;
        fn track_completion(&self, handle: H, (): ()) -> H {
            handle
        }
    }

    let (mut service, mut handle) =
        mock::spawn_with(|inner| PendingRequests::new(inner, WithHandle));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(()));
    handle.next_request().await.unwrap().1.send_response(());

    let body = assert_ready_ok!(response.poll());
    drop(response);
    assert!(service.get_ref().load() > Count::default());
    drop(body);
    assert_eq!(service.get_ref().load(), Count::default());
}

#[test]
fn a_constant_forwards_the_service_and_tells_its_load() {
    let (mut service, mut handle) = mock::spawn_with(|inner| Constant::new(inner, 3_u8));
    handle.allow(1);
    assert_eq!(service.get_ref().load(), 3);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1_u8));
    let (request, send) = assert_ready!(handle.poll_request()).unwrap();
    send.send_response(request + 1);
    assert_eq!(assert_ready_ok!(response.poll()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_more_is_used_costs_more_and_a_response_without_a_report_changes_nothing()
 {
    let said = |response: &Option<f64>| *response;
    let (mut service, mut handle) =
        mock::spawn_with::<(), _, _, _>(|inner| ReportedLoad::new(inner, said));
    for (report, load) in [
        (Some(0.5), 0.5),
        (None, 0.5),
        (Some(-1.0), 0.5),
        (Some(0.75), 0.75),
    ] {
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call(()));
        assert_eq!(service.get_ref().reported().in_flight(), 1);
        handle.next_request().await.unwrap().1.send_response(report);
        assert_eq!(assert_ready_ok!(response.poll()), report);
        assert_eq!(service.get_ref().load(), load);
    }
    advance(Duration::from_secs(181)).await;
    assert_eq!(service.get_ref().load(), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_completion_can_report_after_the_response() {
    #[derive(Clone)]
    struct Trailers;
    impl TrackCompletion<Flight, ()> for Trailers {
        type Output = Flight;
        fn track_completion(&self, flight: Flight, (): ()) -> Flight {
            flight
        }
    }

    let (mut service, mut handle) = mock::spawn_with(|inner| {
        ReportedLoad::new(inner, |(): &()| None).with_completion(Trailers)
    });
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(()));
    handle.next_request().await.unwrap().1.send_response(());
    let trailers = assert_ready_ok!(response.poll());
    assert!(trailers.report(0.25));
    assert_eq!(service.get_ref().load(), 0.5);
    drop(trailers);
    assert_eq!(service.get_ref().load(), 0.25);
}

#[test]
fn what_measures_keeps_the_contract() {
    contract::check(|inner| Metered::new(inner, Meter::new())).assert();
    contract::check(OutcomeLoad::new).assert();
    contract::check(|inner| ReportedLoad::new(inner, |_: &contract::Response| Some(0.5))).assert();
    let checker = contract::Checker::new;
    checker().check_unclonable(peak_ewma).assert();
    let pending = |inner| PendingRequests::new(inner, CompleteOnResponse::default());
    checker().check_unclonable(pending).assert();
    checker()
        .check_unclonable(|inner| Constant::new(inner, 1))
        .assert();
}

#[cfg(feature = "discover")]
#[tokio::test(start_paused = true)]
async fn discovered_services_get_a_load_and_removals_and_errors_pass() {
    use futures_util::{StreamExt, stream};
    use tower_discover::Change;
    use tower_load::peak_ewma::PeakEwmaDiscover;
    use tower_load::pending_requests::PendingRequestsDiscover;

    fn changes()
    -> impl stream::Stream<Item = Result<Change<u8, mock::Mock<(), ()>>, &'static str>> + Unpin
    {
        let (service, _handle) = mock::pair();
        stream::iter([
            Ok(Change::Insert(1, service)),
            Ok(Change::Remove(1)),
            Err("lost"),
        ])
    }
    fn loads<K, S: Load, E>(
        items: Vec<Result<Change<K, S>, E>>,
    ) -> Vec<Option<Result<S::Metric, E>>> {
        items
            .into_iter()
            .map(|item| match item {
                Ok(Change::Insert(_, service)) => Some(Ok(service.load())),
                Ok(Change::Remove(_)) => None,
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    let complete = CompleteOnResponse::default();
    let constant = loads(Constant::new(changes(), 7).collect().await);
    assert_eq!(constant, [Some(Ok(7)), None, Some(Err("lost"))]);

    let pending = PendingRequestsDiscover::new::<()>(changes(), complete);
    let pending = loads(pending.collect().await);
    assert_eq!(
        pending,
        [Some(Ok(Count::default())), None, Some(Err("lost"))]
    );

    let peak = PeakEwmaDiscover::new::<()>(changes(), 5 * MS, Duration::from_secs(1), complete);
    let peak = loads(peak.collect().await);
    assert_eq!(
        format!("{peak:?}"),
        r#"[Some(Ok(Cost(5000000.0))), None, Some(Err("lost"))]"#
    );
}
