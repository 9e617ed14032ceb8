//! Checks a service or a layer against the contract of [`Service`].
//!
//! For whoever writes a middleware: [`check`] puts it around a scripted [`Inner`] service, plays a
//! few dozen scenarios with it on paused time, and gives a [`Report`] that says in words which rule
//! was broken, by what, and how to mend it. It takes some tens of milliseconds, needs no runtime
//! (call it from a plain `#[test]`), and does the same thing each time.
//!
//! # Example
//!
//! A middleware that adds nothing but the commonest mistake:
//!
//! ```
//! use std::future::Future;
//! use std::pin::Pin;
//! use std::task::{Context, Poll};
//!
//! use tower_service::Service;
//! use tower_test::contract::{self, Rule};
//!
//! #[derive(Clone)]
//! struct Boxing<S> {
//!     inner: S,
//! }
//!
//! impl<S, Req> Service<Req> for Boxing<S>
//! where
//!     S: Service<Req> + Clone + 'static,
//!     Req: 'static,
//! {
//!     type Response = S::Response;
//!     type Error = S::Error;
//!     type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>>>>;
//!
//!     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
//!         self.inner.poll_ready(cx)
//!     }
//!
//!     fn call(&mut self, request: Req) -> Self::Future {
//!         let mut inner = self.inner.clone(); // not the one that was polled!
//!         Box::pin(async move { inner.call(request).await })
//!     }
//! }
//!
//! let report = contract::check(|inner| Boxing { inner });
//! assert_eq!(report.violations()[0].rule(), Rule::CallsWhatIsReady);
//! println!("{report}");
//! ```
//!
//! The report reads:
//!
//! ```text
//! the contract of `tower_service::Service` is broken: 1 of 18 rules
//!
//! calls-what-is-ready: the inner service is called only on the handle that was polled ready
//!   case: the inner service is ready at the second poll
//!   seen: inner 2 was called, though no poll_ready on this handle had said ready since its last call
//!   why:  a clone inherits no reservation: …
//!   mend: `let clone = self.inner.clone(); let mut inner = std::mem::replace(&mut self.inner, clone);` …
//!   …
//! ```
//!
//! In a test of the mended middleware it is one line, which panics with that report:
//!
//! ```
//! # use tower_test::contract;
//! # let my_layer = tower_layer::Identity::new();
//! # use tower_layer::Layer;
//! contract::check(|inner| my_layer.layer(inner)).assert();
//! ```
//!
//! # What a subject may be
//!
//! - A **layer**: `check(|inner| layer.layer(inner))`; a **stack** of them likewise.
//! - A service **without an inner one**: `check(|_| service())`. The scenarios of an inner service
//!   that is busy or fails then pass by themselves.
//! - A service of **other requests** or over other responses: [`Checker::requests`] and
//!   [`Checker::responses`] take what makes them.
//! - A service that **isn't `Clone`**: [`Checker::check_unclonable`], which leaves the clones out.
//! - One whose inner service is made on the way (a connection, a balanced endpoint): the closure gets
//!   an [`Inner`] that it can clone as often as it likes.
//!
//! What a subject legitimately does otherwise is declared: [`Checker::panics_when_not_ready`],
//! [`Checker::masks_errors`], [`Checker::finishes_cancelled`]. A subject may always be ready ahead of
//! its inner service, hold a request until that is ready, or answer for itself (shed, cache) where the
//! inner service is busy. Give limits their smallest size: a limit of a thousand is never reached here.
//!
//! # The rules
//!
//! | rule | what it says |
//! |---|---|
//! | [`ordinary-request`](Rule::OrdinaryRequest) | polled ready and called, it answers |
//! | [`calls-what-is-ready`](Rule::CallsWhatIsReady) | the inner service is called only on the handle that was polled ready |
//! | [`keeps-waker`](Rule::KeepsWaker) | what is pending is woken when the inner service goes on |
//! | [`wakes-latest`](Rule::WakesLatest) | it is the waker of the latest poll that is woken |
//! | [`spurious-polls`](Rule::SpuriousPolls) | polling more often than needed changes nothing |
//! | [`call-without-ready`](Rule::CallWithoutReady) | `call` without `poll_ready` doesn't panic: it waits, works or fails |
//! | [`ready-then-drop`](Rule::ReadyThenDrop) | a handle that is dropped gives back what it reserved |
//! | [`ready-twice`](Rule::ReadyTwice) | ready stays ready, and reserves once |
//! | [`clone-inherits-nothing`](Rule::CloneInheritsNothing) | a clone has no part in what its original reserved |
//! | [`clones-never-starve`](Rule::ClonesNeverStarve) | whoever waits for a place gets the next one |
//! | [`cancellation`](Rule::Cancellation) | a response that is dropped frees all it held, wherever it was |
//! | [`readiness-error`](Rule::ReadinessError) | an inner service that fails while it is polled is heard of |
//! | [`response-error`](Rule::ResponseError) | an inner response that fails is heard of |
//! | [`inner-panic`](Rule::InnerPanic) | after a panic in the inner service, requests still end |
//! | [`off-task`](Rule::OffTask) | `call` needs neither a task nor a runtime |
//! | [`drop-order`](Rule::DropOrder) | a response outlives the service |
//! | [`leak`](Rule::Leak) | when all is dropped, the inner service is |
//! | [`polled-after-done`](Rule::PolledAfterDone) | a future that is done isn't polled again |
//!
//! All rest on the first three; [`clones-never-starve`](Rule::ClonesNeverStarve) also on
//! [`ready-then-drop`](Rule::ReadyThenDrop), and [`inner-panic`](Rule::InnerPanic) on
//! [`cancellation`](Rule::Cancellation). Where what a rule rests on is broken it can't be judged, and
//! [`Report::unchecked`] lists it.
//!
//! # How it looks
//!
//! The subject is polled by strict tasks, which poll again only when their own waker was woken. Where
//! a scenario waits, the paused clock runs ahead, at most for [`Checker::patience`]; a wait that only a
//! timer has ended is not taken for a wake. A panic of the subject is caught and reported; it prints
//! its message too, as any panic does. The checker needs unwinding, and nothing can rescue it from a
//! subject that blocks the thread.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tower_service::Service;

