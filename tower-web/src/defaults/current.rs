//! What is known of the request whose handler is running on this thread.
//!
//! It is a variable of the task, in effect: the shell puts it in its place around each poll, and takes it back. So what is
//! made for each request isn't put into its extensions, which would cost three allocations, and is known to code
//! that is given nothing of the request.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;
use tracing::Span;

use super::request_id::RequestId;
use super::trace_context::TraceContext;

/// No route has been found yet.
pub(crate) const NO_ROUTE: u32 = u32::MAX;

/// Which application a route belongs to: one that is mounted in another counts its routes for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppId(u32);

impl AppId {
    const NOBODY: Self = Self(0);

    /// Another than all before.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // Relaxed: it counts, and orders nothing.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is known.
pub(crate) struct Facts {
    pub(crate) id: Option<RequestId>,
    pub(crate) trace: Option<TraceContext>,
    /// The request's, for whoever finds its route to record it. Disabled where nobody subscribes.
    pub(crate) span: Span,
    /// Whose request it is.
    pub(crate) app: AppId,
    /// The number of its route, as that application counts.
    pub(crate) route: u32,
    /// When it came. `None` where nobody asks.
    pub(crate) came: Option<Instant>,
    /// Whether there is a request.
    is_request: bool,
}

impl Facts {
    const NONE: Self = Self {
        id: None,
        trace: None,
        span: Span::none(),
        app: AppId::NOBODY,
        route: NO_ROUTE,
        came: None,
        is_request: false,
    };

    pub(crate) fn new(app: AppId, id: Option<RequestId>, trace: Option<TraceContext>) -> Self {
        Self {
            app,
            id,
            trace,
            is_request: true,
            ..Self::NONE
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Facts> = const { RefCell::new(Facts::NONE) };
}

/// Asks for something of the current request, if there is one.
pub(crate) fn with<T>(ask: impl FnOnce(&Facts) -> Option<T>) -> Option<T> {
    CURRENT
        .try_with(|current| ask(&current.borrow()))
        .ok()
        .flatten()
}

/// Whether a request is being answered around this.
#[inline]
pub(crate) fn is_inside() -> bool {
    CURRENT
        .try_with(|current| current.borrow().is_request)
        .unwrap_or(false)
}

/// Notes which route the current request has, if it is this application's.
#[inline]
pub(crate) fn note_route(app: AppId, number: u32, pattern: &str) {
    // A thread that ends has no requests.
    let _ = CURRENT.try_with(|current| {
        let mut current = current.borrow_mut();
        if current.app != app {
            return;
        }
        current.route = number;
        if !current.span.is_none() {
            current.span.record("route", pattern);
        }
    });
}

/// Does `work` with these facts in their place. It is their place again afterwards, also where `work` panics.
#[inline]
pub(crate) fn enter<R>(facts: &mut Facts, work: impl FnOnce() -> R) -> R {
    struct Entered<'a>(&'a mut Facts);

    impl Drop for Entered<'_> {
        fn drop(&mut self) {
            swap(self.0);
        }
    }

    swap(facts);
    let _entered = Entered(facts);
    work()
}

#[inline]
fn swap(facts: &mut Facts) {
    let _ = CURRENT.try_with(|current| std::mem::swap(&mut *current.borrow_mut(), facts));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_what_was_outside() {
        let app = AppId::new();
        let mut facts = Facts::new(app, None, None);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            enter(&mut facts, || {
                assert!(is_inside());
                note_route(app, 7, "/");
                note_route(AppId::new(), 8, "/mounted");
                panic!("on purpose")
            })
        }));
        assert!(panicked.is_err());
        assert!(!is_inside());
        assert_eq!(facts.route, 7);
    }
}
