//! Consoles: attached before the start and after the end, by several, through restarts.

use std::io::{Read, Write};
use std::process::{Child, Stdio};

use crate::lab::{Lab, until};

/// Reads what a console shows until it has shown `text`.
fn shows(console: &mut Child, text: &str) -> String {
    let stdout = console.stdout.as_mut().unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "ended after {:?}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn open(lab: &Lab, words: &[&str]) -> Child {
    let mut command = lab.command();
    command.arg("console").args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn type_on(console: &mut Child, bytes: &[u8]) {
    console.stdin.as_mut().unwrap().write_all(bytes).unwrap();
}

const ECHO: &str = "while read line; do echo \"got $line\"; [ \"$line\" != bye ] || exit 5; done";

#[test]
fn what_is_typed_reaches_the_machine_and_keys_detach() {
    let lab = Lab::new();
    lab.make("m", ECHO, "");
    lab.set_terminal("m");
    lab.good(&["start", "m"]);
    let mut one = open(&lab, &["m"]);
    let mut other = open(&lab, &["m", "--watch"]);
    type_on(&mut one, b"hello\n");
    shows(&mut one, "got hello");
    shows(&mut other, "got hello");
    // Who only watches types in vain.
    type_on(&mut other, b"vain\n");
    type_on(&mut one, b"again\n");
    assert!(!shows(&mut other, "got again").contains("vain"));
    for keys in [b"\x10\x11" as &[u8], b"\x1b."] {
        let mut console = open(&lab, &["m"]);
        shows(&mut console, "got again");
        type_on(&mut console, keys);
        assert!(console.wait().unwrap().success());
    }
    assert!(lab.keeper("m").is_some(), "the machine goes on");
    type_on(&mut one, b"bye\n");
    assert_eq!(lab.over("m")["code"], 5);
    // Both have seen all of it, and end with the keeper.
    shows(&mut one, "got bye");
    shows(&mut other, "got bye");
    assert!(one.wait().unwrap().success() && other.wait().unwrap().success());
}

#[test]
fn a_console_waits_for_the_start_and_shows_a_crash() {
    let lab = Lab::new();
    lab.make("m", "echo first words; echo last words >&2; exit 7", "");
    let mut console = open(&lab, &["--wait", "m"]);
    lab.good(&["start", "m"]);
    let seen = shows(&mut console, "last words");
    assert!(seen.starts_with("first words"), "{seen:?}");
    assert!(console.wait().unwrap().success());
    let mut told = String::new();
    console.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("exit code 7"), "{told}");
    assert_eq!(lab.over("m")["code"], 7);
    let after = lab.good(&["console", "m"]);
    assert!(after.contains("first words") && after.contains("last words"), "{after:?}");
}

#[test]
fn a_console_stays_through_restarts() {
    let lab = Lab::new();
    let script = "echo start $(cat /proc/uptime) end; exit 1";
    lab.launch("m", script, "[restart]\npolicy = \"on-failure\"\ndelay = \"100ms\"\n");
    let mut console = open(&lab, &["m"]);
    for _ in 0..3 {
        shows(&mut console, "start ");
    }
    lab.good(&["stop", "m"]);
    until("the console's end", || console.try_wait().unwrap().is_some());
}
