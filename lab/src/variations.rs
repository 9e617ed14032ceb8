//! Each parameter of an experiment a fifth smaller and a fifth greater, and what of its figures holds then.

use std::fmt::Write as _;

use toml::{Table, Value};

use crate::experiment::{Experiment, Judgement, Verdict};

/// An experiment with one of its parameters changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variation {
    /// Which parameter, and how it was changed.
    pub(crate) what: String,
    /// Whose parameter it is.
    pub(crate) whose: Whose,
    pub(crate) parameters: Table,
}

/// Whose parameter is varied. What the workload is, a user can't choose; what the algorithm is told, one might choose
/// badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Workload,
    Algorithm,
}

const FACTORS: [f64; 2] = [0.8, 1.2];

/// Varies all numbers: those of tables by themselves, and those of a list together. `algorithm` names the parameters
/// that aren't the workload's.
pub(crate) fn variations(parameters: &Table, algorithm: &[&str]) -> Vec<Variation> {
    let mut all = Vec::new();
    for (key, value) in parameters {
        let whose = if algorithm.contains(&key.as_str()) {
            Whose::Algorithm
        } else {
            Whose::Workload
        };
        for (what, varied) in of_value(key, value) {
            let mut parameters = parameters.clone();
            parameters.insert(key.clone(), varied);
            all.push(Variation {
                what,
                whose,
                parameters,
            });
        }
    }
    all
}

fn of_value(key: &str, value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Table(table) => {
            let mut all = Vec::new();
            for (name, inner) in table {
                for (what, varied) in of_value(name, inner) {
                    let mut table = table.clone();
                    table.insert(name.clone(), varied);
                    all.push((format!("{key}.{what}"), Value::Table(table)));
                }
            }
            all
        }
        // There is nothing a fifth above 0.98 of all. What is left out is varied as well as what is in.
        Value::Float(share) if key == "percentile" => vec![
            (format!("{key} × 0.8"), Value::Float(share * 0.8)),
            (
                format!("{key}: 0.8 × what is above"),
                Value::Float(1.0 - (1.0 - share) * 0.8),
            ),
            (
                format!("{key}: 1.2 × what is above"),
                Value::Float(1.0 - (1.0 - share) * 1.2),
            ),
        ],
        _ => {
            let factors = FACTORS.into_iter();
            factors
                .filter_map(|factor| Some((format!("{key} × {factor}"), scaled(value, factor)?)))
                .collect()
        }
    }
}

fn scaled(value: &Value, factor: f64) -> Option<Value> {
    match value {
        Value::Float(number) => Some(Value::Float(number * factor)),
        Value::Integer(number) => Some(Value::Integer((*number as f64 * factor).round() as i64)),
        Value::Array(all) => {
            let all = all.iter().map(|value| scaled(value, factor));
            all.collect::<Option<_>>().map(Value::Array)
        }
        _ => None,
    }
}

/// What came of the variations of one experiment.
#[derive(Debug)]
pub(crate) struct Findings {
    name: &'static str,
    /// With the parameters as they are.
    unvaried: Vec<Verdict>,
    rows: Vec<(Variation, Vec<Verdict>)>,
}

/// What may have grown by that much by chance.
const CHANCE: f64 = 1.02;

impl Findings {
    pub(crate) fn new(experiment: &Experiment, unvaried: Vec<Verdict>) -> Self {
        Self {
            name: experiment.name,
            unvaried,
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, variation: Variation, verdicts: Vec<Verdict>) {
        self.rows.push((variation, verdicts));
    }

    pub(crate) fn all_hold(&self) -> bool {
        self.verdicts().all(Verdict::holds)
    }

    fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.rows.iter().flat_map(|(_, verdicts)| verdicts)
    }

    fn count(&self, judgement: Judgement) -> usize {
        let all = self.verdicts();
        all.filter(|verdict| verdict.judgement() == judgement)
            .count()
    }

    /// A row of the summary.
    pub(crate) fn summary(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} |",
            self.name,
            self.rows.len(),
            self.count(Judgement::Holds),
            self.count(Judgement::AtTheFloor),
            self.count(Judgement::Fails),
        )
    }

    /// A section: for each figure the worst that was reached, and each variation with which it doesn't simply hold.
    pub(crate) fn section(&self) -> String {
        let mut text = format!("\n## {}\n\nAs they are:\n\n", self.name);
        for verdict in &self.unvaried {
            let _ = writeln!(text, "- {verdict}");
        }
        text.push_str("\n| figure | holds in | worst | with |\n|---|---|---|---|\n");
        for figure in 0..self.unvaried.len() {
            self.write_worst(&mut text, figure);
        }
        for (whose, title) in [
            (Whose::Workload, "The workload's"),
            (Whose::Algorithm, "The algorithm's"),
        ] {
            self.write_rows(&mut text, whose, title);
        }
        text
    }

    /// A row of the section's table.
    fn write_worst(&self, text: &mut String, figure: usize) {
        let rows = || {
            let rows = self.rows.iter();
            rows.filter_map(move |(row, verdicts)| Some((row, verdicts.get(figure)?)))
        };
        let holding = rows().filter(|(_, verdict)| verdict.holds()).count();
        let worst = rows().max_by(|a, b| a.1.badness().total_cmp(&b.1.badness()));
        let Some((row, verdict)) = worst else {
            return;
        };
        let _ = writeln!(
            text,
            "| {} ({}) | {holding} of {} | {:.4} | {} |",
            verdict.what,
            verdict.goal(),
            rows().count(),
            verdict.reached,
            row.what
        );
    }

    /// The parameters of one kind, and what doesn't simply hold with them varied.
    fn write_rows(&self, text: &mut String, whose: Whose, title: &str) {
        let rows = || self.rows.iter().filter(|(row, _)| row.whose == whose);
        let names: Vec<_> = rows().map(|(row, _)| row.what.as_str()).collect();
        if names.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n{title}: {}.\n", names.join(", "));
        for (row, verdicts) in rows() {
            for (verdict, unvaried) in verdicts.iter().zip(&self.unvaried) {
                if verdict.judgement() == Judgement::Holds {
                    continue;
                }
                let _ = write!(text, "- {}: {verdict}", row.what);
                if let Some(why) = why(verdict, unvaried) {
                    let _ = write!(text, ". {why}");
                }
                text.push('\n');
            }
        }
    }
}

