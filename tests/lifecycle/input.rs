//! Bad input: each gives one line that names what is wrong, and leaves nothing.
//!
//! Owns the table. What the command line's grammar refuses is in `tests/cli.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use serde_json::json;

use crate::lane::{Bundle, complete};
use crate::leaks::Leaks;

/// `create` and `run` of the bundle are refused with these words, and nothing is left.
#[track_caller]
fn refused(bundle: &Bundle, words: &[&str]) {
    let leaks = Leaks::of(bundle);
    let root = bundle.root();
    let existed = root.exists();
    for verb in ["create", "run"] {
        let out = if verb == "create" { bundle.try_create(&[]) } else { bundle.run() };
        out.refused_with(words);
        if !existed && root.exists() {
            fs::remove_dir(&root).unwrap();
        }
        leaks.none(&format!("by {verb}, refused with {words:?}"));
    }
}

#[test]
fn documents() {
    type Change = fn(&mut Bundle);
    let table: [(Change, &[&str]); 23] = [
        (|b| _ = b.set("root", json!(null)), &["root"]),
        (|b| _ = b.set("root.path", json!("nowhere")), &["nowhere", "no such file or directory"]),
        (|b| _ = b.set("root.path", json!("config.json")), &["config.json", "not a directory"]),
        (|b| _ = b.set("root.path", json!("")), &["root.path"]),
        (|b| _ = b.set("root", json!("rootfs")), &["config.json", "invalid type"]),
        (|b| _ = b.set("ociVersion", json!(1)), &["config.json", "invalid type"]),
        (|b| _ = b.set("ociVersion", json!("2.0.0")), &["2.0.0"]),
        (|b| _ = b.set("ociVersion", json!("nonsense")), &["nonsense"]),
        (|b| _ = b.set("process", json!(null)), &["process"]),
        (|b| _ = b.set("process.args", json!([])), &["process.args"]),
        (|b| _ = b.set("process.args", json!("sh")), &["config.json", "invalid type"]),
        (|b| _ = b.set("process.args", json!(["a\u{0}b"])), &["process.args"]),
        (|b| _ = b.set("process.cwd", json!("relative")), &["process.cwd", "relative"]),
        (|b| _ = b.set("process.cwd", json!("/proc/no")), &["working directory /proc/no", "no such file"]),
        (|b| _ = b.set("process.cwd", json!("/etc/passwd")), &["/etc/passwd", "not a directory"]),
        (|b| _ = b.set("process.user", json!({"uid": -1, "gid": 0})), &["config.json"]),
        (|b| _ = b.namespace(json!({"type": "galaxy"})), &["galaxy"]),
        (|b| _ = b.push("linux.namespaces", json!({"type": "pid"})), &["pid"]),
        (|b| _ = b.namespace(json!({"type": "network", "path": "/no/such/ns"})), &["/no/such/ns"]),
        (|b| _ = b.namespace(json!({"type": "network", "path": "/proc/self/ns/uts"})), &["another kind"]),
        (|b| _ = b.mount("/mnt", "none", "/no/such/source", &["bind"]), &["/no/such/source", "no such file"]),
        (|b| _ = b.mount("/mnt", "nosuchfs", "none", &[]), &["nosuchfs", "/mnt"]),
        (|b| _ = b.set("linux.cgroupsPath", json!("/..")), &["cgroupsPath"]),
    ];
    for (change, words) in table {
        let mut bundle = Bundle::new();
        change(&mut bundle);
        refused(&bundle, words);
    }
}

