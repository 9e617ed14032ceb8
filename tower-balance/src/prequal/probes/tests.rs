use super::*;
use proptest::prelude::*;
use tower_rng::{Rng, SplitMix64};

const RULES: Rules = Rules {
    capacity: 16,
    max_age: Duration::from_secs(1),
    probe_timeout: Duration::from_millis(3),
    probes_per_request: 3.0,
    removals_per_request: 1.0,
    surplus: 1.0,
    quantile: 0.5,
    mode: Mode::Adaptive,
};

fn id(number: u64) -> EndpointId {
    EndpointId::new(number)
}

fn report(in_flight: u32, ms: u64) -> LoadReport {
    LoadReport::new(in_flight, Some(Duration::from_millis(ms)))
}

/// Probes of endpoints 0, 1, … with these requests in flight and latencies.
fn probes(rules: Rules, reports: &[(u32, u64)], now: Instant) -> Probes {
    let mut probes = Probes::new(rules);
    for (number, &(in_flight, ms)) in reports.iter().enumerate() {
        probes.add(id(number as u64), report(in_flight, ms), 100, now);
    }
    probes
}

fn ids(probes: &Probes) -> Vec<u64> {
    probes.kept.iter().map(|probe| probe.id.number()).collect()
}

#[test]
fn fewer_than_two_probes_are_no_choice() {
    let now = Instant::now();
    assert_eq!(probes(RULES, &[], now).choose(now), None);
    assert_eq!(probes(RULES, &[(0, 1)], now).choose(now), None);
    assert_eq!(
        probes(RULES, &[(0, 1), (0, 2)], now).choose(now),
        Some(id(0))
    );
}

#[test]
fn the_fastest_of_the_cold_is_chosen_though_a_hot_one_is_faster() {
    let now = Instant::now();
    // The median in flight is 2.
    let mut probes = probes(RULES, &[(9, 1), (2, 30), (1, 20), (2, 23), (8, 5)], now);
    assert_eq!(probes.choose(now), Some(id(2)));
}

#[test]
fn of_those_about_as_fast_the_one_with_the_fewest_in_flight_is_chosen_then_the_youngest() {
    let now = Instant::now();
    let reports = [(1, 21), (1, 24), (0, 25), (1, 22), (5, 1), (5, 1)];
    assert_eq!(probes(RULES, &reports, now).choose(now), Some(id(3)));
}

#[test]
fn one_that_is_fresh_is_chosen_before_a_better_one_that_is_not() {
    let start = Instant::now();
    let mut probes = probes(RULES, &[(0, 40), (2, 40)], start);
    let later = start + Duration::from_millis(51);
    probes.add(id(9), report(2, 40), 9, later);
    probes.add(id(10), report(2, 40), 9, later);
    assert_eq!(probes.choose(later), Some(id(10)));
    // Those that are fresh have become hot by the requests that they were sent.
    assert_eq!(probes.choose(later), Some(id(9)));
    assert_eq!(probes.choose(later), Some(id(0)));
}

#[test]
fn where_all_are_hot_the_fewest_in_flight_are_chosen() {
    let now = Instant::now();
    let mut probes = probes(
        RULES,
        &[(0, 10), (0, 10), (0, 10), (5, 10), (6, 1), (7, 1)],
        now,
    );
    for number in 0..3 {
        probes.forget(id(number));
    }
    assert_eq!(probes.choose(now), Some(id(3)));
    // Its own request counts: now it has as many as the next.
    assert_eq!(probes.kept[0].in_flight, 6);
    assert_eq!(probes.choose(now), Some(id(3)));
    assert_eq!(probes.choose(now), Some(id(4)));
}

#[test]
fn a_probe_is_used_as_often_as_it_may_be() {
    let now = Instant::now();
    let mut probes = Probes::new(RULES);
    probes.add(id(1), report(0, 1), 2, now);
    probes.add(id(2), report(0, 9), 9, now);
    probes.add(id(3), report(0, 9), 9, now);
    // At the second use it is hot by its own request, but all are reported to have none in flight.
    assert_eq!(probes.choose(now), Some(id(1)));
    probes.in_flight.add(5);
    probes.in_flight.add(5);
    probes.in_flight.add(5);
    probes.in_flight.add(5);
    assert_eq!(probes.choose(now), Some(id(1)));
    assert_eq!(ids(&probes), [2, 3]);
}

#[test]
fn what_was_sent_since_the_answer_makes_the_server_slower_as_well() {
    let now = Instant::now();
    let mut probes = probes(RULES, &[(1, 20), (1, 28), (3, 20)], now);
    assert_eq!(probes.choose(now), Some(id(0)));
    // It has two in flight, and one of three would take 30 ms.
    let kept = probes.kept.iter().find(|probe| probe.id == id(0)).unwrap();
    assert_eq!((kept.in_flight, kept.latency), (2, 30 * MS));
}

