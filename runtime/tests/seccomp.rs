//! Filters in the running kernel: a child installs what the compiler made and shows what it meets.
//!
//! Needs root, or rather `CAP_SYS_ADMIN`: the filters go in without no_new_privs, which is part of the test.

// Clippy's allowance for tests does not reach the helpers of a test file.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_long};
use locule_runtime::seccomp::{self, Compiled};
use locule_runtime::sys;
use locule_runtime::{error::Result, spec};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

fn compile(json: &str) -> Compiled {
    let profile: spec::Seccomp = serde_json::from_str(json).unwrap();
    let compiled: Result<Compiled> = seccomp::compile(&profile);
    compiled.unwrap()
}

/// Runs `inside` in a child under the profile and returns how it ended.
///
/// The child of a threaded test may only make system calls: `inside` must not allocate or panic.
fn under(json: &str, inside: impl FnOnce() -> c_int) -> WaitStatus {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test installs filters without no_new_privs: run it as root"
    );
    let compiled = compile(json);
    let pid = child(|| match sys::seccomp::install(&compiled.program, compiled.flags) {
        Ok(_) => inside(),
        Err(errno) => 200 + (errno as c_int) % 50,
    });
    waitpid(pid, None).unwrap()
}

fn child(body: impl FnOnce() -> c_int) -> Pid {
    // SAFETY: the child makes system calls only and leaves by _exit.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let code = body();
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(code) }
        }
    }
}

/// A raw system call: its value, or the errno as a negative number.
fn call(number: c_long, args: [u64; 4]) -> c_long {
    // SAFETY: the calls made here take integers or tolerate the null and bad pointers that they get.
    let ret = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], 0, 0) };
    if ret == -1 { -c_long::from(nix::errno::Errno::last_raw()) } else { ret }
}

/// Exit code: 0, or the number of the first expectation that failed.
fn first_wrong(expectations: &[(c_long, c_long)]) -> c_int {
    expectations.iter().position(|(have, want)| have != want).map_or(0, |at| at as c_int + 1)
}

fn exited(status: WaitStatus) -> c_int {
    match status {
        WaitStatus::Exited(_, code) => code,
        other => panic!("the child did not exit: {other:?}"),
    }
}

fn killed_by(status: WaitStatus) -> Signal {
    match status {
        WaitStatus::Signaled(_, signal, _) => signal,
        other => panic!("the child was not killed: {other:?}"),
    }
}

#[test]
fn errno_comes_back_where_64_bit_arguments_say_so() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
         "args": [{"index": 0, "value": 4294967297, "op": "SCMP_CMP_EQ"}]},
        {"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78,
         "args": [{"index": 0, "value": 4294967296, "op": "SCMP_CMP_GE"}]},
        {"names": ["umask"], "action": "SCMP_ACT_ERRNO",
         "args": [{"index": 0, "value": 61440, "valueTwo": 4096, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;
    let status = under(json, || {
        first_wrong(&[
            (call(libc::SYS_getpgid, [0x1_0000_0001, 0, 0, 0]), -77),
            (call(libc::SYS_getpgid, [1, 0, 0, 0]).signum(), call(libc::SYS_getpgid, [1, 0, 0, 0]).signum()),
            ((call(libc::SYS_getpgid, [1, 0, 0, 0]) == -77).into(), 0),
            (call(libc::SYS_getsid, [0x1_0000_0000, 0, 0, 0]), -78),
            (call(libc::SYS_getsid, [u64::MAX, 0, 0, 0]), -78),
            ((call(libc::SYS_getsid, [0xffff_ffff, 0, 0, 0]) == -78).into(), 0),
            (call(libc::SYS_umask, [0x1022, 0, 0, 0]), -1),
            ((call(libc::SYS_umask, [0x2022, 0, 0, 0]) >= 0).into(), 1),
        ])
    });
    assert_eq!(exited(status), 0);
}

#[test]
fn calls_that_nobody_knew_are_enosys_and_the_filter_sets_no_new_privs_for_nobody() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["exit_group", "exit", "prctl", "openat2"], "action": "SCMP_ACT_ALLOW"}]}"#;
    let status = under(json, || {
        first_wrong(&[
            (call(libc::SYS_getpid, [0; 4]), -1),
            (call(1000, [0; 4]), -c_long::from(libc::ENOSYS)),
            (call(libc::SYS_prctl, [libc::PR_GET_NO_NEW_PRIVS as u64, 0, 0, 0]), 0),
            (call(libc::SYS_prctl, [libc::PR_GET_SECCOMP as u64, 0, 0, 0]), 2),
        ])
    });
    assert_eq!(exited(status), 0);
}

