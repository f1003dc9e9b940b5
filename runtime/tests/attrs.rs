//! The attributes of a process against the real kernel, as root.
//!
//! Each test runs its body in a fresh process of this very binary, inside the namespaces that it
//! names, and asks the kernel what came of it. Nothing of the host is changed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use locule_runtime::attrs::*;
use locule_runtime::procfs::{Base, Proc};
use locule_runtime::spec;
use locule_runtime::sys;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

const STAGE: &str = "LOCULE_ATTRS_STAGE";

/// Runs `body` in a new process of this binary, started by `prefix` (an `unshare` command line).
fn fresh(test: &str, prefix: &[&str], body: fn()) {
    if std::env::var(STAGE).is_ok_and(|stage| stage == test) {
        return body();
    }
    assert!(nix::unistd::geteuid().is_root(), "this lane runs as root");
    let exe = std::env::current_exe().unwrap();
    let mut line: Vec<&std::ffi::OsStr> = prefix.iter().map(|word| word.as_ref()).collect();
    line.push(exe.as_os_str());
    let output = Command::new(line[0])
        .args(&line[1..])
        .args([test, "--exact", "--test-threads=1", "--nocapture"])
        .env(STAGE, test)
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "the body did not run: {text}");
}

fn proc_root() -> Proc {
    proc_at("/proc")
}

fn proc_at(path: impl AsRef<std::path::Path>) -> Proc {
    Proc::over(File::open(path).unwrap().into()).unwrap()
}

/// A field of the calling thread's status.
fn status(field: &str) -> String {
    field_of(&fs::read_to_string("/proc/thread-self/status").unwrap(), field)
}

