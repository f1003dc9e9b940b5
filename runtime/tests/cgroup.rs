//! cgroup v2 on the real kernel, in the host lane.
//!
//! Each test runs itself again in a mount and network namespace of its own, mounts cgroup2 there
//! and works below one directory that it makes and removes. Needs root. Hosts that keep the
//! controllers on cgroup v1 offer few here; what needs more is tested in the VM lane.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use locule_runtime::cgroup::{
    self, Cgroup, Event, Extra, Limits, Location, Manager, Prepared, Purpose, Record, Request, plan,
};
use locule_runtime::spec::Resources;
use locule_runtime::{Error, Kind};
use nix::errno::Errno;
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);
const IN_LANE: &str = "LOCULE_TEST_IN_LANE";

/// A directory on a cgroup2 mount that stands for the mount; with everything in it removed at the end.
struct Lane {
    mount: PathBuf,
}

impl Lane {
    fn path(&self, path: &str, file: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/')).join(file)
    }

    fn read(&self, path: &str, file: &str) -> String {
        std::fs::read_to_string(self.path(path, file)).unwrap()
    }

    fn location(&self, path: &str) -> Location {
        let request =
            Request { id: "test", cgroups_path: Some(path), manager: Manager::Cgroupfs, rootless: false };
        Location::resolve(&request, cgroup::own).unwrap()
    }

    fn prepare(&self, path: &str, resources: &str) -> Result<Prepared, Error> {
        cgroup::prepare(
            &self.mount,
            &self.location(path),
            &limits(resources, Purpose::Create),
            &Extra::default(),
        )
    }

    /// A cgroup with its limits applied.
    fn create(&self, path: &str, resources: &str) -> Cgroup {
        let cgroup = self.prepare(path, resources).unwrap().attach(0).unwrap().unwrap();
        cgroup.apply(&limits(resources, Purpose::Create)).unwrap();
        cgroup
    }

