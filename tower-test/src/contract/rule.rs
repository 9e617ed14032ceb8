//! The rules, and what is said of each: what it states, why, and how a middleware is mended.

use std::fmt;

/// A rule of the contract of [`Service`](tower_service::Service). Its `Display` is its [`id`](Self::id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Polled ready and called, it answers.
    OrdinaryRequest,
    /// The inner service is called only on the handle that was polled ready.
    CallsWhatIsReady,
    /// What is pending is woken when the inner service goes on.
    KeepsWaker,
    /// It is the waker of the latest poll that is woken.
    WakesLatest,
    /// Polling more often than needed changes nothing.
    SpuriousPolls,
    /// `call` without `poll_ready` doesn't panic: it waits, works or fails.
    CallWithoutReady,
    /// A handle that is dropped gives back what it reserved.
    ReadyThenDrop,
    /// Ready stays ready, and reserves once.
    ReadyTwice,
    /// A clone has no part in what its original reserved.
    CloneInheritsNothing,
    /// Whoever waits for a place gets the next one.
    ClonesNeverStarve,
    /// A response that is dropped frees all it held, wherever it was.
    Cancellation,
    /// An inner service that fails while it is polled is heard of.
    ReadinessError,
    /// An inner response that fails is heard of.
    ResponseError,
    /// After a panic in the inner service, requests still end.
    InnerPanic,
    /// `call` needs neither a task nor a runtime.
    OffTask,
    /// A response outlives the service.
    DropOrder,
    /// When all is dropped, the inner service is.
    Leak,
    /// A future that is done isn't polled again.
    PolledAfterDone,
}

/// What is said of a rule.
pub(super) struct Words {
    pub(super) id: &'static str,
    pub(super) statement: &'static str,
    pub(super) reason: &'static str,
    pub(super) mend: &'static str,
}

impl Rule {
    /// Every rule, in the order in which they are checked.
    pub const ALL: [Self; 18] = [
        Self::OrdinaryRequest,
        Self::CallsWhatIsReady,
        Self::KeepsWaker,
        Self::WakesLatest,
        Self::SpuriousPolls,
        Self::CallWithoutReady,
        Self::ReadyThenDrop,
        Self::ReadyTwice,
        Self::CloneInheritsNothing,
        Self::ClonesNeverStarve,
        Self::Cancellation,
        Self::ReadinessError,
        Self::ResponseError,
        Self::InnerPanic,
        Self::OffTask,
        Self::DropOrder,
        Self::Leak,
        Self::PolledAfterDone,
    ];