#[test]
fn a_request_waits_while_there_are_not_two_young_answers() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut probes = Probes::new(RULES);
    assert!(probes.is_worth_a_wait(start));
    probes.add(id(1), report(0, 80), 9, start);
    assert!(probes.is_worth_a_wait(start));
    probes.add(id(2), report(0, 80), 9, start);
    assert!(!probes.is_worth_a_wait(start));
    // An eighth of the latency.
    assert!(!probes.is_worth_a_wait(at(10)));
    assert!(probes.is_worth_a_wait(at(11)));
    probes.add(id(1), report(0, 80), 9, at(11));
    assert!(probes.is_worth_a_wait(at(11)));
    probes.add(id(2), report(0, 80), 9, at(12));
    assert!(!probes.is_worth_a_wait(at(12)));
}

#[test]
fn no_request_waits_where_answers_take_long_beside_what_servers_take() {
    let start = Instant::now();
    let later = start + Duration::from_millis(100);
    let mut probes = probes(RULES, &[(0, 16), (0, 16)], start);
    probes.took(Duration::from_millis(3));
    assert!(!probes.is_worth_a_wait(later));
    // Smoothed: at the sixth it is below 2.
    for round in 0..6 {
        assert!(!probes.is_worth_a_wait(later), "{round}");
        probes.took(Duration::from_millis(1));
    }
    assert!(probes.is_worth_a_wait(later));
    // Nothing to choose from is worse than any wait.
    probes.took(Duration::from_millis(300));
    assert!(!probes.is_worth_a_wait(later));
    probes.forget(id(0));
    assert!(probes.is_worth_a_wait(later));
}

#[test]
fn who_has_waited_in_vain_does_not_until_an_answer_is_heard() {
    let now = Instant::now();
    let later = now + Duration::from_millis(100);
    let mut probes = Probes::new(RULES);
    probes.end_round(0, 3);
    assert!(!probes.is_worth_a_wait(now));
    // One is no choice: where few servers answer at all, each request would wait for the others in vain.
    probes.add(id(1), report(0, 80), 9, now);
    assert!(!probes.is_worth_a_wait(now));
    probes.add(id(2), report(0, 80), 9, now);
    assert!(probes.is_worth_a_wait(later));
    for (answered, asked, is_vain) in [
        (0, 0, false),
        (0, 1, true),
        (1, 1, false),
        (1, 2, true),
        (2, 2, false),
        (1, 3, true),
        (2, 3, false),
        (2, 64, false),
    ] {
        probes.is_deaf = false;
        probes.end_round(answered, asked);
        assert_eq!(probes.is_deaf, is_vain, "{answered} of {asked}");
    }
}

#[test]
fn answers_are_enough_if_one_is_missing_and_two_are_not() {
    let enough = [0, 1, 2, 3, 4, 64].map(enough);
    assert_eq!(enough, [0, 1, 2, 2, 3, 63]);
}

#[test]
fn no_request_waits_for_a_single_answer() {
    let start = Instant::now();
    let rules = Rules {
        probes_per_request: 1.0,
        ..RULES
    };
    let mut probes = Probes::new(rules);
    assert_eq!(probes.begin_round(start), None);
    // Its probe is sent with the pick.
    assert_eq!(probes.end_turn_if_due(), 1);
    probes.add(id(1), report(0, 80), 9, start);
    assert_eq!(probes.begin_round(start), Some(1));
}

#[test]
fn a_mode_waits_never_or_always() {
    let now = Instant::now();
    let of = |mode| probes(Rules { mode, ..RULES }, &[(0, 80), (0, 80)], now);
    let mut synchronous = of(Mode::Synchronous);
    synchronous.end_round(0, 3);
    assert!(synchronous.is_worth_a_wait(now));
    let later = now + Duration::from_secs(9);
    assert!(!of(Mode::Asynchronous).is_worth_a_wait(later));
}

#[test]
fn the_turn_of_a_request_that_has_waited_is_over() {
    let now = Instant::now();
    let mut probes = Probes::new(RULES);
    assert_eq!(probes.begin_round(now), Some(3));
    probes.end_round(3, 3);
    assert_eq!(probes.end_turn_if_due(), 0);
    assert_eq!(probes.end_turn_if_due(), 3);
}

#[test]
fn the_turn_of_a_request_that_was_given_up_is_nobodys() {
    let now = Instant::now();
    let mut probes = Probes::new(RULES);
    for _ in 0..9 {
        assert_eq!(probes.begin_round(now), Some(3));
    }
    assert_eq!(probes.end_turn_if_due(), 3);
    // Nor is one's whose servers have gone meanwhile, but for one.
    probes.end_round(3, 3);
    probes.skip_turn();
    assert_eq!(probes.end_turn_if_due(), 3);
}

