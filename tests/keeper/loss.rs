//! kill -9 of each part of a keeper, which ends no machine and loses no line that was read.

use std::time::Duration;

use nix::sys::signal::Signal::SIGKILL;

use crate::lab::{Lab, attendant, attendant_of, kill, until};

const COUNT: &str =
    "trap 'exit 4' TERM; i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); sleep 0.01; done";

/// Every line from the first on, without a gap.
fn whole(lab: &Lab) -> usize {
    let log = lab.log("m");
    let numbers: Vec<usize> =
        log.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    for (at, number) in numbers.iter().enumerate() {
        assert_eq!(at, *number, "a line is missing or there twice");
    }
    numbers.len()
}

#[test]
fn a_keeper_killed_again_and_again_loses_nothing() {
    let lab = Lab::new();
    lab.launch("m", COUNT, "");
    let init = lab.init("m");
    for _ in 0..5 {
        let before = lab.keeper_pid("m");
        let lines = whole(&lab);
        kill(before, SIGKILL);
        // Nobody is needed for the log to go on.
        until("more lines", || whole(&lab) > lines + 5);
        lab.good(&["start", "m"]);
        assert_ne!(lab.keeper_pid("m"), before);
        assert_eq!(lab.init("m"), init, "the machine is the same");
    }
    lab.good(&["stop", "m"]);
    whole(&lab);
    let ended = lab.ended("m").unwrap();
    assert_eq!(ended["stopped"], true);
    // Who is no parent learns the exit code from the kernel, where that tells (Linux 6.15).
    assert!(ended["code"] == 4 || ended["code"].is_null(), "{ended}");
}

#[test]
fn an_attendant_that_is_killed_is_made_anew() {
    let lab = Lab::new();
    lab.launch("m", COUNT, "");
    let keeper = lab.keeper_pid("m");
    for _ in 0..5 {
        let before = attendant(keeper);
        let lines = whole(&lab);
        kill(before, SIGKILL);
        until("more lines", || whole(&lab) > lines + 5);
        assert_ne!(attendant(keeper), before);
    }
    assert_eq!(lab.keeper_pid("m"), keeper);
    lab.good(&["stop", "m"]);
    assert_eq!(lab.ended("m").unwrap()["code"], 4);
    whole(&lab);
}

/// An attendant that takes its bytes by read(2) fails here within seconds.
#[test]
fn a_kill_at_any_moment_loses_nothing_and_repeats_nothing() {
    let lab = Lab::new();
    let script = "i=0; while :; do echo line $i; i=$((i+1)); done";
    for terminal in [false, true] {
        lab.make("m", script, "[log]\nsize = \"1G\"");
        if terminal {
            lab.set_terminal("m");
        }
        lab.good(&["start", "m"]);
        let keeper = lab.keeper_pid("m");
        for round in 0..60 {
            let before = attendant(keeper);
            std::thread::sleep(Duration::from_micros(round * 337));
            kill(before, SIGKILL);
            until("another attendant", || attendant_of(keeper).is_some_and(|now| now != before));
        }
        lab.good(&["stop", "m", "--kill"]);
        assert!(whole(&lab) > 1000);
        lab.good(&["rm", "m"]);
    }
}

#[test]
fn without_any_part_the_machine_goes_on_and_its_output_waits() {
    let lab = Lab::new();
    lab.launch("m", COUNT, "");
    let (init, keeper) = (lab.init("m"), lab.keeper_pid("m"));
    let other = attendant(keeper);
    kill(keeper, SIGKILL);
    kill(other, SIGKILL);
    lab.good(&["exec", "m", "sleep", "0.3"]);
    let done = lab.good(&["repair"]);
    assert!(done.contains("m: gave it a keeper"), "{done}");
    assert_eq!(lab.init("m"), init);
    let lines = whole(&lab);
    until("more lines", || whole(&lab) > lines + 5);
    lab.good(&["stop", "m"]);
    whole(&lab);
}

#[test]
fn the_end_without_a_keeper_is_recorded() {
    let lab = Lab::new();
    lab.launch("m", "echo up; while ! [ -e /run/go ]; do sleep 0.1; done; echo down; exit 6", "");
    kill(lab.keeper_pid("m"), SIGKILL);
    lab.good(&["exec", "m", "touch", "/run/go"]);
    until("the record", || lab.ended("m").is_some());
    let ended = lab.ended("m").unwrap();
    assert!(ended["code"] == 6 || ended["code"].is_null(), "{ended}");
    assert_eq!(lab.log("m"), "up\ndown\n");
    lab.good(&["start", "m"]);
    lab.good(&["stop", "m", "--kill"]);
}

#[test]
fn what_stays_is_jailed() {
    let lab = Lab::new();
    lab.launch("m", "exec sleep 1000", "");
    let keeper = lab.keeper_pid("m");
    let status = |pid: i32, key: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
    };
    assert_eq!(status(keeper, "CapEff:"), "0000000000000020", "CAP_KILL alone");
    let attendant = attendant(keeper);
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(attendant, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(attendant, "NoNewPrivs:"), "1");
    assert_eq!(status(attendant, "Seccomp:"), "2");
    // Budget: 1.5 MiB of memory that no other process has, both together.
    let private = |pid: i32| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("Pss_Anon:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
            .unwrap()
    };
    let both = private(keeper) + private(attendant);
    assert!(both < 1536, "{both} KiB");
}
