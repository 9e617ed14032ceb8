//! `#[derive(Problem)]`.

use std::error::Error as _;
use std::io;

use serde_json::json;
use tower_web::prelude::*;
use tower_web::problem::IntoProblem;

#[derive(Debug, Problem)]
enum Error {
    #[problem(status = 404)]
    NoSuchUser { id: u64 },
    /// The name is taken.
    #[problem(
        status = 409,
        detail = "{name} was here first",
        type = "/problems/taken"
    )]
    Taken {
        name: String,
        #[problem(skip)]
        by: u64,
    },
    #[problem(status = 500, title = "out of order", hide)]
    Db(#[from] io::Error),
    #[problem(status = 503)]
    Later {
        #[source]
        why: io::Error,
        seconds: u32,
    },
    #[problem(status = 502, hide)]
    Upstream {
        host: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn cause() -> io::Error {
    io::Error::other("the password is 1234")
}

async fn sent(error: Error) -> serde_json::Value {
    let response = error.into_response();
    let body = response.into_body().bytes().await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn named_fields_are_sent() {
    let told = json!({"status": 404, "title": "no such user", "id": 7});
    assert_eq!(sent(Error::NoSuchUser { id: 7 }).await, told);
}

#[tokio::test]
async fn documentation_details_and_types_are_told_and_skipped_fields_are_not() {
    let error = Error::Taken {
        name: "ann".into(),
        by: 3,
    };
    let told = json!({
        "type": "/problems/taken",
        "status": 409,
        "title": "The name is taken",
        "detail": "ann was here first",
        "name": "ann",
    });
    assert_eq!(sent(error).await, told);
}

#[tokio::test]
async fn causes_and_hidden_fields_are_never_sent() {
    let hidden = json!({"status": 500, "title": "out of order"});
    assert_eq!(sent(cause().into()).await, hidden);
    let later = Error::Later {
        why: cause(),
        seconds: 3,
    };
    let told = json!({"status": 503, "title": "later", "seconds": 3});
    assert_eq!(sent(later).await, told);
    let upstream = Error::Upstream {
        host: "10.0.0.1".into(),
        source: cause().into(),
    };
    assert_eq!(
        sent(upstream).await,
        json!({"status": 502, "title": "upstream"})
    );
}

#[test]
fn causes_are_kept_for_the_log() {
    let problem = Error::from(cause()).into_problem();
    assert_eq!(
        problem.source().unwrap().to_string(),
        "the password is 1234"
    );
    let upstream = Error::Upstream {
        host: String::new(),
        source: cause().into(),
    };
    assert_eq!(
        upstream.source().unwrap().to_string(),
        "the password is 1234"
    );
    assert!(Error::NoSuchUser { id: 1 }.source().is_none());
}

#[test]
fn it_displays_as_title_and_detail() {
    let error = Error::Taken {
        name: "ann".into(),
        by: 3,
    };
    assert_eq!(error.to_string(), "The name is taken: ann was here first");
    assert!(matches!(error, Error::Taken { by: 3, .. }));
}

#[derive(Debug, Problem)]
#[problem(status = 422, title = "not now")]
struct NotNow<T: serde::Serialize + std::fmt::Debug> {
    until: T,
}

#[test]
fn a_struct_may_be_one_and_generic() {
    let problem = NotNow { until: "noon" }.into_problem();
    assert_eq!(problem.status(), 422);
    assert_eq!(problem.title(), "not now");
}

/// What another crate's error for applications is: no error, but it dereferences to one.
#[derive(Debug)]
struct Report(Box<dyn std::error::Error + Send + Sync>);

impl std::ops::Deref for Report {
    type Target = dyn std::error::Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl From<Report> for Box<dyn std::error::Error + Send + Sync> {
    fn from(report: Report) -> Self {
        report.0
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;
type Boxed<T> = Box<T>;
type Shared = std::sync::Arc<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Problem)]
enum Causes<E: std::error::Error + Send + Sync + 'static> {
    #[problem(status = 500, hide)]
    Aliased(#[from] Cause),
    #[problem(status = 500, hide)]
    Renamed(#[source] Boxed<dyn std::error::Error + Send + Sync>),
    #[problem(status = 500, hide)]
    BoxOfOne(#[source] Boxed<io::Error>),
    #[problem(status = 500, hide)]
    Shared(#[source] Shared),
    #[problem(status = 500, hide)]
    Report(#[source] Report),
    #[problem(status = 500, hide)]
    Generic { source: E },
}

#[test]
fn a_cause_may_be_whatever_leads_to_an_error() {
    let all: [Causes<io::Error>; 6] = [
        Cause::from(cause()).into(),
        Causes::Renamed(Boxed::new(cause())),
        Causes::BoxOfOne(Boxed::new(cause())),
        Causes::Shared(Shared::from(Cause::from(cause()))),
        Causes::Report(Report(cause().into())),
        Causes::Generic { source: cause() },
    ];
    for error in all {
        let told = error.source().unwrap().to_string();
        assert_eq!(told, "the password is 1234", "{error:?}");
        let problem = error.into_problem();
        assert_eq!(problem.source().unwrap().to_string(), told);
    }
}
