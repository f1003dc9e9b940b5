//! Looking into processes of the runtime's from inside a container, while they are there.
//!
//! Owns the ways to hold them still: a seccomp listener that does not answer, the gate, a slow hook.
//! Opening /proc/PID/mem takes the same right as ptrace(2) (`PTRACE_MODE_ATTACH`), the other files
//! and links take the right to read (ptrace(2), "Ptrace access mode checking").

#![allow(unsafe_code, reason = "a listener answers by ioctl(2)")]

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use nix::sys::stat::Mode;
use serde_json::json;

use crate::lane::{Bundle, LOCULE, listen, receive, until};

/// What the caller has in its environment, and nobody else may see.
pub const SECRET: &str = "hunter2-of-the-caller";

/// In the shell's own words, as no other program may be executed where execve(2) is held up.
/// `$1` is a directory of /proc; each success is a line.
const PEEK: &str = "peek() {
    echo looking
    (exec 9<$1/mem) 2>/dev/null && echo mem
    (exec 9<$1/maps && read line <&9) 2>/dev/null && echo maps
    (exec 9<$1/environ) 2>/dev/null && echo environ
    (exec 9<$1/exe) 2>/dev/null && echo exe
    (cd $1/root) 2>/dev/null && echo root
    (cd $1/cwd) 2>/dev/null && echo cwd
    for fd in $1/fd/* $1/fd/0 $1/fd/1 $1/fd/2 $1/fd/3 $1/fd/4 $1/fd/5 $1/fd/6 $1/fd/7 $1/fd/8; do
        (exec 9<$fd) 2>/dev/null && echo $fd
    done
    true
}\n";

#[repr(C)]
#[derive(Default)]
struct Notice {
    id: u64,
    pid: u32,
    flags: u32,
    data: [u64; 8],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const NOTIF_RECV: libc::Ioctl = 0xc050_2100u32 as libc::Ioctl;
const NOTIF_SEND: libc::Ioctl = 0xc018_2101u32 as libc::Ioctl;
const CONTINUE: u32 = 1;

/// Waits until a process is held at its call.
fn held(fd: &OwnedFd) -> Notice {
    let mut notice = Notice::default();
    // SAFETY: the kernel fills a structure of the size that is in the request's number.
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), NOTIF_RECV, &raw mut notice) }, 0);
    notice
}

/// Lets it go on.
fn release(fd: &OwnedFd, notice: &Notice) {
    let mut answer = Answer { id: notice.id, value: 0, error: 0, flags: CONTINUE };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), NOTIF_SEND, &raw mut answer) }, 0);
}

fn mapped(bundle: &mut Bundle) {
    bundle.mapped();
    bundle.capable(&[
        "CAP_SYS_PTRACE",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_KILL",
        "CAP_SYS_ADMIN",
    ]);
}

/// CVE-2016-9962: an exec that is stalled at its very last call, with the workload's ids and
/// capabilities, cannot be traced or looked into by the container's root; and holds nothing of the
/// host's. With `set_undumpable` taken out, the first case fails with all
/// of `PEEK`'s lines; in a user namespace the change of ids makes the process undumpable once more.
#[test]
fn a_stalled_exec() {
    for user in [false, true] {
        let mut bundle = Bundle::new();
        if user {
            mapped(&mut bundle);
        }
        nix::unistd::mkfifo(&bundle.rootfs("go"), Mode::from_bits_truncate(0o666)).unwrap();
        let socket = bundle.path("listener");
        let listener = listen(&socket);
        bundle.set(
            "linux.seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
                "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_NOTIFY"}]}),
        );
        let attack = "read x </go
            for p in /proc/[0-9]*; do [ $p = /proc/1 ] || peek $p; done
            echo done; read x </go";
        bundle.script(&format!("{PEEK}{attack}")).create();
        let of_init = receive(&listener).1;
        std::thread::scope(|scope| {
            scope.spawn(|| release(&of_init, &held(&of_init)));
            bundle.start();
        });
        let mut exec = bundle.command(&["exec", bundle.id(), "true"]);
        let mut exec = exec.env("SECRET", SECRET).stdout(Stdio::null()).spawn().unwrap();
        let of_exec = receive(&listener).1;
        let stalled = held(&of_exec);
        // As the host sees it.
        let dir = format!("/proc/{}", stalled.pid);
        assert_eq!(fs::metadata(format!("{dir}/mem")).unwrap().uid(), 0, "it is dumpable");
        assert_no_secret(&dir);
        let held: Vec<String> = fs::read_dir(format!("{dir}/fd"))
            .unwrap()
            .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
            .filter(|held| !held.starts_with("socket:") && !held.starts_with("pipe:"))
            .collect();
        assert!(held.len() <= 3, "it holds {held:?}");
        // As the container sees it.
        fs::write(bundle.rootfs("go"), "go\n").unwrap();
        until("the attack is over", || bundle.stdout().ends_with("done\n"));
        assert_eq!(bundle.stdout(), "looking\ndone\n", "user namespace: {user}");
        release(&of_exec, &stalled);
        assert!(exec.wait().unwrap().success());
    }
}

/// Neither the environment nor the stack above it shows what the caller has in its environment.
#[track_caller]
pub fn assert_no_secret(dir: &str) {
    let environ = fs::read(format!("{dir}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environ).contains(SECRET), "the caller's environment is in {dir}");
}

/// What waits between create and start, in a pid namespace (and a user namespace) that it shares
/// with a running container: that one's root cannot look into it. Fails without `set_undumpable`.
#[test]
fn an_init_at_the_gate() {
    for user in [false, true] {
        let (mut first, mut second) = pod(user);
        second.args(&["true"]);
        let mut create = second.command(&["create", second.id()]);
        let made = create.env("SECRET", SECRET).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(made.success());
        assert_no_secret(&format!("/proc/{}", second.pid()));
        assert_eq!(peek_from(&mut first, &second), "looking", "user namespace: {user}");
    }
}

/// The same while a hook of the container's namespaces takes its time: init waits for it, within the
/// namespaces that it joined.
#[test]
fn an_init_that_waits_for_a_hook() {
    for (kind, user) in [("createContainer", false), ("createContainer", true), ("createRuntime", true)] {
        let (mut first, mut second) = pod(user);
        let fifo = second.path("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o666)).unwrap();
        let mark = second.path("hanging");
        let script = format!("echo > {}; read x < {}", mark.display(), fifo.display());
        second.set(
            "hooks",
            json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]}),
        );
        // Where init is root of the user namespace the hook is, too.
        std::os::unix::fs::chown(second.path(""), Some(100_000), Some(100_000)).unwrap();
        second.args(&["true"]);
        let mut create = second.command(&["create", second.id()]);
        let mut create =
            create.env("SECRET", SECRET).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the hook hangs", || mark.exists());
        assert_eq!(peek_from(&mut first, &second), "looking", "{kind}, user namespace: {user}");
        fs::write(&fifo, "go\n").unwrap();
        assert!(create.wait().unwrap().success());
    }
}

/// A running container, and the document of one that joins its pid (and user) namespace.
fn pod(user: bool) -> (Bundle, Bundle) {
    let (mut first, mut second) = (Bundle::new(), Bundle::new());
    if user {
        mapped(&mut first);
        mapped(&mut second);
    }
    let pid = first.up().pid();
    second.namespace(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
    if user {
        second.namespace(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
        second.edit(|config| {
            for maps in ["uidMappings", "gidMappings"] {
                config["linux"].as_object_mut().unwrap().remove(maps);
            }
        });
    }
    (first, second)
}

/// What `first` finds out about the processes of the runtime's that bear the name of `second`.
fn peek_from(first: &mut Bundle, second: &Bundle) -> String {
    let find = format!(
        "for p in /proc/[0-9]*; do
            case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in {LOCULE}*create*{}*) peek $p;; esac; done",
        second.id()
    );
    first.exec(&format!("{PEEK}{find}")).ok().to_owned()
}

/// CAP_SYS_PTRACE in the host's own user namespace is the right to look into everything that is seen,
/// undumpable or not; what waits has forgotten the caller's environment even so. Fails without
/// `forget_environment`.
#[test]
fn nothing_is_left_to_see() {
    let (mut first, mut second) = pod(false);
    drop(first);
    first = Bundle::new();
    first.capable(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    let pid = first.up().pid();
    second.namespace(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
    second.args(&["true"]);
    let mut create = second.command(&["create", second.id()]);
    let made = create.env("SECRET", SECRET).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(made.success());
    let out = first.exec(&format!(
        "for p in /proc/[0-9]*; do
            case $(tr '\\0' ' ' <$p/cmdline) in {LOCULE}*create*) cat $p/environ && echo read; ls $p/fd;; esac
        done | tr '\\0' ' '",
    ));
    assert!(out.ok().contains("read"), "{out:?}");
    assert!(!out.stdout.contains(SECRET) && !out.stdout.contains("PATH="), "{out:?}");
    // The three standard ones and the gate.
    assert_eq!(out.ok().lines().filter(|line| line.parse::<u32>().is_ok()).count(), 4, "{out:?}");
}