fn field_of(text: &str, field: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A process in namespaces of its own that says `ready`, waits for a line, then runs `script`.
struct Waiting(Child, BufReader<std::process::ChildStdout>);

impl Waiting {
    fn start(unshare: &[&str], script: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(unshare)
            .args(["sh", "-c", &format!("echo ready; read line; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Waiting(child, stdout)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn finish(mut self) -> String {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut text = String::new();
        self.1.read_to_string(&mut text).unwrap();
        assert!(self.0.wait().unwrap().success(), "{text}");
        text
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| String::from(*name)).collect()
}

/// Gives up a capability for the rest of the process, as some machines lack it anyway.
fn give_up(number: u32) {
    let mut sets = sys::caps::get().unwrap();
    sets.effective &= !(1 << number);
    sets.permitted &= !(1 << number);
    sys::caps::set(sets).unwrap();
}

const KILL: u32 = 5;
const SYS_RESOURCE: u32 = 24;

#[test]
fn capabilities_of_another_user() {
    fresh("capabilities_of_another_user", &["env"], || {
        let spec = spec::Capabilities {
            bounding: strings(&["CAP_KILL", "CAP_CHOWN"]),
            effective: strings(&["CAP_KILL"]),
            permitted: strings(&["CAP_KILL", "CAP_CHOWN"]),
            inheritable: strings(&["CAP_KILL"]),
            ambient: strings(&["CAP_KILL"]),
        };
        let (plan, warnings) = caps::plan(Some(&spec)).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let user = spec::User { uid: 1000, gid: 1001, umask: Some(0o027), additional_gids: vec![7, 9] };
        plan.before_setuid(user.uid).unwrap();
        user::plan(&user).unwrap().apply(&proc_root()).unwrap();
        plan.after_setuid(false).unwrap();
        assert_eq!(status("Uid"), "1000 1000 1000 1000");
        assert_eq!(status("Gid"), "1001 1001 1001 1001");
        assert_eq!(status("Groups"), "7 9");
        assert_eq!(status("Umask"), "0027");
        assert_eq!(status("CapBnd"), "0000000000000021");
        assert_eq!(status("CapPrm"), "0000000000000021");
        assert_eq!(status("CapEff"), "0000000000000020");
        assert_eq!(status("CapInh"), "0000000000000020");
        assert_eq!(status("CapAmb"), "0000000000000020");
        // What a workload sees: the ambient one alone survives the exec of a plain file.
        let after = run("cat", &["/proc/self/status"]);
        assert_eq!(field_of(&after, "CapEff"), "0000000000000020");
        assert_eq!(field_of(&after, "CapPrm"), "0000000000000020");
    });
}

#[test]
fn capabilities_of_root() {
    fresh("capabilities_of_root", &["env"], || {
        let mut spec = None;
        caps::exec_add(&mut spec, &strings(&["CAP_KILL"]));
        let (plan, _) = caps::plan(spec.as_ref()).unwrap();
        plan.before_setuid(0).unwrap();
        plan.after_setuid(false).unwrap();
        let after = run("cat", &["/proc/self/status"]);
        assert_eq!(field_of(&after, "CapEff"), "0000000000000020");
        assert_eq!(field_of(&after, "CapBnd"), "0000000000000020", "nothing may stay, however new");
        assert_eq!(field_of(&after, "CapInh"), "0000000000000000", "CVE-2022-29162");
        assert_eq!(field_of(&after, "CapAmb"), "0000000000000000");
    });
}

/// What of CAP_SYS_ADMIN, kept for the seccomp filter, is left to a workload of user `uid`.
fn admin_after_exec(uid: u32) -> String {
    let mut spec = None;
    caps::exec_add(&mut spec, &strings(&["CAP_KILL", "CAP_CHOWN"]));
    let (plan, _) = caps::plan(spec.as_ref()).unwrap();
    plan.before_setuid(uid).unwrap();
    user::plan(&spec::User { uid, ..spec::User::default() }).unwrap().apply(&proc_root()).unwrap();
    plan.after_setuid(true).unwrap();
    assert_eq!(status("CapEff"), "0000000000200021");
    let after = run("cat", &["/proc/self/status"]);
    assert_eq!(field_of(&after, "CapPrm"), field_of(&after, "CapEff"));
    field_of(&after, "CapEff").to_owned()
}

#[test]
fn admin_for_the_filter_ends_with_exec() {
    fresh("admin_for_the_filter_ends_with_exec", &["env"], || {
        assert_eq!(admin_after_exec(0), "0000000000000021");
    });
}

#[test]
fn admin_for_the_filter_ends_with_exec_of_a_user() {
    fresh("admin_for_the_filter_ends_with_exec_of_a_user", &["env"], || {
        assert_eq!(admin_after_exec(1000), "0000000000000000");
    });
}

#[test]
fn capabilities_that_the_runtime_lacks() {
    fresh("capabilities_that_the_runtime_lacks", &["env"], || {
        give_up(KILL);
        let mut spec = None;
        caps::exec_add(&mut spec, &strings(&["CAP_KILL", "CAP_CHOWN"]));
        let (plan, _) = caps::plan(spec.as_ref()).unwrap();
        plan.before_setuid(0).unwrap();
        let err = plan.after_setuid(false).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::EPERM));
        assert!(err.to_string().starts_with("setting capabilities CAP_KILL: "), "{err}");
    });
}

#[test]
fn standard_streams_change_owner() {
    fresh("standard_streams_change_owner", &["env"], || {
        let null = fs::metadata("/dev/null").unwrap();
        user::own_stdio(1000).unwrap();
        assert_eq!(nix::sys::stat::fstat(std::io::stdout()).unwrap().st_uid, 1000, "a pipe");
        assert_eq!(nix::sys::stat::fstat(std::io::stdin()).unwrap().st_rdev, nix::sys::stat::makedev(1, 3));
        assert_eq!(fs::metadata("/dev/null").unwrap().uid(), null.uid(), "the host's device stays its own");
    });
}

#[test]
fn groups_where_setgroups_is_denied() {
    let prefix = ["unshare", "--user", "--map-root-user"];
    fresh("groups_where_setgroups_is_denied", &prefix, || {
        let user = |uid, groups: &[u32]| {
            let spec = spec::User { uid, additional_gids: groups.to_vec(), ..spec::User::default() };
            user::plan(&spec).unwrap().apply(&proc_root())
        };
        user(0, &[]).unwrap();
        let err = user(0, &[0]).unwrap_err().to_string();
        assert!(err.starts_with("setting process.user.additionalGids: "), "{err}");
        let err = user(5, &[]).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::EINVAL));
        assert!(err.to_string().ends_with("map it in linux.uidMappings"), "{err}");
    });
}

