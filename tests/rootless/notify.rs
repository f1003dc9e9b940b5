//! `NOTIFY_SOCKET`: what reaches the service manager, what does not, and who waits for it.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde_json::json;

use crate::lane::{Bundle, complete, unique, until};
use crate::user::{User, own};

/// The workload, when this test binary is executed in a container; elsewhere a test of nothing.
///
/// `SPEAK` says what to do, a line each.
#[test]
fn speaker() {
    let Ok(lines) = std::env::var("SPEAK") else { return };
    let sock = UnixDatagram::unbound().unwrap();
    let path = std::env::var("NOTIFY_SOCKET").unwrap();
    for line in lines.lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("say", text) => {
                sock.send_to(text.replace('|', "\n").as_bytes(), &path).unwrap();
            }
            ("await", file) => until(file, || Path::new(file).exists()),
            ("barrier", _) => {
                let (read, write) = nix::unistd::pipe().unwrap();
                let (fds, address) = ([write.as_raw_fd()], UnixAddr::new(path.as_str()).unwrap());
                let message = [std::io::IoSlice::new(b"BARRIER=1")];
                let rights = [ControlMessage::ScmRights(&fds)];
                sendmsg(sock.as_raw_fd(), &message, &rights, MsgFlags::empty(), Some(&address)).unwrap();
                drop(write);
                let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&read), PollFlags::POLLIN)];
                assert_eq!(poll(&mut fds, PollTimeout::from(60_000u16)).unwrap(), 1, "the barrier fell");
            }
            ("stay", _) => loop {
                std::thread::park();
            },
            other => panic!("{other:?}"),
        }
    }
}

/// Makes `bundle` run the speaker; `/mnt` is a directory that both sides see.
fn speaks(bundle: &mut Bundle, lines: &[&str]) {
    let exe = fs::canonicalize("/proc/self/exe").unwrap();
    let shared = bundle.directory("shared");
    bundle.file("rootfs/bin/speak", "");
    // Where a user without rights over the build's directory can read it.
    let copy = bundle.path("speak");
    fs::copy(exe, &copy).unwrap();
    bundle.mount("/mnt", "bind", shared.to_str().unwrap(), &["bind", "ro"]);
    bundle.mount("/bin/speak", "bind", copy.to_str().unwrap(), &["bind", "ro"]);
    bundle.push("process.env", json!(format!("SPEAK={}", lines.join("\n"))));
    bundle.args(&["speak", "--exact", "notify::speaker"]);
}

/// Lets the workload go on behind `await /mnt/go`.
fn go(bundle: &Bundle) {
    bundle.file("shared/go", "");
}

/// A service manager's socket.
struct Manager {
    sock: UnixDatagram,
    address: String,
}

impl Manager {
    fn new(bundle: &Bundle) -> Manager {
        let path = bundle.path("manager");
        let sock = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        Manager::over(sock, path.to_str().unwrap().to_owned())
    }

    fn over(sock: UnixDatagram, address: String) -> Manager {
        sock.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Manager { sock, address }
    }

    /// The next message.
    #[track_caller]
    fn next(&self) -> String {
        let mut bytes = [0u8; 8192];
        let length = self.sock.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Fails if there is one more.
    #[track_caller]
    fn nothing_more(&self) {
        self.sock.set_nonblocking(true).unwrap();
        let got = self.sock.recv(&mut [0u8; 8192]).map_err(|err| err.kind());
        assert_eq!(got, Err(ErrorKind::WouldBlock));
        self.sock.set_nonblocking(false).unwrap();
    }

    /// Lets a call know of this manager.
    fn told<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("NOTIFY_SOCKET", &self.address)
    }

