//! Many callers at once, on the same names and on their own.
//!
//! Owns the callers.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::expected::EXPECTED;
use crate::lane::{Bundle, LOCULE};
use crate::leaks::Leaks;

/// How long the callers go on.
const SPELL: Duration = Duration::from_secs(8);
const CALLERS: usize = 8;

fn call(bundle: &Bundle, words: &[&str]) {
    let mut command = Command::new(LOCULE);
    command.arg("--root").arg(bundle.root()).args(words).current_dir(bundle.path("")).stdin(Stdio::null());
    // The container inherits what create has: no pipe, or it would be waited for.
    let log = tempfile(bundle);
    let status = command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).status().unwrap();
    let told = fs::read_to_string(&log).unwrap();
    fs::remove_file(log).unwrap();
    if status.success() {
        return;
    }
    assert!(
        status.code().is_some()
            && told.lines().count() == 1
            && EXPECTED.iter().any(|word| told.contains(word)),
        "{words:?}: {status}: {told}"
    );
}

fn tempfile(bundle: &Bundle) -> std::path::PathBuf {
    bundle.path(&crate::lane::unique("said"))
}

#[test]
fn callers_get_in_each_others_way_and_leave_nothing() {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]);
    // The document once, for all.
    let _ = bundle.command(&[]);
    fs::create_dir(bundle.root()).unwrap();
    let shared: Vec<String> = (0..3).map(|n| format!("{}-shared-{n}", bundle.id())).collect();
    let own: Vec<String> = (0..CALLERS).map(|n| format!("{}-own-{n}", bundle.id())).collect();
    let leaks = Leaks::of(&bundle);
    let end = Instant::now() + SPELL;
    let (bundle, shared) = (&bundle, &shared);
    std::thread::scope(|scope| {
        for (number, own) in own.iter().enumerate() {
            scope.spawn(move || {
                let mut seed = number as u64 + 1;
                let mut next = |below: u64| {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (seed >> 33) % below
                };
                while Instant::now() < end {
                    let id = shared[next(3) as usize].as_str();
                    match next(10) {
                        0 | 1 => call(bundle, &["create", id]),
                        2 | 3 => call(bundle, &["start", id]),
                        4 => call(bundle, &["kill", id, "KILL"]),
                        5 => call(bundle, &["delete", id]),
                        6 => call(bundle, &["delete", "--force", id]),
                        7 => call(bundle, &["state", id]),
                        8 => call(bundle, &["run", "--detach", id]),
                        _ => {
                            // Nobody else knows this one: nothing may fail.
                            for words in [
                                &["create", own.as_str()][..],
                                &["start", own],
                                &["exec", own, "true"],
                                &["kill", own, "9"],
                                &["delete", "--force", own],
                            ] {
                                let out = bundle_call(bundle, words);
                                assert_eq!(out, (Some(0), String::new()), "{words:?}");
                            }
                        }
                    }
                }
            });
        }
    });
    for id in shared {
        call(bundle, &["delete", "--force", id]);
    }
    leaks.none("by callers in each other's way");
}

fn bundle_call(bundle: &Bundle, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(LOCULE);
    command.arg("--root").arg(bundle.root()).args(words).current_dir(bundle.path("")).stdin(Stdio::null());
    let log = tempfile(bundle);
    let status = command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).status().unwrap();
    let told = fs::read_to_string(&log).unwrap();
    fs::remove_file(log).unwrap();
    (status.code(), told)
}

#[test]
fn one_of_many_creations_wins() {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]);
    let _ = bundle.command(&[]);
    let bundle = &bundle;
    for _ in 0..5 {
        let won: usize = std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..6).map(|_| scope.spawn(|| bundle_call(bundle, &["create", bundle.id()]))).collect();
            let ended = calls.into_iter().map(|call| call.join().unwrap());
            ended
                .map(|(code, told)| {
                    assert!(code == Some(0) || told.contains("already exists"), "{told}");
                    usize::from(code == Some(0))
                })
                .sum()
        });
        assert_eq!(won, 1);
        let started: usize = std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..6).map(|_| scope.spawn(|| bundle_call(bundle, &["start", bundle.id()]))).collect();
            calls.into_iter().map(|call| usize::from(call.join().unwrap().0 == Some(0))).sum()
        });
        assert_eq!(started, 1);
        bundle.locule(&["delete", "--force", bundle.id()]).ok();
    }
}
