//! Logs: lines, streams, rotation, cuts, following.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::lab::{Lab, until};

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
    // The first may be the rest of a line whose beginning was rotated away.
    let numbers: Vec<u32> = log.lines().skip(1).map(|line| line[5..].parse().unwrap()).collect();
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

#[test]
fn a_log_changes_while_it_is_written() {
    let lab = Lab::new();
    let script = "i=0; while :; do echo line $i; i=$((i+1)); [ $((i % 200)) != 0 ] || sleep 0.1; done";
    lab.launch("m", script, "");
    let names = || {
        let dir = std::fs::read_dir(lab.dir("m").join("log")).unwrap();
        let mut names: Vec<String> =
            dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("output"));
        names.sort();
        names
    };
    let size = || std::fs::metadata(lab.dir("m").join("log/output.log")).unwrap().len();
    until("it writes", || size() > 0);
    let (init, console) = (lab.init("m"), super::lab::attendant(lab.keeper_pid("m")));
    lab.good(&["set", "m", "log.size=16K", "log.files=2"]);
    until("the new size holds", || names() == ["output.log", "output.log.1"]);
    until("both files are full", || {
        std::fs::metadata(lab.dir("m").join("log/output.log.1")).unwrap().len() <= 16384
    });
    assert_eq!(names().len(), 2);
    lab.good(&["set", "m", "log.driver=none"]);
    // What was read before is written before: the file stands still from the second look on.
    let mut before = u64::MAX;
    until("nothing is written any more", || std::mem::replace(&mut before, size()) == size());
    lab.good(&["set", "m", "log.driver=file"]);
    until("it is written again", || size() != before);
    let log = lab.log("m");
    assert!(log.lines().last().is_some_and(|line| line.starts_with("line ")), "{log}");
    // Neither the machine nor who serves its consoles was made anew.
    assert_eq!((lab.init("m"), super::lab::attendant(lab.keeper_pid("m"))), (init, console));
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        let done = lab.run(&["set", "m", "log.driver=journald"]);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && told.contains("journald does not run here"), "{told}");
        assert!(lab.good(&["show", "m"]).contains("file"));
    }
    let done = lab.run(&["set", "--runtime", "m", "log.size=1M"]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("cannot be changed in the running machine alone"));
}
