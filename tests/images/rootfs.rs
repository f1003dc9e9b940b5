//! Root file systems: overlays of shared layers, idmapped ones, and the host's own system.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use crate::{Lane, tool};

/// A mount that ends with the test.
struct Mounted<'a> {
    lane: &'a Lane,
    target: String,
}

impl<'a> Mounted<'a> {
    fn new(lane: &'a Lane, words: &[&str]) -> Mounted<'a> {
        let target = lane.text("root");
        fs::create_dir_all(&target).unwrap();
        let words: Vec<&str> =
            ["mount"].into_iter().chain(words.iter().copied()).chain([target.as_str()]).collect();
        lane.ok(&words);
        Mounted { lane, target }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        Path::new(&self.target).join(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = self.lane.run(&["umount", &self.target]);
    }
}

#[test]
fn what_is_written_stays_above() {
    let lane = Lane::new();
    lane.image("app:1");
    let root = Mounted::new(&lane, &["app:1"]);
    fs::write(root.path("new"), "1").unwrap();
    fs::remove_file(root.path("etc/motd")).unwrap();
    assert_eq!(lane.ok(&["verify"]), "", "a layer was written to");
    // In use: its layers stay though the image goes.
    lane.ok(&["rm", "app:1"]);
    assert!(root.path("bin/busybox").exists());
    assert!(lane.contents().iter().any(|path| path.starts_with("layers/")));
    lane.ok(&["umount", &root.target]);
    lane.ok(&["prune"]);
    assert_eq!(lane.contents(), [""; 0]);
    lane.refused(&["umount", &root.target], &["nothing is mounted there"]);
}

#[test]
fn a_second_mount_finds_what_was_kept() {
    let lane = Lane::new();
    lane.image("app:1");
    lane.image("other:1");
    let root = Mounted::new(&lane, &["app:1"]);
    fs::write(root.path("new"), "1").unwrap();
    lane.ok(&["umount", "--keep", &root.target]);
    lane.refused(&["mount", "other:1", &root.target], &["belongs to another image"]);
    lane.ok(&["mount", "app:1", &root.target]);
    assert_eq!(fs::read_to_string(root.path("new")).unwrap(), "1");
}

#[test]
fn read_only_is_read_only() {
    let lane = Lane::new();
    lane.image("app:1");
    let root = Mounted::new(&lane, &["--read-only", "app:1"]);
    assert_eq!(fs::write(root.path("new"), "1").unwrap_err().raw_os_error(), Some(libc::EROFS));
}

/// Layers are idmapped, so that no file changes its owner; what is committed has the image's ids.
#[test]
fn a_mapped_root_and_its_commit() {
    let lane = Lane::new();
    let tree = lane.tree("tree");
    chown(tree.join("etc/motd"), Some(7), Some(8)).unwrap();
    lane.ok(&["import", tree.to_str().unwrap(), "app:1"]);
    let root = Mounted::new(&lane, &["--map", "100000:65536", "app:1"]);
    let owner = |path: &str| {
        let meta = fs::symlink_metadata(root.path(path)).unwrap();
        (meta.uid(), meta.gid())
    };
    assert_eq!(
        (owner(""), owner("bin"), owner("etc/motd")),
        ((100_000, 100_000), (100_000, 100_000), (100_007, 100_008))
    );
    fs::write(root.path("etc/own"), "1").unwrap();
    chown(root.path("etc/own"), Some(100_005), Some(100_005)).unwrap();
    fs::remove_file(root.path("bin/sh")).unwrap();
    fs::remove_dir_all(root.path("etc/dir")).unwrap_err();
    assert_eq!(lane.ok(&["commit", "-m", "why", &root.target, "app:2"]), "docker.io/library/app:2\n");
    drop(root);
    assert_eq!(lane.ok(&["verify"]), "");
    let history = lane.json(&["history", "--format", "json", "app:2"]);
    assert_eq!(history[0]["step"]["comment"], "why");
    let root = Mounted::new(&lane, &["app:2"]);
    let meta = fs::metadata(root.path("etc/own")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (5, 5));
    assert!(!root.path("bin/sh").exists() && root.path("bin/busybox").exists());
}

/// A layer of whiteouts and opaque directories, committed, is read by umoci as it was written.
#[test]
fn a_commit_is_read_by_others() {
    let lane = Lane::new();
    lane.image("app:1");
    let root = Mounted::new(&lane, &["app:1"]);
    fs::remove_dir_all(root.path("etc")).unwrap();
    fs::create_dir(root.path("etc")).unwrap();
    fs::write(root.path("etc/fresh"), "1").unwrap();
    fs::remove_file(root.path("bin/sh")).unwrap();
    lane.ok(&["commit", &root.target, "app:2"]);
    let (archive, layout, bundle) = (lane.text("two.tar"), lane.text("two"), lane.text("bundle"));
    lane.ok(&["save", "-f", "oci", "-o", &archive, "app:2"]);
    tool("skopeo", &["copy", "-q", &format!("oci-archive:{archive}"), &format!("oci:{layout}:x")]);
    tool("umoci", &["unpack", "--image", &format!("{layout}:x"), &bundle]);
    let there = |path: &str| Path::new(&bundle).join("rootfs").join(path).symlink_metadata().is_ok();
    assert!(there("etc/fresh") && there("bin/busybox"));
    assert!(!there("etc/motd") && !there("bin/sh"));
}

#[test]
fn the_host_without_its_secrets() {
    let lane = Lane::new();
    let root = Mounted::new(&lane, &["host"]);
    let inside = |script: &str| tool("chroot", &[&root.target, "/bin/sh", "-c", script]);
    assert_eq!(inside("echo works").trim(), "works");
    assert_eq!(fs::read(root.path("etc/machine-id")).unwrap(), b"");
    let shadow = fs::read_to_string(root.path("etc/shadow")).unwrap();
    assert!(shadow.starts_with("root:*:") && shadow.lines().all(|line| line.split(':').nth(1) == Some("*")));
    for empty in ["root", "home", "var/log", "var/tmp", "etc/ssl/private"] {
        assert!(fs::read_dir(root.path(empty)).map_or(0, Iterator::count) == 0, "{empty}");
    }
    assert!(!root.path("etc/locule").exists());
    let keys = inside("ls /etc/ssh 2>/dev/null | grep ssh_host_ || true");
    assert_eq!(keys, "");
    // Whatever is not for everybody's eyes is not there.
    let hidden = inside("find /etc -type f ! -perm -004 ! -name shadow ! -name gshadow");
    assert_eq!(hidden, "");
    // Programs can be replaced without the host's being touched.
    let before = fs::metadata("/usr/bin/env").unwrap();
    fs::write(root.path("usr/bin/env"), "mine").unwrap();
    let after = fs::metadata("/usr/bin/env").unwrap();
    assert_eq!((before.len(), before.mtime(), before.ino()), (after.len(), after.mtime(), after.ino()));
    lane.refused(&["commit", &root.target, "x:1"], &["no base"]);
}

/// What `image mount` makes is what a container runs on.
#[test]
fn a_container_runs_on_it() {
    let lane = Lane::new();
    lane.image("app:1");
    let bundle = lane.path("bundle");
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    lane.ok(&["mount", "app:1", bundle.join("rootfs").to_str().unwrap()]);
    let run = |words: &[&str]| {
        std::process::Command::new(crate::LOCULE)
            .args(["--root", &lane.text("run")])
            .args(words)
            .current_dir(&bundle)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    };
    assert!(run(&["spec"]).status.success());
    let path = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["/bin/busybox", "cat", "/etc/motd"]);
    spec["root"]["readonly"] = false.into();
    fs::write(&path, spec.to_string()).unwrap();
    let name = format!("images-{}", std::process::id());
    let output = run(&["run", &name]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "app-1", "{output:?}");
    lane.ok(&["umount", bundle.join("rootfs").to_str().unwrap()]);
}
