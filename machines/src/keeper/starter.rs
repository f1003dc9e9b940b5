//! The heavy part of a machine's life, in a process of its own: making it, and cleaning up after it.
//!
//! A child of the keeper that runs from a sealed copy and ends when its work is done, so that what it needed (images,
//! networks, documents) costs the keeper nothing. It answers over its standard input, a socket of the keeper's.

use std::fs::File;
use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use locule_runtime::Store;
use locule_runtime::process::seal;
use locule_runtime::spec::Mount;
use locule_runtime::sys::fs::openat2;
use locule_runtime::sys::{process, socket};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::notify;
use crate::life::{self, Prepared, Wishes};
use crate::{Context, Error, Home, Kind, Machine, Result};

/// The names of the log pipes in the machine's runtime directory: standard output and error.
pub const PIPES: [&str; 2] = ["stdout", "stderr"];
/// Where init's terminal is handed over.
const CONSOLE: &str = "console.setup";

/// What the keeper learns of a machine that was started.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// Its init.
    pub pid: i32,
    /// Its cgroup below the mount.
    pub cgroup: Option<PathBuf>,
    /// The signal that asks it to end.
    pub stop_signal: i32,
    /// Whether a terminal's master comes along.
    pub terminal: bool,
}

/// What a starter answers.
pub type Answer = Result<Started, Error>;

/// Makes the FIFOs for output without a terminal, and opens both.
///
/// Each opener has both ends, so that neither the machine nor a keeper ever sees the other's absence: without a keeper
/// a machine that writes waits when 64 KiB are full, and is never ended by it.
pub fn pipes(run: &Path) -> Result<[OwnedFd; 2]> {
    let one = |name: &str| {
        let path = run.join(name);
        let doing = || format!("making the log pipe {}", path.display());
        match nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
        File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(&path)
            .doing(doing)
            .map(OwnedFd::from)
    };
    Ok([one(PIPES[0])?, one(PIPES[1])?])
}

/// Asks the machine's first process to end, and kills all of it if that is lost on it; the exit code.
pub fn ask(home: &Home, machine: &Machine) -> Result<i32> {
    if let Some(container) = life::container(home, machine)?
        && !life::ask(&container, life::stop_signal_of(home, machine, &container))?
    {
        container.kill(libc::SIGKILL, true)?;
    }
    Ok(0)
}

/// Starts the machine and answers the keeper; the exit code.
pub fn start(home: &Home, machine: &Machine) -> Result<i32> {
    process::reset_signals();
    let keeper = stdin().as_fd().try_clone_to_owned().doing(|| "reaching the keeper")?;
    let mut master = None;
    let answer: Answer = make(home, machine, &mut master).inspect_err(|_| {
        let _ = undo(home, machine);
    });
    let text = serde_json::to_vec(&answer).doing(|| "answering the keeper")?;
    let fds: Vec<_> = master.iter().map(AsFd::as_fd).collect();
    // Without a keeper to take it the machine would run unseen; it is what the next command re-adopts.
    socket::send(&keeper, &text, &fds).doing(|| "answering the keeper")?;
    Ok(i32::from(answer.is_err()))
}

fn make(home: &Home, machine: &Machine, master: &mut Option<OwnedFd>) -> Result<Started> {
    let naming = |err: Error| err.context(format_args!("starting {}", machine.name()));
    let store = Store::create_root(home.run(), false)?;
    let _lock = machine.lock("start")?;
    let console = machine.run().join(CONSOLE);
    let _ = std::fs::remove_file(&console);
    let listener = listen_stream(machine.run()).map_err(naming)?;
    let notify = notify::prepare(machine.run())?;
    let definition = machine.definition()?;
    let cgroup = super::cgroup_path(machine);
    if life::container(home, machine)?.is_some() {
        life::clean(home, machine)?;
    }
    let mounts = vec![Mount {
        destination: notify::PLACE.into(),
        kind: Some("bind".into()),
        source: Some(notify),
        options: ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec(),
        ..Mount::default()
    }];
    let env = vec![notify::variable()];
    let wishes = Wishes { cgroup, console_socket: Some(console.clone()), mounts, env };
    let Prepared { request, stop_signal, .. } =
        life::prepare(home, machine, &definition, wishes, seal::ensure()?).map_err(naming)?;
    let terminal = request.console_socket.is_some();
    pipes(machine.run())?;
    let null = File::options().read(true).write(true).open("/dev/null").doing(|| "opening /dev/null")?;
    for (name, number) in PIPES.into_iter().zip(1..) {
        // Opened anew, because the machine's ends wait where a keeper's do not.
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW;
        openat2(AT_FDCWD, machine.run().join(name), flags, 0, 0)
            .and_then(|pipe| process::dup_to(&pipe, number))
            .doing(|| "setting up the log pipes")?;
    }
    process::dup_to(&null, 0).doing(|| "setting up standard input")?;
    locule_runtime::create(&store, request)?;
    let _ = std::fs::remove_file(&console);
    if terminal {
        *master = Some(receive(&listener).map_err(naming)?);
    }
    let container = store.load(machine.name())?;
    let (pid, _) = container.init()?;
    life::connect(home, machine, &definition, pid).map_err(naming)?;
    container.start()?;
    let state = container.state();
    Ok(Started {
        pid,
        cgroup: state.cgroup.as_ref().map(|record| record.path.clone()),
        stop_signal,
        terminal,
    })
}

fn undo(home: &Home, machine: &Machine) -> Result<()> {
    life::clean(home, machine)
}

/// Cleans up after a machine that has ended; the exit code.
pub fn clean(home: &Home, machine: &Machine) -> Result<i32> {
    process::reset_signals();
    undo(home, machine)
        .map(|()| 0)
        .map_err(|err| err.context(format_args!("cleaning up after {}", machine.name())))
}

fn listen_stream(run: &Path) -> Result<OwnedFd> {
    let doing = || format!("making the socket for the terminal in {}", run.display());
    let dir = openat2(AT_FDCWD, run, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
    socket::listen_stream_at(&dir, CONSOLE, 1).doing(doing)
}

fn receive(listener: &OwnedFd) -> Result<OwnedFd> {
    let doing = || "receiving the terminal of init";
    let sock = socket::accept(listener).doing(doing)?;
    let (_, fds) = socket::recv(&sock, &mut [0; 256]).doing(doing)?;
    fds.into_iter().next().ok_or_else(|| Error::new(Kind::System, format!("{}: it sent none", doing())))
}