#[test]
fn kill_ends_the_process() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS"] {
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["getppid"], "action": "{action}"}}]}}"#
        );
        let status = under(&json, || call(libc::SYS_getppid, [0; 4]).min(1) as c_int);
        assert_eq!(killed_by(status), Signal::SIGSYS, "{action}");
    }
}

#[test]
fn log_lets_the_call_through() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_LOG"}]}"#;
    let parent = c_long::from(std::process::id());
    let status = under(json, || c_int::from(call(libc::SYS_getppid, [0; 4]) != parent));
    assert_eq!(exited(status), 0);
}

#[test]
fn trap_sends_a_signal_that_names_the_call() {
    static TRAPPED: AtomicI32 = AtomicI32::new(0);
    extern "C" fn handler(signal: c_int) {
        TRAPPED.store(signal, Ordering::Relaxed);
    }
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_TRAP"}]}"#;
    let status = under(json, || {
        // SAFETY: the handler only stores to an atomic.
        unsafe { libc::signal(libc::SIGSYS, handler as extern "C" fn(c_int) as libc::sighandler_t) };
        call(libc::SYS_getppid, [0; 4]);
        c_int::from(TRAPPED.load(Ordering::Relaxed) != libc::SIGSYS)
    });
    assert_eq!(exited(status), 0);
}

#[test]
fn trace_without_a_tracer_is_enosys() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_TRACE", "errnoRet": 5}]}"#;
    let status =
        under(json, || first_wrong(&[(call(libc::SYS_getppid, [0; 4]), -c_long::from(libc::ENOSYS))]));
    assert_eq!(exited(status), 0);
}

/// int 0x80 as a 32-bit program would make it, with the number `number` and one argument.
#[cfg(target_arch = "x86_64")]
fn call_i386(number: u64, arg: u64) -> c_long {
    let ret: u64;
    // SAFETY: the calls made here take integers only; rbx is the compiler's and is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {arg}", "int 0x80", "xchg rbx, {arg}",
            arg = inout(reg) arg => _, inout("rax") number => ret,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    c_long::from(ret as u32 as i32)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn other_abis_are_killed_unless_listed() {
    // i386: getppid is 64, x32: getppid is 110 with the x32 bit.
    let listed = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 33}]}"#;
    let alone = listed.replace(r#""SCMP_ARCH_X86", "SCMP_ARCH_X32""#, "");
    let status = under(listed, || {
        first_wrong(&[
            (call(libc::SYS_getppid, [0; 4]), -33),
            (call_i386(64, 0), -33),
            (call(0x4000_0000 + libc::SYS_getppid, [0; 4]), -33),
        ])
    });
    assert_eq!(exited(status), 0);
    // getpid through either ABI; what a kernel without it would answer does not matter.
    let status = under(&alone, || call_i386(20, 0).min(1) as c_int);
    assert_eq!(killed_by(status), Signal::SIGSYS);
    let status = under(&alone, || call(0x4000_0000 + libc::SYS_getpid, [0; 4]).min(1) as c_int);
    assert_eq!(killed_by(status), Signal::SIGSYS);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn socketcall_is_no_way_around_socket() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 33,
                      "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}]}"#;
    // With a null argument block the kernel itself answers EFAULT.
    let status = under(json, || {
        first_wrong(&[(call_i386(102, 1), -33), (call_i386(102, 2), -c_long::from(libc::EFAULT))])
    });
    assert_eq!(exited(status), 0);
}

