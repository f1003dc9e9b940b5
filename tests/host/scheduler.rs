//! `scheduler`, `ioPriority`, `execCPUAffinity`, `personality` and `memoryPolicy`.
//!
//! Owns what /proc says of a process's place among the others.

use serde_json::json;

use crate::lane::{Bundle, field};

/// Nice value, real-time priority and policy of a /proc/PID/stat line.
fn placed(stat: &str) -> [i64; 3] {
    let words: Vec<_> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    [16, 37, 38].map(|at| words[at].parse().unwrap())
}

fn run(scheduler: serde_json::Value) -> crate::lane::Output {
    Bundle::new().set("process.scheduler", scheduler).args(&["cat", "/proc/self/stat"]).run()
}

#[test]
fn policies() {
    for (scheduler, meant) in [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), [7, 0, 0]),
        (json!({"policy": "SCHED_OTHER", "nice": -5}), [-5, 0, 0]),
        (json!({"policy": "SCHED_BATCH", "nice": 3}), [3, 0, 3]),
        (json!({"policy": "SCHED_IDLE"}), [0, 0, 5]),
        (json!({"policy": "SCHED_FIFO", "priority": 11}), [0, 11, 1]),
        (json!({"policy": "SCHED_RR", "priority": 12, "flags": []}), [0, 12, 2]),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000}),
            [0, 0, 6],
        ),
    ] {
        let out = run(scheduler.clone());
        assert_eq!(placed(out.ok()), meant, "{scheduler}");
    }
}

#[test]
fn reset_on_fork() {
    let mut bundle = Bundle::new();
    bundle.set(
        "process.scheduler",
        json!({"policy": "SCHED_RR", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
    );
    let out = bundle.script("cat /proc/$$/stat; cat /proc/self/stat; true").run();
    let lines: Vec<_> = out.ok().lines().map(placed).collect();
    assert_eq!(lines, [[0, 5, 2], [0, 0, 0]]);
}

#[test]
fn wrong_policies_are_refused() {
    for (scheduler, word) in [
        (json!({"policy": "SCHED_FOO"}), "SCHED_FOO"),
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice"),
        (json!({"policy": "SCHED_FIFO"}), "priority"),
        (json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_FOO"]}), "SCHED_FLAG_FOO"),
        (json!({"policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 4, "period": 3}), "runtime"),
    ] {
        run(scheduler).refused_with(&["process.scheduler", word]);
    }
}

#[test]
fn io_priority() {
    for (class, priority, meant) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_RT", 1, "realtime: prio 1"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        let mut bundle = Bundle::new();
        bundle.set("process.ioPriority", json!({"class": class, "priority": priority})).args(&["ionice"]);
        assert_eq!(bundle.run().ok(), meant, "{class}");
    }
    let mut bundle = Bundle::new();
    bundle.set("process.ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}));
    bundle.run().refused_with(&["process.ioPriority", "8"]);
}

/// Both affinities are exec's alone: the container's first process has the whole machine.
#[test]
fn exec_cpu_affinity() {
    let all = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let last = all.trim().rsplit(['-', ',']).next().unwrap();
    let shown = |affinity: serde_json::Value| {
        let mut bundle = Bundle::new();
        bundle.set("process.execCPUAffinity", affinity).up();
        let init = bundle.proc("status");
        assert_eq!(field(&init, "Cpus_allowed_list"), all.trim());
        let out = bundle.exec("cat /proc/self/status");
        field(out.ok(), "Cpus_allowed_list").to_owned()
    };
    assert_eq!(shown(json!({"initial": "0"})), "0", "nothing takes it back");
    assert_eq!(shown(json!({"final": last})), last);
    assert_eq!(shown(json!({"initial": "0", "final": last})), last);
    assert_eq!(shown(json!(null)), all.trim());
    Bundle::new()
        .set("process.execCPUAffinity", json!({"final": "x"}))
        .run()
        .refused_with(&["execCPUAffinity.final"]);
}

/// A container is not bound to the CPUs of whoever called the runtime.
#[test]
fn the_callers_affinity_is_not_inherited() {
    let all = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let mut bundle = Bundle::new();
    bundle.args(&["cat", "/proc/self/status"]);
    let call = bundle.command(&["run", bundle.id()]);
    let mut bound = std::process::Command::new("taskset");
    bound
        .args(["--cpu-list", "0"])
        .arg(call.get_program())
        .args(call.get_args())
        .current_dir(bundle.path(""));
    let out = crate::lane::complete(&mut bound);
    assert_eq!(field(out.ok(), "Cpus_allowed_list"), all.trim());
}

#[test]
fn personality() {
    let machine = crate::lane::host("uname", &["-m"]);
    let mut bundle = Bundle::new();
    bundle.script("uname -m; cat /proc/self/personality");
    assert_eq!(bundle.run().ok(), format!("{machine}\n00000000"));
    bundle.set("linux.personality", json!({"domain": "LINUX"}));
    assert_eq!(bundle.run().ok(), format!("{machine}\n00000000"));
    bundle.set("linux.personality", json!({"domain": "LINUX32"}));
    let out = bundle.run();
    assert!(out.ok().ends_with("\n00000008") && !out.ok().starts_with(&machine), "{out:?}");
    bundle.up();
    assert_eq!(bundle.exec("cat /proc/self/personality").ok(), "00000008", "exec has it too");
    Bundle::new()
        .set("linux.personality", json!({"domain": "BSD"}))
        .run()
        .refused_with(&["personality", "BSD"]);
}

#[test]
fn memory_policy() {
    let policy = |policy: serde_json::Value| {
        let mut bundle = Bundle::new();
        bundle.set("linux.memoryPolicy", policy).args(&["head", "-1", "/proc/self/numa_maps"]);
        let out = bundle.run();
        out.ok().split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(policy(json!(null)), "default");
    assert_eq!(policy(json!({"mode": "MPOL_DEFAULT"})), "default");
    assert_eq!(policy(json!({"mode": "MPOL_BIND", "nodes": "0"})), "bind:0");
    assert_eq!(policy(json!({"mode": "MPOL_PREFERRED", "nodes": "0"})), "prefer:0");
    assert_eq!(policy(json!({"mode": "MPOL_INTERLEAVE", "nodes": "0-0"})), "interleave:0");
    assert_eq!(policy(json!({"mode": "MPOL_LOCAL"})), "local");
    assert_eq!(
        policy(json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]})),
        "bind=static:0"
    );
    let mut bundle = Bundle::new();
    bundle.set("linux.memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "1000"}));
    bundle.run().refused_with(&["linux.memoryPolicy"]);
    bundle.set("linux.memoryPolicy", json!({"mode": "MPOL_FOO"})).run().refused_with(&["MPOL_FOO"]);
}
