//! How one endpoint of many is chosen: a trait, and the choices that come with this crate.
//!
//! - [`PowerOfTwo`] draws two and takes the one whose [`Load`] is less. With
//!   [`PendingRequests`](tower_load::pending_requests::PendingRequests) that is least-loaded of two, with
//!   [`PeakEwma`](tower_load::peak_ewma::PeakEwma) Finagle's balancer.
//! - [`Prequal`](crate::prequal::Prequal) asks servers for their load.
//! - [`RoundRobin`] takes each in turn, and is here to compare with.
//!
//! A picker of your own implements [`Picker`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;
use tower_load::Load;
use tower_rng::Rng;

use crate::pick::{is_less_loaded, two_of};

/// Chooses the endpoint of a request, among those that can take one.
///
/// A picker sees services by index and says an index. It is called once for each request, from the caller's
/// own thread and with no lock held, and should take nanoseconds: look at a few endpoints, not at all.
///
/// What serves many callers clones its picker. A clone shares what was learned where that matters
/// ([`Prequal`](crate::prequal::Prequal) shares its probes), and nothing where it doesn't.
///
/// # Example
///
/// The first endpoint that there is, as a primary and its backups:
///
/// ```
/// use tower_balance::picker::{Endpoints, Picker};
/// use tower_rng::{Rng, SplitMix64};
///
/// #[derive(Clone, Debug)]
/// struct First;
///
/// impl<S> Picker<S> for First {
///     fn pick<E, R>(&mut self, endpoints: &E, _: &mut R) -> Option<usize>
///     where
///         E: Endpoints<S> + ?Sized,
///         R: Rng + ?Sized,
///     {
///         (0..endpoints.len()).find(|&index| endpoints.get(index).is_some())
///     }
/// }
///
/// let endpoints = ["primary", "backup"];
/// assert_eq!(First.pick(&endpoints[..], &mut SplitMix64::new(1)), Some(0));
/// ```
pub trait Picker<S> {
    /// Chooses an index below `endpoints.len()`, or none if there is no endpoint.
    ///
    /// The request is sent to the choice. A picker may count on this, and count the request as in flight.
    fn pick<E, R>(&mut self, endpoints: &E, rng: &mut R) -> Option<usize>
    where
        E: Endpoints<S> + ?Sized,
        R: Rng + ?Sized;

    /// Gets to know what the pick for a request needs, if that takes time.
    ///
    /// It is called once for each request, before [`pick`](Self::pick). With `None`, the default, the pick comes next;
    /// with a future, after that has ended or the request's time for waiting has. How long it takes is added to the
    /// request's latency, so the picker has to bound it. Where the request is given up, or its deadline passes, the future is
    /// dropped, and there is no pick.
    fn prepare<E, R>(&mut self, endpoints: &E, rng: &mut R) -> Option<Preparation>
    where
        E: Endpoints<S> + ?Sized,
        R: Rng + ?Sized,
    {
        let _ = (endpoints, rng);
        None
    }
}

/// What a request waits for before an endpoint is picked for it; see [`Picker::prepare`].
pub type Preparation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The endpoints that a [`Picker`] chooses from: those that can take a request now.
///
/// Their order means nothing, and may be another at the next pick. What a picker remembers of an endpoint it
/// keeps under its [`EndpointId`].
///
/// A slice is a set of endpoints that never changes; the ids are the indices.
pub trait Endpoints<S> {
    /// Counts them.
    fn len(&self) -> usize;

    /// Tells whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gets one by its index. There may be none below [`len`](Self::len) if it has just gone.
    fn get(&self, index: usize) -> Option<(EndpointId, &S)>;

    /// Finds the index of one that was seen before, if it can still take a request. Takes constant time.
    fn find(&self, id: EndpointId) -> Option<usize>;
}

/// Names an endpoint for its life. It is never used again for another one of the same set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(u64);

/// Of two endpoints drawn at random, the less loaded one.
///
/// Reads the clock once, if the loads depend on time.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PowerOfTwo {}

/// Each endpoint in turn.
///
/// Blind to load, and to endpoints that fail. Clones take turns with each other, so that a pool that is cloned for each
/// request goes round as well.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    turns: Arc<AtomicUsize>,
}

impl EndpointId {
    /// Makes an id of a number that no other endpoint of the set has, had, or will have.
    #[inline]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number that it was made of.
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl<S> Endpoints<S> for [S] {
    #[inline]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn get(&self, index: usize) -> Option<(EndpointId, &S)> {
        let service = self.get(index)?;
        Some((EndpointId(index as u64), service))
    }