#[test]
fn text_that_is_no_document() {
    let bundle = Bundle::new();
    // Writes the document for the calls below to spoil.
    let whole = bundle.config().to_string();
    for (text, told) in [
        ("", "EOF"),
        ("{", "EOF"),
        (&whole[..whole.len() / 2], "EOF"),
        ("[]", "invalid"),
        ("null", "invalid"),
        ("\u{feff}{}", "expected value"),
        (&format!("{whole}x"), "trailing"),
    ] {
        let mut command = bundle.command(&["create", bundle.id()]);
        fs::write(bundle.path("config.json"), text).unwrap();
        complete(&mut command).refused_with(&["config.json", told]);
    }
    let mut command = bundle.command(&["create", bundle.id()]);
    fs::remove_file(bundle.path("config.json")).unwrap();
    complete(&mut command).refused_with(&["config.json", "no such file or directory"]);
    let mut command = bundle.command(&["create", "--bundle", "/no/such/bundle", bundle.id()]);
    complete(command.stdin(Stdio::null())).refused_with(&["/no/such/bundle", "no such file or directory"]);
    let mut command = bundle.command(&["create", bundle.id()]);
    fs::remove_file(bundle.path("config.json")).unwrap();
    fs::create_dir(bundle.path("config.json")).unwrap();
    complete(&mut command).refused_with(&["config.json", "is a directory"]);
    fs::remove_dir(bundle.path("config.json")).unwrap();
    bundle.assert_gone();
}

