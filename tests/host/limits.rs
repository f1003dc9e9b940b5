//! `process.rlimits` and `oomScoreAdj`.
//!
//! Owns the limits of a process; those of a cgroup are the cgroup's.

use std::collections::BTreeMap;

use serde_json::json;

use crate::lane::Bundle;

const LIMITS: [(&str, &str); 16] = [
    ("RLIMIT_CPU", "Max cpu time"),
    ("RLIMIT_FSIZE", "Max file size"),
    ("RLIMIT_DATA", "Max data size"),
    ("RLIMIT_STACK", "Max stack size"),
    ("RLIMIT_CORE", "Max core file size"),
    ("RLIMIT_RSS", "Max resident set"),
    ("RLIMIT_NPROC", "Max processes"),
    ("RLIMIT_NOFILE", "Max open files"),
    ("RLIMIT_MEMLOCK", "Max locked memory"),
    ("RLIMIT_AS", "Max address space"),
    ("RLIMIT_LOCKS", "Max file locks"),
    ("RLIMIT_SIGPENDING", "Max pending signals"),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
    ("RLIMIT_NICE", "Max nice priority"),
    ("RLIMIT_RTPRIO", "Max realtime priority"),
    ("RLIMIT_RTTIME", "Max realtime timeout"),
];

/// Soft and hard limits by the name that /proc/PID/limits has for them.
fn parse(text: &str) -> BTreeMap<&str, [u64; 2]> {
    let number = |word: &str| word.parse().unwrap_or(u64::MAX);
    LIMITS
        .iter()
        .filter_map(|(_, name)| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            let mut words = line[name.len()..].split_whitespace();
            Some((*name, [number(words.next()?), number(words.next()?)]))
        })
        .collect()
}

/// Values below what the lane has, since not every root may raise a limit; big enough to run with.
fn lowered() -> (serde_json::Value, BTreeMap<&'static str, [u64; 2]>) {
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let own = parse(&own);
    let mut listed = Vec::new();
    let mut meant = BTreeMap::new();
    for (at, (kind, name)) in LIMITS.iter().enumerate() {
        let hard = own[name][1].min((1 << 30) + 4096 * (at as u64));
        let soft = hard.min((1 << 29) + 4096 * (at as u64));
        listed.push(json!({"type": kind, "soft": soft, "hard": hard}));
        meant.insert(*name, [soft, hard]);
    }
    (json!(listed), meant)
}

#[test]
fn all_sixteen() {
    let (listed, meant) = lowered();
    let mut bundle = Bundle::new();
    let out = bundle.set("process.rlimits", listed).args(&["cat", "/proc/self/limits"]).run();
    assert_eq!(parse(out.ok()), meant);
}

#[test]
fn all_sixteen_in_a_user_namespace() {
    let (listed, meant) = lowered();
    let mut bundle = Bundle::new();
    bundle.mapped();
    bundle.set("process.rlimits", listed).set("process.oomScoreAdj", json!(321));
    let out = bundle.script("cat /proc/self/limits; cat /proc/self/oom_score_adj").run();
    assert_eq!(parse(out.ok()), meant);
    assert!(out.ok().ends_with("\n321"), "{out:?}");
}

#[test]
fn hold_for_exec() {
    let mut bundle = Bundle::new();
    bundle.set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}])).up();
    assert_eq!(parse(bundle.exec("cat /proc/self/limits").ok())["Max open files"], [100, 200]);
}

#[test]
fn unlimited() {
    let mut bundle = Bundle::new();
    bundle.set("process.rlimits", json!([{"type": "RLIMIT_CPU", "soft": u64::MAX, "hard": u64::MAX}]));
    assert_eq!(parse(bundle.script("cat /proc/self/limits").run().ok())["Max cpu time"], [u64::MAX; 2]);
}

#[test]
fn limits_limit() {
    let mut bundle = Bundle::new();
    bundle.set("process.rlimits", json!([{"type": "RLIMIT_FSIZE", "soft": 1024, "hard": 1024}]));
    let out = bundle.script("trap '' XFSZ; head -c 4096 /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x").run();
    assert_eq!(out.ok(), "1024");
}

/// config.md, rlimits: a duplicated type is an error; soft must not be above hard.
#[test]
fn wrong_limits_are_refused() {
    let one = json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2});
    for (limits, words) in [
        (json!([one, one]), &["RLIMIT_NOFILE"][..]),
        (json!([{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 2}]), &["RLIMIT_NOFILE", "soft"]),
        (json!([{"type": "RLIMIT_PATIENCE", "soft": 1, "hard": 2}]), &["RLIMIT_PATIENCE"]),
    ] {
        let mut bundle = Bundle::new();
        bundle.set("process.rlimits", limits).run().refused_with(words);
        bundle.assert_gone();
    }
}

#[test]
fn oom_score() {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let mut bundle = Bundle::new();
    bundle.script("cat /proc/self/oom_score_adj");
    assert_eq!(bundle.run().ok(), own.trim(), "absent leaves it alone");
    assert_eq!(bundle.set("process.oomScoreAdj", json!(777)).run().ok(), "777");
    bundle.set("process.oomScoreAdj", json!(1001)).run().refused_with(&["oomScoreAdj", "1001"]);
}
