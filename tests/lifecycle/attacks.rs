//! Known attacks on runtimes, each tried: the host's files and descriptors stay out of reach.
//!
//! Owns the bait. A rootfs is the attacker's here.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::lane::{Bundle, LOCULE};
use crate::leaks::Leaks;

/// CVE-2019-5736: a program of the container that is the runtime itself, by /proc/self/exe.
#[test]
fn the_binary_cannot_be_reached_by_its_own_processes() {
    let mut bundle = Bundle::new();
    let before = fs::read(LOCULE).unwrap();
    // locule itself, as the workload: it may run, it cannot be written.
    bundle.args(&["/proc/self/exe", "--version"]).run();
    // An exec whose /proc/PID/exe the container's init tries to overwrite for as long as it lasts.
    bundle.script(
        "echo up; while :; do for p in /proc/[0-9]*; do
           case $(readlink $p/exe) in *busybox*) continue;; esac
           (echo broken > $p/exe) 2>/dev/null && echo WRITTEN
           (exec 9<$p/exe && echo OPENED && { echo broken > /proc/self/fd/9; } 2>/dev/null && echo WRITTEN) 2>/dev/null
         done; done",
    );
    bundle.create().start();
    for _ in 0..30 {
        bundle.exec("true").ok();
        bundle.exec_with(&[], &["/proc/self/exe", "true"]);
    }
    bundle.kill("KILL").wait_for("stopped");
    assert!(!bundle.stdout().contains("WRITTEN"), "{}", bundle.stdout());
    assert!(fs::read(LOCULE).unwrap() == before, "the binary has changed");
}

/// CVE-2019-5736 once more: what runs as /proc/self/exe cannot be opened for writing.
#[test]
fn the_copy_that_enters_is_sealed() {
    let mut bundle = Bundle::new();
    let bait = "#!/proc/self/exe\n";
    bundle.program("rootfs/bin/bait", bait);
    let before = fs::metadata(LOCULE).unwrap().modified().unwrap();
    for verb in ["run", "create"] {
        bundle.args(&["/bin/bait"]);
        let _ = if verb == "run" { bundle.run() } else { bundle.try_create(&[]) };
        let _ = bundle.locule(&["start", bundle.id()]);
        bundle.locule(&["delete", "--force", bundle.id()]).ok();
    }
    assert_eq!(fs::metadata(LOCULE).unwrap().modified().unwrap(), before);
    bundle.up();
    bundle.exec_with(&[], &["/bin/bait"]);
    assert_eq!(fs::metadata(LOCULE).unwrap().modified().unwrap(), before);
}

/// CVE-2019-19921 and CVE-2025-31133 ff.: /proc and /sys of the rootfs are links into places of the attacker's.
#[test]
fn links_in_the_place_of_proc() {
    for (link, target) in [("proc", "/tmp"), ("proc", "../../.."), ("sys", "/tmp"), ("proc", "/etc")] {
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

/// CVE-2024-21626: a working directory that is a descriptor of the runtime's.
#[test]
fn a_working_directory_outside() {
    let mut bundle = Bundle::new();
    bundle.args(&["sh", "-c", "ls ../../../../../../etc"]);
    for number in (0..20).chain(400..404) {
        for path in ["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"] {
            bundle.set("process.cwd", json!(format!("{path}/{number}")));
            let out = bundle.run();
            // A descriptor of the container's own root leads nowhere else.
            if out.status != 0 || out.stdout != "group\npasswd\n" {
                out.refused_with(&["working directory"]);
            }
            bundle.assert_gone();
        }
    }
    bundle.set("process.cwd", json!("/"));
    symlink("/proc/self/fd/7", bundle.rootfs("seven")).unwrap();
    bundle.up();
    let paths = (0..20).chain(400..404).map(|number| format!("/proc/self/fd/{number}"));
    for path in paths.chain(["/seven".to_owned()]) {
        let out = bundle.exec_with(&["--cwd", &path], &["ls", "../../../../../../etc"]);
        if out.status != 0 || out.stdout != "group\npasswd\n" {
            assert_eq!(out.status, 255, "{path}: {out:?}");
            out.refused_with(&["working directory"]);
        }
    }
}

/// CVE-2016-9962: processes that enter cannot be traced or looked into by those inside.
#[test]
fn what_enters_cannot_be_looked_into() {
    let mut bundle = Bundle::new();
    bundle.script(
        "echo up; while :; do for p in /proc/[0-9]*; do
           [ $p = /proc/$$ ] && continue
           case $(tr '\\0' ' ' < $p/cmdline) in *LEAK*) ls -l $p/fd 2>/dev/null | grep -e /mnt/host -e socket;; esac
         done; done",
    );
    bundle.create().start();
    for _ in 0..30 {
        bundle.exec_with(&["--env", "X=LEAK"], &["true", "LEAK"]).ok();
    }
    bundle.kill("KILL").wait_for("stopped");
    assert_eq!(bundle.stdout(), "up\n", "descriptors of the runtime seen from inside");
}

/// A bundle's links must not lead mounts out of the root.
#[test]
fn mount_destinations_stay_inside() {
    let mut bundle = Bundle::new();
    let outside = bundle.directory("outside");
    // What the link means inside.
    fs::create_dir_all(bundle.rootfs(outside.to_str().unwrap())).unwrap();
    symlink(&outside, bundle.rootfs("escape")).unwrap();
    symlink("../../../../../../../..", bundle.rootfs("up")).unwrap();
    let lane = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = lane();
    bundle.mount("/escape/x", "tmpfs", "tmpfs", &[]).mount("/up/mnt/y", "tmpfs", "tmpfs", &[]);
    bundle.script("ls -d /mnt/y && ls /escape/x").run().ok();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "made outside of the root");
    assert_eq!(lane(), before);
}