#[test]
fn the_longest_latencies_can_be_added_up() {
    let now = Instant::now();
    let rules = Rules {
        capacity: MOST_KEPT,
        ..RULES
    };
    let mut probes = Probes::new(rules);
    for number in 0..MOST_KEPT as u64 {
        let longest = LoadReport::new(u32::MAX, Some(Duration::MAX));
        probes.add(id(number), longest, ENDLESS, now);
    }
    for _ in 0..MOST_KEPT {
        assert!(probes.choose(now).is_some());
    }
    probes.begin_round(now);
}

#[test]
fn where_no_latency_is_told_the_requests_in_flight_decide_whatever_the_age() {
    let start = Instant::now();
    let mut probes = Probes::new(RULES);
    for (number, in_flight) in [(1, 5), (2, 1), (3, 9), (4, 2)] {
        let now = start + Duration::from_millis(number);
        probes.add(id(number), LoadReport::new(in_flight, None), 9, now);
    }
    let now = start + Duration::from_millis(4);
    assert_eq!(probes.choose(now), Some(id(2)));
}

#[test]
fn a_probe_that_is_too_old_is_forgotten() {
    let now = Instant::now();
    let mut probes = probes(RULES, &[(0, 1), (0, 2)], now);
    probes.add(id(7), report(3, 3), 9, now + Duration::from_millis(900));
    assert!(probes.choose(now + Duration::from_secs(1)).is_some());
    assert_eq!(probes.choose(now + Duration::from_millis(1001)), None);
    assert_eq!(ids(&probes), [7]);
}

#[test]
fn a_new_probe_takes_the_place_of_the_same_endpoints_and_else_of_the_oldest() {
    let now = Instant::now();
    let mut probes = probes(RULES, &[(0, 1); 16], now);
    probes.add(id(3), report(1, 1), 1, now);
    assert_eq!(probes.kept.len(), 16);
    assert_eq!(ids(&probes).last(), Some(&3));
    probes.add(id(99), report(1, 1), 1, now);
    assert_eq!(probes.kept.len(), 16);
    assert_eq!(ids(&probes)[0], 1);
}

#[test]
fn the_worst_and_the_oldest_are_removed_in_turns() {
    let now = Instant::now();
    // Median 2, so that endpoint 2 is the hottest, and 3 the slowest of the cold.
    let reports = [(1, 10), (2, 20), (9, 1), (1, 50), (2, 5), (3, 5)];
    let mut probes = probes(RULES, &reports, now);
    probes.end_turn();
    assert_eq!(ids(&probes), [0, 1, 3, 4, 5]);
    probes.end_turn();
    assert_eq!(ids(&probes), [1, 3, 4, 5]);
    probes.end_turn();
    assert_eq!(ids(&probes), [1, 3, 4]);
    probes.end_turn();
    assert_eq!(ids(&probes), [3, 4]);
    probes.end_turn();
    assert_eq!(ids(&probes), [4]);
    probes.end_turn();
    probes.end_turn();
    assert!(probes.kept.is_empty());
}

#[test]
fn rates_that_are_no_whole_numbers_are_kept_in_the_mean() {
    let rules = Rules {
        probes_per_request: 0.75,
        removals_per_request: 0.25,
        ..RULES
    };
    let now = Instant::now();
    let mut probes = probes(rules, &[(0, 1); 16], now);
    let sent: usize = (0..16).map(|_| probes.end_turn()).sum();
    assert_eq!(sent, 12);
    assert_eq!(probes.kept.len(), 12);
}

#[test]
fn the_reuse_budget_is_that_of_the_paper_in_the_mean() {
    // 2 / ((1 − 16/100)·3 − 1) = 1.3158.
    let mut rng = SplitMix64::new(1);
    let total: u32 = (0..100_000)
        .map(|_| RULES.budget(100).uses(rng.next_f64()))
        .sum();
    let mean = f64::from(total) / 100_000.0;
    assert!((mean - 2.0 / 1.52).abs() < 0.01, "{mean}");
    assert_eq!(RULES.budget(1_000_000).uses(0.99), 1);
}

#[test]
fn with_few_endpoints_a_probe_is_used_until_it_is_old() {
    for endpoints in [1, 16, 24] {
        assert_eq!(RULES.budget(endpoints).uses(0.0), ENDLESS, "{endpoints}");
    }
    let now = Instant::now();
    let mut probes = Probes::new(RULES);
    probes.add(id(0), report(0, 1), ENDLESS, now);
    probes.add(id(1), report(0, 2), ENDLESS, now);
    for _ in 0..100 {
        assert!(probes.choose(now).is_some());
    }
    assert_eq!(probes.kept.len(), 2);
}

