//! Ends: what is recorded, and what is started again.

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use crate::lab::{Lab, kill, until};

#[test]
fn ends_are_recorded() {
    let lab = Lab::new();
    lab.launch("code", "exit 3", "");
    assert_eq!(lab.over("code")["code"], 3);
    lab.launch("good", "true", "");
    assert_eq!(lab.over("good")["code"], 0);
    lab.launch("stopped", "trap 'exit 9' TERM; while :; do sleep 0.1; done", "");
    lab.good(&["stop", "stopped"]);
    let ended = lab.ended("stopped").unwrap();
    assert_eq!((&ended["code"], &ended["stopped"]), (&9.into(), &true.into()));
    // What does not hear is killed.
    lab.launch("deaf", "trap '' TERM; while :; do sleep 0.1; done", "");
    lab.good(&["stop", "--timeout", "200ms", "deaf"]);
    assert_eq!(lab.ended("deaf").unwrap()["signal"], 9);
    assert!(lab.keeper("deaf").is_none());
}

#[test]
fn a_failure_is_started_again_so_often() {
    let lab = Lab::new();
    lab.launch("m", "echo up; exit 2", "[restart]\npolicy = \"on-failure\"\nmax = 2\ndelay = \"50ms\"\n");
    assert_eq!(lab.over("m")["code"], 2);
    // The record of each end is there before the next start; the log tells how many there were.
    until("three starts", || lab.log("m").lines().count() == 3 && lab.keeper("m").is_none());
    lab.launch("fine", "echo up", "[restart]\npolicy = \"on-failure\"\ndelay = \"50ms\"\n");
    assert_eq!(lab.over("fine")["code"], 0);
    assert_eq!(lab.log("fine"), "up\n");
}

#[test]
fn the_owners_stop_ends_a_policy() {
    let lab = Lab::new();
    lab.launch("m", "echo up", "[restart]\npolicy = \"always\"\ndelay = \"50ms\"\n");
    until("some starts", || lab.log("m").lines().count() > 3);
    lab.good(&["stop", "m"]);
    assert!(lab.keeper("m").is_none());
    let starts = lab.log("m").lines().count();
    lab.good(&["ls"]);
    assert_eq!(lab.log("m").lines().count(), starts);
}

/// Where nothing runs that could end, the last end becomes its owner's.
#[test]
fn a_stop_between_two_starts_is_recorded() {
    let lab = Lab::new();
    lab.launch("m", "exit 2", "[restart]\npolicy = \"on-failure\"\ndelay = \"1h\"\n");
    until("the pause", || lab.keeper("m").is_some_and(|keeper| keeper["phase"] == "waiting"));
    lab.good(&["stop", "m"]);
    let ended = lab.over("m");
    assert_eq!((&ended["code"], &ended["stopped"]), (&2.into(), &true.into()));
}

/// `systemctl stop` is a signal alone; here it comes while a starter is at work.
#[test]
fn a_stop_in_the_middle_of_another_start_is_recorded() {
    let lab = Lab::new();
    let reboot = "python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x1234567)'";
    lab.launch("m", &format!("while ! [ -e /run/go ]; do sleep 0.1; done; {reboot}"), BOOTS);
    lab.good(&["exec", "m", "touch", "/run/go"]);
    // What starters wait for.
    let lock = std::fs::File::open(lab.run_dir("m").join("lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    until("the next start", || {
        lab.ended("m").is_some() && lab.keeper("m").is_some_and(|keeper| keeper["phase"] == "starting")
    });
    kill(lab.keeper_pid("m"), Signal::SIGTERM);
    let ended = lab.over("m");
    drop(lock);
    assert_eq!((&ended["reboot"], &ended["stopped"]), (&true.into(), &true.into()));
}

/// What a program needs for reboot(2), and a system has.
const BOOTS: &str = "[capabilities]\nadd = [\"SYS_BOOT\"]\n";

#[test]
fn a_reboot_from_inside_starts_it_again() {
    let lab = Lab::new();
    // reboot(2) with RB_AUTOBOOT.
    let reboot = "python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x1234567)'";
    lab.launch(
        "m",
        &format!("echo up; while ! [ -e /run/go ]; do sleep 0.1; done; rm /run/go; {reboot}"),
        BOOTS,
    );
    let init = lab.init("m");
    lab.good(&["exec", "m", "touch", "/run/go"]);
    until("another init", || {
        lab.keeper("m").is_some_and(|keeper| keeper["init"].as_i64().is_some_and(|now| now != init))
    });
    until("its first line", || lab.log("m") == "up\nup\n");
    assert_eq!(lab.keeper("m").unwrap()["restarts"], 0, "a reboot is no failure");
    lab.good(&["stop", "--kill", "m"]);
}

#[test]
fn a_failed_start_says_why_and_leaves_nothing() {
    let lab = Lab::new();
    lab.make("m", "true", "");
    let path = lab.dir("m").join("machine.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"sh\"", "\"/no/such/program\"")).unwrap();
    let done = lab.run(&["start", "m"]);
    assert!(!done.status.success());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("/no/such/program"), "{said}");
    assert!(lab.keeper("m").is_none());
    assert!(!lab.run(&["state", "m"]).status.success());
}
