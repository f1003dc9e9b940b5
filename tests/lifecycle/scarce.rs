//! A full state directory, a full table of files, a file size limit: the real ones, at every size.
//!
//! Owns the limits that calls are given here. What is injected call by call is in `faults`.

use std::fs;
use std::process::{Command, Stdio};

use crate::crash::sleeper;
use crate::lane::{Bundle, LOCULE, complete, until};
use crate::leaks::Leaks;

/// Fails unless the call went well or was refused in one line with `reason` in it.
#[track_caller]
fn well_or(words: &str, out: &crate::lane::Output, reason: &[&str]) -> bool {
    let told = out.stderr.trim_end();
    let one = told.starts_with("locule: ") && told.lines().count() == 1;
    assert!(out.status == 0 || one && reason.iter().any(|reason| told.contains(reason)), "{words}: {out:?}");
    out.status == 0
}

/// Tmpfs of so many pages and so many inodes as the state root.
fn tiny(bundle: &mut Bundle, pages: usize, inodes: usize) {
    let options = format!("size={}k,nr_inodes={inodes}", 4 * pages);
    bundle.mounted("state", &["-t", "tmpfs", "-o", &options, "tmpfs"]);
}

/// The state root grows from no room at all until a container can be made; each size that is too
/// small refuses it and stays empty.
#[test]
fn a_full_state_root_refuses_and_keeps_nothing() {
    let mut enough = 0;
    for (pages, inodes) in (1..24).map(|n| (n, 64)).chain((2..12).map(|n| (64, n))) {
        let mut bundle = Bundle::new();
        bundle.args(&["sleep", "1000"]);
        // A document of several pages.
        bundle.set("annotations.filler", serde_json::json!("x".repeat(9000)));
        tiny(&mut bundle, pages, inodes);
        let leaks = Leaks::of(&bundle);
        let said = fs::File::create(bundle.path("said")).unwrap();
        let status = bundle
            .command(&["create", bundle.id()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .status()
            .unwrap();
        let told = fs::read_to_string(bundle.path("said")).unwrap();
        if status.success() {
            bundle.start();
            bundle.locule(&["delete", "--force", bundle.id()]).ok();
        } else {
            assert!(told.contains("(ENOSPC)") && told.lines().count() == 1, "{pages}, {inodes}: {told}");
        }
        leaks.none(&format!("by a state root of {pages} pages and {inodes} inodes: {told}"));
        assert_eq!(fs::read_dir(bundle.root()).unwrap().count(), 0, "{pages}, {inodes}: {told}");
        assert!(status.success() || pages < 20 || inodes < 10, "{pages}, {inodes}: {told}");
        enough += usize::from(status.success());
    }
    assert!((4..30).contains(&enough), "{enough} of the sizes were enough");
}

/// What was made before the disk was full can be started, updated or not, stopped and deleted.
#[test]
fn a_container_outlives_a_full_state_root() {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]);
    tiny(&mut bundle, 64, 64);
    let leaks = Leaks::of(&bundle);
    bundle.create();
    // All that is left of it.
    let filler = bundle.root().join(".filler");
    let filled =
        complete(Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", filler.display())));
    assert!(filled.stderr.contains("No space left"), "{filled:?}");
    bundle.start();
    assert_eq!(bundle.state()["status"], "running");
    bundle.exec("true").ok();
    let config = bundle.root().join(bundle.id()).join("config.json");
    let before = fs::read(&config).unwrap();
    let change = bundle.file("change.json", r#"{"devices": [{"allow": false, "access": "rwm"}]}"#);
    let words = ["update", "--resources", change.to_str().unwrap(), bundle.id()];
    bundle.locule(&words).refused_with(&["(ENOSPC)"]);
    assert_eq!(fs::read(&config).unwrap(), before, "the old document stays whole");
    assert_eq!(bundle.state()["status"], "running");
    bundle.kill("KILL").wait_for("stopped").delete();
    fs::remove_file(filler).unwrap();
    leaks.none("by a container whose state root was full");
}

/// The call with a limit of the shell's `ulimit`.
fn limited(bundle: &Bundle, limit: &str, words: &[&str]) -> crate::lane::Output {
    let _ = bundle.command(&[]);
    let said = bundle.path("said");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh", LOCULE, "--root"]).arg(bundle.root());
    command.args(words).current_dir(bundle.path("")).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(fs::File::create(&said).unwrap()).status().unwrap();
    let stderr = fs::read_to_string(&said).unwrap();
    let signalled = std::os::unix::process::ExitStatusExt::signal(&status).map(|number| 128 + number);
    crate::lane::Output { status: status.code().or(signalled).unwrap(), stdout: String::new(), stderr }
}

/// Every number of descriptors, from the three that a program begins with to what is enough.
#[test]
fn too_few_descriptors_refuse_and_keep_nothing() {
    let bundle = sleeper();
    let leaks = Leaks::of(&bundle);
    let reasons = ["(EMFILE)", "(EBADF)", "(EINVAL)"];
    let mut enough = 0;
    for limit in 3..40 {
        let limit = format!("-S -n {limit}");
        let made = limited(&bundle, &limit, &["create", bundle.id()]);
        if well_or(&limit, &made, &reasons) {
            enough += 1;
            if !well_or(&limit, &limited(&bundle, &limit, &["start", bundle.id()]), &reasons) {
                until("what was not started is as it was, or has ended", || {
                    ["created", "stopped"].contains(&bundle.state()["status"].as_str().unwrap())
                });
            } else {
                well_or(&limit, &limited(&bundle, &limit, &["exec", bundle.id(), "true"]), &reasons);
                assert_eq!(bundle.state()["status"], "running");
            }
            if !well_or(&limit, &limited(&bundle, &limit, &["delete", "--force", bundle.id()]), &reasons) {
                bundle.locule(&["delete", "--force", bundle.id()]).ok();
            }
        }
        leaks.none(&format!("with {limit}: {made:?}"));
    }
    assert!(enough > 5, "no container could be made with 40 descriptors");
}

/// A file size limit kills whoever writes beyond it: as a kill -9, at a place of its own.
#[test]
fn a_limit_of_file_sizes_leaves_what_a_forced_deletion_removes() {
    let mut bundle = sleeper();
    bundle.set("annotations.filler", serde_json::json!("x".repeat(3000)));
    let leaks = Leaks::of(&bundle);
    for blocks in 0..8 {
        let limit = format!("-f {blocks}");
        let made = limited(&bundle, &limit, &["create", bundle.id()]);
        assert!(
            made.status == 0 || made.status == 128 + libc::SIGXFSZ || made.stderr.contains("(EFBIG)"),
            "{made:?}"
        );
        bundle.locule(&["delete", "--force", bundle.id()]).ok();
        leaks.none(&format!("with {limit}: {made:?}"));
    }
}
