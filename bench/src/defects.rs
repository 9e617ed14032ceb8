//! What users suffer in crates.io's tower 0.5.3, beside what ours does: the same scenarios over both, in one run.
//!
//! ```sh
//! cargo run --release --features paused-time --bin defects            # the table
//! cargo run --release --features paused-time --bin defects -- --quick # shorter simulations, for CI
//! cargo run --release --features paused-time --bin defects -- --row hedge
//! ```
//!
//! Each scenario says what it saw, and whether that is what a user needs. The run fails where ours doesn't do
//! it. Where crates.io's does, although the defect was reproduced there once, a note says so.
//!
//! Time is paused and chance is seeded, so the table is the same each time, save for the two durations of
//! the idle budget, which are real. `README.md` explains the columns.

use std::panic;
use std::path::Path;
use std::process::ExitCode;

use harness::{Outcome, Scale, Scenario, play};

mod best_ours;
mod best_upstream;
mod harness;

/// The scenarios over one side. `best` is what this side has for those that need an option.
macro_rules! side {
    ($side:ident, $tower:ident, $best:ident: $($topic:ident $source:literal)*) => {
        mod $side {
            use crate::$best as best;
            use $tower as tower;

            $(pub mod $topic {
                use super::tower;
                include!($source);
            })*
        }
    };
}

macro_rules! sides {
    ($($topic:ident $source:literal)*) => {
        side!(on_upstream, upstream, best_upstream: $($topic $source)*);
        side!(on_ours, ours, best_ours: $($topic $source)*);
    };
}

sides! {
    fakes "scenarios/fakes.rs"
    contract "scenarios/contract.rs"
    buffer "scenarios/buffer.rs"
    limit "scenarios/limit.rs"
    retry "scenarios/retry.rs"
    hedge "scenarios/hedge.rs"
    balance "scenarios/balance.rs"
    stack "scenarios/stack.rs"
}

struct Row {
    defect: &'static str,
    upstream: Scenario,
    ours: Scenario,
    how: &'static str,
    /// Whether the defect was ever seen in crates.io's.
    reproduced: bool,
}

macro_rules! rows {
    ($($defect:literal, $topic:ident::$scenario:ident, $how:literal $(, $same:ident)?;)*) => {
        [$(Row {
            defect: $defect,
            upstream: on_upstream::$topic::$scenario,
            ours: on_ours::$topic::$scenario,
            how: $how,
            reproduced: rows!(@reproduced $($same)?),
        }),*]
    };
    (@reproduced) => { true };
    (@reproduced unreproduced) => { false };
}

