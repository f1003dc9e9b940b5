//! The runtime's own binary: nothing inside can write to it, whoever executes it.
//!
//! Owns the comparison of the binary's bytes before and after.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::lane::{Bundle, LOCULE};

/// What a change of the binary would show.
fn binary() -> (Vec<u8>, u64, i64, i64) {
    let meta = fs::metadata(LOCULE).unwrap();
    (fs::read(LOCULE).unwrap(), meta.ino(), meta.mtime(), meta.mtime_nsec())
}

/// CVE-2019-5736: a workload that is the runtime itself, by /proc/self/exe, and init overwriting
/// what enters for as long as it is there.
///
/// Without sealing (`ensure` returning at once) this fails: the file is the host's.
#[test]
fn the_binary_cannot_be_reached_by_its_own_processes() {
    let mut bundle = Bundle::new();
    let before = binary();
    // locule itself, as the workload: it may run, it cannot be written.
    bundle.args(&["/proc/self/exe", "--version"]).run();
    let host = fs::metadata(LOCULE).unwrap();
    // The overlay shows the same inode number, on a device of its own.
    let host = format!("{} {}", host.dev(), host.ino());
    bundle.set("process.user", json!({"uid": 0, "gid": 0})).script(&format!(
        "echo up; while :; do for p in /proc/[0-9]*; do
           case $(readlink $p/exe) in *busybox*) continue;; esac
           (exec 9<$p/exe && [ \"$(stat -Lc '%d %i' /proc/self/fd/9)\" = '{host}' ] && echo THE HOST\\'S) 2>/dev/null
           (echo broken > $p/exe) 2>/dev/null && echo WRITTEN
           (exec 9<$p/exe && {{ echo broken > /proc/self/fd/9; }} 2>/dev/null && echo WRITTEN) 2>/dev/null
         done; done",
    ));
    bundle.create().start();
    for _ in 0..30 {
        bundle.exec("true").ok();
        bundle.exec_with(&[], &["/proc/self/exe", "true"]);
    }
    bundle.kill("KILL").wait_for("stopped");
    assert_eq!(bundle.stdout(), "up\n");
    assert!(binary() == before, "the binary has changed");
}

/// CVE-2019-5736: what runs as /proc/self/exe cannot be opened for writing, not even by root with
/// every capability, and is not the host's file.
///
/// The bait is a script whose interpreter is the runtime that executes it: the kernel opens
/// /proc/self/exe while it still is the runtime.
#[test]
fn the_copy_that_enters_is_sealed() {
    let mut bundle = Bundle::new();
    bundle.program("rootfs/bin/bait", "#!/proc/self/exe\n");
    let before = binary();
    for verb in ["run", "create"] {
        bundle.args(&["/bin/bait"]);
        let _ = if verb == "run" { bundle.run() } else { bundle.try_create(&[]) };
        let _ = bundle.locule(&["start", bundle.id()]);
        bundle.locule(&["delete", "--force", bundle.id()]).ok();
    }
    assert!(binary() == before);
    bundle.up();
    bundle.exec_with(&[], &["/bin/bait"]);
    assert!(binary() == before);
}

/// CVE-2019-5736: while init waits for start, and while an exec is on its way, /proc/PID/exe is the
/// copy, and cannot be opened for writing by root of the host. Fails without sealing.
#[test]
fn what_waits_inside_is_a_copy() {
    let mut bundle = Bundle::new();
    bundle.args(&["true"]).create();
    let exe = format!("/proc/{}/exe", bundle.pid());
    let host = fs::metadata(LOCULE).unwrap();
    let inside = fs::metadata(&exe).unwrap();
    assert_ne!((inside.dev(), inside.ino()), (host.dev(), host.ino()), "the host's own file");
    fs::OpenOptions::new().write(true).open(&exe).expect_err("it can be opened for writing");
}
