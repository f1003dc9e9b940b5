//! `linux.seccomp`: every action, operator, ABI and flag, and the listener of NOTIFY.
//!
//! Owns what a filtered call returns. The programs that call are in `elf`; they need an x86-64 machine.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, reason = "a listener answers by ioctl(2)")]

use std::os::fd::{AsRawFd, OwnedFd};

use serde_json::{Value, json};

use crate::elf;
use crate::lane::{Bundle, Output, field, listen, receive};

/// lseek on a descriptor that is not open fails with EBADF unless a filter has its say.
const LSEEK: u32 = 8;
const EBADF: i32 = 9;
const KILLED: i32 = 128 + 31;

/// A bundle that makes one call of lseek under `profile`.
fn bundle(profile: Value, offset: u64) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.program("rootfs/bin/call", elf::x86_64(LSEEK, [999, offset, 1]));
    bundle.set("linux.seccomp", profile).args(&["/bin/call"]);
    bundle
}

fn rule(extra: Value) -> Value {
    let mut rule = json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77});
    rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
}

fn call(profile: Value, offset: u64) -> i32 {
    bundle(profile, offset).run().status
}

#[test]
fn actions() {
    assert_eq!(
        Bundle::new().script("cat /proc/self/status").run().ok().lines().find(|l| l.starts_with("Seccomp:")),
        Some("Seccomp:\t0")
    );
    for (action, status) in [
        ("SCMP_ACT_ALLOW", EBADF),
        ("SCMP_ACT_LOG", EBADF),
        ("SCMP_ACT_ERRNO", 1),
        ("SCMP_ACT_KILL", KILLED),
        ("SCMP_ACT_KILL_THREAD", KILLED),
        ("SCMP_ACT_KILL_PROCESS", KILLED),
        ("SCMP_ACT_TRAP", KILLED),
        // Nobody traces: ENOSYS.
        ("SCMP_ACT_TRACE", 38),
    ] {
        assert_eq!(call(rule(json!({"action": action, "errnoRet": null})), 0), status, "{action}");
    }
    assert_eq!(call(rule(json!({})), 0), 77, "errnoRet");
}

/// Without no_new_privs CAP_SYS_ADMIN has to be there when the filter is loaded.
#[test]
fn without_no_new_privileges() {
    let mut bundle = bundle(rule(json!({})), 0);
    assert_eq!(bundle.set("process.noNewPrivileges", json!(false)).run().status, 77);
    bundle.script("cat /proc/self/status");
    assert_eq!(field(bundle.run().ok(), "Seccomp"), "2");
}

#[test]
fn default_action() {
    let profile = |errno: Value| {
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno,
        "syscalls": [{"names": ["execve", "exit"], "action": "SCMP_ACT_ALLOW"}]})
    };
    // The profile allows nothing that the runtime itself needs.
    assert_eq!(call(profile(json!(55)), 0), 55);
    assert_eq!(call(profile(json!(null)), 0), 1);
    let waiting = bundle(profile(json!(55)), 0);
    waiting.create().start().wait_for("stopped");
    drop(waiting);
    let mut privileged = bundle(profile(json!(55)), 0);
    privileged.set("process.noNewPrivileges", json!(false));
    assert_eq!(privileged.run().status, 55, "nor without no_new_privs");
    privileged.set("process.user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(privileged.run().status, 55, "nor as a user");
    let mut killing = profile(json!(null));
    killing["defaultAction"] = json!("SCMP_ACT_KILL_PROCESS");
    assert_eq!(call(killing, 0), KILLED);
}