#[test]
fn a_notified_call_gets_the_listeners_answer() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test takes a descriptor out of its child: run it as root"
    );
    for flags in ["", r#""SECCOMP_FILTER_FLAG_TSYNC""#, r#""SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV""#] {
        let compiled = compile(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "flags": [{flags}], "syscalls": [
                {{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}}]}}"#
        ));
        assert!(compiled.needs_listener);
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let pid = child(|| {
            let listener = match sys::seccomp::install(&compiled.program, compiled.flags) {
                Ok(Some(listener)) => listener,
                _ => return 100,
            };
            let number = listener.as_raw_fd().to_ne_bytes();
            if nix::unistd::write(&writer, &number) != Ok(4) {
                return 101;
            }
            first_wrong(&[(call(libc::SYS_getppid, [11, 12, 0, 0]), 4242)])
        });
        let mut number = [0; 4];
        assert_eq!(nix::unistd::read(&reader, &mut number), Ok(4), "no listener with flags {flags:?}");
        let listener = take(pid, i32::from_ne_bytes(number));

        // SAFETY: both are plain integers, and zero is what the kernel wants to find in them.
        let (mut request, mut answer): (libc::seccomp_notif, libc::seccomp_notif_resp) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: the kernel writes one seccomp_notif.
        let ret = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut request) };
        assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
        assert_eq!(
            (i64::from(request.data.nr), request.data.args[..2].to_vec()),
            (libc::SYS_getppid, vec![11, 12])
        );
        assert_eq!(request.pid as i32, pid.as_raw());
        answer.id = request.id;
        answer.val = 4242;
        // SAFETY: the kernel reads one seccomp_notif_resp.
        let ret = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &mut answer) };
        assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
        assert_eq!(exited(waitpid(pid, None).unwrap()), 0, "flags {flags:?}");
    }
}

/// Takes a copy of descriptor `number` out of the child.
fn take(pid: Pid, number: c_int) -> OwnedFd {
    // SAFETY: pidfd_open takes integers and returns a fresh descriptor.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    assert!(pidfd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: nothing else owns the descriptor.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as c_int) };
    // SAFETY: pidfd_getfd takes integers and returns a fresh descriptor.
    let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    assert!(taken >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: nothing else owns the descriptor.
    unsafe { OwnedFd::from_raw_fd(taken as c_int) }
}

/// The whole default profile, taken by the kernel's checker, and a program still runs under it.
#[test]
fn the_default_profile_installs() {
    let status = under(include_str!("data/seccomp-default.json"), || {
        first_wrong(&[
            ((call(libc::SYS_getpid, [0; 4]) > 0).into(), 1),
            // AF_NETLINK with NETLINK_AUDIT; the profile has five rules for socket.
            (call(libc::SYS_socket, [16, 3, 9, 0]), -c_long::from(libc::EINVAL)),
            ((call(libc::SYS_socket, [16, 3, 0, 0]) > 0).into(), 1),
            (call(libc::SYS_kexec_load, [0; 4]), -1),
            (call(1000, [0; 4]), -c_long::from(libc::ENOSYS)),
        ])
    });
    assert_eq!(exited(status), 0);
}

#[test]
fn the_kernel_is_asked_what_it_knows() {
    let known = seccomp::known();
    for word in known.actions {
        assert!(sys::seccomp::action_available(seccomp::action(word).unwrap()), "{word}");
    }
    // Linux 5.19 and later know all four flags.
    for word in known.flags {
        assert!(sys::seccomp::flag_available(seccomp::flag(word).unwrap()), "{word}");
    }
    assert!(!sys::seccomp::flag_available(1 << 20));
    assert!(!sys::seccomp::action_available(0x1234_0000));
}

#[test]
fn a_broken_program_is_refused_by_the_kernel() {
    let jump_out = libc::sock_filter { code: 0x05, jt: 0, jf: 0, k: 9 };
    let pid =
        child(|| c_int::from(sys::seccomp::install(&[jump_out], 0).err() != Some(nix::errno::Errno::EINVAL)));
    assert_eq!(exited(waitpid(pid, None).unwrap()), 0);
}
