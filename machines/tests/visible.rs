//! The numbers inside by the real mechanism: files on a tmpfs, a process that serves them, readers of all kinds.
//!
//! Needs root: `tests/lane cargo test -p locule-machines --test visible`. The control group is a directory with the
//! kernel's files where its numbers must be known, since the host lane has no memory controller.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use locule_machines::Definition;
use locule_machines::visible::{self, View};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const MIB: u64 = 1 << 20;

/// A view of a machine with 256 MiB, two processors at most, and the directory that plays its control group.
struct Machine {
    top: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let shm = Path::new("/dev/shm");
        let machine = Machine { top: tempfile::tempdir_in(shm).unwrap() };
        machine.set("memory.max", &(256 * MIB).to_string());
        machine.set("memory.swap.max", "0");
        machine.set("memory.swap.current", "0");
        machine.set("memory.stat", "anon 0\nfile 0\n");
        machine.set("cpu.stat", "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n");
        machine.set("cgroup.procs", &format!("{}\n", std::process::id()));
        machine.set("pids.current", "3");
        machine.uses(100);
        visible::prepare(&machine.view(), &Machine::definition(), &machine.group()).unwrap();
        machine
    }

    fn definition() -> Definition {
        Definition::parse("image = \"host\"\n[cpu]\ncount = 1\n", Path::new("test")).unwrap()
    }

    fn view(&self) -> PathBuf {
        self.top.path().join("view")
    }

    fn group(&self) -> PathBuf {
        self.top.path().join("group")
    }

    fn set(&self, file: &str, text: &str) {
        fs::create_dir_all(self.group()).unwrap();
        // Whole at once: a server reads at any time.
        fs::write(self.top.path().join("new"), text).unwrap();
        fs::rename(self.top.path().join("new"), self.group().join(file)).unwrap();
    }

    fn uses(&self, mib: u64) {
        self.set("memory.current", &(mib * MIB).to_string());
    }

    /// A process that serves the view, once it does.
    fn serve(&self, before: &[&str]) -> Server {
        let mut words: Vec<_> = before.iter().map(ToString::to_string).collect();
        words.push(std::env::current_exe().unwrap().display().to_string());
        let ready = self.top.path().join("ready");
        let _ = fs::remove_file(&ready);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["--exact", "serves_for_the_others", "--ignored", "--nocapture"])
            .env("VIEW", self.view())
            .env("GROUP", self.group())
            .env("READY", &ready)
            .stdout(Stdio::null())
            .process_group(0);
        let child = command.spawn().unwrap();
        eventually("the server begins", || ready.exists());
        Server(child)
    }

    fn free(&self) -> u64 {
        number(&fs::read_to_string(self.view().join("meminfo")).unwrap(), "MemFree:")
    }

    /// What a program prints with the view over /proc and /sys.
    fn inside(&self, program: &str) -> String {
        let view = self.view();
        let view = view.display();
        let script = format!(
            "set -e; for f in meminfo stat loadavg swaps diskstats vmstat cpuinfo; do \
             mount --bind {view}/$f /proc/$f; done; \
             for f in online present possible; do mount --bind {view}/online /sys/devices/system/cpu/$f; done; {program}"
        );
        let out = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

struct Server(Child);

impl Server {
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: not within a minute");
}

fn number(text: &str, key: &str) -> u64 {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(key))
        .unwrap_or_else(|| panic!("{text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "a process of the other tests"]
fn serves_for_the_others() {
    let of = |name: &str| PathBuf::from(std::env::var_os(name).expect("run by the other tests"));
    let mut view = View::new(&of("VIEW")).unwrap();
    // As a keeper does; all that follows goes without.
    locule_runtime::attrs::caps::keep_kill_alone().unwrap();
    view.begin(&of("GROUP")).unwrap();
    fs::write(of("READY"), if view.sees_readers() { "readers" } else { "clock" }).unwrap();
    loop {
        poll(&mut [PollFd::new(view.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        view.serve().unwrap();
    }
}

#[test]
fn a_reader_gets_the_numbers_of_now() {
    let machine = Machine::new();
    assert_eq!(machine.free(), 156 << 10);
    machine.uses(200);
    // Nobody serves yet.
    assert_eq!(machine.free(), 156 << 10);
    let _server = machine.serve(&[]);
    assert_eq!(fs::read_to_string(machine.top.path().join("ready")).unwrap(), "readers");
    assert_eq!(machine.free(), 56 << 10);
    machine.uses(10);
    eventually("the next text", || machine.free() == 246 << 10);
    // A descriptor that was read before is asked about again.
    let mut file = fs::File::open(machine.view().join("meminfo")).unwrap();
    let mut again = || {
        use std::io::{Read, Seek};
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        number(&text, "MemFree:")
    };
    assert_eq!(again(), 246 << 10);
    machine.uses(20);
    eventually("the next text by the same descriptor", || again() == 236 << 10);
    // A limit that grew.
    machine.set("memory.max", &(512 * MIB).to_string());
    eventually("the new total", || machine.free() == 492 << 10);
}

#[test]
fn the_end_of_the_server_harms_no_reader() {
    let machine = Machine::new();
    let server = machine.serve(&[]);
    let (done, reads) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 3]);
    std::thread::scope(|scope| {
        for (name, count) in ["meminfo", "stat", "loadavg"].iter().zip(&reads) {
            let (path, done) = (machine.view().join(name), &done);
            scope.spawn(move || {
                let len = fs::read(&path).unwrap().len();
                while !done.load(Ordering::Relaxed) {
                    let text = fs::read_to_string(&path).unwrap();
                    assert!(text.ends_with('\n') && text.len() == len, "{name}: {text:?}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let more = |what: &str| {
            let before: Vec<_> = reads.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            eventually(what, || {
                reads.iter().zip(&before).all(|(now, before)| now.load(Ordering::Relaxed) > before + 200)
            });
        };
        more("reads while it serves");
        server.kill();
        more("reads after its end");
        // One that is re-adopted goes on where the first one was.
        let second = machine.serve(&[]);
        machine.uses(50);
        eventually("the numbers of now again", || machine.free() == 206 << 10);
        more("reads from the second one");
        second.kill();
        machine.uses(60);
        assert_eq!(machine.free(), 206 << 10);
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn where_readers_cannot_be_seen_the_clock_writes() {
    let machine = Machine::new();
    // Permission events are for the host's root alone.
    let _server = machine.serve(&["unshare", "--user", "--map-root-user"]);
    assert_eq!(fs::read_to_string(machine.top.path().join("ready")).unwrap(), "clock");
    machine.uses(200);
    eventually("the clock's text", || machine.free() == 56 << 10);
}

#[test]
fn programs_show_the_machine() {
    let machine = Machine::new();
    let _server = machine.serve(&[]);
    let free = machine.inside("free -m");
    assert_eq!(number(&free, "Mem:"), 256, "{free}");
    assert_eq!(number(&free, "Swap:"), 0, "{free}");
    let out = machine.inside("grep -c ^processor /proc/cpuinfo; getconf _NPROCESSORS_CONF");
    assert_eq!(out, "1\n1\n");
    let top = machine.inside("top -b -n 1 | head -5");
    assert!(top.contains("256.0 total"), "{top}");
    let vmstat = machine.inside("vmstat 1 2 | tail -1");
    let shares: Vec<u64> = vmstat.split_whitespace().skip(12).map(|word| word.parse().unwrap()).collect();
    // Nothing in the directory moves, so all of the time is idle.
    assert_eq!(shares[..3], [0, 0, 100], "{vmstat}");
    let python = machine.inside(
        "python3 -c 'import os; print([l.split()[1] for l in open(\"/proc/meminfo\")][0], os.getloadavg() and len(open(\"/proc/loadavg\").read().split()))'",
    );
    assert_eq!(python, "262144 5\n");
}

#[test]
fn a_change_of_limits_reaches_the_static_files() {
    let machine = Machine::new();
    assert_eq!(machine.inside("cat /sys/devices/system/cpu/online"), "0\n");
    let host = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let unlimited = Definition::parse("image = \"host\"\n", Path::new("test")).unwrap();
    let inode = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(machine.view().join(name)).unwrap().ino()
    };
    let before = (inode("online"), inode("cpuinfo"));
    visible::refresh_static(&machine.view(), &unlimited).unwrap();
    assert_eq!(machine.inside("cat /sys/devices/system/cpu/online"), host);
    assert_eq!((inode("online"), inode("cpuinfo")), before, "mounts are of the inode");
}
