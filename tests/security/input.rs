//! Documents that are too large for the fields they end up in.
//!
//! Owns their sizes; what fuzzing finds is kept with the fuzzers.

use serde_json::json;

use crate::lane::Bundle;
use crate::leaks::Leaks;

/// CVE-2021-43784: lengths that overflow the 16 bits of a netlink attribute, so that what follows is
/// read as configuration of its own. Nothing of a document goes to the container's init by netlink
/// here; where netlink is used (`net_devices`), long names are refused before.
#[test]
fn lengths_do_not_overflow() {
    let long = format!("/proc/self/ns/{}", "x".repeat(70_000));
    let exact = |length: usize| format!("/{}", "y".repeat(length - 1));
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    let namespaces = bundle.config()["linux"]["namespaces"].clone();
    for path in [long, exact(65_535), exact(65_536), exact(65_540), exact(4_096)] {
        bundle.set("linux.namespaces", namespaces.clone());
        bundle.namespace(json!({"type": "network", "path": path})).args(&["true"]);
        bundle.run().refused();
        bundle.assert_gone();
    }
    bundle.set("linux.namespaces", namespaces);
    for name in ["n".repeat(16), "n".repeat(65_532), "n".repeat(70_000)] {
        bundle.set("linux.netDevices", json!({"lo": {"name": name}}));
        bundle.run().refused_with(&["netDevices"]);
        bundle.assert_gone();
    }
    let _ = std::fs::remove_dir(bundle.root());
    leaks.none("by lengths that do not fit");
}

/// The same by way of id maps, which runc's message carried as well.
#[test]
fn many_id_maps() {
    let mut bundle = Bundle::new();
    let maps = |count: u32| -> serde_json::Value {
        (0..count).map(|n| json!({"containerID": n, "hostID": 100_000 + 2 * n, "size": 1})).collect()
    };
    bundle.namespace(json!({"type": "user"}));
    // The kernel takes 340 lines, and less than a page.
    bundle.set("linux.uidMappings", maps(250)).set("linux.gidMappings", maps(250));
    bundle.script("wc -l < /proc/self/uid_map");
    assert_eq!(bundle.run().ok(), "250");
    for count in [341, 5_000] {
        bundle.set("linux.uidMappings", maps(count)).run().refused_with(&["uid"]);
        bundle.assert_gone();
    }
}

/// Texts that become lines or words of a kernel file must not make two of one.
#[test]
fn nothing_is_smuggled_into_kernel_files() {
    for (property, value, word) in [
        ("process.apparmorProfile", json!("a\nexec b"), "apparmorProfile"),
        ("process.selinuxLabel", json!("a:b\0c"), "selinuxLabel"),
        ("linux.mountLabel", json!("a\",exec,b=\"c"), "mountLabel"),
        ("linux.sysctl", json!({"net/../kernel/core_pattern": "|/bin/sh"}), "sysctl"),
        ("linux.sysctl", json!({"net/ipv4/../../kernel/core_pattern": "x"}), "sysctl"),
        ("linux.sysctl", json!({"kernel.core_pattern": "x"}), "sysctl"),
        ("process.env", json!(["A=b\0C=d"]), "env"),
        ("process.args", json!(["/bin/true\0", "x"]), "args"),
        ("linux.resources.unified", json!({"../cgroup.procs": "1"}), "unified"),
        ("linux.resources.unified", json!({"a/b": "1"}), "unified"),
    ] {
        let mut bundle = Bundle::new();
        bundle.args(&["true"]).set(property, value.clone());
        let out = bundle.run();
        out.refused_with(&[word]);
        bundle.assert_gone();
    }
    for id in ["..", ".", "a/b", "/a", "a\nb", "", "-x/../y"] {
        let bundle = Bundle::new();
        bundle.locule(&["create", "--", id]).refused();
        assert!(!bundle.root().exists() || std::fs::read_dir(bundle.root()).unwrap().count() == 0, "{id:?}");
    }
}