/// What may happen to a pool.
#[derive(Clone, Debug)]
enum Event {
    Add {
        id: u64,
        in_flight: u32,
        ms: u64,
        uses: u32,
    },
    Choose,
    EndTurn,
    Forget {
        id: u64,
    },
    Wait {
        ms: u64,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..40_u64, 0..20_u32, 0..50_u64, 1..4_u32)
            .prop_map(|(id, in_flight, ms, uses)| Event::Add { id, in_flight, ms, uses }),
        2 => Just(Event::Choose),
        1 => Just(Event::EndTurn),
        1 => (0..40_u64).prop_map(|id| Event::Forget { id }),
        1 => (0..700_u64).prop_map(|ms| Event::Wait { ms }),
    ];
    prop::collection::vec(event, 1..200)
}

/// Nanoseconds.
const MS: u64 = 1_000_000;

/// The rules once more, as the paper has them, over a list of (id, in flight, latency, received, uses).
#[derive(Default)]
struct Oracle {
    kept: Vec<(u64, u32, u64, u64, u32)>,
    seen: Vec<u32>,
    turns: usize,
}

impl Oracle {
    fn is_hot(&self, in_flight: u32) -> bool {
        let mut last: Vec<_> = self.seen.iter().rev().take(128).copied().collect();
        last.sort_unstable();
        let median = last
            .get(last.len().div_ceil(2).max(1) - 1)
            .copied()
            .unwrap_or(0);
        in_flight > median
    }

    fn choose(&mut self, now: u64) -> Option<u64> {
        self.kept
            .retain(|&(.., received, _)| now - received <= 1000);
        if self.kept.len() < 2 {
            return None;
        }
        let total: u64 = self.kept.iter().map(|probe| probe.2).sum();
        let fresh = |probe: &&(u64, u32, u64, u64, u32)| {
            (now - probe.3) * MS * self.kept.len() as u64 <= total
        };
        let cold = self.kept.iter().filter(|probe| !self.is_hot(probe.1));
        let mut candidates: Vec<_> = cold.clone().filter(fresh).collect();
        if candidates.is_empty() {
            candidates = cold.collect();
        }
        let fastest = candidates.iter().map(|probe| probe.2).min().unwrap_or(0);
        candidates.retain(|probe| probe.2 <= 8 * fastest / 7);
        let cold = candidates.iter().rev().min_by_key(|probe| probe.1);
        let hot = self.kept.iter().min_by_key(|probe| probe.1);
        let best = cold.map_or(hot, |probe| Some(*probe))?.0;
        for probe in &mut self.kept {
            if probe.0 == best {
                probe.2 += probe.2 / u64::from(probe.1 + 1);
                probe.1 += 1;
                probe.4 -= 1;
            }
        }
        self.kept.retain(|probe| probe.4 > 0);
        Some(best)
    }

    fn end_turn(&mut self) {
        self.turns += 1;
        let gone = if self.turns % 2 == 0 {
            self.kept.first().map(|probe| probe.0)
        } else {
            let hottest = self
                .kept
                .iter()
                .filter(|probe| self.is_hot(probe.1))
                .max_by_key(|probe| probe.1);
            hottest
                .or_else(|| self.kept.iter().max_by_key(|probe| probe.2))
                .map(|probe| probe.0)
        };
        // An empty pool has nothing to remove, and the turn isn't used.
        match gone {
            Some(gone) => self.kept.retain(|probe| probe.0 != gone),
            None => self.turns -= 1,
        }
    }
}

proptest! {
    #[test]
    fn a_pool_does_what_the_oracle_does(events in events()) {
        let start = Instant::now();
        let (mut probes, mut oracle, mut now_ms) = (Probes::new(RULES), Oracle::default(), 0);
        for event in events {
            let now = start + Duration::from_millis(now_ms);
            match event {
                Event::Add { id: number, in_flight, ms, uses } => {
                    probes.add(id(number), report(in_flight, ms), uses, now);
                    oracle.seen.push(in_flight);
                    oracle.kept.retain(|probe| probe.0 != number);
                    oracle.kept.push((number, in_flight, ms * MS, now_ms, uses));
                    if oracle.kept.len() > 16 {
                        oracle.kept.remove(0);
                    }
                }
                Event::Choose => {
                    prop_assert_eq!(probes.choose(now).map(EndpointId::number), oracle.choose(now_ms));
                }
                Event::EndTurn => {
                    prop_assert_eq!(probes.end_turn(), 3);
                    oracle.end_turn();
                }
                Event::Forget { id: number } => {
                    probes.forget(id(number));
                    oracle.kept.retain(|probe| probe.0 != number);
                }
                Event::Wait { ms } => now_ms += ms,
            }
            let expected: Vec<_> = oracle.kept.iter().map(|probe| probe.0).collect();
            prop_assert_eq!(ids(&probes), expected);
        }
    }
}
