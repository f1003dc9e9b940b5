//! User namespaces: `linux.uidMappings` and `gidMappings`.
//!
//! Owns who is who, inside and outside.

use std::os::unix::fs::{MetadataExt, chown};

use serde_json::{Value, json};

use crate::lane::{Bundle, field};

const BASE: u32 = 100_000;

fn maps() -> Value {
    json!([{"containerID": 0, "hostID": BASE, "size": 1000}, {"containerID": 1000, "hostID": 2_000_000, "size": 10}])
}

fn bundle() -> Bundle {
    let mut bundle = Bundle::new();
    bundle
        .namespace(json!({"type": "user"}))
        .set("linux.uidMappings", maps())
        .set("linux.gidMappings", maps());
    bundle
}

#[test]
fn maps_are_as_written() {
    let mut bundle = bundle();
    bundle.set("linux.gidMappings", json!([{"containerID": 0, "hostID": 300_000, "size": 7}]));
    let out = bundle.script("cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g").run();
    let words: Vec<_> = out.ok().split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "1000", "1000", "2000000", "10", "0", "300000", "7", "0", "0"]);
}

#[test]
fn ids_outside() {
    let mut bundle = bundle();
    bundle.set("process.user", json!({"uid": 1003, "gid": 5, "additionalGids": [6, 1001]})).up();
    let status = bundle.proc("status");
    assert_eq!(field(&status, "Uid").split('\t').next(), Some("2000003"));
    assert_eq!(field(&status, "Gid").split('\t').next(), Some("100005"));
    assert_eq!(field(&status, "Groups"), "100006 2000001");
}

#[test]
fn files_belong_to_mapped_ids() {
    let mut bundle = bundle();
    let dir = bundle.directory("data");
    chown(&dir, Some(BASE), Some(BASE)).unwrap();
    bundle.mount("/mnt", "bind", "data", &["rbind"]);
    assert_eq!(
        bundle.script("touch /mnt/x; stat -c '%u %g' /mnt /mnt/x /bin").run().ok(),
        "0 0\n0 0\n65534 65534"
    );
    assert_eq!(dir.join("x").metadata().unwrap().uid(), BASE);
}

#[test]
fn root_inside_has_no_power_outside() {
    let mut bundle = bundle();
    bundle.file("data/x", "");
    bundle.mount("/mnt", "bind", "data", &["rbind"]).capable(&[
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_SYS_ADMIN",
    ]);
    let out = bundle.script("chown 1 /mnt/x 2>&1; touch /mnt/y 2>&1; hostname mine && hostname").run();
    assert!(out.stdout.contains("chown: /mnt/x: "), "{out:?}");
    assert!(
        out.stdout.contains("touch: /mnt/y: Permission denied") && out.stdout.ends_with("mine\n"),
        "{out:?}"
    );
}

#[test]
fn all_the_verbs() {
    let mut bundle = bundle();
    bundle.up();
    assert_eq!(bundle.exec("id -u; cat /proc/self/uid_map | wc -l").ok(), "0\n2");
    assert_eq!(bundle.exec_with(&["--user", "1003"], &["id", "-u"]).ok(), "1003");
    bundle.kill("KILL").wait_for("stopped").delete();
    bundle.assert_gone();
}

#[test]
fn wrong_maps_are_refused() {
    let map = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    for (uids, words) in [
        (json!([]), &["linux.uidMappings"][..]),
        (json!([map(0, 1, 0)]), &["linux.uidMappings", "size 0"]),
        (json!([map(0, 1, 10), map(5, 100, 10)]), &["linux.uidMappings", "overlaps"]),
    ] {
        let mut bundle = bundle();
        bundle.set("linux.uidMappings", uids).run().refused_with(words);
        bundle.assert_gone();
    }
    let mut bundle = bundle();
    bundle.without_namespace("user").run().refused_with(&["uidMappings", "user namespace"]);
}

#[test]
fn an_unmapped_user_is_refused_by_name() {
    for (user, word) in [
        (json!({"uid": 5000, "gid": 0}), "process.user.uid"),
        (json!({"uid": 0, "gid": 5000}), "process.user.gid"),
        (json!({"uid": 0, "gid": 0, "additionalGids": [5000]}), "5000"),
    ] {
        let mut bundle = bundle();
        bundle.set("process.user", user).run().refused_with(&[word, "5000"]);
        bundle.assert_gone();
    }
}