    /// Its name: `call-without-ready`, say.
    pub fn id(self) -> &'static str {
        self.words().id
    }

    /// What it says, in a sentence.
    pub fn statement(self) -> &'static str {
        self.words().statement
    }

    /// Why there is such a rule.
    pub fn reason(self) -> &'static str {
        self.words().reason
    }

    /// How a middleware that breaks it is usually mended.
    pub fn mend(self) -> &'static str {
        self.words().mend
    }

    pub(super) fn words(self) -> Words {
        match self {
            Self::OrdinaryRequest => Words {
                id: "ordinary-request",
                statement: "polled ready and called, it answers",
                reason: "the other rules are checked with requests that should succeed",
                mend: "make the subject so that a request of `Checker::requests`, answered by the \
                       inner service, is answered",
            },
            Self::CallsWhatIsReady => Words {
                id: "calls-what-is-ready",
                statement: "the inner service is called only on the handle that was polled ready",
                reason: "a clone inherits no reservation: what `poll_ready` reserved is held by the \
                         handle it was called on, and that one stays reserved, unused, while the \
                         clone has nothing",
                mend: "`let clone = self.inner.clone(); let mut inner = std::mem::replace(&mut \
                       self.inner, clone);` takes the handle that is ready and leaves the clone to \
                       be polled next; and `poll_ready` says ready only if the inner one does, or \
                       the future polls it before it calls it",
            },
            Self::KeepsWaker => Words {
                id: "keeps-waker",
                statement: "what is pending is woken when the inner service goes on",
                reason: "a task sleeps until it is woken: without a wake, the request hangs for ever",
                mend: "return `Pending` only if something was polled with this very `Context` and \
                       said `Pending`, or if the waker was stored for someone who will wake it; \
                       after a state change, loop and poll what is new",
            },
            Self::WakesLatest => Words {
                id: "wakes-latest",
                statement: "it is the waker of the latest poll that is woken",
                reason: "a future moves between tasks (`select!`, a spawned handler), and the task \
                         of an earlier poll may be gone",
                mend: "at each `Pending`, pass the `Context` on, or store its waker anew \
                       (`if !stored.will_wake(cx.waker()) { stored = cx.waker().clone() }`)",
            },
            Self::SpuriousPolls => Words {
                id: "spurious-polls",
                statement: "polling more often than needed changes nothing",
                reason: "tasks are woken for other reasons too, and `join!` polls everything each \
                         time",
                mend: "don't count polls, and don't take one for a sign that something happened: \
                       let the state change only when what is waited for says ready",
            },
            Self::CallWithoutReady => Words {
                id: "call-without-ready",
                statement: "`call` without `poll_ready` doesn't panic: it waits, works or fails",
                reason: "it is the caller's mistake, and it should cost that request at most: not \
                         the task, and not the lock that the panic poisons",
                mend: "let the response future wait for capacity, or resolve to an error that names \
                       the mistake; a subject that must panic says so in its documentation and is \
                       checked with `Checker::panics_when_not_ready`",
            },
            Self::ReadyThenDrop => Words {
                id: "ready-then-drop",
                statement: "a handle that is dropped gives back what it reserved",
                reason: "callers give up between `poll_ready` and `call`, and what they had \
                         reserved would be lost for all others",
                mend: "keep the reservation in a value that frees it when dropped (an owned permit), \
                       and wake whoever waits for it",
            },
            Self::ReadyTwice => Words {
                id: "ready-twice",
                statement: "ready stays ready, and reserves once",
                reason: "`poll_ready` is called again by wrappers, by `select!` and by loops, with \
                         no `call` between",
                mend: "remember that this handle holds a reservation, and say ready at once while it \
                       does; poll the inner service on the handle that will be called, not on a new \
                       clone each time",
            },
            Self::CloneInheritsNothing => Words {
                id: "clone-inherits-nothing",
                statement: "a clone has no part in what its original reserved",
                reason: "of two handles that share one reservation, the second calls an inner \
                         service that isn't ready",
                mend: "write `Clone` by hand, and start the clone not ready: no permit, no flag, an \
                       empty list of who is ready",
            },
            Self::ClonesNeverStarve => Words {
                id: "clones-never-starve",
                statement: "whoever waits for a place gets the next one",
                reason: "a place given to a handle that went away, or that sits on it, is lost for \
                         the others, which then wait for ever",
                mend: "let each handle wait in a place of its own, and pass a place on when the \
                       handle that it was given to is dropped before it took it",
            },
            Self::Cancellation => Words {
                id: "cancellation",
                statement: "a response that is dropped frees all it held, wherever it was",
                reason: "callers cancel all the time (timeouts, closed connections), at any await",
                mend: "let the response future own the permit and the inner future, so that dropping \
                       it drops both; don't spawn the inner future, or abort its task on drop; what \
                       is meant to go on is declared with `Checker::finishes_cancelled`",
            },
            Self::ReadinessError => Words {
                id: "readiness-error",
                statement: "an inner service that fails while it is polled is heard of",
                reason: "a caller that isn't told goes on waiting, or calls a service that is dead",
                mend: "give the error back from `poll_ready`, or as the response of the request that \
                       waits; a subject that makes good for it is checked with \
                       `Checker::masks_errors`",
            },
            Self::ResponseError => Words {
                id: "response-error",
                statement: "an inner response that fails is heard of",
                reason: "a caller must not take a failure for an answer, nor wait for another one",
                mend: "give the error back as the response; a subject that makes good for it is \
                       checked with `Checker::masks_errors`",
            },
            Self::InnerPanic => Words {
                id: "inner-panic",
                statement: "after a panic in the inner service, requests still end",
                reason: "servers catch the panic of one request and go on with the next, on clones \
                         of the same service",
                mend: "hold no lock while the inner service runs, or go on past its poison \
                       (`PoisonError::into_inner`); take no state out that only a normal return puts \
                       back; let a worker's callers know when it panicked",
            },
            Self::OffTask => Words {
                id: "off-task",
                statement: "`call` needs neither a task nor a runtime",
                reason: "some callers make the future in one place and run it in another",
                mend: "make timers, and spawn tasks, when the response is first polled; \
                       `tokio::time::sleep` and `tokio::spawn` panic outside of a runtime",
            },
            Self::DropOrder => Words {
                id: "drop-order",
                statement: "a response outlives the service",
                reason: "`oneshot` and every handler that owns its clone drop the service as soon as \
                         it was called",
                mend: "let the response future own (or share) what it needs; a task ends when the \
                       last handle and the last response are gone, not before",
            },
            Self::Leak => Words {
                id: "leak",
                statement: "when all is dropped, the inner service is",
                reason: "what stays behind holds connections, permits and memory",
                mend: "look for a spawned task that nobody ends, a cycle of `Arc`s, a waker or a \
                       request kept in shared state",
            },
            Self::PolledAfterDone => Words {
                id: "polled-after-done",
                statement: "a future that is done isn't polled again",
                reason: "most futures panic then",
                mend: "drop it when it is done, or keep it in an enum whose last state has none",
            },
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}
