//! A pool's load by what requests come to.

use tokio::time::Instant;
use tower_classify::Class;
use tower_load::outcome::{Outcomes, Ticket};

use crate::pool::Gauge;

/// Latency, failures and requests that hang all cost; see [`Outcomes`]. A pick reads the clock once.
impl Gauge for Outcomes {
    type Ticket = Ticket;

    fn fork(&self) -> Self {
        self.fork()
    }

    fn reset(&self) {
        self.reset();
    }

    fn start(&self) -> Ticket {
        self.start()
    }

    fn finish(&self, ticket: Ticket, class: Option<Class>) {
        match class {
            Some(class) => ticket.end(class),
            None => drop(ticket),
        }
    }

    fn load(&self, in_flight: u32, now: Option<Instant>) -> f64 {
        self.cost_with(in_flight, now.unwrap_or_else(Instant::now))
    }

    fn depends_on_time(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_gauge_counts_what_a_pool_tells_it() {
        let gauge: Outcomes = Gauge::fork(&Outcomes::new());
        let load = |gauge: &Outcomes| Gauge::load(gauge, 0, Some(Instant::now()));
        let idle = load(&gauge);
        let ticket = Gauge::start(&gauge);
        advance(Duration::from_millis(1)).await;
        Gauge::finish(&gauge, ticket, None);
        assert!(load(&gauge) <= idle);
        let ticket = Gauge::start(&gauge);
        Gauge::finish(&gauge, ticket, Some(Class::Failure));
        assert!(load(&gauge) > 1.5 * idle);
        Gauge::reset(&gauge);
        assert!(load(&gauge) <= idle);
    }
}
