//! AppArmor and SELinux: `apparmorProfile`, `selinuxLabel`, `mountLabel`.
//!
//! Owns the refusals where a module is not there. Confinement itself is the VM lane's.

use std::fs;

use serde_json::json;

use crate::lane::Bundle;

/// A profile that nobody loaded never means that the container runs without one.
#[test]
fn a_profile_that_cannot_be_had_is_refused() {
    let enabled =
        fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    let mut bundle = Bundle::new();
    bundle.set("process.apparmorProfile", json!("no-such-profile"));
    bundle
        .run()
        .refused_with(&["no-such-profile", if enabled { "not loaded" } else { "AppArmor is not enabled" }]);
    bundle.assert_gone();
    bundle.set("process.apparmorProfile", json!("unconfined")).script("echo here");
    assert_eq!(bundle.run().ok(), "here");
    assert_eq!(bundle.set("process.apparmorProfile", json!("")).run().ok(), "here");
}

#[test]
fn a_label_without_selinux_is_refused() {
    if fs::metadata("/sys/fs/selinux/enforce").is_ok() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.set("process.selinuxLabel", json!("system_u:system_r:container_t:s0"));
    bundle.run().refused_with(&["process.selinuxLabel", "SELinux is not enabled"]);
    bundle.assert_gone();
    bundle.set("process.selinuxLabel", json!("")).script("echo here");
    assert_eq!(bundle.run().ok(), "here");
}

#[test]
fn labels_that_cannot_be_are_refused() {
    for field in ["process.apparmorProfile", "process.selinuxLabel", "linux.mountLabel"] {
        Bundle::new().set(field, json!("a\nb")).run().refused_with(&[field]);
    }
}

/// A label for mounts has no effect where no module reads it (runc and crun agree).
#[test]
fn a_mount_label_without_selinux_is_no_obstacle() {
    let mut bundle = Bundle::new();
    bundle.set("linux.mountLabel", json!("system_u:object_r:container_file_t:s0")).script("echo here");
    assert_eq!(bundle.run().ok(), "here");
}