mod inner;
mod rule;
mod rules;
mod stage;

pub use self::inner::{Inner, InnerError, ResponseFuture};
pub use self::rule::Rule;
use self::rule::Words;
use self::rules::Check;
use self::stage::{Subject, Typed};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The request that [`check`] makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Request;

/// The response that [`Inner`] gives unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Response;

/// Checks the service that `subject` puts around an [`Inner`] against every rule.
///
/// It is [`Checker::check`] with nothing declared.
///
/// # Panics
///
/// In the context of a tokio runtime: the checker has one of its own.
///
/// # Example
///
/// ```
/// use tower_test::contract;
///
/// // The inner service itself, with nothing around it, keeps every rule.
/// contract::check(|inner| inner).assert();
/// ```
pub fn check<F, S>(subject: F) -> Report
where
    F: Fn(Inner) -> S,
    S: Service<Request> + Clone + 'static,
    S::Error: fmt::Debug,
{
    Checker::new().check(subject)
}

/// Checks subjects, after what is told about them.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_test::contract::Checker;
///
/// Checker::new()
///     .requests(|| "ping")
///     .responses(|| "pong".to_owned())
///     .patience(Duration::from_secs(60))
///     .check(|inner| inner)
///     .assert();
/// ```
#[derive(Clone)]
pub struct Checker<MakeReq = fn() -> Request, MakeRes = fn() -> Response> {
    requests: MakeReq,
    responses: MakeRes,
    declared: Declared,
}

/// What the author of a subject has declared.
#[derive(Clone, Debug)]
struct Declared {
    panics_when_not_ready: bool,
    masks_errors: bool,
    finishes_cancelled: bool,
    patience: Duration,
}

/// What [`check`] has found.
#[derive(Clone, Debug)]
#[must_use = "a report says nothing unless it is read or asserted"]
pub struct Report {
    violations: Vec<Violation>,
    unchecked: Vec<Rule>,
}

/// A rule that a subject broke, and how it came to light.
#[derive(Clone, Debug)]
pub struct Violation {
    rule: Rule,
    case: String,
    observed: String,
    trace: Vec<String>,
}

impl Checker {
    /// A checker that makes [`Request`]s, answers with [`Response`]s and has nothing declared.
    #[must_use]
    pub fn new() -> Self {
        Self {
            requests: Request::default,
            responses: Response::default,
            declared: Declared {
                panics_when_not_ready: false,
                masks_errors: false,
                finishes_cancelled: false,
                patience: Duration::from_secs(60 * 60),
            },
        }
    }
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl<MakeReq, MakeRes> Checker<MakeReq, MakeRes> {
    /// Makes the requests with `requests`.
    pub fn requests<Req, F>(self, requests: F) -> Checker<F, MakeRes>
    where
        F: Fn() -> Req,
    {
        Checker {
            requests,
            responses: self.responses,
            declared: self.declared,
        }
    }

    /// Lets the inner service answer with what `responses` makes.
    pub fn responses<Res, F>(self, responses: F) -> Checker<MakeReq, F>
    where
        F: Fn() -> Res,
    {
        Checker {
            requests: self.requests,
            responses,
            declared: self.declared,
        }
    }

    /// Declares that the subject documents a panic for a `call` without `poll_ready`, so that
    /// [`Rule::CallWithoutReady`] isn't checked.
    #[must_use]
    pub fn panics_when_not_ready(mut self) -> Self {
        self.declared.panics_when_not_ready = true;
        self
    }

    /// Declares that the subject makes good for errors of the inner service, as a retry or a
    /// fallback does, so that a request may be answered after one.
    #[must_use]
    pub fn masks_errors(mut self) -> Self {
        self.declared.masks_errors = true;
        self
    }

    /// Declares that the subject lets the inner service finish a request whose response was
    /// dropped, as one does that fills a cache.
    #[must_use]
    pub fn finishes_cancelled(mut self) -> Self {
        self.declared.finishes_cancelled = true;
        self
    }

    /// Sets how long, in paused time, a pending subject may take to be woken: an hour by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.declared.patience = patience;
        self
    }

