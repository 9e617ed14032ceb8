//! A laboratory on simulated time: what Tower's middleware does for a fleet of clients and servers.
//!
//! `cargo run --release -p lab` runs every experiment and writes a table, the seeds and plots to `target/lab`.
//!
//! - `--out DIR` writes them elsewhere.
//! - `--only NAME` runs one experiment.
//! - `--seeds N` takes N seeds instead of 20, from 1 on.
//! - `--from SEED` begins with another than the first: seeds that nothing was tuned on.
//! - `--vary` runs each experiment with each of its parameters a fifth smaller and a fifth greater, and writes which of
//!   the figures hold to `variations.md`. With 20 seeds it takes an hour: `--seeds 3` will do.
//! - `--swarm N` runs N random scenarios instead, from `--from` on (1), and checks their invariants.
//!
//! It ends with status 1 if a figure that was to be reached was not.

mod chance;
mod churn;
mod endpoint;
mod experiment;
mod faults;
mod fleet;
mod hedging;
mod link;
mod machine;
mod picking;
mod plot;
mod pooled;
mod record;
mod server;
mod sharing;
mod storm;
mod swarm;
mod tiers;
mod variations;
mod world;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use toml::Table;

use crate::experiment::{Experiment, Report, Results};
use crate::variations::{Findings, Variation, variations};

/// What the command line says.
struct Options {
    out: PathBuf,
    only: Option<String>,
    seeds: u64,
    vary: bool,
    swarm: Option<u64>,
    from: u64,
}

fn main() -> ExitCode {
    match Options::from_args(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An experiment, and the file of its parameters.
struct Entry {
    name: &'static str,
    file: &'static str,
    /// Which of the parameters are the algorithm's.
    algorithm: &'static [&'static str],
    make: fn(Table) -> Result<Experiment, toml::de::Error>,
}

impl Entry {
    /// Runs the experiment with each of the variations of its parameters.
    fn findings(
        &self,
        parameters: Table,
        variations: impl IntoIterator<Item = Variation>,
        seeds: &[u64],
    ) -> Result<Findings, toml::de::Error> {
        let experiment = (self.make)(parameters)?;
        let unvaried = (experiment.report)(&experiment.run(seeds)).verdicts;
        let mut findings = Findings::new(&experiment, unvaried);
        for variation in variations {
            let experiment = (self.make)(variation.parameters.clone())?;
            let report = (experiment.report)(&experiment.run(seeds));
            findings.push(variation, report.verdicts);
        }
        Ok(findings)
    }
}

macro_rules! entry {
    ($name:literal, $make:path, [$($algorithm:literal),*]) => {
        Entry {
            name: $name,
            file: include_str!(concat!("../experiments/", $name, ".toml")),
            algorithm: &[$($algorithm),*],
            make: |parameters| Ok($make(&parameters.try_into()?)),
        }
    };
}

const ENTRIES: [Entry; 8] = [
    entry!("fleet", fleet::experiment, ["ewma"]),
    entry!("buoyant", picking::buoyant, ["ewma"]),
    entry!("failing", picking::failing, ["ewma"]),
    entry!(
        "faults",
        faults::experiment,
        [
            "try_timeout_ms",
            "max_tries",
            "backoff_min_ms",
            "backoff_max_ms",
            "retry_ratio",
            "slow_start_s"
        ]
    ),
    entry!(
        "hedging",
        hedging::experiment,
        ["percentile", "period_s", "min_data_points", "budget"]
    ),
    entry!(
        "storm",
        storm::experiment,
        [
            "max_tries",
            "backoff_min_ms",
            "backoff_max_ms",
            "retry_ratio",
            "reserve_per_s",
            "window_s",
            "long_window_s"
        ]
    ),
    entry!("tiers", tiers::experiment, []),
    entry!("churn", churn::experiment, []),
];

/// Runs what is asked for; tells whether all has been reached.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    if let Some(count) = options.swarm {
        return Ok(run_swarm(options.from, count));
    }
    let only = |entry: &&Entry| options.only.as_ref().is_none_or(|only| only == entry.name);
    let entries: Vec<_> = ENTRIES.iter().filter(only).collect();
    if entries.is_empty() {
        let names = ENTRIES.map(|entry| entry.name).join(", ");
        return Err(format!("there is no such experiment; there are {names}").into());
    }
    let last = options.from + options.seeds.max(1) - 1;
    let seeds: Vec<u64> = (options.from..=last).collect();
    fs::create_dir_all(&options.out)?;
    if options.vary {
        return vary(&entries, &seeds, &options.out);
    }
    let mut table = format!(
        "# The laboratory\n\nMedians of the seeds {} to {last}.\n",
        options.from
    );
    let mut all_hold = true;
    for entry in entries {
        let began = Instant::now();
        let experiment = (entry.make)(entry.file.parse()?)?;
        let results = experiment.run(&seeds);
        let report = (experiment.report)(&results);
        let section = section(&experiment, &results, &report)?;
        println!("{section}\n({:.1} s)", began.elapsed().as_secs_f64());
        table.push_str(&section);
        for plot in &report.plots {
            plot.write(&options.out)?;
        }
        all_hold &= report.verdicts.iter().all(|verdict| verdict.holds());
    }
    fs::write(options.out.join("table.md"), table)?;
    Ok(all_hold)
}

