//! What is told about machines: ls, stats, top, events, and the numbers that a machine sees of itself.
//!
//! Owns the forms of these answers. Runs only within `tests/lane`, whose tree has no controllers: limits and the
//! numbers that come with them are in the VM's suites.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

#[allow(dead_code, reason = "shared with tests/host, which uses all of it")]
#[path = "../host/lane.rs"]
mod lane;
#[allow(dead_code, reason = "shared with tests/lifecycle, which uses all of it")]
#[path = "../lifecycle/pty.rs"]
mod pty;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lane::{Output, complete, guard, unique, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const LOCULE: &str = env!("CARGO_BIN_EXE_locule");

/// Machines of the test's own; at its end they are removed.
struct Home {
    dir: PathBuf,
}

impl Home {
    fn new() -> Home {
        guard();
        let dir = PathBuf::from("/mnt").join(unique("numbers"));
        fs::create_dir_all(dir.join("data/machines")).unwrap();
        Home { dir }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(LOCULE);
        command.arg("--root").arg(self.dir.join("run")).arg("--data").arg(self.dir.join("data"));
        command.args(words).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn locule(&self, words: &[&str]) -> Output {
        complete(&mut self.command(words))
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(self.locule(words).ok()).unwrap()
    }

    /// A machine's definition, as if it were made.
    fn define(&self, name: &str, text: &str) {
        let dir = self.dir.join("data/machines").join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("machine.toml"), text).unwrap();
    }

    /// A machine of this host's system that runs; its name is its own, as its control group is the host's.
    fn launch(&self, what: &str, command: &[&str]) -> String {
        let name = unique(what);
        let words = [&["launch", "-d", "host", &name, "--network", "none", "--"], command].concat();
        self.locule(&words).ok();
        name
    }

    fn keeper(&self, name: &str) -> Pid {
        let text = fs::read(self.dir.join("run/.machines").join(name).join("keeper.json")).unwrap();
        let keeper: Value = serde_json::from_slice(&text).unwrap();
        Pid::from_raw(keeper["keeper"]["pid"].as_i64().unwrap() as i32)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let names = fs::read_dir(self.dir.join("run/.machines"));
        for name in names.into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            let name = name.file_name();
            let _ = self.command(&["rm", "--force", name.to_str().unwrap()]).output();
        }
    }
}

#[test]
fn a_thousand_machines_are_listed() {
    let home = Home::new();
    for number in 0..1000 {
        let tier = if number % 2 == 0 { "front" } else { "back" };
        let text = format!(
            "image = \"debian:13\"\n[memory]\nlimit = \"{}M\"\n[cpu]\nlimit = 1.5\n[labels]\ntier = \"{tier}\"\n\
             [network.eth0]\naddress = [\"10.9.{}.{}\"]\n",
            number + 1,
            number / 250,
            number % 250 + 1
        );
        home.define(&format!("m{number}"), &text);
    }
    // Told, not judged: a loaded machine is slow. The least of several runs says what it costs.
    let best = (0..5)
        .map(|_| {
            let begun = std::time::Instant::now();
            assert_eq!(home.locule(&["ls"]).ok().lines().count(), 1001);
            begun.elapsed()
        })
        .min()
        .unwrap();
    eprintln!("ls of 1000 machines: {best:?}");
    let all = home.json(&["ls", "--format", "json"]);
    assert_eq!(all.as_array().unwrap().len(), 1000);
    assert_eq!((&all[0]["name"], &all[0]["status"]), (&"m0".into(), &"stopped".into()));
    let words = ["ls", "-q", "--filter", "labels=tier=front", "--filter", "ip=10.9.0.*", "--sort", "-memory"];
    let found = home.locule(&words);
    let names: Vec<&str> = found.ok().lines().collect();
    assert_eq!((names.len(), names[0], names[124]), (125, "m248", "m0"));
    let line = home.locule(&["ls", "-H", "-o", "name,status,memory,cpus,ip,uptime", "m7"]).ok().to_owned();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["m7", "stopped", "8M", "1.5", "10.9.0.8", "-"]);
}

#[test]
fn what_cannot_be_listed_is_told() {
    let home = Home::new();
    home.define("good", "image = \"host\"\n");
    home.define("torn", "image = \n");
    let out = home.locule(&["ls"]);
    assert_eq!(out.ok().lines().count(), 3);
    assert!(out.stderr.contains("torn") && out.stderr.contains("machine.toml"), "{}", out.stderr);
    home.locule(&["ls", "absent"]).refused_with(&["absent"]);
    home.locule(&["ls", "-o", "colour"]).refused_with(&["colour", "memory-used"]);
    home.locule(&["ls", "--filter", "status"]).refused_with(&["COLUMN=VALUE"]);
}

