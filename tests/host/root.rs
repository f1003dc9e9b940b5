//! `root`, `rootfsPropagation`, masked and read-only paths.
//!
//! Owns what the root file system looks like and lets happen inside.

use std::fs;

use serde_json::json;

use crate::lane::{Bundle, mount_at};

#[test]
fn read_only_root() {
    let out = Bundle::new().script("touch /new 2>&1; touch /dev/shm/x && echo shm").run();
    assert!(out.ok().contains("Read-only file system") && out.ok().ends_with("shm"), "{out:?}");
    let mut bundle = Bundle::new();
    bundle.set("root.readonly", json!(false)).script("echo text > /new").run().ok();
    assert_eq!(fs::read_to_string(bundle.rootfs("new")).unwrap(), "text\n");
}

#[test]
fn root_by_absolute_and_relative_path() {
    let mut bundle = Bundle::new();
    fs::rename(bundle.path("rootfs"), bundle.path("elsewhere")).unwrap();
    bundle.file("elsewhere/mark", "here");
    bundle.script("cat /mark");
    for path in [bundle.path("elsewhere"), "elsewhere".into(), "../".to_owned().into()] {
        let path = if path == std::path::Path::new("../") {
            std::path::PathBuf::from(format!("../{}/elsewhere", bundle.id()))
        } else {
            path
        };
        assert_eq!(bundle.set("root.path", json!(path)).run().ok(), "here", "{}", path.display());
    }
}

#[test]
fn nothing_of_the_host_is_left() {
    let out = Bundle::new().script("cat /proc/self/mountinfo; ls / | tr '\\n' ' '").run();
    assert!(out.ok().ends_with("bin dev etc mnt proc root run sys tmp var"), "{out:?}");
    let targets: Vec<_> = out
        .ok()
        .lines()
        .filter(|line| line.contains(" - "))
        .map(|line| line.split(' ').nth(4).unwrap())
        .collect();
    let known = ["/", "/proc", "/dev", "/sys"];
    assert!(
        targets
            .iter()
            .all(|target| known.iter().any(|k| target == k || target.starts_with(&format!("{k}/")))),
        "{targets:?}"
    );
}

#[test]
fn masked_paths() {
    let mut bundle = Bundle::new();
    bundle.file("rootfs/etc/secret", "secret");
    bundle.file("rootfs/var/dir/secret", "secret");
    bundle.file("rootfs/var/other/secret", "secret");
    bundle.push("linux.maskedPaths", json!("/etc/secret"));
    for path in ["/var/dir", "/var/other", "/proc/acpi", "/absent", "/etc/secret/below"] {
        bundle.push("linux.maskedPaths", json!(path));
    }
    bundle.script(
        "cat /etc/secret; stat -c %F /etc/secret; ls -A /var/dir /var/other; touch /var/dir/x 2>&1; \
         wc -c < /proc/timer_list",
    );
    assert_eq!(
        bundle.run().ok(),
        "character special file\n/var/dir:\n\n/var/other:\ntouch: /var/dir/x: Read-only file system\n0"
    );
}

#[test]
fn read_only_paths() {
    let mut bundle = Bundle::new();
    bundle.file("rootfs/var/dir/file", "text");
    bundle.file("rootfs/etc/conf", "text");
    bundle
        .set("root.readonly", json!(false))
        .set("linux.readonlyPaths", json!(["/var/dir", "/etc/conf", "/proc/sys", "/absent"]));
    bundle.script(
        "cat /var/dir/file /etc/conf; echo; touch /var/dir/x 2>&1; echo x 2>&1 > /etc/conf; \
         touch /var/x && echo writable; echo 1 2>&1 > /proc/sys/net/ipv4/ip_forward",
    );
    let out = bundle.run();
    assert!(out.stdout.contains("texttext\n") && out.stdout.contains("writable\n"), "{out:?}");
    assert_eq!(out.stdout.matches("Read-only file system").count(), 3, "{out:?}");
}

/// A read-only path covers what is mounted below it as well.
#[test]
fn read_only_paths_with_mounts_below() {
    let mut bundle = Bundle::new();
    bundle.directory("rootfs/var/dir/sub");
    bundle.mount("/var/dir/sub", "tmpfs", "tmpfs", &[]).set("linux.readonlyPaths", json!(["/var/dir"]));
    let out = bundle.script("touch /var/dir/sub/x 2>&1").run();
    assert!(out.stdout.contains("Read-only"), "{out:?}");
}

#[test]
fn relative_paths_in_the_lists_are_refused() {
    for field in ["maskedPaths", "readonlyPaths"] {
        let out = Bundle::new().set(&format!("linux.{field}"), json!(["etc"])).run();
        out.refused_with(&[field, "etc", "absolute"]);
    }
}

/// Each of the words on a root file system that the host shares.
#[test]
fn propagation_of_the_root() {
    for word in
        ["", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"]
    {
        let mut bundle = Bundle::new();
        let source = bundle.path("rootfs");
        let shared = bundle.mounted("image", &["-t", "tmpfs", "--make-shared", "tmpfs"]);
        crate::lane::host("cp", &["-a", &format!("{}/.", source.display()), shared.to_str().unwrap()]);
        bundle.set("root.path", json!("image")).script("cat /proc/self/mountinfo");
        if !word.is_empty() {
            bundle.set("linux.rootfsPropagation", json!(word));
        }
        let out = bundle.run();
        let root = mount_at(out.ok(), "/");
        match word.strip_prefix('r').unwrap_or(word) {
            "shared" => assert!(root.tagged("shared"), "{word}: {root:?}"),
            "unbindable" => assert!(root.tagged("unbindable") && !root.tagged("shared"), "{word}: {root:?}"),
            "private" => assert!(root.tags.is_empty(), "{word}: {root:?}"),
            _ => assert!(root.tagged("master") && !root.tagged("shared"), "{word}: {root:?}"),
        }
    }
    Bundle::new()
        .set("linux.rootfsPropagation", json!("sideways"))
        .run()
        .refused_with(&["rootfsPropagation", "sideways"]);
}

#[test]
fn a_missing_root_is_refused() {
    let mut bundle = Bundle::new();
    bundle.set("root.path", json!("absent")).run().refused_with(&["absent", "ENOENT"]);
    bundle.assert_gone();
    bundle.set("root", json!(null)).run().refused_with(&["root is missing"]);
}

#[test]
fn without_pivot() {
    let out = Bundle::new().script("ls /; cat /proc/self/mountinfo | head -1").run_with(&["--no-pivot"]);
    assert!(out.ok().starts_with("bin\ndev\n"), "{out:?}");
}

/// What masks hide in the container's procfs, no user namespace in it may get back through the host's.
#[test]
fn without_pivot_no_bare_procfs_can_be_mounted() {
    let mut bundle = Bundle::new();
    bundle.set("linux.maskedPaths", json!(["/proc/version"])).capable(&["CAP_SETFCAP"]);
    bundle.script("unshare -rmpf mount -t proc none /proc && echo bare");
    let out = bundle.run_with(&["--no-pivot"]);
    assert!(out.status != 0 && !out.stdout.contains("bare"), "{out:?}");
    assert!(out.stderr.to_lowercase().contains("permi"), "{out:?}");
}
