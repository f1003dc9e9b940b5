//! `ls` of many machines: what it reads of each.

use std::fs;

use crate::lab::{LOCULE, Lab};

/// Most system calls for a machine that does not run: two files of its own, and a look for what would run.
const EACH: usize = 16;

/// Makes machines `from..to` out of the files that are the whole of one which never ran.
fn copies(lab: &Lab, model: &str, from: usize, to: usize) {
    let machines = lab.data().join("machines");
    for number in from..to {
        let dir = machines.join(format!("copy-{number}"));
        fs::create_dir(&dir).unwrap();
        for file in ["machine.toml", "state.json"] {
            fs::copy(machines.join(model).join(file), dir.join(file)).unwrap();
        }
    }
}

/// How many system calls `ls` makes.
fn calls(lab: &Lab, words: &[&str]) -> usize {
    let (run, log) = (lab.run(), lab.own().join("strace"));
    let before = ["-qq", "-f", "-o", log.to_str().unwrap(), LOCULE, "--root", run.to_str().unwrap(), "ls"];
    let output = lab.command("strace", &[&before, words].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(&log).unwrap().lines().count()
}

#[test]
fn a_machine_costs_few_system_calls() {
    let lab = Lab::new();
    let model = lab.name("model");
    lab.ok(&["launch", "--network", "none", "--no-start", "host", &model, "--", "sleep", "1000"]);
    copies(&lab, &model, 0, 10);
    let (few, few_names) = (calls(&lab, &[]), calls(&lab, &["-q"]));
    copies(&lab, &model, 10, 40);
    let (many, many_names) = (calls(&lab, &[]), calls(&lab, &["-q"]));
    assert!(many > few && many - few <= 30 * EACH, "{} calls for 30 machines", many - few);
    let names = many_names - few_names;
    assert!(names <= 30 * 2, "{names} calls for 30 names");
    assert_eq!(lab.ok(&["ls", "-q", "--filter", "name=copy-*"]).lines().count(), 40);
    // What has no definition is no machine, however deep one looks.
    fs::remove_file(lab.data().join("machines/copy-7/machine.toml")).unwrap();
    for words in [&["ls", "-q"][..], &["ls", "-H"]] {
        let listed = lab.ok(words);
        assert_eq!(listed.lines().count(), 40, "{listed}");
        assert!(!listed.contains("copy-7"), "{listed}");
    }
    for number in 0..40 {
        fs::remove_dir_all(lab.data().join(format!("machines/copy-{number}"))).unwrap();
    }
}
