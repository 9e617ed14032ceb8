//! The fuzz targets over a corpus that is kept, each file as it is and mutated by a seed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tower_rng::{Rng as _, SplitMix64};

use crate::targets;

/// How many mutations of each file are tried.
const MUTATIONS: u64 = 100;

fn run(target: &str, fuzz: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("the corpus is there")
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{} is thin", directory.display());
    for (number, file) in (0..).zip(&files) {
        let seed = fs::read(file).expect("it can be read");
        let mut rng = SplitMix64::new(number);
        for mutation in 0..=MUTATIONS {
            let mut data = seed.clone();
            // The first is the file itself.
            for _ in 0..mutation.min(3) {
                mutate(&mut data, &mut rng);
            }
            if catch_unwind(AssertUnwindSafe(|| fuzz(&data))).is_err() {
                panic!("{}, mutation {mutation}: {data:?}", file.display());
            }
        }
    }
}

/// One change: a byte is another, or gone, or a piece stands twice, or the end is missing.
fn mutate(data: &mut Vec<u8>, rng: &mut SplitMix64) {
    const ODD: &[u8] = b"\0\x01\x02\xff\x80%=+/,; \nHMSmun019-binAZ";

    if data.is_empty() {
        return;
    }
    let mut below = |bound: usize| (rng.next_u64() % bound as u64) as usize;
    let at = below(data.len());
    match below(5) {
        0 => data[at] = below(256) as u8,
        1 => data[at] = ODD[below(ODD.len())],
        2 => drop(data.remove(at)),
        3 => {
            let end = (at + 1 + below(8)).min(data.len());
            let piece = data[at..end].to_vec();
            data.splice(at..at, piece);
        }
        _ => data.truncate(at),
    }
}

#[test]
fn no_body_is_read_otherwise_than_its_prefixes_say() {
    run("frames", targets::frames);
}

#[test]
fn no_compressed_message_breaks_its_bounds() {
    run("compressed", targets::compressed);
}

#[test]
fn no_metadata_is_lost_or_made_up() {
    run("metadata", targets::metadata);
}

#[test]
fn no_timeout_is_read_as_another() {
    run("timeout", targets::timeout);
}

#[test]
fn no_status_is_read_as_another() {
    run("status", targets::status);
}

#[test]
fn no_body_of_a_page_is_read_otherwise_than_its_bytes_say() {
    run("web", targets::web);
}

#[test]
fn no_encoding_is_used_that_was_not_agreed_on() {
    run("encodings", targets::encodings);
}
