//! A pool's load by what servers report.

use tokio::time::Instant;
use tower_classify::Class;
use tower_load::reported::{Reported, Reports};

use crate::pool::{Attach, Gauge};

/// What the server has said costs, times the requests in flight; see [`Reported`]. A pick reads the clock once.
impl Gauge for Reported {
    type Ticket = ();

    fn fork(&self) -> Self {
        self.fork()
    }

    fn reset(&self) {
        self.reset();
    }

    #[inline]
    fn start(&self) {}

    #[inline]
    fn finish(&self, (): (), _: Option<Class>) {}

    #[inline]
    fn load(&self, in_flight: u32, now: Option<Instant>) -> f64 {
        self.cost_at(in_flight, now.unwrap_or_else(Instant::now))
    }

    fn depends_on_time(&self) -> bool {
        true
    }
}

/// The endpoint's connections report here. What one that was lost has said stands: it is the same server.
impl<S: Reports> Attach<S> for Reported {
    fn attach(&self, service: &mut S) {
        service.report_to(self.clone());
    }
}