#[test]
fn names() {
    let bundle = Bundle::new();
    let long = "n".repeat(256);
    for id in ["", ".", "..", "a/b", "/etc", "../x", ".hidden", "a b", "a\nb", "ü", long.as_str()] {
        for verb in ["create", "run", "state", "delete"] {
            bundle.locule(&[verb, "--", id]).refused_with(&["invalid container id"]);
        }
        bundle.locule(&["delete", "--force", "--", id]).refused_with(&["invalid container id"]);
    }
    let fits = "n".repeat(255);
    bundle.locule(&["state", &fits]).refused_with(&["does not exist"]);
    let left: Vec<_> = fs::read_dir(bundle.root()).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn places_that_cannot_be_written() {
    let mut bundle = Bundle::new();
    bundle.args(&["true"]);
    let leaks = Leaks::of(&bundle);
    let call = |root: &str, words: &[&str]| {
        let mut command = std::process::Command::new(crate::lane::LOCULE);
        let _ = bundle.command(&[]);
        command.args(["--root", root]).args(words).current_dir(bundle.path("")).stdin(Stdio::null());
        complete(&mut command)
    };
    call("/proc/nowhere", &["create", bundle.id()]).refused_with(&["/proc/nowhere", "state root"]);
    call("config.json", &["create", bundle.id()]).refused_with(&["state root", "not a directory"]);
    call("config.json/x", &["create", bundle.id()]).refused_with(&["state root", "not a directory"]);
    let out = bundle.try_create(&["--pid-file", "/no/such/dir/pid"]);
    out.refused_with(&["/no/such/dir/pid", "no such file or directory"]);
    fs::create_dir(bundle.path("pid-dir")).unwrap();
    bundle.try_create(&["--pid-file", "pid-dir"]).refused_with(&["pid-dir", "is a directory"]);
    fs::remove_dir(bundle.root()).unwrap();
    leaks.none("by places that cannot be written");
}

#[test]
fn a_read_only_or_full_state_root() {
    let mut bundle = Bundle::new();
    bundle.args(&["true"]);
    let root = bundle.mounted("state", &["-t", "tmpfs", "-o", "ro", "tmpfs"]);
    let leaks = Leaks::of(&bundle);
    bundle.run().refused_with(&[root.to_str().unwrap(), "read-only file system"]);
    leaks.none("on a read-only root");

    // From no room at all to room for all that is written, by blocks and by inodes.
    let mut succeeded = 0;
    for limit in [
        "nr_inodes=1",
        "nr_inodes=2",
        "nr_inodes=3",
        "nr_inodes=4",
        "nr_inodes=5",
        "nr_inodes=6",
        "nr_inodes=8",
    ] {
        let mut bundle = Bundle::new();
        bundle.args(&["true"]);
        bundle.mounted("state", &["-t", "tmpfs", "-o", limit, "tmpfs"]);
        succeeded += full(&bundle, limit);
    }
    for limit in ["nr_blocks=1", "nr_blocks=2", "nr_blocks=3", "nr_blocks=4", "nr_blocks=16"] {
        let mut bundle = Bundle::new();
        // A document that needs more than the block that the record needs.
        bundle.args(&["true"]).set("annotations.long", json!("x".repeat(3000)));
        bundle.mounted("state", &["-t", "tmpfs", "-o", limit, "tmpfs"]);
        succeeded += full(&bundle, limit);
    }
    assert!(succeeded >= 2, "room enough lets it run");
}

fn full(bundle: &Bundle, limit: &str) -> usize {
    let leaks = Leaks::of(bundle);
    let out = bundle.run();
    if out.status != 0 {
        out.refused_with(&[bundle.id(), "no space left on device"]);
    }
    leaks.none(limit);
    usize::from(out.status == 0)
}

#[test]
fn a_full_bundle() {
    let mut bundle = Bundle::new();
    let small = bundle.mounted("small", &["-t", "tmpfs", "-o", "nr_inodes=2", "tmpfs"]);
    let leaks = Leaks::of(&bundle);
    fs::create_dir(small.join("rootfs")).unwrap();
    bundle.set("root.path", json!(small.join("rootfs"))).args(&["/true"]);
    // The destinations of the default mounts cannot be made.
    bundle.run().refused_with(&["no space left on device"]);
    fs::remove_dir(bundle.root()).unwrap();
    leaks.none("by a full rootfs");
}

#[test]
fn a_rootfs_by_way_of_links() {
    let mut bundle = Bundle::new();
    bundle.script("echo inside");
    symlink("rootfs", bundle.path("link")).unwrap();
    bundle.set("root.path", json!("link"));
    assert_eq!(bundle.run().ok(), "inside", "the bundle is the caller's, links in it too");
    symlink("loop", bundle.path("loop")).unwrap();
    bundle.set("root.path", json!("loop"));
    refused(&bundle, &["loop", "too many"]);
}

#[test]
fn mounts_in_a_circle() {
    let mut bundle = Bundle::new();
    let rootfs = bundle.path("rootfs").to_str().unwrap().to_owned();
    bundle.mount("/mnt", "none", &rootfs, &["rbind"]).script("ls /mnt/bin/sh");
    assert_eq!(bundle.run().ok(), "/mnt/bin/sh", "a root within itself is fine");
    bundle.mount("/mnt/mnt/mnt", "none", &rootfs, &["rbind"]).script("true");
    bundle.locule(&["run", bundle.id()]);
    bundle.assert_gone();
    symlink("b", bundle.rootfs("a")).unwrap();
    symlink("a", bundle.rootfs("b")).unwrap();
    bundle.mount("/a/x", "tmpfs", "tmpfs", &[]);
    refused(&bundle, &["/a/x", "too many"]);
}

#[test]
fn cgroup_paths() {
    let mut bundle = Bundle::new();
    // Made and removed with what is above it, where the creation fails.
    let above = format!("/{}", bundle.id());
    bundle.set("linux.cgroupsPath", json!(format!("{above}/one/two"))).args(&["nowhere"]);
    refused(&bundle, &["executable file not found"]);
    // Dots stay within the tree.
    bundle.set("linux.cgroupsPath", json!(format!("/../..{above}/x/.."))).args(&["sleep", "1000"]).create();
    assert!(crate::lane::Bundle::cgroup(&bundle).exists());
    bundle.delete().assert_gone();
    // In use by another.
    let mut other = Bundle::new();
    bundle.set("linux.cgroupsPath", json!(above)).create();
    other.set("linux.cgroupsPath", json!(above));
    refused(&other, &["cgroup is not empty"]);
    assert_eq!(bundle.state()["status"], "created", "and unharmed");
}