    /// Starts a call that keeps no pipe of ours open.
    fn spawn(&self, mut command: Command) -> Child {
        self.told(&mut command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

#[test]
fn run_passes_on_what_is_known_and_nothing_else() {
    let mut bundle = Bundle::new();
    let manager = Manager::new(&bundle);
    speaks(
        &mut bundle,
        &[
            "say STATUS=begin",
            "say READY=1|MAINPID=1|FDSTORE=1|FDNAME=x|NOTIFYACCESS=all|STATUS=up",
            "say WATCHDOG=1",
            "say MAINPID=1",
            "say RELOADING=1|MONOTONIC_USEC=5",
            "say EXTEND_TIMEOUT_USEC=10|ERRNO=2|BUSERROR=a.b|X_OTHER=1",
            "barrier",
            "say STOPPING=1",
        ],
    );
    let out = complete(manager.told(&mut bundle.command(&["run", bundle.id()])));
    assert_eq!(out.status, 0, "{out:?}");
    for want in [
        "STATUS=begin\n",
        "READY=1\nSTATUS=up\n",
        "WATCHDOG=1\n",
        "RELOADING=1\nMONOTONIC_USEC=5\n",
        "EXTEND_TIMEOUT_USEC=10\nERRNO=2\nBUSERROR=a.b\n",
        "STOPPING=1\n",
    ] {
        assert_eq!(manager.next(), want);
    }
    manager.nothing_more();
    bundle.assert_gone();
}

#[test]
fn run_detached_waits_for_ready_and_names_the_main_process() {
    let mut bundle = Bundle::new();
    let manager = Manager::new(&bundle);
    speaks(&mut bundle, &["say STATUS=waiting", "await /mnt/go", "say READY=1", "stay"]);
    let mut call = manager.spawn(bundle.command(&["run", "--detach", bundle.id()]));
    assert_eq!(manager.next(), "STATUS=waiting\n");
    assert!(call.try_wait().unwrap().is_none(), "it waits");
    go(&bundle);
    assert_eq!(manager.next(), format!("READY=1\nMAINPID={}\n", bundle.pid()));
    assert_eq!(manager.next(), "BARRIER=1");
    assert!(call.wait().unwrap().success());
    bundle.kill("KILL").wait_for("stopped").delete().assert_gone();
}

#[test]
fn start_waits_for_ready() {
    let mut bundle = Bundle::new();
    let manager = Manager::new(&bundle);
    speaks(&mut bundle, &["say STATUS=waiting", "await /mnt/go", "say READY=1|STATUS=up", "stay"]);
    assert!(manager.spawn(bundle.command(&["create", bundle.id()])).wait().unwrap().success());
    manager.nothing_more();
    let mut call = manager.spawn(bundle.command(&["start", bundle.id()]));
    assert_eq!(manager.next(), "STATUS=waiting\n");
    assert!(call.try_wait().unwrap().is_none(), "it waits");
    assert_eq!(bundle.state()["status"], "running", "and locks nobody out");
    go(&bundle);
    assert_eq!(manager.next(), format!("READY=1\nSTATUS=up\nMAINPID={}\n", bundle.pid()));
    assert_eq!(manager.next(), "BARRIER=1");
    assert!(call.wait().unwrap().success());
    bundle.locule(&["delete", "--force", bundle.id()]).ok();
    bundle.assert_gone();
}

#[test]
fn an_end_without_ready_ends_the_wait() {
    for verb in ["run", "create"] {
        let mut bundle = Bundle::new();
        let manager = Manager::new(&bundle);
        speaks(&mut bundle, &["say STATUS=failed"]);
        let options: &[&str] = if verb == "run" { &["run", "--detach"] } else { &["create"] };
        let words = [options, &[bundle.id()]].concat();
        assert!(manager.spawn(bundle.command(&words)).wait().unwrap().success());
        if verb == "create" {
            assert!(manager.spawn(bundle.command(&["start", bundle.id()])).wait().unwrap().success());
        }
        assert_eq!(manager.next(), "STATUS=failed\n");
        manager.nothing_more();
    }
}

#[test]
fn ready_right_before_the_end_counts() {
    let mut bundle = Bundle::new();
    let manager = Manager::new(&bundle);
    speaks(&mut bundle, &["say READY=1"]);
    assert!(manager.spawn(bundle.command(&["run", "--detach", bundle.id()])).wait().unwrap().success());
    assert!(manager.next().starts_with("READY=1\nMAINPID="));
}

#[test]
fn without_a_manager_there_is_no_socket() {
    let mut bundle = Bundle::new();
    bundle.script("echo ${NOTIFY_SOCKET-none}; test -e /run/notify || echo nothing");
    assert_eq!(bundle.run().ok(), "none\nnothing");
    assert_eq!(
        complete(bundle.command(&["run", bundle.id()]).env("NOTIFY_SOCKET", "")).ok(),
        "none\nnothing"
    );
}

#[test]
fn the_directory_inside_is_read_only_and_the_socket_for_all() {
    let mut bundle = Bundle::new();
    let manager = Manager::new(&bundle);
    bundle.script("echo $NOTIFY_SOCKET; stat -c %a $NOTIFY_SOCKET; touch /run/notify/x");
    let out = complete(manager.told(&mut bundle.command(&["run", bundle.id()])));
    assert_eq!(out.stdout, "/run/notify/notify.sock\n666\n");
    assert!(out.status != 0 && out.stderr.contains("Read-only"), "{out:?}");
}

#[test]
fn a_socket_of_the_document_is_left_alone() {
    let mut bundle = Bundle::new();
    let manager = Manager::new(&bundle);
    bundle.push("process.env", json!("NOTIFY_SOCKET=/own"));
    bundle.script("echo $NOTIFY_SOCKET; test -e /run/notify || echo nothing");
    let out = complete(manager.told(&mut bundle.command(&["run", bundle.id()])));
    assert_eq!(out.ok(), "/own\nnothing");
}

#[test]
fn abstract_addresses_are_known_and_others_refused() {
    let mut bundle = Bundle::new();
    let name = unique("manager");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::over(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"));
    speaks(&mut bundle, &["say READY=1"]);
    assert_eq!(complete(manager.told(&mut bundle.command(&["run", bundle.id()]))).status, 0);
    assert_eq!(manager.next(), "READY=1\n");
    let refused = complete(bundle.command(&["run", bundle.id()]).env("NOTIFY_SOCKET", "vsock:2:1"));
    refused.refused_with(&["NOTIFY_SOCKET=vsock:2:1"]);
    bundle.assert_gone();
}

#[test]
fn a_manager_that_is_gone_does_not_end_the_workload() {
    let mut bundle = Bundle::new();
    speaks(&mut bundle, &["say READY=1", "barrier"]);
    let mut call = bundle.command(&["run", bundle.id()]);
    let out = complete(call.env("NOTIFY_SOCKET", bundle.path("nobody")));
    assert_eq!(out.status, 0, "{out:?}");
}

#[test]
fn a_users_container_speaks_as_well() {
    let mut user = User::new();
    let manager = Manager::new(&user.bundle);
    speaks(&mut user.bundle, &["say READY=1", "stay"]);
    own(&user.bundle.path(""));
    let call = manager.spawn(user.command(&["run", "--detach", user.id()])).wait().unwrap();
    assert!(call.success());
    assert_eq!(manager.next(), format!("READY=1\nMAINPID={}\n", user.pid()));
}

#[test]
fn a_mapped_container_speaks_as_well() {
    let mut bundle = crate::mapped::mapped();
    let manager = Manager::new(&bundle);
    speaks(&mut bundle, &["say READY=1"]);
    bundle.set("process.user", json!({"uid": 5, "gid": 5}));
    let out = complete(manager.told(&mut bundle.command(&["run", bundle.id()])));
    assert_eq!(out.status, 0, "{out:?}");
    assert_eq!(manager.next(), "READY=1\n");
}

/// The caller was told that it failed, and has nothing to end it by.
#[test]
fn a_detached_run_that_cannot_tell_leaves_nothing() {
    let mut bundle = Bundle::new();
    let manager = Manager::new(&bundle);
    speaks(&mut bundle, &["await /mnt/go", "say READY=1", "stay"]);
    let mut call = manager.spawn(bundle.command(&["run", "--detach", bundle.id()]));
    until("the container runs", || bundle.locule(&["state", bundle.id()]).stdout.contains("\"running\""));
    // Closing is not enough: what another test's thread forks holds the socket until it executes.
    manager.sock.shutdown(std::net::Shutdown::Both).unwrap();
    drop(manager);
    go(&bundle);
    assert!(!call.wait().unwrap().success());
    bundle.assert_gone();
}