#[test]
fn operators() {
    let high = 1u64 << 32;
    for (op, value, two, matching, other) in [
        ("SCMP_CMP_NE", 5, 0, 6, 5),
        ("SCMP_CMP_NE", 5, 0, 5 + high, 5),
        ("SCMP_CMP_LT", 5, 0, 4, 5),
        ("SCMP_CMP_LT", high, 0, high - 1, high),
        ("SCMP_CMP_LE", 5, 0, 5, 6),
        ("SCMP_CMP_EQ", 5, 0, 5, 5 + high),
        ("SCMP_CMP_GE", 5, 0, 5, 4),
        ("SCMP_CMP_GE", high, 0, high, 7),
        ("SCMP_CMP_GT", 5, 0, 6, 5),
        ("SCMP_CMP_GT", 5, 0, high, 5),
        ("SCMP_CMP_MASKED_EQ", 0xf0 | high, 0x30 | high, 0x3f | high, 0x30),
    ] {
        let profile = rule(json!({"args": [{"index": 1, "op": op, "value": value, "valueTwo": two}]}));
        assert_eq!(call(profile.clone(), matching), 77, "{op} {value} with {matching}");
        assert_eq!(call(profile, other), EBADF, "{op} {value} with {other}");
    }
}

#[test]
fn all_conditions_must_hold() {
    let with = |whence: u64| {
        rule(json!({"args": [
        {"index": 0, "op": "SCMP_CMP_EQ", "value": 999}, {"index": 2, "op": "SCMP_CMP_EQ", "value": whence}]}))
    };
    assert_eq!(call(with(1), 0), 77);
    assert_eq!(call(with(2), 0), EBADF);
}

#[test]
fn the_32_bit_abi() {
    let run = |architectures: Value| {
        let mut profile = rule(json!({}));
        profile["architectures"] = architectures;
        let bundle = bundle(profile, 0);
        bundle.program("rootfs/bin/call", elf::x86(19, [999, 0, 1]));
        bundle.run().status
    };
    assert_eq!(run(json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])), 77);
    assert_eq!(
        run(json!(["SCMP_ARCH_X86_64"])),
        KILLED,
        "an ABI that is not listed is a way around the filter"
    );
    assert_eq!(run(json!(null)), KILLED);
    assert_eq!(Bundle::new().args(&["/bin/call"]).run().status, 127);
}

#[test]
fn unknown_calls_and_flags_do_not_fail() {
    let mut profile = rule(json!({"names": ["lseek", "no_such_call"]}));
    profile["flags"] = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_NEW"
    ]);
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_NEW"]);
    let mut bundle = bundle(profile, 0);
    let log = bundle.path("log");
    bundle.global("--log").global(log.to_str().unwrap());
    assert_eq!(bundle.run().status, 77);
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains("SECCOMP_FILTER_FLAG_NEW") && told.contains("SCMP_ARCH_NEW"), "{told}");
}

#[test]
fn exec_is_filtered_too() {
    let mut bundle = bundle(rule(json!({})), 0);
    bundle.up();
    assert_eq!(bundle.exec_with(&[], &["/bin/call"]).status, 77);
}

#[test]
fn wrong_profiles_are_refused() {
    for (profile, words) in [
        (json!({"defaultAction": "SCMP_ACT_SHRUG"}), &["SCMP_ACT_SHRUG"][..]),
        (rule(json!({"action": "SCMP_ACT_NOTIFY", "errnoRet": null})), &["listenerPath"]),
        (rule(json!({"args": [{"index": 7, "op": "SCMP_CMP_EQ", "value": 1}]})), &["argument 7"]),
        (rule(json!({"args": [{"index": 1, "op": "SCMP_CMP_LIKE", "value": 1}]})), &["SCMP_CMP_LIKE"]),
    ] {
        let bundle = bundle(profile, 0);
        bundle.run().refused_with(&[&["linux.seccomp"], words].concat());
        bundle.assert_gone();
    }
}

