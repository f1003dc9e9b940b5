//! Logs: lines, streams, rotation, cuts, following.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::lab::Lab;

#[test]
fn lines_have_a_time_and_a_stream() {
    let lab = Lab::new();
    lab.launch("m", "echo out; echo err >&2; printf 'no end'", "");
    lab.over("m");
    let done = lab.run(&["logs", "m"]);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "out\nno end");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "err\n");
    let raw = std::fs::read_to_string(lab.dir("m").join("log/output.log")).unwrap();
    let mut forms: Vec<&str> = raw.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    forms.sort_unstable();
    assert_eq!(forms, ["stderr F err", "stdout F out", "stdout P no end"]);
    assert!(lab.good(&["logs", "-t", "m"]).starts_with("20"));
    assert_eq!(lab.good(&["logs", "--since", "2099-01-01", "m"]), "");
}

#[test]
fn files_rotate_and_the_last_lines_stay() {
    let lab = Lab::new();
    lab.launch(
        "m",
        "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done",
        "[log]\nsize = \"16K\"\nfiles = 2\n",
    );
    lab.over("m");
    let mut names: Vec<String> = std::fs::read_dir(lab.dir("m").join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("output"))
        .collect();
    names.sort();
    assert_eq!(names, ["output.log", "output.log.1"]);
    assert_eq!(lab.good(&["logs", "--tail", "2", "m"]), "line 1998\nline 1999\n");
    let log = lab.log("m");
    let numbers: Vec<u32> = log.lines().map(|line| line[5..].parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap");
}

#[test]
fn following_ends_with_the_machine() {
    let lab = Lab::new();
    lab.launch("m", "echo one; while ! [ -e /run/go ]; do sleep 0.1; done; echo two", "");
    let mut logs = lab.command().args(["logs", "-f", "m"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    lab.good(&["exec", "m", "touch", "/run/go"]);
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    assert!(lines.next().is_none());
    assert!(logs.wait().unwrap().success());
}
