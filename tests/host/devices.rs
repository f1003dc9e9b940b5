//! `linux.devices`, default devices and links.
//!
//! Owns the nodes in /dev. The rules of who may open which device are the cgroup's.

use std::fs;

use serde_json::json;

use crate::lane::{Bundle, mount_at};

const DEFAULTS: &str = "null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0";

/// config-linux.md, default devices; runtime-linux.md, dev symbolic links.
#[test]
fn defaults_and_links() {
    let script = "cd /dev; for d in null zero full random urandom tty; do stat -c '%n:%t:%T %a %u %g %F' $d; done; \
        for l in fd stdin stdout stderr ptmx; do readlink $l; done; \
        echo gone > null; head -c 2 zero | od -An -tx1; echo > full || true; head -c 8 urandom | wc -c";
    let out = Bundle::new().script(script).run();
    let nodes: String =
        DEFAULTS.split(' ').map(|node| format!("{node} 666 0 0 character special file\n")).collect();
    let rest = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n 00 00\n8";
    assert_eq!(out.ok(), format!("{nodes}{rest}"), "{out:?}");
    assert!(out.stderr.contains("No space left"), "{out:?}");
}

#[test]
fn listed_devices() {
    let mut bundle = Bundle::new();
    for device in [
        json!({"path": "/dev/char", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8}),
        json!({"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5}),
        json!({"path": "/dev/deep/block", "type": "b", "major": 7, "minor": 300, "fileMode": 0o1600}),
        json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o622}),
    ] {
        bundle.push("linux.devices", device);
    }
    let script = "cd /dev; stat -c '%n %t:%T %a %u %g %F' char unbuffered deep/block pipe";
    assert_eq!(
        bundle.script(script).run().ok(),
        "char 1:3 640 7 8 character special file\nunbuffered 1:5 666 0 0 character special file\n\
         deep/block 7:12c 1600 0 0 block special file\npipe 0:0 622 0 0 fifo"
    );
}

#[test]
fn a_listed_device_replaces_the_default() {
    let mut bundle = Bundle::new();
    bundle.push(
        "linux.devices",
        json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5}),
    );
    assert_eq!(bundle.script("stat -c '%a %u' /dev/null").run().ok(), "600 5");
}

#[test]
fn devices_outside_of_dev() {
    let mut bundle = Bundle::new();
    bundle.push("linux.devices", json!({"path": "/var/null", "type": "c", "major": 1, "minor": 3}));
    assert_eq!(bundle.script("stat -c '%t:%T' /var/null").run().ok(), "1:3");
    assert!(bundle.rootfs("var/null").exists(), "without a mount there it is the image's");
}

/// Nodes cannot be made in a user namespace: the host's are bound.
#[test]
fn devices_in_a_user_namespace() {
    let mut bundle = Bundle::new();
    bundle.mapped();
    bundle.push("linux.devices", json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}));
    let out = bundle.script("stat -c '%n:%t:%T' /dev/null /dev/kmsg; cat /proc/self/mountinfo").run();
    assert!(out.ok().starts_with("/dev/null:1:3\n/dev/kmsg:1:b\n"), "{out:?}");
    assert_eq!(mount_at(out.ok(), "/dev/null").root, "/null");
    bundle.push("linux.devices", json!({"path": "/dev/odd", "type": "c", "major": 1, "minor": 3}));
    bundle.run().refused_with(&["/dev/odd"]);
}

#[test]
fn a_dev_of_the_callers_is_left_alone() {
    let mut bundle = Bundle::new();
    bundle.directory("dev");
    bundle.edit(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    });
    bundle.mount("/dev", "bind", "dev", &["rbind"]).script("ls /dev").run().ok();
    assert_eq!(fs::read_dir(bundle.path("dev")).unwrap().count(), 0);
}

#[test]
fn wrong_devices_are_refused() {
    for (device, words) in [
        (
            json!({"path": "dev/x", "type": "c", "major": 1, "minor": 3}),
            &["linux.devices[0]", "absolute"][..],
        ),
        (json!({"path": "/dev/x", "type": "s", "major": 1, "minor": 3}), &["linux.devices[0]", "type"]),
        (json!({"path": "/dev/x", "type": "c", "major": 1}), &["linux.devices[0]", "minor"]),
    ] {
        Bundle::new().push("linux.devices", device).run().refused_with(words);
    }
}

/// What the image has in the place of a device must be that device.
#[test]
fn the_image_cannot_replace_a_device() {
    let mut bundle = Bundle::new();
    bundle.file("rootfs/var/null", "no device");
    bundle.push("linux.devices", json!({"path": "/var/null", "type": "c", "major": 1, "minor": 3}));
    bundle.run().refused_with(&["/var/null", "something else"]);
    bundle.assert_gone();
}