#[test]
fn a_machine_sees_its_own_numbers_whatever_happens_to_its_keeper() {
    let home = Home::new();
    let name = home.launch("web", &["sleep", "infinity"]);
    let name = name.as_str();
    let inside = |script: &str| home.locule(&["exec", name, "sh", "-c", script]).ok().to_owned();
    // All that it used since its start is little, all that the host used is not.
    let ticks = || -> Vec<u64> {
        let line = inside("head -n 1 /proc/stat");
        line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect()
    };
    let first = ticks();
    let host = fs::read_to_string("/proc/stat").unwrap();
    let host: u64 = host.split_whitespace().nth(4).unwrap().parse().unwrap();
    assert!(first[3] < host / 2, "idle {first:?}, the host's {host}");
    until("time passes inside", || ticks()[3] > first[3]);
    let up = inside("cut -d. -f1 /proc/uptime");
    let host_up: u64 =
        fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse().unwrap();
    assert!(up.trim().parse::<u64>().unwrap() + 60 < host_up || host_up < 120, "{up} of {host_up}");
    // The file is not the machine's to write, whatever it mounts.
    let refused = home.locule(&["exec", name, "sh", "-c", "echo x > /proc/meminfo"]);
    assert_ne!(refused.status, 0);

    let reading = "i=0; while [ $i -lt 300 ]; do read -r line < /proc/stat && read -r line < /proc/meminfo || exit 9; \
                   i=$((i+1)); done; echo done";
    let mut reader = home.command(&["exec", name, "sh", "-c", reading]);
    let reader = reader.stdout(Stdio::piped()).spawn().unwrap();
    kill(home.keeper(name), Signal::SIGKILL).unwrap();
    let told = reader.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), "done\n", "{told:?}");
    let frozen = ticks();
    assert_eq!(ticks(), frozen, "the last numbers stand");
    home.locule(&["repair"]).ok();
    until("time passes again inside", || ticks()[3] > frozen[3]);
}

#[test]
fn stats_tell_what_runs() {
    let home = Home::new();
    let busy = home.launch("busy", &["sh", "-c", "while :; do :; done"]);
    let idle = home.launch("idle", &["sleep", "infinity"]);
    until("it has used time", || {
        home.json(&["stats", "--no-stream", "--format", "json", &busy])[0]["cpu"]["usage"].as_u64().unwrap()
            > 0
    });
    let all = home.json(&["stats", "--no-stream", "--format", "json"]);
    let names: Vec<_> = all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, [busy.as_str(), &idle]);
    assert!(all[0]["memory"].get("usage").is_none(), "no controller, no number");
    assert!(all[1]["network"].as_object().unwrap().is_empty(), "nothing but loopback");
    let text = home.locule(&["stats", "--format", "openmetrics"]).ok().to_owned();
    assert!(
        text.contains(&format!("locule_cpu_usage_seconds_total{{name=\"{busy}\"}} "))
            && text.ends_with("# EOF"),
        "{text}"
    );
    let top = home.locule(&["top", "--sort", "name"]).ok().to_owned();
    let names: Vec<_> = top.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", &busy, &idle]);

    let mut command = home.command(&["stats", "--format", "json", "--interval", "20ms", &idle]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    home.locule(&["stop", "-t", "0s", &idle]).ok();
    for line in lines {
        let _: Value = serde_json::from_str(&line.unwrap()).unwrap();
    }
    assert!(child.wait().unwrap().success(), "the stream ends with the machine");
    home.locule(&["stats", "--no-stream", &idle]).refused();
}

#[test]
fn top_gives_the_terminal_back() {
    let home = Home::new();
    let name = home.launch("web", &["sleep", "infinity"]);
    let mut terminal = pty::Terminal::new(24, 160);
    let before = terminal.settings();
    let mut command = home.command(&["top", "--interval", "50ms"]);
    terminal.attach(&mut command);
    let mut child = command.spawn().unwrap();
    terminal.until("by cpu");
    terminal.until(&name);
    terminal.write("m");
    terminal.until("by memory");
    terminal.write("q");
    terminal.until("\x1b[?1049l");
    assert!(child.wait().unwrap().success());
    assert_eq!(terminal.settings().local_flags, before.local_flags);

    let mut command = home.command(&["top"]);
    terminal.attach(&mut command);
    let mut child = command.spawn().unwrap();
    terminal.until("by cpu");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    terminal.until("\x1b[?1049l");
    assert!(child.wait().unwrap().success());
    assert_eq!(terminal.settings().local_flags, before.local_flags);
}

#[test]
fn events_are_kept_and_followed() {
    let home = Home::new();
    let name = home.launch("web", &["sleep", "infinity"]);
    let machine = format!("machine={name}");
    let mut command = home.command(&["events", "--format", "json", "--since", "1h", "--filter", &machine]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["event"], "create");
    let start = next();
    assert_eq!((&start["event"], &start["machine"]), (&"start".into(), &name.as_str().into()));
    home.locule(&["kill", &name, "KILL"]).ok();
    let die = next();
    assert_eq!((&die["event"], &die["attributes"]["exit"]), (&"die".into(), &"137".into()));
    child.kill().unwrap();
    child.wait().unwrap();
    let words = ["events", "--no-stream", "--filter", "event=start", "--filter", "event=die"];
    assert_eq!(home.locule(&words).ok().lines().count(), 2);
    assert_eq!(home.locule(&["events", "--no-stream", "--since", "2100-01-01"]).ok(), "");
    home.locule(&["events", "--filter", "image=x", "--no-stream"]).refused_with(&["machine=NAME"]);
    home.locule(&["events", "--since", "1h", &name]).refused_with(&["cannot be used together"]);
    home.locule(&["events", "--stats"]).refused_with(&["locule stats"]);
}