#[test]
fn resource_limits() {
    fresh("resource_limits", &["env"], || {
        give_up(SYS_RESOURCE);
        let limit = |kind: &str, soft, hard| spec::Rlimit { kind: kind.into(), soft, hard };
        let apply = |limits: &[spec::Rlimit]| rlimits::apply(&rlimits::plan(limits).unwrap(), 0);
        apply(&[limit("RLIMIT_NOFILE", 123, 456), limit("RLIMIT_RTTIME", 7, u64::MAX)]).unwrap();
        assert_eq!(sys::prctl::rlimit(0, libc::RLIMIT_NOFILE).unwrap(), (123, 456));
        assert_eq!(sys::prctl::rlimit(0, libc::RLIMIT_RTTIME).unwrap(), (7, u64::MAX));
        let err = apply(&[limit("RLIMIT_NOFILE", 1, 457)]).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::EPERM));
        assert!(err.to_string().starts_with("setting RLIMIT_NOFILE to 1:457: "), "{err}");
    });
}

#[test]
fn scheduling() {
    fresh("scheduling", &["env"], || {
        let plan = |policy: &str, change: &dyn Fn(&mut spec::Scheduler)| {
            let mut spec = spec::Scheduler { policy: policy.into(), ..spec::Scheduler::default() };
            change(&mut spec);
            sched::plan(Some(&spec)).unwrap().unwrap()
        };
        plan("SCHED_BATCH", &|spec| spec.nice = 5).apply().unwrap();
        let attr = sys::sched::get_attr().unwrap();
        assert_eq!((attr.policy, attr.nice), (3, 5));
        plan("SCHED_RR", &|spec| {
            spec.priority = 3;
            spec.flags = strings(&["SCHED_FLAG_RESET_ON_FORK"]);
        })
        .apply()
        .unwrap();
        let attr = sys::sched::get_attr().unwrap();
        assert_eq!((attr.policy, attr.priority, attr.flags), (2, 3, 1));
        plan("SCHED_DEADLINE", &|spec| {
            (spec.runtime, spec.deadline, spec.period) = (1_000_000, 20_000_000, 40_000_000);
        })
        .apply()
        .unwrap();
        let attr = sys::sched::get_attr().unwrap();
        assert_eq!(
            (attr.policy, attr.runtime, attr.deadline, attr.period),
            (6, 1_000_000, 20_000_000, 40_000_000)
        );
        plan("SCHED_IDLE", &|_| {}).apply().unwrap();
        assert_eq!(sys::sched::get_attr().unwrap().policy, 5);

        let io = spec::IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 6 };
        sched::plan_io(Some(&io)).unwrap().unwrap().apply().unwrap();
        assert_eq!(sys::sched::io_priority().unwrap(), 2 << 13 | 6);

        let persona = spec::Personality { domain: "LINUX32".into(), flags: vec![] };
        sched::plan_personality(Some(&persona)).unwrap().0.unwrap().apply().unwrap();
        assert_eq!(sys::prctl::current_personality().unwrap(), 8);
        assert!(!run("uname", &["-m"]).contains("64"));
    });
}

#[test]
fn cpu_affinity() {
    fresh("cpu_affinity", &["env"], || {
        sched::reset_affinity(0).unwrap();
        let all = sys::sched::affinity(0).unwrap();
        let first = all.iter().enumerate().find(|(_, word)| **word != 0).unwrap();
        let cpu = first.0 * 64 + first.1.trailing_zeros() as usize;
        let spec = spec::ExecCpuAffinity { initial: Some(cpu.to_string()), last: None };
        let plan = sched::plan_exec_affinity(Some(&spec)).unwrap();
        plan.initial.unwrap().apply(0).unwrap();
        let bits = |mask: &[u64]| mask.iter().map(|word| word.count_ones()).sum::<u32>();
        assert_eq!(bits(&sys::sched::affinity(0).unwrap()), 1);
        sched::reset_affinity(0).unwrap();
        assert_eq!(sys::sched::affinity(0).unwrap(), all);
        let nowhere = spec::ExecCpuAffinity { initial: None, last: Some("8190".into()) };
        let err = sched::plan_exec_affinity(Some(&nowhere)).unwrap().last.unwrap().apply(0).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::EINVAL));
    });
}

