//! `linux.netDevices`: interfaces of the host moved in.
//!
//! Owns pairs of virtual interfaces in the lane's own network namespace.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::lane::{Bundle, guard, host};

/// A pair of interfaces with an address on the first, removed at the end.
struct Pair(String, String);

impl Pair {
    fn new() -> Pair {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        guard();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (one, other) = (format!("lane{number}a"), format!("lane{number}b"));
        host("ip", &["link", "add", &one, "type", "veth", "peer", "name", &other]);
        host("ip", &["addr", "add", "10.9.8.7/24", "dev", &one]);
        host("ip", &["addr", "add", "fd00::7/64", "dev", &one, "nodad"]);
        Pair(one, other)
    }

    fn exists(name: &str) -> bool {
        PathBuf::from("/proc/thread-self/net/dev_snmp6").join(name).exists()
            || fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains(&format!("{name}:"))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["link", "del", &self.1])
            .stderr(std::process::Stdio::null())
            .status();
    }
}

#[test]
fn moved_with_addresses_and_a_new_name() {
    let pair = Pair::new();
    let mut bundle = Bundle::new();
    bundle.set("linux.netDevices", json!({&pair.0: {"name": "inner0"}}));
    let out = bundle.script("ip -o addr show; ip -o link show inner0").run();
    assert!(out.ok().contains("inner0") && out.ok().contains("inet 10.9.8.7/24"), "{out:?}");
    assert!(out.ok().contains("inet6 fd00::7/64") && out.ok().contains("UP"), "{out:?}");
}

#[test]
fn moved_under_its_own_name() {
    let pair = Pair::new();
    let mut bundle = Bundle::new();
    bundle.set("linux.netDevices", json!({&pair.0: {}})).up();
    assert!(!Pair::exists(&pair.0));
    assert!(bundle.exec("cat /proc/net/dev").ok().contains(&format!("{}:", pair.0)));
}

#[test]
fn put_back_when_the_creation_fails() {
    let pair = Pair::new();
    let mut bundle = Bundle::new();
    bundle.set("linux.netDevices", json!({&pair.0: {"name": "inner0"}, "lane-absent": {}}));
    bundle.run().refused_with(&["linux.netDevices", "lane-absent"]);
    bundle.assert_gone();
    let shown = host("ip", &["-o", "addr", "show", "dev", &pair.0]);
    assert!(shown.contains("10.9.8.7/24"), "{shown}");
}

#[test]
fn wrong_devices_are_refused() {
    let mut bundle = Bundle::new();
    bundle.set("linux.netDevices", json!({"lo/": {}})).run().refused_with(&["linux.netDevices", "lo/"]);
    bundle.set("linux.netDevices", json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}}));
    bundle.run().refused_with(&["linux.netDevices", "\"x\""]);
    bundle.set("linux.netDevices", json!({"eth0": {}})).without_namespace("network");
    bundle.run().refused_with(&["linux.netDevices", "network namespace"]);
}
