//! `linux.timeOffsets` and the time namespace.
//!
//! Owns the two clocks that can differ.

use std::fs;

use serde_json::json;

use crate::lane::Bundle;

fn uptime(text: &str) -> f64 {
    text.split(' ').next().unwrap().trim().parse().unwrap()
}

#[test]
fn offsets() {
    let mut bundle = Bundle::new();
    bundle.namespace(json!({"type": "time"})).set(
        "linux.timeOffsets",
        json!({"monotonic": {"secs": 1000, "nanosecs": 5}, "boottime": {"secs": 1_000_000}}),
    );
    let out = bundle.script("cat /proc/self/timens_offsets; cat /proc/uptime").run();
    let words: Vec<_> = out.ok().split_whitespace().take(6).collect();
    assert_eq!(words, ["monotonic", "1000", "5", "boottime", "1000000", "0"]);
    assert!(uptime(out.ok().lines().last().unwrap()) > 1_000_000.0, "{out:?}");
    bundle.up();
    assert!(uptime(bundle.exec("cat /proc/uptime").ok()) > 1_000_000.0, "exec lives in the same time");
}

#[test]
fn a_time_namespace_without_offsets() {
    let mut bundle = Bundle::new();
    let out = bundle
        .namespace(json!({"type": "time"}))
        .script("readlink /proc/self/ns/time; cat /proc/uptime")
        .run();
    let own = fs::read_link("/proc/self/ns/time").unwrap();
    assert!(!out.ok().starts_with(own.to_str().unwrap()), "{out:?}");
    assert!(uptime(out.ok().lines().last().unwrap()) <= uptime(&fs::read_to_string("/proc/uptime").unwrap()));
}

#[test]
fn offsets_in_a_user_namespace() {
    let mut bundle = Bundle::new();
    bundle.mapped();
    bundle
        .namespace(json!({"type": "time"}))
        .set("linux.timeOffsets", json!({"boottime": {"secs": 2_000_000}}));
    assert!(uptime(bundle.script("cat /proc/uptime").run().ok()) > 2_000_000.0);
}

#[test]
fn wrong_offsets_are_refused() {
    let mut bundle = Bundle::new();
    bundle.set("linux.timeOffsets", json!({"boottime": {"secs": 1}}));
    bundle.run().refused_with(&["timeOffsets", "time namespace"]);
    bundle.namespace(json!({"type": "time"})).set("linux.timeOffsets", json!({"realtime": {"secs": 1}}));
    bundle.run().refused_with(&["timeOffsets", "realtime"]);
    bundle.set("linux.timeOffsets", json!({"boottime": {"secs": -4_000_000_000_i64}}));
    bundle.run().refused_with(&["timeOffsets"]);
    bundle.assert_gone();
}
