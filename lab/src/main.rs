//! A laboratory on simulated time: what Tower's middleware does for a fleet of clients and servers.
//!
//! `cargo run --release -p lab` runs every experiment and writes a table, the seeds and plots to `target/lab`.
//!
//! - `--out DIR` writes them elsewhere.
//! - `--only NAME` runs one experiment.
//! - `--seeds N` takes N seeds instead of 20, from 1 on.
//!
//! It ends with status 1 if a figure that was to be reached was not.

#![allow(dead_code, reason = "the experiments that come next use the rest")]

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
mod tiers;
mod world;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use crate::experiment::{Experiment, Report, Results};

/// What the command line says.
struct Options {
    out: PathBuf,
    only: Option<String>,
    seeds: u64,
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

/// Runs the experiments that are asked for; tells whether all has been reached.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let seeds: Vec<u64> = (1..=options.seeds).collect();
    fs::create_dir_all(&options.out)?;
    let mut table = format!(
        "# The laboratory\n\nMedians of the seeds 1 to {}.\n",
        options.seeds
    );
    let mut all_hold = true;
    for experiment in experiments()? {
        if options
            .only
            .as_ref()
            .is_some_and(|only| only != experiment.name)
        {
            continue;
        }
        let began = Instant::now();
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

/// All of them, with the parameters that their files state.
fn experiments() -> Result<Vec<Experiment>, Box<dyn Error>> {
    // A macro, as the name of an included file must be a literal.
    macro_rules! parameters {
        ($name:literal) => {
            &toml::from_str(include_str!(concat!("../experiments/", $name, ".toml")))?
        };
    }
    Ok(vec![
        fleet::experiment(parameters!("fleet")),
        picking::buoyant(parameters!("buoyant")),
        picking::failing(parameters!("failing")),
        faults::experiment(parameters!("faults")),
        hedging::experiment(parameters!("hedging")),
        storm::experiment(parameters!("storm")),
        tiers::experiment(parameters!("tiers")),
        churn::experiment(parameters!("churn")),
    ])
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
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--out" => options.out = value()?.into(),
                "--only" => options.only = Some(value()?),
                "--seeds" => options.seeds = value()?.parse()?,
                _ => {
                    return Err(format!(
                        "unknown argument {arg}: --out DIR, --only NAME and --seeds N are known"
                    )
                    .into());
                }
            }
        }
        Ok(options)
    }
}