#[test]
fn numa_memory_policy() {
    fresh("numa_memory_policy", &["env"], || {
        let apply = |mode: &str, nodes: &str, flags: &[&str]| {
            let spec = spec::MemoryPolicy { mode: mode.into(), nodes: nodes.into(), flags: strings(flags) };
            memory_policy::plan(Some(&spec)).unwrap().unwrap().apply()
        };
        apply("MPOL_BIND", "0", &["MPOL_F_STATIC_NODES"]).unwrap();
        let (mode, nodes) = sys::sched::memory_policy().unwrap();
        assert_eq!((mode, nodes[0]), (2 | 1 << 15, 1));
        for (mode, nodes, number) in
            [("MPOL_INTERLEAVE", "0", 3), ("MPOL_PREFERRED_MANY", "0", 5), ("MPOL_LOCAL", "", 4)]
        {
            apply(mode, nodes, &[]).unwrap();
            assert_eq!(sys::sched::memory_policy().unwrap().0, number, "{mode}");
        }
        apply("MPOL_DEFAULT", "", &[]).unwrap();
        assert_eq!(sys::sched::memory_policy().unwrap().0, 0);
        assert_eq!(apply("MPOL_BIND", "1023", &[]).unwrap_err().errno(), Some(Errno::EINVAL));
    });
}

#[test]
fn oom_score() {
    fresh("oom_score", &["env"], || {
        give_up(SYS_RESOURCE);
        let apply = |score| oom::plan(Some(score)).unwrap().unwrap().apply(&proc_root(), Base::Own);
        apply(501).unwrap();
        assert_eq!(fs::read_to_string("/proc/self/oom_score_adj").unwrap(), "501\n");
        let err = apply(-1000).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::EACCES));
        assert!(err.to_string().starts_with("setting oom_score_adj to -1000, from 501: "), "{err}");
    });
}