/// Says what has changed in a ratio.
fn why(varied: &Verdict, unvaried: &Verdict) -> Option<String> {
    let (varied, unvaried) = (varied.parts?, unvaried.parts?);
    let judged_is_worse = varied.judged > CHANCE * unvaried.judged;
    let compared_is_better = varied.compared * CHANCE < unvaried.compared;
    let why = match (judged_is_worse, compared_is_better) {
        (false, true) => "What is judged isn't worse, but what it is compared with is better",
        (true, false) => "What is judged is worse",
        (true, true) => "What is judged is worse, and what it is compared with is better",
        (false, false) => "Neither has changed by more than chance may",
    };
    Some(format!("{why} (as they are: {unvaried})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Parts;

    fn varied(text: &str) -> Vec<(String, Table)> {
        let parameters: Table = text.parse().expect("it is TOML");
        let all = variations(&parameters, &["theirs"]);
        all.into_iter().map(|v| (v.what, v.parameters)).collect()
    }

    #[test]
    fn numbers_are_varied_wherever_they_are_and_lists_as_a_whole() {
        let all = varied("a = 10\nlist = [1.0, 2.0]\nname = 'x'\n[theirs]\nb = 5.0");
        let whats: Vec<_> = all.iter().map(|(what, _)| what.as_str()).collect();
        let expected = [
            "a × 0.8",
            "a × 1.2",
            "list × 0.8",
            "list × 1.2",
            "theirs.b × 0.8",
            "theirs.b × 1.2",
        ];
        assert_eq!(whats, expected);
        assert_eq!(all[0].1["a"].as_integer(), Some(8));
        assert_eq!(all[3].1["list"][1].as_float(), Some(2.4));
        assert_eq!(all[4].1["theirs"]["b"].as_float(), Some(4.0));
        // Nothing else has changed.
        assert_eq!(all[4].1["a"].as_integer(), Some(10));
    }

    #[test]
    fn a_percentile_stays_one() {
        for (what, parameters) in varied("percentile = 0.98") {
            let percentile = parameters["percentile"].as_float();
            assert!(percentile.is_some_and(|p| p < 1.0), "{what}");
        }
        assert_eq!(varied("percentile = 0.98").len(), 3);
    }

    #[test]
    fn the_algorithm_s_parameters_are_told_from_the_workload_s() {
        let parameters: Table = "a = 1.0\n[theirs]\nb = 5.0".parse().expect("it is TOML");
        let whose: Vec<_> = variations(&parameters, &["theirs"])
            .iter()
            .map(|v| v.whose)
            .collect();
        assert_eq!(whose[..2], [Whose::Workload; 2]);
        assert_eq!(whose[2..], [Whose::Algorithm; 2]);
    }

    #[test]
    fn of_a_ratio_that_fails_it_is_said_which_part_has_changed() {
        let ratio = |judged, compared| {
            let parts = Parts {
                judged,
                compared,
                busy: 0.5,
            };
            Verdict::ratio_at_most("it", parts, 0.5)
        };
        let unvaried = ratio(200.0, 400.0);
        let said = |judged, compared| why(&ratio(judged, compared), &unvaried).unwrap_or_default();
        assert!(said(180.0, 320.0).starts_with("What is judged isn't worse, but"));
        assert!(said(240.0, 400.0).starts_with("What is judged is worse ("));
        assert!(said(240.0, 320.0).starts_with("What is judged is worse, and"));
        assert!(said(201.0, 399.0).starts_with("Neither"));
        assert!(said(240.0, 400.0).ends_with("(as they are: 200 to 400 ms, 50 % busy)"));
        assert_eq!(why(&Verdict::at_most("it", 1.0, 0.5), &unvaried), None);
    }

    #[test]
    fn a_section_tells_what_fails_under_whose_parameter_it_is() {
        let experiment = Experiment {
            name: "it",
            what: "nothing",
            cases: Vec::new(),
            report: |_| crate::experiment::Report::default(),
        };
        let verdict = |reached| Verdict::at_most("figure", reached, 1.0);
        let mut findings = Findings::new(&experiment, vec![verdict(0.5)]);
        let parameters: Table = "a = 1.0\n[theirs]\nb = 5.0".parse().expect("it is TOML");
        for (varied, reached) in variations(&parameters, &["theirs"])
            .into_iter()
            .zip([0.5, 0.6, 2.0, 0.7])
        {
            findings.push(varied, vec![verdict(reached)]);
        }
        let section = findings.section();
        assert!(section.contains("- holds: figure: 0.5000"), "{section}");
        assert!(
            section.contains("| figure (≤ 1) | 3 of 4 | 2.0000 | theirs.b × 0.8 |"),
            "{section}"
        );
        let (workload, algorithm) = section.split_once("The algorithm's").expect("it is there");
        assert!(!workload.contains("FAILS"), "{section}");
        assert!(
            algorithm.contains("- theirs.b × 0.8: FAILS: figure"),
            "{section}"
        );
        assert_eq!(findings.summary(), "| it | 4 | 3 | 0 | 1 |");
    }
}
