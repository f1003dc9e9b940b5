//! `linux.sysctl`, `hostname` and `domainname`.
//!
//! Owns the values that the container's own namespaces have; that the host keeps its own.

use std::fs;

use serde_json::json;

use crate::lane::Bundle;

#[test]
fn of_each_namespace() {
    let host = ["net/ipv4/ip_forward", "kernel/msgmax", "fs/mqueue/queues_max", "kernel/domainname"]
        .map(|key| (key, fs::read_to_string(format!("/proc/sys/{key}")).unwrap()));
    let mut bundle = Bundle::new();
    bundle.set(
        "linux.sysctl",
        json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321", "fs/mqueue/queues_max": "17",
            "kernel.domainname": "by.sysctl", "net/ipv4/conf/lo.5/unused": null}),
    );
    bundle.edit(|config| {
        config["linux"]["sysctl"].as_object_mut().unwrap().remove("net/ipv4/conf/lo.5/unused");
    });
    let script = "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax fs/mqueue/queues_max kernel/domainname";
    assert_eq!(bundle.script(script).run().ok(), "1\n4321\n17\nby.sysctl");
    for (key, value) in host {
        assert_eq!(fs::read_to_string(format!("/proc/sys/{key}")).unwrap(), value, "{key} of the host");
    }
}

#[test]
fn of_the_user_namespace() {
    let mut bundle = Bundle::new();
    bundle.mapped();
    bundle.set("linux.sysctl", json!({"user.max_uts_namespaces": "33"}));
    assert_eq!(bundle.script("cat /proc/sys/user/max_uts_namespaces").run().ok(), "33");
}

#[test]
fn what_would_change_the_host_is_refused() {
    for (key, without) in [
        ("kernel.panic", ""),
        ("vm.swappiness", ""),
        ("kernel.hostname", ""),
        ("net.ipv4.ip_forward", "network"),
        ("kernel.shmmax", "ipc"),
        ("user.max_uts_namespaces", ""),
        ("../kernel/panic", ""),
    ] {
        let mut bundle = Bundle::new();
        bundle.set("linux.sysctl", json!({key: "1"})).without_namespace(without);
        bundle.run().refused_with(&["linux.sysctl", key]);
        bundle.assert_gone();
    }
}

#[test]
fn host_and_domain_name() {
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let mut bundle = Bundle::new();
    bundle.set("hostname", json!("inside")).set("domainname", json!("example.org"));
    bundle.script("hostname; cat /proc/sys/kernel/domainname");
    assert_eq!(bundle.run().ok(), "inside\nexample.org");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), own);
    bundle.without_namespace("uts").run().refused_with(&["hostname", "uts"]);
    bundle.set("hostname", json!("")).run().refused_with(&["domainname", "uts"]);
}