    fn spawn(&self, cgroup: &Cgroup, script: &str) -> Workload {
        Workload::new(&self.path(&cgroup.path().display().to_string(), "cgroup.procs"), script)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let _ = std::fs::write(self.mount.join("cgroup.kill"), "1");
        let record =
            Record { manager: Manager::Cgroupfs, path: PathBuf::from("/"), unit: None, identity: None };
        if let Ok(Some(all)) = Cgroup::open(&self.mount, &record) {
            for path in walk(&self.mount) {
                let inner = Path::new("/").join(path.strip_prefix(&self.mount).unwrap());
                let record = Record { manager: Manager::Cgroupfs, path: inner, unit: None, identity: None };
                if let Ok(Some(one)) = Cgroup::open(&self.mount, &record) {
                    let _ = one.remove(true, LIMIT);
                }
            }
            drop(all);
        }
        let _ = std::fs::remove_dir(&self.mount);
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect()
}

/// Runs `body` in the lane: this process starts itself again there, for the test called `name`.
fn in_lane(name: &str, body: fn(&Lane)) {
    if std::env::var_os(IN_LANE).is_none() {
        assert!(nix::unistd::geteuid().is_root(), "the host lane needs root: run the tests as root");
        let status = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(IN_LANE, "1")
            .status()
            .expect("unshare(1) of util-linux starts");
        assert!(status.success(), "{name} failed in the lane, see above");
        return;
    }
    let none: Option<&str> = None;
    match nix::mount::mount(Some("none"), cgroup::MOUNT, Some("cgroup2"), nix::mount::MsFlags::empty(), none)
    {
        // EBUSY: the whole run is in the lane already.
        Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
        Err(errno) => panic!("mounting cgroup2 in the test's own namespace: {errno}"),
    }
    let mount = Path::new(cgroup::MOUNT).join(format!("locule-test-{}", std::process::id()));
    std::fs::create_dir(&mount).unwrap();
    body(&Lane { mount });
}

fn limits(resources: &str, purpose: Purpose) -> Limits {
    plan(&serde_json::from_str::<Resources>(resources).unwrap(), purpose).unwrap()
}

/// A shell in a cgroup that answers lines: each line given is run, its exit code comes back.
struct Workload {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Workload {
    /// `script` runs before the first line is read.
    fn new(procs: &Path, script: &str) -> Workload {
        let program = format!(
            "echo $$ > {} || exit 9\n{script}\necho ready\nwhile read -r line; do (eval \"$line\") 2>/dev/null; echo $?; done",
            procs.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut workload = Workload { child, input, output };
        assert_eq!(workload.line(), "ready");
        workload
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn run(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.line()
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn creates_only_what_is_missing_and_undoes_only_that() {
    in_lane("creates_only_what_is_missing_and_undoes_only_that", |lane| {
        std::fs::create_dir(lane.path("/kept", "")).unwrap();
        let cgroup = lane.create("/kept/a/b", "{}");
        assert!(lane.path("/kept/a/b", "cgroup.procs").exists());
        cgroup.undo(std::time::Duration::from_secs(10));
        assert!(!lane.path("/kept/a", "").exists());
        assert!(lane.path("/kept", "").exists());

        // One that was there before is left as it was.
        lane.create("/kept", "{}").undo(std::time::Duration::from_secs(10));
        assert!(lane.path("/kept", "").exists());

        // What is dropped before a process is in it leaves nothing either.
        let prepared = lane.prepare("/kept/c/d", "{}").unwrap();
        assert!(prepared.fd().is_some());
        drop(prepared);
        assert!(!lane.path("/kept/c", "").exists());

        // A limit that cannot be had undoes the directories.
        let err = lane.prepare("/kept/e/f", r#"{"unified":{"nonesuch.max":"1"}}"#).unwrap_err();
        assert!(err.to_string().contains("controller nonesuch does not exist"), "{err}");
        assert_eq!(err.kind(), Kind::Unsupported);
        assert!(!lane.path("/kept/e", "").exists());
    });
}

#[test]
fn refuses_a_cgroup_in_use() {
    in_lane("refuses_a_cgroup_in_use", |lane| {
        let first = lane.create("/used", "{}");
        // Empty and already there: an engine made it for the container.
        lane.create("/used", "{}");
        let workload = lane.spawn(&first, "");
        let err = lane.prepare("/used", "{}").unwrap_err();
        assert!(err.to_string().contains("container's cgroup is not empty"), "{err}");
        drop(workload);
        first.freeze(LIMIT).unwrap();
        for path in ["/used", "/used/below"] {
            let err = lane.prepare(path, "{}").unwrap_err();
            assert!(err.to_string().contains("unexpectedly frozen"), "{err}");
        }
        first.thaw(LIMIT).unwrap();
        first.remove(false, LIMIT).unwrap();
    });
}

#[test]
fn clones_into_the_prepared_cgroup_by_descriptor() {
    in_lane("clones_into_the_prepared_cgroup_by_descriptor", |lane| {
        let prepared = lane.prepare("/clone", "{}").unwrap();
        let fd = prepared.fd().unwrap().try_clone_to_owned().unwrap();
        // Writing to its cgroup.procs takes the same checks as CLONE_INTO_CGROUP.
        let procs = PathBuf::from(format!("/proc/{}/fd/{}/cgroup.procs", std::process::id(), fd_number(&fd)));
        let workload = Workload::new(&procs, "");
        let cgroup = prepared.attach(workload.pid()).unwrap().unwrap();
        assert_eq!(cgroup.pids(false).unwrap(), [workload.pid()]);
        assert!(!cgroup.is_empty().unwrap());
    });
}

fn fd_number(fd: &impl AsFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd())
}

#[test]
fn processes_above_forbid_controllers_and_the_error_says_so() {
    in_lane("processes_above_forbid_controllers_and_the_error_says_so", |lane| {
        if !lane.read("/", "cgroup.controllers").contains("hugetlb") {
            eprintln!("no controller here to share out: nothing to test");
            return;
        }
        let above = lane.create("/above", "{}");
        let workload = lane.spawn(&above, "");
        let limit = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#;
        let err = lane.prepare("/above/c", limit).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::EBUSY));
        assert!(err.to_string().contains("/above has processes of its own"), "{err}");
        // Without limits there is no need for the controller.
        lane.create("/above/c", "{}");
        drop(workload);
        let cgroup = lane.create("/above/c", limit);
        assert_eq!(lane.read("/above/c", "hugetlb.2MB.max").trim(), "0");
        assert_eq!(lane.read("/above/c", "hugetlb.2MB.rsvd.max").trim(), "0");
        let update = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
        cgroup.update(&limits(update, Purpose::Update)).unwrap();
        assert_eq!(lane.read("/above/c", "hugetlb.2MB.max").trim(), "4194304");
        let stats = serde_json::to_value(cgroup.stats().unwrap()).unwrap();
        assert_eq!(stats["hugetlb"]["2MB"]["failcnt"], 0, "{stats}");
    });
}

#[test]
fn writes_name_file_value_and_controller_when_refused() {
    in_lane("writes_name_file_value_and_controller_when_refused", |lane| {
        let cgroup = lane.create("/writes", r#"{"unified":{"cgroup.max.depth":"7"}}"#);
        assert_eq!(lane.read("/writes", "cgroup.max.depth").trim(), "7");
        let update = limits(r#"{"pids":{"limit":3}}"#, Purpose::Update);
        if lane.read("/writes", "cgroup.controllers").contains("pids") {
            cgroup.update(&update).unwrap();
            assert_eq!(lane.read("/writes", "pids.max").trim(), "3");
        } else {
            let err = cgroup.update(&update).unwrap_err().to_string();
            assert!(err.contains("writing \"3\" to pids.max of cgroup /writes"), "{err}");
            assert!(err.contains("the controller pids is not enabled"), "{err}");
        }
        let bad = limits(r#"{"unified":{"cgroup.max.depth":"many"}}"#, Purpose::Update);
        let err = cgroup.update(&bad).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::EINVAL));
    });
}

const KMSG: &str = "mknod \"$dir/kmsg\" c 1 11";
const READ_KMSG: &str = "exec 3<\"$dir/kmsg\"";

#[test]
fn device_rules_deny_and_update_allows() {
    in_lane("device_rules_deny_and_update_allows", |lane| {
        let cgroup = lane.create("/devices", r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
        let dir = format!("/dev/shm/locule-test-{}", std::process::id());
        std::fs::create_dir(&dir).unwrap();
        let mut workload = lane.spawn(&cgroup, &format!("dir={dir}"));
        // Making nodes is allowed, using them is not.
        assert_eq!(workload.run(KMSG), "0");
        assert_ne!(workload.run(READ_KMSG), "0");
        for allowed in ["null", "zero", "full", "random", "urandom"] {
            assert_eq!(workload.run(&format!("exec 3<>/dev/{allowed}")), "0", "{allowed}");
        }
        let update = |rules: &str| {
            let resources = format!("{{\"devices\":[{rules}]}}");
            cgroup.update(&limits(&resources, Purpose::Update)).unwrap();
        };
        let read = r#"{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}"#;
        update(read);
        assert_eq!(workload.run(READ_KMSG), "0");
        assert_ne!(workload.run("exec 3>>\"$dir/kmsg\""), "0");
        assert_ne!(workload.run("exec 3<>\"$dir/kmsg\""), "0");
        update(r#"{"allow":false}"#);
        assert_ne!(workload.run(READ_KMSG), "0");
        // More rules than the table of the first program has room for: a new program in its place.
        let many: Vec<String> = (20..60)
            .map(|major| format!(r#"{{"allow":true,"type":"c","major":{major},"access":"r"}}"#))
            .collect();
        update(&format!("{read},{}", many.join(",")));
        assert_eq!(workload.run(READ_KMSG), "0");
        update(r#"{"allow":false}"#);
        assert_ne!(workload.run(READ_KMSG), "0");
        // Everything allowed needs no program; from nothing one is made again.
        update(r#"{"allow":true}"#);
        assert_eq!(workload.run("exec 3<>\"$dir/kmsg\""), "0");
        update(r#"{"allow":true},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}"#);
        assert_eq!(workload.run(READ_KMSG), "0");
        assert_ne!(workload.run("exec 3<>\"$dir/kmsg\""), "0");
        drop(workload);
        std::fs::remove_dir_all(&dir).unwrap();
        cgroup.remove(false, LIMIT).unwrap();
    });
}

#[test]
fn device_rules_change_without_a_gap() {
    in_lane("device_rules_change_without_a_gap", |lane| {
        let rule =
            |minor: u32| format!(r#"{{"allow":true,"type":"c","major":1,"minor":{minor},"access":"r"}}"#);
        let both = |other: u32| format!("{{\"devices\":[{},{}]}}", rule(11), rule(other));
        let cgroup = lane.create("/gap", &both(100));
        let dir = format!("/dev/shm/locule-test-{}", std::process::id());
        std::fs::create_dir(&dir).unwrap();
        let mut workload = lane.spawn(&cgroup, &format!("dir={dir}; {KMSG}"));
        // Opens the device again and again while rules around it change; one refusal ends it.
        let looping = "while [ ! -e \"$dir/stop\" ]; do : <\"$dir/kmsg\" || exit 1; done";
        writeln!(workload.input, "{looping}").unwrap();
        for round in 0..200 {
            cgroup.update(&limits(&both(100 + round % 2), Purpose::Update)).unwrap();
        }
        std::fs::write(format!("{dir}/stop"), "").unwrap();
        assert_eq!(workload.line(), "0");
        drop(workload);
        std::fs::remove_dir_all(&dir).unwrap();
    });
}

#[test]
fn freezing_waits_and_thawing_lets_run() {
    in_lane("freezing_waits_and_thawing_lets_run", |lane| {
        let cgroup = lane.create("/freeze", "{}");
        let mut workload = lane.spawn(&cgroup, "");
        assert!(!cgroup.is_frozen().unwrap());
        cgroup.freeze(LIMIT).unwrap();
        assert!(cgroup.is_frozen().unwrap());
        assert_eq!(lane.read("/freeze", "cgroup.freeze").trim(), "1");
        cgroup.freeze(LIMIT).unwrap();
        // Frozen or not, a signal is sent, and the cgroup stays as it was.
        cgroup.kill_all(Signal::SIGCONT).unwrap();
        assert!(cgroup.is_frozen().unwrap());
        cgroup.thaw(LIMIT).unwrap();
        assert_eq!(workload.run("true"), "0");
    });
}

#[test]
fn a_frozen_parent_is_named_when_thawing_is_in_vain() {
    in_lane("a_frozen_parent_is_named_when_thawing_is_in_vain", |lane| {
        let above = lane.create("/outer", "{}");
        let cgroup = lane.create("/outer/inner", "{}");
        let _workload = lane.spawn(&cgroup, "");
        above.freeze(LIMIT).unwrap();
        let err = cgroup.thaw(Duration::from_millis(50)).unwrap_err();
        assert!(err.to_string().contains("a cgroup above it is frozen"), "{err}");
        above.thaw(LIMIT).unwrap();
        cgroup.thaw(LIMIT).unwrap();
    });
}

#[test]
fn a_process_that_cannot_freeze_is_let_run_again() {
    in_lane("a_process_that_cannot_freeze_is_let_run_again", |lane| {
        let cgroup = lane.create("/stuck", "{}");
        // A writer on a frozen file system waits in the kernel and hears no signal.
        let disk = Disk::mount("/dev/shm");
        disk.freeze("-f");
        let mut workload = lane.spawn(&cgroup, &format!("(: >{}/file) & ", disk.dir.display()));
        let stat = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let waits = || cgroup.pids(true).unwrap().into_iter().any(|pid| stat(pid).contains(") D "));
        let started = Instant::now();
        while !waits() && started.elapsed() < LIMIT {
            std::thread::yield_now();
        }
        let err = cgroup.freeze(Duration::from_millis(100)).unwrap_err();
        assert!(err.to_string().contains("not frozen after 100ms"), "{err}");
        assert_eq!(lane.read("/stuck", "cgroup.freeze").trim(), "0");
        assert_eq!(workload.run("true"), "0");
        disk.freeze("-u");
        cgroup.freeze(LIMIT).unwrap();
        cgroup.thaw(LIMIT).unwrap();
        drop(workload);
        cgroup.remove(true, LIMIT).unwrap();
    });
}

/// A small ext4 file system in a file, mounted for as long as this lives.
struct Disk {
    dir: PathBuf,
}

impl Disk {
    fn mount(parent: &str) -> Disk {
        let dir = Path::new(parent).join(format!("locule-test-disk-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let image = dir.with_extension("img");
        std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        command("mkfs.ext4", &["-q", image.to_str().unwrap()]);
        command("mount", &["-o", "loop", image.to_str().unwrap(), dir.to_str().unwrap()]);
        Disk { dir }
    }

    fn freeze(&self, how: &str) {
        command("fsfreeze", &[how, self.dir.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let dir = self.dir.to_str().unwrap().to_owned();
        let _ = Command::new("fsfreeze").args(["-u", &dir]).stderr(Stdio::null()).status();
        let _ = Command::new("umount").arg(&dir).status();
        let _ = std::fs::remove_dir(&self.dir);
        let _ = std::fs::remove_file(self.dir.with_extension("img"));
    }
}

fn command(program: &str, args: &[&str]) {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let status = Command::new(program).args(args).env("PATH", path).status();
    assert!(status.unwrap_or_else(|err| panic!("{program}: {err}")).success(), "{program} {args:?}");
}

#[test]
fn signals_reach_every_process_below() {
    in_lane("signals_reach_every_process_below", |lane| {
        let cgroup = lane.create("/kill", "{}");
        // Made without controllers, which a cgroup with processes cannot share out.
        std::fs::create_dir(lane.path("/kill/below", "")).unwrap();
        let record = Record { path: PathBuf::from("/kill/below"), ..cgroup.record().clone() };
        let below = Cgroup::open(&lane.mount, &record).unwrap().unwrap();
        let mut first = lane.spawn(&cgroup, "trap 'exit 7' TERM");
        let mut second = lane.spawn(&below, "trap 'exit 8' TERM");
        let mut pids = cgroup.pids(true).unwrap();
        pids.sort_unstable();
        let mut wanted = [first.pid(), second.pid()];
        wanted.sort_unstable();
        assert_eq!(pids, wanted);
        assert_eq!(cgroup.pids(false).unwrap(), [first.pid()]);
        cgroup.kill_all(Signal::SIGTERM).unwrap();
        assert_eq!(first.child.wait().unwrap().code(), Some(7));
        assert_eq!(second.child.wait().unwrap().code(), Some(8));

        let mut third = lane.spawn(&below, "trap '' TERM; sleep 1000 &");
        cgroup.kill_all(Signal::SIGKILL).unwrap();
        assert!(!third.child.wait().unwrap().success());
        cgroup.remove(false, LIMIT).unwrap();
        assert!(!lane.path("/kill", "").exists());
    });
}

#[test]
fn removing_kills_only_when_told_and_is_repeatable() {
    in_lane("removing_kills_only_when_told_and_is_repeatable", |lane| {
        let cgroup = lane.create("/gone", "{}");
        std::fs::create_dir_all(lane.path("/gone/x/y", "")).unwrap();
        let mut workload = lane.spawn(&cgroup, "");
        let err = cgroup.remove(false, Duration::from_millis(50)).unwrap_err();
        assert!(err.to_string().contains(&format!("pid {}", workload.pid())), "{err}");
        assert_eq!(workload.run("true"), "0");
        cgroup.remove(true, LIMIT).unwrap();
        assert!(!lane.path("/gone", "").exists());
        cgroup.remove(true, LIMIT).unwrap();
        assert!(cgroup.is_empty().unwrap());
        assert!(cgroup.pids(true).unwrap().is_empty());
        cgroup.kill_all(Signal::SIGKILL).unwrap();
        assert!(Cgroup::open(&lane.mount, cgroup.record()).unwrap().is_none());
    });
}

#[test]
fn a_record_finds_the_cgroup_again() {
    in_lane("a_record_finds_the_cgroup_again", |lane| {
        let cgroup = lane.create("/again", "{}");
        let json = serde_json::to_string(cgroup.record()).unwrap();
        assert_eq!(json, r#"{"manager":"cgroupfs","path":"/again"}"#);
        let record: Record = serde_json::from_str(&json).unwrap();
        let workload = lane.spawn(&cgroup, "");
        let again = Cgroup::open(&lane.mount, &record).unwrap().unwrap();
        assert_eq!(again.pids(false).unwrap(), [workload.pid()]);
        let disabled =
            Record { manager: Manager::Disabled, path: PathBuf::from("/"), unit: None, identity: None };
        assert!(Cgroup::open(&lane.mount, &disabled).unwrap().is_none());
    });
}

#[test]
fn statistics_count_what_runs() {
    in_lane("statistics_count_what_runs", |lane| {
        let cgroup = lane.create("/stats", "{}");
        let mut workload = lane.spawn(&cgroup, "");
        assert_eq!(workload.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"), "0");
        let stats = cgroup.stats().unwrap();
        assert!(stats.cpu.usage.total > 0);
        assert_eq!(stats.pids.current, 1);
        let json = serde_json::to_value(&stats).unwrap();
        assert!(json["cpu"]["usage"]["user"].is_number(), "{json}");
    });
}

#[test]
fn a_watch_ends_with_the_last_process() {
    in_lane("a_watch_ends_with_the_last_process", |lane| {
        let cgroup = lane.create("/watch", "{}");
        let workload = lane.spawn(&cgroup, "");
        let mut watch = cgroup.watch().unwrap();
        assert_eq!(watch.next(Duration::from_millis(20)).unwrap(), Event::TimedOut);
        let ender = std::thread::spawn(move || drop(workload));
        assert_eq!(watch.next(LIMIT).unwrap(), Event::Empty);
        ender.join().unwrap();
        cgroup.remove(false, LIMIT).unwrap();
        assert_eq!(watch.next(LIMIT).unwrap(), Event::Empty);
        assert_eq!(cgroup.memory_events().unwrap().oom_kill, 0);
    });
}

#[test]
fn exec_follows_an_init_that_moved() {
    in_lane("exec_follows_an_init_that_moved", |lane| {
        let cgroup = lane.create("/moved", "{}");
        // Without a cgroup below there is nowhere to move to: init, here none, is not asked where it is.
        assert_eq!(inode(&cgroup.exec_fd(None, i32::MAX).unwrap()), inode(&cgroup));
        for inner in ["/moved/inner", "/moved/init.scope"] {
            std::fs::create_dir(lane.path(inner, "")).unwrap();
        }
        let workload = lane.spawn(&cgroup, "");
        let fd = cgroup.exec_fd(None, workload.pid()).unwrap();
        assert_eq!(inode(&fd), inode(&cgroup));
        // Paths in /proc/PID/cgroup begin at the real mount, the record's at the test's directory.
        let record = Record {
            manager: Manager::Cgroupfs,
            path: Path::new("/").join(lane.mount.strip_prefix(cgroup::MOUNT).unwrap()).join("moved"),
            unit: None,
            identity: None,
        };
        let cgroup = Cgroup::open(Path::new(cgroup::MOUNT), &record).unwrap().unwrap();
        let moved = |to: &str| {
            std::fs::write(lane.path(to, "cgroup.procs"), workload.pid().to_string()).unwrap();
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(lane.path(to, "")).unwrap())
        };
        // systemd is about to share out controllers: nobody comes between.
        let scope = moved("/moved/init.scope");
        assert_eq!(inode(&cgroup.exec_fd(None, workload.pid()).unwrap()), scope);
        // Another takes processes as long as it shares out none.
        let inner = moved("/moved/inner");
        assert_eq!(inode(&cgroup.exec_fd(None, workload.pid()).unwrap()), inode(&cgroup));
        let named = cgroup.exec_fd(Some(Path::new("/init.scope")), workload.pid()).unwrap();
        assert_eq!(inode(&named), scope);
        // Where this host gives it a controller; in the virtual machine, systemd does this in a container.
        let controllers = std::fs::read_to_string(lane.path("/moved", "cgroup.controllers")).unwrap();
        if let Some(controller) = controllers.split_whitespace().next() {
            std::fs::write(lane.path("/moved", "cgroup.subtree_control"), format!("+{controller}")).unwrap();
            assert_eq!(inode(&cgroup.exec_fd(None, workload.pid()).unwrap()), inner);
        }
        assert!(cgroup.exec_fd(None, i32::MAX).is_err());
        for escape in ["../x", "/..", "a/../.."] {
            assert!(cgroup.exec_fd(Some(Path::new(escape)), workload.pid()).is_err(), "{escape}");
        }
    });
}

fn inode(fd: &impl AsFd) -> u64 {
    nix::sys::stat::fstat(fd.as_fd()).unwrap().st_ino
}

#[test]
fn delegation_changes_the_owner() {
    in_lane("delegation_changes_the_owner", |lane| {
        let cgroup = lane.create("/owned", "{}");
        cgroup.chown(4242, Some(4343)).unwrap();
        let owner = |file: &str| {
            let meta = std::fs::metadata(lane.path("/owned", file)).unwrap();
            (std::os::unix::fs::MetadataExt::uid(&meta), std::os::unix::fs::MetadataExt::gid(&meta))
        };
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            assert_eq!(owner(file), (4242, 4343), "{file}");
        }
        assert_eq!(owner("cgroup.freeze"), (0, 0));
    });
}

#[test]
fn a_host_without_pure_cgroup_v2_is_told() {
    let location = Location::resolve(
        &Request { id: "x", cgroups_path: Some("/x"), manager: Manager::Cgroupfs, rootless: false },
        cgroup::own,
    )
    .unwrap();
    let err =
        cgroup::prepare(Path::new("/tmp"), &location, &Limits::default(), &Extra::default()).unwrap_err();
    assert!(err.to_string().contains("/tmp is not a cgroup v2 mount"), "{err}");
    assert!(err.to_string().contains("--cgroup-manager=disabled"), "{err}");
    let disabled = Location { manager: Manager::Disabled, ..location };
    let prepared =
        cgroup::prepare(Path::new("/tmp"), &disabled, &Limits::default(), &Extra::default()).unwrap();
    assert!(prepared.fd().is_none());
    assert!(prepared.attach(1).unwrap().is_none());
}
