//! A hundred callers at once, on the same names and on their own, for as long as `SOAK_SECONDS` says.
//!
//! Owns the counts taken before and after: processes, mounts, cgroups, state, the tmpfs, descriptors
//! of the process that called all the time, session keyrings. Runs only within `tests/lane`; a short
//! run is part of the host lane, `make soak` is ten minutes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod caller;
#[path = "../lifecycle/expected.rs"]
mod expected;
#[allow(dead_code, reason = "shared with tests/host, which uses all of it")]
#[path = "../host/lane.rs"]
mod lane;
#[allow(dead_code, reason = "shared with tests/lifecycle, which uses all of it")]
#[path = "../lifecycle/leaks.rs"]
mod leaks;
mod reaper;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use crate::caller::{Caller, Tally};
use crate::lane::{Bundle, until};
use crate::leaks::Leaks;
use crate::reaper::Reaper;

const CALLERS: usize = 100;
/// Names that all callers share.
const SHARED: usize = 20;

fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS").ok().map_or(20, |text| text.parse().expect("SOAK_SECONDS is a number"))
}

/// What a long-living caller has too much of if something leaks.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    mounts: usize,
    blocks: u64,
    inodes: u64,
    keyrings: usize,
    children: usize,
}

impl Held {
    fn now(bundle: &Bundle) -> Held {
        let lines = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().count();
        let tmpfs = statvfs(&bundle.path("")).unwrap();
        let keys = fs::read_to_string("/proc/keys").unwrap_or_default();
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let of_task =
            |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        Held {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            mounts: lines("/proc/self/mountinfo"),
            blocks: tmpfs.blocks() - tmpfs.blocks_free(),
            inodes: tmpfs.files() - tmpfs.files_free(),
            keyrings: keys.lines().filter(|line| line.contains(bundle.id())).count(),
            children: tasks.map(|task| of_task(task).split_whitespace().count()).sum(),
        }
    }
}

#[test]
fn nothing_is_left_by_a_hundred_callers() {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]);
    // The document once, for all.
    let _ = bundle.command(&[]);
    fs::create_dir(bundle.root()).unwrap();
    let reaper = Reaper::start();
    let shared: Vec<String> = (0..SHARED).map(|n| format!("{}-shared-{n}", bundle.id())).collect();
    // One life before the first count: what is made once and kept is no leak.
    let mut first = Caller::new(&bundle, &reaper, &shared, usize::MAX);
    first.life();
    // Keyrings are freed a moment after their last user.
    until("what the first held is free", || Held::now(&bundle).keyrings == 0);
    let leaks = Leaks::of(&bundle);
    let before = Held::now(&bundle);

    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds());
    let (bundle, shared) = (&bundle, &shared);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let mut caller = Caller::new(bundle, &reaper, shared, number);
                scope.spawn(move || {
                    while Instant::now() < end {
                        caller.act();
                    }
                    caller.tally
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let mut last = Caller::new(bundle, &reaper, shared, CALLERS);
    for id in shared {
        last.succeeds(&["delete", "--force", id]);
    }

    let mut total: BTreeMap<String, usize> = BTreeMap::new();
    for (word, count) in tallies.into_iter().flatten() {
        *total.entry(word).or_default() += count;
    }
    println!("{CALLERS} callers in {} s:", begin.elapsed().as_secs());
    for (word, count) in &total {
        println!("{count:>8} {word}");
    }
    // Inits of killed calls are reaped when they have died.
    until("everything is as it was", || Held::now(bundle) == before);
    println!("before and after: {before:?}");
    leaks.none("by a hundred callers");
    for word in ["create: done", "start: done", "delete: done", "whole lives", "killed calls"] {
        assert!(total.get(word).is_some_and(|count| *count > 0), "no {word} in {total:?}");
    }
}