fn rows() -> impl IntoIterator<Item = Row> {
    rows! {
        "`call` without readiness panics (tower #547, #548, #762)",
        contract::call_without_readiness,
        "by default; documented of `FutureService`, which has nobody to answer yet";

        "Outside of a runtime, making or calling a service panics",
        contract::outside_of_a_runtime,
        "by default: timers are made on the first poll that needs one";

        "Buffer: the cause of a panic in the service is lost (linkerd2 #6086, #8666, #14333)",
        buffer::panic,
        "by default";

        "Buffer: after a panic in the service it never answers again",
        buffer::after_a_panic,
        "`Buffer::rebuilding`";

        "Buffer: requests whose callers gave up keep their slots (tower #71)",
        buffer::abandoned,
        "by default";

        "Load shedding over a buffer of 10 000: sheds when tokio's cooperative budget runs out (apollographql/router #9034)",
        buffer::shed,
        "by default";

        "Buffer: bounds what waits, and not what is in flight (here at 4)",
        buffer::in_flight,
        "`BufferLayer::with_in_flight_limit`";

        "Concurrency limit: a service that isn't ready keeps a permit from the others",
        limit::starved,
        "`release_while_pending`; not above what acquires its inner service anew, such as a retry";

        "Concurrency limit: can't reject (tower #793)",
        limit::reject,
        "`limit::bulkhead`, `with_max_wait`";

        "Rate limit: not `Clone`, and one limit for each connection (tower #794, #712, axum #278, #2634)",
        limit::shared_rate,
        "clones share it by default; `GlobalRateLimitLayer`";

        "Rate limit of 100 a second: twice as many about the edge of a window (tower #842)",
        limit::window_edge,
        "`with_window(Window::Sliding)`";

        "Backoff: all sessions of a maker draw the same jitter",
        retry::sessions,
        "by default, across clones of the maker, too";

        "Backoff of 1 s with half as much jitter: cut to whole seconds",
        retry::jitter,
        "by default; other modes by `with_jitter`";

        "Retry budget: allows other shares than it is told (tower #857)",
        retry::ratio,
        "by default";

        "Retry budget: the first deposit after 30 idle days holds a lock for long",
        retry::idle,
        "by default: constant time";

        "Retry budget: retries are allowed with no traffic at all",
        retry::reserve,
        "as tower 0.5, and documented", unreproduced;

        "Hedge: more extra load than the percentile says",
        hedge::extra_load,
        "by default: tries that were cut off count as lower bounds";

        "Hedge: a service that becomes slow gets every request twice",
        hedge::sudden_slowness,
        "`with_budget`, here of 5 %";

        "Hedge: an error of the second try fails a request that the first would have answered",
        hedge::failing_second,
        "by default";

        "Hedge: no layer (zebra #1041)",
        hedge::layer,
        "`HedgeLayer`";

        "Balance: after a removal, an index that is stale picks the wrong endpoint (tower #856)",
        balance::stale_pick,
        "by default";

        "Balance: waits for ever where discovery has ended, or never begins",
        balance::no_endpoint,
        "`with_fail_fast`, `with_max_wait`";

        "Load: reading a peak EWMA changes it (linkerd2-proxy #4537)",
        balance::reading_the_load,
        "by default";

        "Ready cache: panics when tokio's cooperative budget runs out (tower #415; a report)",
        balance::cooperative_budget,
        "by default", unreproduced;

        "Reconnect: no backoff (tower #60)",
        retry::reconnects,
        "`with_backoff`, here from 0.1 to 5 s";

        "Retry: everyone writes the same policy (tower #682)",
        retry::ready_made,
        "`retry::standard::StandardPolicy`";

        "Timeout of 1 s: readiness isn't covered (tower #648)",
        stack::readiness,
        "`with_readiness_timeout`";

        "Timeout of 1 s: 600 ms of waiting and 600 ms of answering pass",
        stack::total,
        "`with_total_timeout`";

        "`option_layer` with a layer that changes the error type isn't a service (tower #665)",
        stack::option_layer,
        "`option_layer_into`";

        "Boxed errors can't be matched without downcasts (tower #131, #655)",
        stack::find_error,
        "`find_source`";
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (scale, part) = match args[..] {
        [] => (Scale::Full, ""),
        ["--quick"] => (Scale::Quick, ""),
        ["--row", part] => (Scale::Full, part),
        _ => {
            eprintln!("usage: defects [--quick | --row PART]");
            return ExitCode::from(2);
        }
    };
    // The scenarios panic on purpose, and what they say is in the table.
    panic::set_hook(Box::new(|_| {}));

    println!(
        "| what users suffer | tower 0.5.3 of crates.io | ours | how ours |\n|---|---|---|---|"
    );
    let part = part.to_lowercase();
    let rows = rows()
        .into_iter()
        .filter(|row| row.defect.to_lowercase().contains(&part));
    let verdicts: Vec<_> = rows.map(|row| show(&row, scale)).collect();
    if part.is_empty() {
        show_compiler_messages();
    }
    summary(&verdicts)
}

struct Verdict {
    defect: &'static str,
    is_ours_sound: bool,
    is_gone_upstream: bool,
}

fn show(row: &Row, scale: Scale) -> Verdict {
    let Outcome {
        said: theirs,
        sound: theirs_sound,
    } = play(row.upstream, scale);
    let Outcome {
        said: ours,
        sound: ours_sound,
    } = play(row.ours, scale);
    let mark = if ours_sound { "" } else { "**broken:** " };
    println!("| {} | {theirs} | {mark}{ours} | {} |", row.defect, row.how);
    Verdict {
        defect: row.defect,
        is_ours_sound: ours_sound,
        is_gone_upstream: row.reproduced && theirs_sound,
    }
}

/// What the compiler says can't be seen at run time; tower's tests compare it with snapshots.
fn show_compiler_messages() {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tower/tests/ui");
    let files = snapshots.read_dir().into_iter().flatten().flatten();
    let is_snapshot = |path: &Path| path.extension().is_some_and(|ext| ext == "stderr");
    let count = files.filter(|file| is_snapshot(&file.path())).count();
    println!(
        "| Unreadable errors of bounds at compile time (tower #738, #663) | – | {count} snapshots of what the \
         compiler says | `#[diagnostic::on_unimplemented]` on the traits; `check_service` |"
    );
}

fn summary(verdicts: &[Verdict]) -> ExitCode {
    for verdict in verdicts.iter().filter(|verdict| verdict.is_gone_upstream) {
        println!(
            "\nNote: not seen in crates.io's this time: {}.",
            verdict.defect
        );
    }
    let broken: Vec<_> = verdicts
        .iter()
        .filter(|verdict| !verdict.is_ours_sound)
        .collect();
    println!(
        "\nOurs does what it promises in {} of {} rows.",
        verdicts.len() - broken.len(),
        verdicts.len()
    );
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
