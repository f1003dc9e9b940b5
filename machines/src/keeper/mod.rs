//! The keeper: the one process that stays beside a running machine.
//!
//! Owns the machine's console, its log, its end and what is done then. Parses nothing that the machine wrote.

mod attached;
pub mod record;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use locule_runtime::process::create::{Created, Then, make};
use locule_runtime::process::seal::Seal;
use locule_runtime::state::ProcessId;
use locule_runtime::sys::clone::{self, pidfd_signal};
use locule_runtime::sys::process;
use locule_runtime::{Store, time};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::life::{self, Wishes};
use crate::lock::make_private;
use crate::{Context, Error, Home, Kind, Machine, Result};
pub use attached::attached;
use record::{Ended, Keeper, Phase};

/// The word that a keeper says when the machine runs.
const STARTED: &str = "started\n";

/// The cgroup of a machine that no service manager gives one.
fn cgroup_path(machine: &Machine) -> String {
    format!("/locule/{}", machine.name())
}

/// Starts a keeper for `machine`; returns when the machine runs.
pub fn spawn(home: &Home, machine: &Machine) -> Result<()> {
    let doing = || format!("starting machine {}", machine.name());
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("locule")
        .arg("--root")
        .arg(home.run())
        .arg("--data")
        .arg(home.data())
        .args(["start", "--foreground", machine.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().doing(doing)?;
    let mut word = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut word).doing(doing)?;
    }
    if word == STARTED {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).doing(doing)?;
    }
    let _ = child.wait();
    let said = said.trim().trim_start_matches("locule: ");
    Err(Error::new(Kind::System, said))
}

/// Becomes the keeper of `machine` until it ends; returns its exit code.
pub fn run(home: &Home, machine: &Machine, seal: Seal) -> Result<i32> {
    process::set_subreaper().doing(|| "becoming the reaper of the machine's orphans")?;
    process::block_signals();
    let lock = machine.lock("start")?;
    let _ = nix::unistd::setsid();
    life::forget_stop(machine)?;
    let definition = machine.definition()?;
    make_private(machine.run())?;
    let mut keeper = Keeper {
        keeper: ProcessId::of(std::process::id() as i32)?,
        phase: Phase::Starting,
        since: time::rfc3339(std::time::SystemTime::now()),
        init: None,
        ready: false,
        health: None,
        restarts: 0,
        unit: None,
        failure: None,
        status: None,
    };
    keeper.write(machine.run())?;
    let socket = machine.run().join("console.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).doing(|| format!("listening on {}", socket.display()))?;
    let wishes = Wishes { cgroup: cgroup_path(machine), console_socket: Some(socket), ..Wishes::default() };
    let prepared = life::prepare(home, machine, &definition, wishes, seal)?;
    let stop_signal = prepared.stop_signal;
    let terminal = prepared.init.terminal;
    // What the machine inherits is its log; the caller is answered beside it.
    let doing = || "letting go of the caller";
    let (mut answer, errors) = (
        std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned().doing(doing)?),
        std::io::stderr().as_fd().try_clone_to_owned().doing(doing)?,
    );
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").doing(|| "opening /dev/null")?;
    let log = open_log(machine)?;
    process::dup_to(&null, 0).doing(doing)?;
    process::dup_to(&log, 1).doing(doing)?;
    process::dup_to(&log, 2).doing(doing)?;
    let started = (|| {
        let Created { container, pid, pidfd, warnings, .. } =
            make(&Store::open(home.run())?, prepared.request, Then::Wait, true)?;
        locule_runtime::warn::warn_all(warnings);
        let master = if terminal { Some(receive(&listener)?) } else { None };
        life::connect(home, machine, &definition, pid)?;
        container.start()?;
        Ok::<_, Error>((pid, pidfd, master))
    })();
    let (pid, pidfd, master) = started.inspect_err(|_| {
        let _ = process::dup_to(&errors, 2);
        let _ = life::clean(home, machine);
        let _ = life::forget_keeper(machine);
    })?;
    drop(errors);
    keeper.phase = Phase::Running;
    keeper.init = Some(pid);
    keeper.write(machine.run())?;
    drop(lock);
    answer.write_all(STARTED.as_bytes()).doing(|| "telling that it runs")?;
    drop(answer);
    let exit = keep(machine, pid, &pidfd, master, stop_signal, &mut keeper)?;
    let ended = Ended::new(
        Some(exit),
        false,
        life::is_stop_asked(machine),
        time::rfc3339(std::time::SystemTime::now()),
    );
    life::clean(home, machine)?;
    ended.write(machine.run())?;
    life::forget_keeper(machine)?;
    Ok(ended.shell_code())
}

fn open_log(machine: &Machine) -> Result<std::fs::File> {
    let dir = machine.dir().join("log");
    make_private(&dir)?;
    let path = dir.join("console.log");
    let options = OpenOptions::new().create(true).append(true).mode(0o600).clone();
    options.open(&path).doing(|| format!("opening {}", path.display()))
}

/// Receives the terminal's master.
fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    let doing = || "receiving the machine's terminal";
    let (stream, _) = listener.accept().doing(doing)?;
    let mut buffer = [0; 64];
    let mut iov = [std::io::IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let message = recvmsg::<()>(
        std::os::fd::AsRawFd::as_raw_fd(&stream),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .doing(doing)?;
    for control in message.cmsgs().doing(doing)? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            if let Some(fd) = fds.into_iter().next().and_then(process::adopt) {
                return Ok(fd);
            }
        }
    }
    Err(Error::new(Kind::System, "the machine's terminal did not come"))
}

/// Writes the console's output to the log until init ends.
fn keep(
    machine: &Machine,
    pid: i32,
    pidfd: &OwnedFd,
    master: Option<OwnedFd>,
    stop_signal: i32,
    keeper: &mut Keeper,
) -> Result<clone::Exit> {
    let signals = process::signalfd().doing(|| "listening for signals")?;
    let mut log = open_log(machine)?;
    let mut master = master;
    loop {
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(master) = &master {
            fds.push(PollFd::new(master.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.doing(|| "waiting for the machine")?,
        };
        if let Some(fd) = master.as_ref().filter(|_| fds.last().is_some_and(|fd| fd.any().unwrap_or(false))) {
            let mut buffer = [0; 4096];
            match nix::unistd::read(fd, &mut buffer) {
                Ok(n) if n > 0 => log.write_all(&buffer[..n]).doing(|| "writing the log")?,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                _ => master = None,
            }
        }
        while let Some(signal) = process::next_signal(&signals).doing(|| "reading a signal")? {
            if signal == libc::SIGTERM {
                keeper.phase = Phase::Stopping;
                keeper.write(machine.run())?;
                let _ = pidfd_signal(pidfd, stop_signal);
            }
        }
        while let Ok(Some((ended, exit))) = clone::reap_any() {
            if ended == pid {
                return Ok(exit);
            }
        }
    }
}
