//! The keeper: what stays beside a running machine.
//!
//! Two small processes of this binary, and one that comes and goes:
//!
//! ```text
//! keeper      the parent of the machine's init (and the unit's main process under systemd): waits for its end, writes
//!             exit.json, decides on restarts, asks for health, stops it; holds the terminal and the log pipes
//!   attendant its fork, jailed: console socket, log, ring, notifications; the only one that touches the machine's bytes
//!   starter   executed for each start and each clean-up, then gone: images, mounts, networks, create, start
//! ```
//!
//! `kill -9` of any of them ends no machine. The attendant is made anew by the keeper. Without a keeper the attendant
//! goes on and hands the terminal to the next keeper, which the next command starts; systemd holds it as well. Log
//! pipes are FIFOs that both ends hold open; what was taken from them and is not yet in the log lies in a file
//! (`spool`). A keeper is told to stop by SIGTERM, twice to kill; SIGHUP has it read `machine.toml` again. Its state
//! is `keeper.json`, whose changes are seen by watching the directory.

mod attached;
mod attend;
pub mod console;
mod health;
mod jail;
pub mod log;
pub mod notify;
pub mod protocol;
pub mod record;
pub mod ring;
mod spool;
pub mod starter;
mod store;
mod supervise;
pub mod unit;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use locule_runtime::sys::clone::{Exit, pidfd_exit, pidfd_open};
use locule_runtime::sys::{process, socket};
use locule_runtime::time::rfc3339;
use locule_runtime::{Status, cgroup};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags};

pub use attached::attached;
use record::{Ended, Keeper, Phase};

use crate::{Context, Error, Home, Kind, Machine, Result, life, watch};

/// The verb that runs a part of a keeper.
pub const VERB: &str = "keeper";
/// Its word for the keeper itself.
pub const STAY: &str = "stay";
/// Held by the keeper for as long as it lives.
const LOCK: &str = "keeper.lock";

/// Becomes the keeper of `machine`: starts it, or takes it over where it runs already, and stays until it has ended for
/// good; the exit code. In the foreground errors are returned, otherwise standard input is the socket of [`spawn`].
pub fn run(home: &Home, machine: &Machine, foreground: bool) -> Result<i32> {
    prepare(machine)?;
    if foreground {
        return supervise::keep(home, machine, None);
    }
    process::reset_signals();
    // Where that may not be (a cgroup tree of somebody else's), it stays where its caller is.
    let _ = unit::move_out();
    let report = std::io::stdin().as_fd().try_clone_to_owned().doing(|| "reaching the caller")?;
    let null = File::options().read(true).write(true).open("/dev/null").doing(|| "opening /dev/null")?;
    process::dup_to(&null, 0).doing(|| "letting go of standard input")?;
    let told = report.try_clone().doing(|| "reaching the caller")?;
    let result = match nix::unistd::setsid() {
        Ok(_) | Err(Errno::EPERM) => supervise::keep(home, machine, Some(report)),
        Err(errno) => Err(errno).doing(|| "starting a session"),
    };
    if let Err(err) = &result {
        // Where the machine runs already nobody listens any more.
        let text = serde_json::to_vec(err).doing(|| "telling the error")?;
        let _ = socket::send(&told, &text, &[]);
    }
    result
}

/// Starts a keeper that starts `machine`, and returns once it runs; through systemd where that knows machines.
///
/// Also the way to re-adopt one whose keeper died.
pub fn spawn(home: &Home, machine: &Machine) -> Result<()> {
    prepare(machine)?;
    if unit::rules(home) {
        let unit = unit::name(machine);
        // The limit on starts is for those that fail by themselves.
        let _ = unit::systemctl(&["reset-failed"], &unit);
        return unit::systemctl(&["start"], &unit).map_err(|err| why(machine, err));
    }
    let (ours, theirs) = socket::pair().doing(|| "making a socket for the keeper")?;
    let log = machine.dir().join(log::DIR);
    std::fs::create_dir_all(&log).doing(|| format!("making {}", log.display()))?;
    let trouble = log.join("keeper.log");
    let stderr = File::options()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(&trouble)
        .doing(|| format!("opening {}", trouble.display()))?;
    let mut child = child(home, STAY, machine)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr))
        .spawn()
        .doing(|| "running the keeper")?;
    let mut text = vec![0; 64 * 1024];
    let (length, _) = socket::recv(&ours, &mut text).doing(|| "waiting for the keeper")?;
    match &text[..length] {
        [0] => Ok(()),
        [] => {
            let _ = child.wait();
            Err(Error::new(Kind::System, format!("starting {}: its keeper died", machine.name()))
                .hint(format!("see {}", trouble.display())))
        }
        text => {
            let _ = child.wait();
            Err(serde_json::from_slice(text).doing(|| "reading the keeper's answer")?)
        }
    }
}

/// What the keeper itself says about a start that systemd calls failed.
fn why(machine: &Machine, err: Error) -> Error {
    match Keeper::read(machine).and_then(|keeper| keeper.failure) {
        Some(failure) => Error::new(Kind::System, failure),
        None => err,
    }
}

