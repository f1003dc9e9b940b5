//! Links of an image in places that the runtime mounts on or writes to.
//!
//! Owns the bait outside of the root, which must stay as it is. What changes while the container is
//! made is in `swap`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::json;

use crate::lane::{Bundle, mount_at};
use crate::leaks::Leaks;

/// A directory outside of the root with a file in it, and the same path inside, so that a link to it
/// leads somewhere either way.
fn outside(bundle: &Bundle) -> PathBuf {
    let outside = bundle.directory("outside");
    bundle.file("outside/victim", "the host's");
    fs::create_dir_all(bundle.rootfs(outside.to_str().unwrap())).unwrap();
    outside
}

#[track_caller]
fn untouched(bundle: &Bundle) {
    let names: Vec<_> =
        fs::read_dir(bundle.path("outside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["victim"], "made outside of the root");
    assert_eq!(fs::read_to_string(bundle.path("outside/victim")).unwrap(), "the host's");
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: /proc or /sys of the rootfs is a
/// link into a place of the attacker's.
#[test]
fn links_in_the_place_of_proc() {
    for (link, target) in
        [("proc", "/tmp"), ("proc", "../../.."), ("sys", "/tmp"), ("proc", "/etc"), ("sys", "proc")]
    {
        let mut bundle = Bundle::new();
        let leaks = Leaks::of(&bundle);
        fs::remove_dir(bundle.rootfs(link)).unwrap();
        symlink(target, bundle.rootfs(link)).unwrap();
        bundle.args(&["true"]);
        let out = bundle.run();
        out.refused_with(&[&format!("/{link}")]);
        fs::remove_dir(bundle.root()).unwrap();
        leaks.none(&format!("by {link} as a link to {target}"));
    }
}

/// CVE-2019-16884: a volume over /proc that fakes the files by which labels are set; and files below.
#[test]
fn proc_cannot_be_replaced() {
    let mut bundle = Bundle::new();
    bundle.file("fake/self/attr/exec", "").with_extension("");
    fs::create_dir_all(bundle.path("fake/sys/net/ipv4")).unwrap();
    bundle.file("fake/sys/net/ipv4/ip_forward", "");
    let mounts = bundle.config()["mounts"].clone();
    for (destination, kind, source) in [
        ("/proc", "tmpfs", "tmpfs"),
        ("/proc", "bind", "fake"),
        ("/proc/self/attr", "tmpfs", "tmpfs"),
        ("/proc/self", "bind", "fake/self"),
        ("/proc/sys", "bind", "fake/sys"),
        ("/proc/1/../self/attr", "bind", "fake/self"),
        ("/tmp/../proc/thread-self/attr/exec", "bind", "fake/self/attr/exec"),
        ("//proc//self/", "bind", "fake/self"),
    ] {
        bundle.set("mounts", mounts.clone()).mount(destination, kind, source, &["bind"]);
        bundle.run().refused_with(&["proc"]);
        bundle.assert_gone();
    }
    // By way of a link of the image as well.
    symlink("/proc/self/attr", bundle.rootfs("harmless")).unwrap();
    symlink("proc/sys", bundle.rootfs("data")).unwrap();
    for destination in ["/harmless", "/data/kernel", "/data"] {
        bundle.set("mounts", mounts.clone()).mount(destination, "tmpfs", "tmpfs", &[]);
        bundle.run().refused_with(&["/proc"]);
        bundle.assert_gone();
    }
}

/// CVE-2019-18837, CVE-2021-30465 without a race: links of the image do not lead mounts out of the root.
#[test]
fn mount_destinations_stay_inside() {
    let mut bundle = Bundle::new();
    let outside = outside(&bundle);
    symlink(&outside, bundle.rootfs("escape")).unwrap();
    symlink("../../../../../../../..", bundle.rootfs("up")).unwrap();
    symlink(format!("../../../../../../..{}/made", outside.display()), bundle.rootfs("nowhere")).unwrap();
    let lane = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = lane();
    bundle
        .mount("/escape/x", "tmpfs", "tmpfs", &[])
        .mount("/up/mnt/y", "tmpfs", "tmpfs", &[])
        .mount("/nowhere", "tmpfs", "tmpfs", &[])
        .mount("/escape/file", "bind", "config.json", &["bind"]);
    bundle.script("ls -d /mnt/y && ls /escape/x && ls -d /nowhere/ && test -s /escape/file").run().ok();
    untouched(&bundle);
    assert_eq!(lane(), before);
}

/// CVE-2026-41579, CVE-2026-47766: /dev of the rootfs is a link out of it, with and without a mount
/// on it: nodes, links and the console are made inside.
#[test]
fn dev_is_a_link() {
    for covered in [true, false] {
        let mut bundle = Bundle::new();
        let outside = outside(&bundle);
        fs::remove_dir(bundle.rootfs("dev")).unwrap();
        symlink(&outside, bundle.rootfs("dev")).unwrap();
        if !covered {
            bundle.edit(|config| {
                config["mounts"]
                    .as_array_mut()
                    .unwrap()
                    .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
            });
        }
        bundle.set("root.readonly", json!(false)).script("echo x > /dev/null; readlink /dev/fd");
        assert_eq!(bundle.run().ok(), "/proc/self/fd");
        untouched(&bundle);
        bundle.assert_gone();
    }
}

/// Nodes of /dev that are links to something else: refused, or made anew in a /dev of the container's.
#[test]
fn nodes_of_dev_are_links() {
    let mut bundle = Bundle::new();
    let outside = outside(&bundle);
    bundle.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    });
    for name in ["null", "zero"] {
        let place = bundle.rootfs(&format!("dev/{name}"));
        symlink(outside.join("victim"), &place).unwrap();
        bundle.args(&["true"]).run().refused_with(&[&format!("/dev/{name}"), "something else"]);
        fs::remove_file(place).unwrap();
        untouched(&bundle);
    }
    // A link of the runtime's own that the image has elsewhere is left; ptmx is its own.
    symlink(outside.join("victim"), bundle.rootfs("dev/ptmx")).unwrap();
    assert_eq!(bundle.args(&["readlink", "/dev/ptmx"]).run().ok(), "pts/ptmx");
    untouched(&bundle);
}

/// CVE-2025-31133 without a race: masks are the host's null device, whatever the image has there.
#[test]
fn masks_do_not_come_from_the_image() {
    let mut bundle = Bundle::new();
    bundle.file("rootfs/secret", "secret");
    fs::remove_dir(bundle.rootfs("dev")).unwrap();
    fs::create_dir(bundle.rootfs("dev")).unwrap();
    bundle.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    });
    bundle.file("rootfs/dev/bait", "bait");
    symlink("bait", bundle.rootfs("dev/null")).unwrap();
    bundle.push("linux.maskedPaths", json!("/secret")).args(&["cat", "/secret"]);
    bundle.run().refused_with(&["/dev/null"]);
    fs::remove_file(bundle.rootfs("dev/null")).unwrap();
    assert!(bundle.script("cat /secret; cat /proc/self/mountinfo").run().ok().lines().count() > 5);
    let shown = bundle.run();
    let cover = mount_at(shown.ok(), "/secret");
    assert!(cover.root.ends_with("null") && cover.has("ro"), "{cover:?}");
}