#[test]
fn fakes_over_proc_are_not_written() {
    let prefix = ["unshare", "--mount", "--propagation", "private"];
    fresh("fakes_over_proc_are_not_written", &prefix, || {
        // CVE-2025-52881: another procfs file over the one that the runtime writes.
        let none: Option<&str> = None;
        let before = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let clean = tempdir();
        mount(Some("proc"), clean.as_str(), Some("proc"), MsFlags::empty(), none).unwrap();
        mount(Some("/proc/self/comm"), "/proc/self/oom_score_adj", none, MsFlags::MS_BIND, none).unwrap();
        let apply = |root: &str| oom::plan(Some(700)).unwrap().unwrap().apply(&proc_at(root), Base::Own);
        assert_eq!(apply("/proc").unwrap_err().errno(), Some(Errno::EXDEV));
        assert_eq!(proc_at(&clean).read(Base::Own, "oom_score_adj").unwrap(), before);
        apply(&clean).unwrap();
        assert_eq!(proc_at(&clean).read(Base::Own, "oom_score_adj").unwrap(), "700\n");
        // CVE-2019-16884: a whole fake /proc.
        let fake = tempdir();
        mount(Some("tmpfs"), fake.as_str(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::create_dir_all(format!("{fake}/self")).unwrap();
        fs::write(format!("{fake}/self/oom_score_adj"), "").unwrap();
        assert!(Proc::over(File::open(&fake).unwrap().into()).is_err());
        assert_eq!(fs::read_to_string(format!("{fake}/self/oom_score_adj")).unwrap(), "");
        for dir in [fake, clean] {
            nix::mount::umount(dir.as_str()).unwrap();
            fs::remove_dir(&dir).unwrap();
        }
    });
}

fn tempdir() -> String {
    let dir = std::env::temp_dir().join("locule-attrs-XXXXXX");
    nix::unistd::mkdtemp(&dir).unwrap().into_os_string().into_string().unwrap()
}

#[test]
fn sysctls() {
    fresh("sysctls", &["unshare", "--net", "--ipc", "--uts", "--user", "--map-root-user"], || {
        let own = sysctl::Namespaces { ipc: true, net: true, uts: true, user: true };
        let wanted = [
            ("net.ipv4.ip_forward", "1", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/lo/rp_filter", "2", "net/ipv4/conf/lo/rp_filter"),
            ("kernel.shmmni", "123", "kernel/shmmni"),
            ("fs.mqueue.msg_max", "11", "fs/mqueue/msg_max"),
            ("kernel.domainname", "example.org", "kernel/domainname"),
            ("user.max_inotify_watches", "77", "user/max_inotify_watches"),
        ];
        let map = BTreeMap::from(wanted.map(|(key, value, _)| (key.to_owned(), value.to_owned())));
        sysctl::apply(&sysctl::plan(&map, own).unwrap(), &proc_root()).unwrap();
        for (_, value, path) in wanted {
            assert_eq!(fs::read_to_string(format!("/proc/sys/{path}")).unwrap().trim(), value, "{path}");
        }
        let apply = |key: &str, value: &str| {
            let map = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            sysctl::apply(&sysctl::plan(&map, own).unwrap(), &proc_root()).unwrap_err()
        };
        assert_eq!(apply("net.ipv4.no_such_thing", "1").errno(), Some(Errno::ENOENT));
        assert_eq!(apply("kernel.shmmni", "many").errno(), Some(Errno::EINVAL));
    });
}

#[test]
fn network_devices() {
    fresh("network_devices", &["unshare", "--net"], || {
        netdev::loopback_up().unwrap();
        assert!(run("ip", &["-o", "link", "show", "lo"]).contains("LOOPBACK,UP"));
        for line in [
            "link add eth-host type veth peer name other",
            "link set eth-host up",
            "link set other up",
            "addr add 10.9.8.7/24 broadcast 10.9.8.255 dev eth-host",
            "addr add 10.9.9.1 peer 10.9.9.2/32 dev eth-host",
            "addr add 10.9.7.7/24 scope link dev eth-host",
            "addr add fd00:9::7/64 nodad dev eth-host",
        ] {
            run("ip", &line.split(' ').collect::<Vec<_>>());
        }
        let device = spec::NetDevice { name: Some("eth0".into()) };
        let plan = netdev::plan(&BTreeMap::from([("eth-host".to_owned(), device)]), true).unwrap();
        let namespace = |waiting: &Waiting| File::open(format!("/proc/{}/ns/net", waiting.pid())).unwrap();

        // A name that is taken inside: refused, and the device is as it was.
        let state = || {
            let links = run("ip", &["-o", "link", "show", "up", "dev", "eth-host"]);
            links.lines().count().to_string() + &run("ip", &["-o", "addr", "show", "dev", "eth-host"])
        };
        let before = state();
        let taken = Waiting::start(
            &["--net", "sh", "-c", "ip link add eth0 type veth peer name x; exec \"$@\"", "sh"],
            "true",
        );
        let err = netdev::attach(&plan, namespace(&taken), &proc_root()).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::EEXIST), "{err}");
        taken.finish();
        assert_eq!(state(), before);

        // A step after the move fails (an IPv6 address where IPv6 is off): the device comes back.
        let off = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; exec \"$@\"";
        let legacy = Waiting::start(&["--net", "sh", "-c", off, "sh"], "ip -o link show");
        let err = netdev::attach(&plan, namespace(&legacy), &proc_root()).unwrap_err();
        assert!(err.to_string().contains("adding its addresses"), "{err}");
        assert!(!legacy.finish().contains("eth"));
        for part in ["10.9.8.7/24 brd 10.9.8.255", "peer 10.9.9.2/32", "fd00:9::7/64"] {
            assert!(state().contains(part), "{part} in {}", state());
        }

        let inside = Waiting::start(&["--net"], "ip -o link show eth0; ip -o addr show eth0");
        netdev::attach(&plan, namespace(&inside), &proc_root()).unwrap();
        let text = inside.finish();
        assert!(text.contains("UP"), "{text}");
        assert!(text.contains("10.9.8.7/24 brd 10.9.8.255 scope global"), "{text}");
        assert!(text.contains("10.9.9.1 peer 10.9.9.2/32 scope global"), "{text}");
        assert!(text.contains("fd00:9::7/64 scope global"), "{text}");
        assert!(!text.contains("10.9.7.7"), "link scope stays behind: {text}");

        let missing = netdev::plan(&BTreeMap::from([("nope".to_owned(), spec::NetDevice::default())]), true);
        let target = Waiting::start(&["--net"], "true");
        let err = netdev::attach(&missing.unwrap(), namespace(&target), &proc_root()).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::ENODEV), "{err}");
        target.finish();
    });
}

