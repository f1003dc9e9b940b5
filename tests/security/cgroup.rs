//! The cgroup tree as a container sees it: no file outside of its own part, and none that it can
//! write without being asked to.
//!
//! Owns the ways to look for one.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::lane::{Bundle, CGROUP, unique};

/// Every cgroup file that root in the container can open for writing.
const WRITABLE: &str = "find /sys/fs/cgroup -type f | while read -r f; do
    (exec 9>>\"$f\") 2>/dev/null && echo \"$f\"; done; echo done";

/// CVE-2023-25809: without a cgroup namespace a mapped root finds its cgroup read-only, even where the
/// document asks for a writable one and the tree's owner is that root. Fails without the seal on it.
#[test]
fn without_a_cgroup_namespace_nothing_can_be_written() {
    for options in [&["ro"][..], &["rw"], &[]] {
        let mut bundle = Bundle::new();
        bundle.mapped();
        bundle.without_namespace("cgroup");
        bundle.edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        });
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
        bundle.script(WRITABLE).create();
        // As where the caller is a user, whose cgroup the container's root owns.
        for file in fs::read_dir(bundle.cgroup()).unwrap() {
            std::os::unix::fs::chown(file.unwrap().path(), Some(100_000), Some(100_000)).unwrap();
        }
        bundle.start().wait_for("stopped");
        assert_eq!(bundle.stdout(), "done\n", "{options:?}");
    }
}

/// With a cgroup namespace: the default document's tree is read-only, and what is above is not there.
#[test]
fn nothing_above_is_shown() {
    let marker = fs::read_dir(CGROUP).unwrap().count();
    assert!(marker > 0);
    for user in [false, true] {
        let mut bundle = Bundle::new();
        if user {
            bundle.mapped();
        }
        bundle.script(WRITABLE);
        assert_eq!(bundle.run().ok(), "done");
        // Nor by way of the files above: every path ends at the namespace's root.
        bundle.script("cat /proc/self/cgroup; ls -d /sys/fs/cgroup/../../../sys/fs/cgroup/*/ 2>/dev/null");
        let shown = bundle.run();
        assert!(shown.stdout.lines().any(|line| line == "0::/"), "{shown:?}");
        assert!(!shown.stdout.contains(bundle.id()), "{shown:?}");
    }
}

/// CVE-2022-0492: no release agent, and no right to mount a tree of cgroup v1 to set one.
#[test]
fn no_release_agent() {
    let mut bundle = Bundle::new();
    bundle.script(
        "mkdir /tmp/x 2>/dev/null; mount -t cgroup -o memory none /tmp/x && echo MOUNTED
         find / -name release_agent 2>/dev/null; echo done",
    );
    assert_eq!(bundle.run().ok(), "done");
}

/// A cgroup path that leads out of the tree is refused, for the container and for `exec --cgroup`.
#[test]
fn paths_stay_in_the_tree() {
    let mut bundle = Bundle::new();
    let outside = bundle.directory("outside");
    for path in [format!("/../..{}", outside.display()), format!("../../../..{}/a", outside.display())] {
        let path = format!("{path}-{}", unique("cgroup"));
        bundle.set("linux.cgroupsPath", json!(path)).args(&["true"]).run();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{path}");
        assert!(!Path::new(&path).exists());
    }
    // What the paths mean within the tree.
    for dir in fs::read_dir(Path::new(CGROUP).join("mnt")).into_iter().flatten().flatten() {
        if dir.file_name().to_str().is_some_and(|name| name.contains(bundle.id())) {
            let _ = fs::remove_dir(dir.path().join("outside"));
            let _ = fs::remove_dir(dir.path());
        }
    }
    let _ = fs::remove_dir(Path::new(CGROUP).join("mnt"));
    bundle.edit(|config| {
        config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    bundle.up();
    for path in ["..", "/..", "a/../..", "../../x"] {
        bundle.exec_with(&["--cgroup", path], &["true"]).refused_with(&["cgroup"]);
    }
}