    #[inline]
    fn find(&self, id: EndpointId) -> Option<usize> {
        let index = usize::try_from(id.0).ok()?;
        (index < self.len()).then_some(index)
    }
}

impl<S> Picker<S> for PowerOfTwo
where
    S: Load,
{
    #[inline]
    fn pick<E, R>(&mut self, endpoints: &E, rng: &mut R) -> Option<usize>
    where
        E: Endpoints<S> + ?Sized,
        R: Rng + ?Sized,
    {
        let (first, second) = match endpoints.len() {
            0 => return None,
            1 => return Some(0),
            len => two_of(len, rng.next_u64()),
        };
        match (endpoints.get(first), endpoints.get(second)) {
            (Some((_, a)), Some((_, b))) if !is_preferred(a, b) => Some(second),
            (None, Some(_)) => Some(second),
            _ => Some(first),
        }
    }
}

impl<S> Picker<S> for RoundRobin {
    #[inline]
    fn pick<E, R>(&mut self, endpoints: &E, _rng: &mut R) -> Option<usize>
    where
        E: Endpoints<S> + ?Sized,
        R: Rng + ?Sized,
    {
        let len = endpoints.len();
        if len == 0 {
            return None;
        }
        Some(self.turns.fetch_add(1, Ordering::Relaxed) % len)
    }
}

/// Compares two endpoints. The clock is read once, and only where it matters.
#[inline]
pub(crate) fn is_preferred<S: Load>(first: &S, second: &S) -> bool {
    if first.depends_on_time() || second.depends_on_time() {
        let now = Instant::now();
        is_less_loaded(&first.load_at(now), &second.load_at(now))
    } else {
        is_less_loaded(&first.load(), &second.load())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tower_load::Constant;
    use tower_rng::SplitMix64;

    fn loads(loads: &[u32]) -> Vec<Constant<(), u32>> {
        loads.iter().map(|&load| Constant::new((), load)).collect()
    }

    #[test]
    fn nothing_is_picked_of_nothing() {
        let mut rng = SplitMix64::new(1);
        let none = loads(&[]);
        assert_eq!(PowerOfTwo::default().pick(&none[..], &mut rng), None);
        assert_eq!(RoundRobin::default().pick(&none[..], &mut rng), None);
    }

    #[test]
    fn each_is_taken_in_turn_while_the_number_changes() {
        let mut rng = SplitMix64::new(1);
        let mut turn = RoundRobin::default();
        let mut pick = |len: usize| turn.pick(&vec![(); len][..], &mut rng);
        let picked: Vec<_> = [3, 3, 3, 3, 1, 3]
            .into_iter()
            .filter_map(&mut pick)
            .collect();
        assert_eq!(picked, [0, 1, 2, 0, 0, 2]);
    }

    #[test]
    fn clones_take_turns_with_each_other() {
        let mut rng = SplitMix64::new(1);
        let turn = RoundRobin::default();
        let mut pick = || turn.clone().pick(&[(); 3][..], &mut rng);
        assert_eq!([pick(), pick(), pick(), pick()], [0, 1, 2, 0].map(Some));
    }

    /// Endpoints of which some have gone.
    struct Gaps(Vec<Option<Constant<(), u32>>>);

    impl Endpoints<Constant<(), u32>> for Gaps {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn get(&self, index: usize) -> Option<(EndpointId, &Constant<(), u32>)> {
            let service = self.0.get(index)?.as_ref()?;
            Some((EndpointId::new(index as u64), service))
        }

        fn find(&self, id: EndpointId) -> Option<usize> {
            Some(id.number() as usize)
        }
    }

    #[test]
    fn of_two_the_one_that_is_still_there_is_taken() {
        let mut rng = SplitMix64::new(1);
        let endpoints = Gaps(vec![None, Some(Constant::new((), 9))]);
        for _ in 0..32 {
            assert_eq!(PowerOfTwo::default().pick(&endpoints, &mut rng), Some(1));
        }
    }

    proptest! {
        #[test]
        fn the_most_loaded_alone_is_never_picked(mut all in prop::collection::vec(0..100_u32, 2..20), seed: u64) {
            let last = all.len() - 1;
            all[last] = 100;
            let mut rng = SplitMix64::new(seed);
            for _ in 0..20 {
                let picked = PowerOfTwo::default().pick(&loads(&all)[..], &mut rng);
                prop_assert!(picked.is_some_and(|index| index < last));
            }
        }
    }
}