#[test]
fn network_devices_are_put_back() {
    fresh("network_devices_are_put_back", &["unshare", "--net"], || {
        for line in [
            "link add first type veth peer name first-peer",
            "link set first up",
            "addr add 10.9.8.7/24 dev first",
        ] {
            run("ip", &line.split(' ').collect::<Vec<_>>());
        }
        let devices = ["first", "second"].map(|name| (name.to_owned(), spec::NetDevice::default()));
        let plan = netdev::plan(&BTreeMap::from(devices), true).unwrap();
        let inside = Waiting::start(&["--net"], "ip -o link show");
        let namespace = File::open(format!("/proc/{}/ns/net", inside.pid())).unwrap();
        let err = netdev::attach(&plan, namespace, &proc_root()).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::ENODEV), "{err}");
        assert!(!inside.finish().contains("first"));
        let text = run("ip", &["-o", "addr", "show", "dev", "first"]);
        assert!(text.contains("10.9.8.7/24"), "{text}");
        assert!(run("ip", &["-o", "link", "show", "dev", "first"]).contains("UP"));
    });
}

#[test]
fn session_keyring() {
    const SESSION: i32 = -3;
    fresh("session_keyring", &["env"], || {
        let id = format!("attrs-{}", std::process::id());
        let before = sys::keyring::describe(SESSION).unwrap_or_default();
        let keyring = keyring::plan(&id, None).unwrap();
        assert!(keyring.create(&proc_root(), false).unwrap().is_empty());
        let text = sys::keyring::describe(SESSION).unwrap();
        assert_ne!(text, before);
        assert!(text.ends_with(&format!(";_ses.{id}")), "{text}");
        let mask = u32::from_str_radix(text.split(';').nth(3).unwrap(), 16).unwrap();
        assert_ne!(mask & 0x0008_0000, 0, "an exec must find it: {text}");
        // Joining by name leads to the same keyring, so no second one of that name appears.
        keyring.join(&proc_root()).unwrap();
        let keys = fs::read_to_string("/proc/keys").unwrap();
        assert_eq!(keys.lines().filter(|line| line.contains(&format!("_ses.{id}:"))).count(), 1, "{keys}");
    });
}

#[test]
fn time_offsets() {
    fresh("time_offsets", &["env"], || {
        let offset = |secs| spec::TimeOffset { secs, nanosecs: 5 };
        let spec = BTreeMap::from([("boottime".to_owned(), offset(1_000_000_000))]);
        let plan = timens::plan(&spec).unwrap().unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)).unwrap();
        // The harness runs the body beside its main thread, which is what `self` means.
        let task = Base::Pid(nix::unistd::gettid().as_raw());
        let negative = BTreeMap::from([("boottime".to_owned(), offset(-1_000_000_000))]);
        let file = plan.open(&proc_root(), task).unwrap();
        let err = timens::plan(&negative).unwrap().unwrap().write(&file).unwrap_err();
        assert_eq!(err.errno(), Some(Errno::ERANGE), "{err}");
        plan.write(&file).unwrap();
        let uptime = run("sh", &["-c", "cat /proc/uptime; true"]);
        assert!(uptime.split('.').next().unwrap().parse::<u64>().unwrap() > 1_000_000_000, "{uptime}");
    });
}