/// CVE-2025-24965: files that a runtime writes into the root for handlers of its own.
#[test]
fn no_file_of_the_runtimes_is_written_through_links() {
    let mut bundle = Bundle::new();
    let outside = outside(&bundle);
    for name in [".krun_config.json", "config.json", "etc/hostname", "etc/resolv.conf", ".dockerenv"] {
        symlink(outside.join("victim"), bundle.rootfs(name)).unwrap();
    }
    bundle.set("annotations", json!({"run.oci.handler": "krun", "run.oci.krun.config": "x"}));
    bundle.set("root.readonly", json!(false)).args(&["true"]).run().ok();
    untouched(&bundle);
}

/// `tmpcopyup` copies links as links, and nothing through them.
#[test]
fn copies_follow_no_link() {
    let mut bundle = Bundle::new();
    let outside = outside(&bundle);
    symlink(outside.join("victim"), bundle.rootfs("var/file")).unwrap();
    symlink(&outside, bundle.rootfs("var/dir")).unwrap();
    bundle.mount("/var", "tmpfs", "tmpfs", &["tmpcopyup"]);
    bundle.script("cat /var/file 2>/dev/null; ls /var/dir/; readlink /var/dir");
    assert_eq!(bundle.run().ok(), outside.to_str().unwrap());
    untouched(&bundle);
}

/// What the image has as passwd cannot hold or fill the process that looks for HOME there.
#[test]
fn passwd_is_no_trap() {
    let mut bundle = Bundle::new();
    bundle.args(&["sh", "-c", "echo $HOME"]);
    let passwd = bundle.rootfs("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    assert_eq!(bundle.run().ok(), "/");
    for target in ["/dev/zero", "/proc/kmsg", "/proc/self/mem", "/dev/tty"] {
        fs::remove_file(&passwd).unwrap();
        symlink(target, &passwd).unwrap();
        assert_eq!(bundle.run().ok(), "/", "{target}");
    }
    fs::remove_file(&passwd).unwrap();
    // A hole of 1 TiB.
    fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(bundle.run().ok(), "/");
}