/// Ends what the keeper of a unit left, where systemd gave up on the unit; a machine whose keeper was killed or hung is
/// left for its next keeper (`SERVICE_RESULT`, systemd.exec(5)).
pub fn after_unit(home: &Home, machine: &Machine) -> Result<()> {
    let result = std::env::var("SERVICE_RESULT").unwrap_or_default();
    if matches!(result.as_str(), "signal" | "core-dump" | "watchdog" | "")
        || Keeper::living(machine).is_some()
    {
        return Ok(());
    }
    let Some(container) = life::container(home, machine)? else { return Ok(()) };
    if !matches!(container.status()?, Status::Stopped) {
        life::halt(&container, libc::SIGKILL, Duration::ZERO)?;
        let ended = Ended::new(Some(Exit::Signal(libc::SIGKILL)), false, true, rfc3339(SystemTime::now()));
        ended.write(machine.run())?;
    }
    life::clean(home, machine)
}

/// Waits until `machine` is ready (`boot.ready`), for at most `limit`.
pub fn await_ready(machine: &Machine, limit: Option<Duration>) -> Result<()> {
    let doing = || format!("waiting for {} to be ready", machine.name());
    let until = limit.map(|limit| Instant::now() + limit);
    let inotify = watch::new(InitFlags::IN_NONBLOCK, doing)?;
    let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_CREATE;
    inotify.add_watch(machine.run(), flags).doing(doing)?;
    loop {
        let Some(keeper) = Keeper::living(machine) else {
            let how = Ended::read(machine).map_or("nobody keeps it".into(), |ended| ended.told());
            return Err(Error::new(Kind::State, format!("{}: it has ended: {how}", doing())));
        };
        if keeper.ready && keeper.phase == Phase::Running {
            return Ok(());
        }
        let pidfd = match pidfd_open(keeper.keeper.pid) {
            Err(Errno::ESRCH) => continue,
            other => other.doing(doing)?,
        };
        let timeout = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if left.is_zero() => {
                return Err(Error::new(Kind::State, format!("{}: it is not, in time", doing()))
                    .hint(format!("locule logs {} tells more", machine.name())));
            }
            Some(left) => PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut fds =
            [PollFd::new(inotify.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            other => drop(other.doing(doing)?),
        }
        while matches!(inotify.read_events(), Ok(events) if !events.is_empty()) {}
    }
}

/// The machine's runtime directory, made where missing.
fn prepare(machine: &Machine) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(machine.run())
        .doing(|| format!("making {}", machine.run().display()))
}

/// The cgroup of a machine that this process starts.
fn cgroup_path(machine: &Machine) -> String {
    unit::payload(machine).to_string_lossy().into_owned()
}

/// The directory of a cgroup.
fn group(path: &Path) -> PathBuf {
    Path::new(cgroup::MOUNT).join(path.strip_prefix("/").unwrap_or(path))
}

/// The lock that a keeper holds; the kernel lets go of it, however the keeper ends.
fn lock(machine: &Machine) -> Result<Flock<File>> {
    let path = machine.run().join(LOCK);
    let doing = || format!("locking {}", path.display());
    let file =
        File::options().write(true).create(true).truncate(false).mode(0o600).open(&path).doing(doing)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EAGAIN)) => {
            Err(Error::new(Kind::State, format!("{} has a keeper already", machine.name())))
        }
        Err((_, errno)) => Err(errno).doing(doing),
    }
}

/// A call of this very binary on the same state and data.
fn child_of(home: &Home) -> Command {
    let mut command = Command::new("/proc/self/exe");
    {
        use std::os::unix::process::CommandExt;
        command.arg0("locule");
    }
    command.arg("--root").arg(home.run()).arg("--data").arg(home.data());
    // They are of this process: a child would take them for its own.
    for name in [
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PIDFDID",
    ] {
        command.env_remove(name);
    }
    command
}

/// A part of a keeper's work, in a process of its own.
fn child(home: &Home, word: &str, machine: &Machine) -> Command {
    let mut command = child_of(home);
    command.args([VERB, word, machine.name()]);
    command
}

/// Asks what an old keeper left in `run` for the terminal.
fn take_terminal(run: &Path) -> Result<Option<OwnedFd>> {
    let Some(sock) = console::connect(run)? else { return Ok(None) };
    if socket::send(&sock, &[protocol::TAKE], &[]).is_err() {
        return Ok(None);
    }
    let mut bytes = [0; protocol::LONGEST];
    match socket::recv(&sock, &mut bytes) {
        Ok((length, fds)) if length > 0 && bytes[0] == protocol::TAKE => Ok(fds.into_iter().next()),
        _ => Ok(None),
    }
}

/// How a process that is not ours ended, once its parent has reaped it; `None` where nobody tells.
fn exit_of_stranger(pidfd: &OwnedFd) -> Option<Exit> {
    // Between its end and its parent's wait(2) there is no event to wait for.
    for _ in 0..50 {
        match pidfd_exit(pidfd) {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Ok(exit) => return exit,
            Err(_) => return None,
        }
    }
    None
}