const SHOW_MAPS: &str = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups";

/// The maps that process `waiting` ends up with, as `0 1000 1, ...`.
fn shown(waiting: Waiting) -> String {
    let text = waiting.finish();
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join(", ")
}

fn map(container_id: u32, host_id: u32, size: u32) -> spec::IdMapping {
    spec::IdMapping { container_id, host_id, size }
}

fn apply_maps(
    waiting: &Waiting,
    uid: &[spec::IdMapping],
    gid: &[spec::IdMapping],
) -> locule_runtime::Result<()> {
    let dir = File::open(format!("/proc/{}", waiting.pid())).unwrap();
    idmap::plan(uid, gid)?.apply(dir, waiting.pid())
}

#[test]
fn id_maps_of_root() {
    fresh("id_maps_of_root", &["env"], || {
        let waiting = Waiting::start(&["--user"], SHOW_MAPS);
        apply_maps(&waiting, &[map(0, 100_000, 10), map(10, 5, 1)], &[map(0, 200_000, 65_536)]).unwrap();
        assert_eq!(shown(waiting), "0 100000 10, 10 5 1, 0 200000 65536, allow");
    });
}

#[test]
fn id_maps_of_a_user() {
    let prefix = ["unshare", "--mount", "--propagation", "private"];
    fresh("id_maps_of_a_user", &prefix, || {
        const NOBODY: u32 = 65_534;
        let none: Option<&str> = None;
        // Ranges for a user that has none, in this mount namespace alone.
        let dir = tempdir();
        fs::write(format!("{dir}/ranges"), format!("{NOBODY}:300000:1000\n")).unwrap();
        for file in ["/etc/subuid", "/etc/subgid"] {
            mount(Some(format!("{dir}/ranges").as_str()), file, none, MsFlags::MS_BIND, none).unwrap();
        }
        fs::remove_dir_all(&dir).unwrap();
        let user = spec::User { uid: NOBODY, gid: NOBODY, ..spec::User::default() };
        user::plan(&user).unwrap().apply(&proc_root()).unwrap();

        let own = [map(0, NOBODY, 1)];
        let waiting = Waiting::start(&["--user"], SHOW_MAPS);
        apply_maps(&waiting, &own, &own).unwrap();
        assert_eq!(shown(waiting), "0 65534 1, 0 65534 1, deny");

        let waiting = Waiting::start(&["--user"], SHOW_MAPS);
        let ranges = [map(0, NOBODY, 1), map(1, 300_000, 1000)];
        apply_maps(&waiting, &ranges, &ranges).unwrap();
        assert_eq!(shown(waiting), "0 65534 1, 1 300000 1000, 0 65534 1, 1 300000 1000, allow");

        let waiting = Waiting::start(&["--user"], "true");
        let err = apply_maps(&waiting, &own, &[map(0, 0, 2)]).unwrap_err().to_string();
        assert!(err.contains("newgidmap") && err.contains("/etc/subgid"), "{err}");
        waiting.finish();
    });
}

#[test]
fn resctrl_is_there_or_refused() {
    let mounted = fs::read_to_string("/proc/mounts").unwrap().contains(" /sys/fs/resctrl resctrl ");
    match rdt::open_resctrl() {
        Ok(_) => assert!(mounted),
        Err(err) => {
            assert!(!mounted, "{err}");
            assert_eq!(err.kind(), locule_runtime::Kind::Unsupported);
            assert!(err.to_string().starts_with("linux.intelRdt: "), "{err}");
        }
    }
}

#[test]
fn security_modules_are_as_the_host_says() {
    let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let enabled = lsm::enabled();
    if !list.is_empty() {
        assert_eq!(enabled.apparmor, list.contains("apparmor"));
    }
    if !enabled.apparmor {
        assert!(lsm::plan(Some("some-profile"), None, lsm::enabled).is_err());
    }
    // Nothing asked for is nothing done, whatever the host runs.
    lsm::plan(None, None, lsm::enabled).unwrap().apply(&Proc::new()).unwrap();
}