    /// Checks the service that `subject` puts around an [`Inner`].
    ///
    /// `subject` runs anew for each scenario, in the context of the checker's runtime.
    ///
    /// # Panics
    ///
    /// In the context of a tokio runtime: the checker has one of its own.
    pub fn check<F, S, Req, Res>(self, subject: F) -> Report
    where
        MakeReq: Fn() -> Req + 'static,
        MakeRes: Fn() -> Res + Send + Sync + 'static,
        F: Fn(Inner<Res>) -> S,
        S: Service<Req> + Clone + 'static,
        S::Error: fmt::Debug,
        Req: 'static,
    {
        self.run(subject, Some(S::clone))
    }

    /// Checks a service that isn't `Clone`: the rules of clones hold for want of any.
    ///
    /// # Panics
    ///
    /// As [`check`](Self::check) does.
    pub fn check_unclonable<F, S, Req, Res>(self, subject: F) -> Report
    where
        MakeReq: Fn() -> Req + 'static,
        MakeRes: Fn() -> Res + Send + Sync + 'static,
        F: Fn(Inner<Res>) -> S,
        S: Service<Req> + 'static,
        S::Error: fmt::Debug,
        Req: 'static,
    {
        self.run(subject, None)
    }

    fn run<F, S, Req, Res>(self, subject: F, clone: Option<fn(&S) -> S>) -> Report
    where
        MakeReq: Fn() -> Req + 'static,
        MakeRes: Fn() -> Res + Send + Sync + 'static,
        F: Fn(Inner<Res>) -> S,
        S: Service<Req> + 'static,
        S::Error: fmt::Debug,
        Req: 'static,
    {
        let requests: Rc<dyn Fn() -> Req> = Rc::new(self.requests);
        let responses: Arc<dyn Fn() -> Res + Send + Sync> = Arc::new(self.responses);
        let make = |script: &inner::Script| {
            let inner = Inner::new(script.clone(), Arc::clone(&responses));
            Box::new(Typed {
                service: subject(inner),
                requests: Rc::clone(&requests),
                clone,
            }) as Box<dyn Subject>
        };
        Report::of(&Check::new(&make, &self.declared))
    }
}

impl<MakeReq, MakeRes> fmt::Debug for Checker<MakeReq, MakeRes> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("declared", &self.declared)
            .finish_non_exhaustive()
    }
}

impl Report {
    fn of(check: &Check<'_>) -> Self {
        assert!(
            tokio::runtime::Handle::try_current().is_err(),
            "the contract checker has a runtime of its own: call it from a plain #[test], not from \
             an async one"
        );
        let mut report = Self {
            violations: Vec::new(),
            unchecked: Vec::new(),
        };
        for rule in Rule::ALL {
            let broken = |on: &Rule| report.violations.iter().any(|v| v.rule == *on);
            let rests_on = rule.rests_on();
            if rests_on
                .iter()
                .any(|on| broken(on) || report.unchecked.contains(on))
            {
                report.unchecked.push(rule);
            } else if let Err(violation) = check.rule(rule) {
                report.violations.push(violation);
            }
        }
        report
    }

    /// Whether no rule was broken.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }

    /// The rules that were broken, each with the first scenario that showed it.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The rules that couldn't be judged, because a more fundamental one is broken.
    pub fn unchecked(&self) -> &[Rule] {
        &self.unchecked
    }

    /// Passes if no rule was broken.
    ///
    /// # Panics
    ///
    /// With the whole report, if one was.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.is_ok(), "{self}");
    }
}

impl Violation {
    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The scenario, in words.
    pub fn case(&self) -> &str {
        &self.case
    }

    /// What was seen, in words.
    pub fn observed(&self) -> &str {
        &self.observed
    }

    /// What happened in the scenario until then, step by step: the lines that are indented are what
    /// the inner service saw.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = Rule::ALL.len();
        if self.is_ok() {
            return write!(
                f,
                "the contract of `tower_service::Service` holds: {of} rules"
            );
        }
        let broken = self.violations.len();
        writeln!(
            f,
            "the contract of `tower_service::Service` is broken: {broken} of {of} rules"
        )?;
        for violation in &self.violations {
            write!(f, "\n{violation}")?;
        }
        if !self.unchecked.is_empty() {
            let names: Vec<&str> = self.unchecked.iter().map(|rule| rule.id()).collect();
            writeln!(f, "\nnot judged until this is mended: {}", names.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The end of a trace is what matters.
        const LINES: usize = 24;
        let Words {
            id,
            statement,
            reason,
            mend,
        } = self.rule.words();
        writeln!(f, "{id}: {statement}")?;
        writeln!(f, "  case: {}", self.case)?;
        writeln!(f, "  seen: {}", self.observed)?;
        writeln!(f, "  why:  {reason}")?;
        writeln!(f, "  mend: {mend}")?;
        writeln!(f, "  what happened:")?;
        let skipped = self.trace.len().saturating_sub(LINES);
        if skipped > 0 {
            writeln!(f, "    ({skipped} lines before)")?;
        }
        for line in &self.trace[skipped..] {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}