fn run_swarm(from: u64, count: u64) -> bool {
    match swarm::search(from..from + count) {
        Ok(()) => {
            println!("{count} scenarios from seed {from} keep the invariants");
            true
        }
        Err(broken) => {
            println!("{broken}");
            false
        }
    }
}

/// Runs the experiments with each of their parameters varied.
fn vary(entries: &[&Entry], seeds: &[u64], out: &Path) -> Result<bool, Box<dyn Error>> {
    let mut summary = format!(
        "# Each parameter a fifth smaller and a fifth greater\n\n\
         Medians of {} seeds from {} on. \"At the floor\" is what can't be reached by arithmetic, as stated beside \
         it, where what can be was, but for a twentieth. Of a ratio its two sides are given, and the part of all \
         processors that the requests keep busy.\n\n\
         | experiment | variations | figures that hold | at the floor | that fail |\n|---|---|---|---|---|\n",
        seeds.len(),
        seeds.first().copied().unwrap_or_default(),
    );
    let mut sections = String::new();
    let mut all_hold = true;
    for entry in entries {
        let parameters: Table = entry.file.parse()?;
        let varied = variations(&parameters, entry.algorithm);
        let findings = entry.findings(parameters, varied, seeds)?;
        let section = findings.section();
        println!("{section}");
        writeln!(summary, "{}", findings.summary())?;
        sections.push_str(&section);
        all_hold &= findings.all_hold();
        // What there is so far: the whole takes long.
        fs::write(out.join("variations.md"), format!("{summary}{sections}"))?;
    }
    Ok(all_hold)
}

/// What the table says of an experiment.
fn section(
    experiment: &Experiment,
    results: &Results,
    report: &Report,
) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "\n## {}\n\n{}.\n", experiment.name, experiment.what)?;
    writeln!(text, "| {} |", report.header.join(" | "))?;
    writeln!(text, "|{}", "---|".repeat(report.header.len()))?;
    for row in &report.rows {
        writeln!(text, "| {} |", row.join(" | "))?;
    }
    writeln!(text)?;
    for verdict in &report.verdicts {
        writeln!(text, "- {verdict}")?;
    }
    writeln!(text, "\nTrace: `{:016x}`.", results.trace())?;
    Ok(text)
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            out: Path::new("target").join("lab"),
            only: None,
            seeds: 20,
            vary: false,
            swarm: None,
            from: 1,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--out" => options.out = value()?.into(),
                "--only" => options.only = Some(value()?),
                "--seeds" => options.seeds = value()?.parse()?,
                "--vary" => options.vary = true,
                "--swarm" => options.swarm = Some(value()?.parse()?),
                "--from" => options.from = value()?.parse()?,
                _ => {
                    return Err(format!(
                        "unknown argument {arg}: --out DIR, --only NAME, --seeds N, --vary, --swarm N and --from N are known"
                    )
                    .into());
                }
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_valid_and_varies() {
        for entry in &ENTRIES {
            let parameters: Table = entry.file.parse().expect("the file is TOML");
            let variations = variations(&parameters, entry.algorithm);
            assert!(variations.len() >= 10, "{}", entry.name);
            for varied in variations {
                assert_ne!(varied.parameters, parameters);
                assert!((entry.make)(varied.parameters).is_ok(), "{}", varied.what);
            }
            for name in entry.algorithm {
                assert!(parameters.contains_key(*name), "{name} of {}", entry.name);
            }
            let experiment = (entry.make)(parameters).expect("the file has what is needed");
            assert_eq!(experiment.name, entry.name);
        }
    }

    #[test]
    fn an_experiment_holds_with_its_latency_a_fifth_smaller_and_greater() {
        let entry = ENTRIES.iter().find(|entry| entry.name == "failing");
        let entry = entry.expect("there is one");
        let mut parameters: Table = entry.file.parse().expect("the file is TOML");
        parameters.insert("measured_s".to_owned(), 2.0.into());
        let varied = variations(&parameters, entry.algorithm);
        let varied = varied
            .into_iter()
            .filter(|varied| varied.what.starts_with("latency_ms"));
        let findings = entry
            .findings(parameters, varied, &[1])
            .expect("the parameters are valid");
        assert!(findings.all_hold(), "{}", findings.section());
        assert!(findings.summary().starts_with("| failing | 2 | 2 |"));
    }

    #[test]
    fn arguments_are_read_and_unknown_ones_refused() {
        let read = |args: &[&str]| Options::from_args(args.iter().map(|&arg| arg.to_owned()));
        let options =
            read(&["--only", "fleet", "--seeds", "3", "--out", "there"]).expect("they are known");
        assert_eq!((options.only.as_deref(), options.seeds), (Some("fleet"), 3));
        assert_eq!(options.out, Path::new("there"));
        for args in [&["--what"][..], &["--seeds"], &["--seeds", "many"]] {
            assert!(read(args).is_err(), "{args:?}");
        }
    }
}
