//! The requests in flight, in the order in which they began.
//!
//! A list in a vector: beginning, ending and finding the oldest take constant time, and memory is that of the most
//! that were ever in flight at once.

#[derive(Debug, Default)]
pub(super) struct Flights {
    slots: Vec<Slot>,
    free: Vec<Place>,
    oldest: Option<Place>,
    youngest: Option<Place>,
}

/// Where a request is kept.
pub(super) type Place = u32;

#[derive(Debug)]
struct Slot {
    began: f64,
    older: Option<Place>,
    younger: Option<Place>,
}

impl Flights {
    /// Adds a request, which is the youngest.
    pub(super) fn begin(&mut self, began: f64) -> Place {
        let slot = Slot {
            began,
            older: self.youngest,
            younger: None,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as Place
            }
        };
        match self.youngest.replace(place) {
            Some(older) => self.slots[older as usize].younger = Some(place),
            None => self.oldest = Some(place),
        }
        place
    }

    /// Takes a request out. Each is taken out once.
    pub(super) fn end(&mut self, place: Place) {
        let Slot { older, younger, .. } = self.slots[place as usize];
        match older {
            Some(older) => self.slots[older as usize].younger = younger,
            None => self.oldest = younger,
        }
        match younger {
            Some(younger) => self.slots[younger as usize].older = older,
            None => self.youngest = older,
        }
        self.free.push(place);
    }

    /// When the oldest began.
    pub(super) fn oldest(&self) -> Option<f64> {
        self.oldest.map(|place| self.slots[place as usize].began)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The oracle is a list.
        #[test]
        fn the_oldest_is_the_oracles(steps in prop::collection::vec(prop::option::of(0..20_usize), 1..200)) {
            let (mut flights, mut oracle) = (Flights::default(), Vec::new());
            let mut most = 0;
            for (now, step) in steps.into_iter().enumerate() {
                match step {
                    Some(which) if !oracle.is_empty() => {
                        let (_, place) = oracle.remove(which % oracle.len());
                        flights.end(place);
                    }
                    _ => oracle.push((now as f64, flights.begin(now as f64))),
                }
                most = most.max(oracle.len());
                prop_assert_eq!(flights.oldest(), oracle.first().map(|flight| flight.0));
                prop_assert_eq!(flights.len(), oracle.len());
            }
            prop_assert_eq!(flights.slots.len(), most);
        }
    }
}