/// `struct seccomp_notif`, of which the id matters.
#[repr(C)]
struct Notice {
    id: u64,
    rest: [u64; 9],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const NOTIF_RECV: libc::Ioctl = 0xc050_2100u32 as libc::Ioctl;
const NOTIF_SEND: libc::Ioctl = 0xc018_2101u32 as libc::Ioctl;

/// Waits for one call and lets it fail with `errno`.
fn answer(fd: &OwnedFd, errno: i32) {
    let mut notice = Notice { id: 0, rest: [0; 9] };
    // SAFETY: the kernel fills a structure of the size that is in the request's number.
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), NOTIF_RECV, &raw mut notice) }, 0);
    let mut answer = Answer { id: notice.id, value: 0, error: -errno, flags: 0 };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), NOTIF_SEND, &raw mut answer) }, 0);
}

/// config-linux.md, the container process state.
#[test]
fn notify() {
    for (no_new_privileges, flags) in
        [(true, json!(null)), (false, json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]))]
    {
        let mut profile = rule(json!({"action": "SCMP_ACT_NOTIFY", "errnoRet": null}));
        let mut bundle = bundle(json!(null), 0);
        let socket = bundle.path("listener");
        profile["listenerPath"] = json!(socket);
        profile["listenerMetadata"] = json!("for the listener");
        profile["flags"] = flags;
        bundle.set("linux.seccomp", profile).set("annotations", json!({"a": "b"}));
        bundle.set("process.noNewPrivileges", json!(no_new_privileges));
        let listener = listen(&socket);
        let (out, state): (Output, Value) = std::thread::scope(|scope| {
            let listening = scope.spawn(|| {
                let (text, fd) = receive(&listener);
                answer(&fd, 88);
                serde_json::from_slice(&text).unwrap()
            });
            (bundle.run(), listening.join().unwrap())
        });
        assert_eq!(out.status, 88, "{out:?}");
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["metadata"], "for the listener");
        assert_eq!(state["ociVersion"], bundle.config()["ociVersion"]);
        assert_eq!(state["state"]["id"], bundle.id());
        assert_eq!(state["state"]["status"], "creating");
        assert_eq!(state["state"]["annotations"], json!({"a": "b"}));
        assert!(state["pid"].as_i64().unwrap() > 1 && state["pid"] == state["state"]["pid"], "{state}");
    }
}

#[test]
fn notify_of_exec() {
    let mut profile = rule(json!({"action": "SCMP_ACT_NOTIFY", "errnoRet": null}));
    let mut bundle = bundle(json!(null), 0);
    let socket = bundle.path("listener");
    profile["listenerPath"] = json!(socket);
    bundle.set("linux.seccomp", profile);
    let listener = listen(&socket);
    // The shell seeks in nothing; its own filter's descriptor is only kept open.
    let (_kept, out, state) = std::thread::scope(|scope| {
        let first = scope.spawn(|| receive(&listener).1);
        bundle.up();
        let kept = first.join().unwrap();
        let second = scope.spawn(|| {
            let (text, fd) = receive(&listener);
            answer(&fd, 89);
            serde_json::from_slice::<Value>(&text).unwrap()
        });
        (kept, bundle.exec_with(&[], &["/bin/call"]), second.join().unwrap())
    });
    assert_eq!(out.status, 89, "{out:?}");
    assert_eq!(state["state"]["pid"], bundle.pid());
    assert_eq!(state["state"]["status"], "running");
    assert_ne!(state["pid"], state["state"]["pid"]);
}

#[test]
fn a_listener_that_is_not_there_fails_the_container() {
    let mut profile = rule(json!({"action": "SCMP_ACT_NOTIFY", "errnoRet": null}));
    profile["listenerPath"] = json!("/absent/listener");
    let bundle = bundle(profile, 0);
    bundle.run().refused_with(&["/absent/listener", "ENOENT"]);
    bundle.assert_gone();
}

#[test]
fn start_container_hooks_are_filtered_too() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]});
    let mut bundle = Bundle::new();
    bundle.set("linux.seccomp", profile).script("true");
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "exec mkdir /dev/shm/new"]});
    bundle.push("hooks.startContainer", hook);
    bundle.run().refused_with(&["error running startContainer hook #0: /bin/sh", "bad system call"]);
}
