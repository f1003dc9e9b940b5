//! `linux.intelRdt`.
//!
//! Owns the refusals where the kernel has no resctrl; that is on nearly every machine.

use std::fs;

use serde_json::json;

use crate::lane::Bundle;

#[test]
fn without_resctrl_it_is_refused() {
    if fs::metadata("/sys/fs/resctrl/schemata").is_ok() {
        return;
    }
    for rdt in [
        json!({"closID": "group"}),
        json!({"l3CacheSchema": "L3:0=f"}),
        json!({"memBwSchema": "MB:0=50"}),
        json!({"schemata": ["L3:0=f"]}),
        json!({"enableMonitoring": true}),
    ] {
        let mut bundle = Bundle::new();
        bundle.set("linux.intelRdt", rdt).run().refused_with(&["linux.intelRdt", "resctrl"]);
        bundle.assert_gone();
    }
}

#[test]
fn wrong_classes_are_refused() {
    for (rdt, word) in
        [(json!({"closID": "../x"}), "closID"), (json!({"schemata": ["nonsense"]}), "nonsense")]
    {
        Bundle::new().set("linux.intelRdt", rdt).run().refused_with(&["linux.intelRdt", word]);
    }
}
