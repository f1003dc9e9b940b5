//! The heavy part of a machine's life, in a process of its own: making it, and cleaning up after it.
//!
//! A child of the keeper that runs from a sealed copy and ends when its work is done, so that what it needed (images,
//! networks, documents) costs the keeper nothing. It answers over its standard input, a socket of the keeper's.

use std::fs::File;
use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use locule_runtime::process::create::CreateRequest;
use locule_runtime::spec::Mount;
use locule_runtime::sys::fs::openat2;
use locule_runtime::sys::{process, socket};
use locule_runtime::{Container, Status, Store};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::{notify, unit};
use crate::{Context, Error, Home, Kind, Machine, Result};

/// The names of the log pipes in the machine's runtime directory: standard output and error.
pub const PIPES: [&str; 2] = ["stdout", "stderr"];
/// Where init's terminal is handed over.
const CONSOLE: &str = "console.setup";

/// What the keeper wants of the container to be.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Its cgroup, below the cgroup2 mount.
    pub cgroup: String,
    /// Where the master of its terminal goes, should it have one.
    pub console_socket: Option<PathBuf>,
    /// Mounts beside its own.
    pub mounts: Vec<Mount>,
    /// Environment beside its own, as `KEY=value`.
    pub env: Vec<String>,
}

/// What is made of a machine's definition; the keeper knows nothing of it.
pub trait Life {
    /// Makes the bundle with all that it mounts; what `create` needs, and the signal that asks the machine to end.
    fn prepare(&self, wishes: Wishes) -> Result<(CreateRequest, i32)>;
    /// Connects the created container, whose init is `pid`, to its networks.
    fn connect(&self, pid: i32) -> Result<()>;
    /// Undoes all of it but the data, also what a part of it left behind.
    fn clean(&self) -> Result<()>;
}

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

/// Starts the machine and answers the keeper; the exit code.
pub fn start(home: &Home, machine: &Machine, life: &dyn Life) -> Result<i32> {
    process::reset_signals();
    let keeper = stdin().as_fd().try_clone_to_owned().doing(|| "reaching the keeper")?;
    let mut master = None;
    let answer: Answer = make(home, machine, life, &mut master).inspect_err(|_| {
        let _ = undo(home, machine, life);
    });
    let text = serde_json::to_vec(&answer).doing(|| "answering the keeper")?;
    let fds: Vec<_> = master.iter().map(AsFd::as_fd).collect();
    // Without a keeper to take it the machine would run unseen; it is what the next command re-adopts.
    socket::send(&keeper, &text, &fds).doing(|| "answering the keeper")?;
    Ok(i32::from(answer.is_err()))
}

fn make(
    home: &Home,
    machine: &Machine,
    life: &dyn Life,
    master: &mut Option<OwnedFd>,
) -> Result<Started> {
    let naming = |err: Error| err.context(format_args!("starting {}", machine.name()));
    let store = Store::create_root(home.run(), false)?;
    // What a crash left; one that runs is refused by its name below.
    if store.load(machine.name()).and_then(|old| old.status()).is_ok_and(|status| status == Status::Stopped) {
        locule_runtime::delete(&store, machine.name(), true)?;
    }
    let console = machine.run().join(CONSOLE);
    let _ = std::fs::remove_file(&console);
    let listener = listen_stream(machine.run()).map_err(naming)?;
    let notify = notify::prepare(machine.run())?;
    let wishes = Wishes {
        cgroup: unit::payload(machine).to_string_lossy().into_owned(),
        console_socket: Some(console.clone()),
        mounts: vec![Mount {
            destination: notify::PLACE.into(),
            kind: Some("bind".into()),
            source: Some(notify),
            options: ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec(),
            ..Mount::default()
        }],
        env: vec![notify::variable()],
    };
    let (request, stop_signal) = life.prepare(wishes).map_err(naming)?;
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
    life.connect(pid).map_err(naming)?;
    container.start()?;
    let state = container.state();
    Ok(Started {
        pid,
        cgroup: state.cgroup.as_ref().map(|record| record.path.clone()),
        stop_signal,
        terminal,
    })
}

/// The annotation of image-spec's conversion rules for `config.StopSignal`.
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// The signal that asks init to end: the owner's, the image's, or what its kind of init understands.
pub fn stop_signal(machine: &Machine, container: &Container) -> Result<i32> {
    let owners = machine.definition()?.init.stop_signal;
    let images = container.state().annotations.get(STOP_SIGNAL).cloned();
    if let Some(word) = owners.or(images).filter(|word| !word.is_empty()) {
        return signal(&word)
            .ok_or_else(|| Error::invalid(format!("the stop signal {word:?} is none: use a name or a number")));
    }
    let args = container.spec()?.process.unwrap_or_default().args;
    let program = args.first().map(|word| word.rsplit('/').next().unwrap_or_default().to_owned());
    Ok(match program.as_deref() {
        // systemd(1): halt; other inits take SIGTERM or are killed in the end.
        Some("systemd" | "init") => libc::SIGRTMIN() + 3,
        _ => libc::SIGTERM,
    })
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
pub fn signal(word: &str) -> Option<i32> {
    if let Ok(number) = word.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let more: i32 = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        return Some(libc::SIGRTMIN() + more).filter(|number| (1..=64).contains(number));
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

fn undo(home: &Home, machine: &Machine, life: &dyn Life) -> Result<()> {
    if let Ok(store) = Store::open(home.run()) {
        locule_runtime::delete(&store, machine.name(), true)?;
    }
    life.clean()
}

/// Cleans up after a machine that has ended; the exit code.
pub fn clean(home: &Home, machine: &Machine, life: &dyn Life) -> Result<i32> {
    process::reset_signals();
    undo(home, machine, life).map(|()| 0).map_err(|err| err.context(format_args!("cleaning up after {}", machine.name())))
}

fn listen_stream(run: &Path) -> Result<OwnedFd> {
    let doing = || format!("making the socket for the terminal in {}", run.display());
    let dir = openat2(AT_FDCWD, run, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
    socket::listen_stream_at(&dir, CONSOLE).doing(doing)
}

fn receive(listener: &OwnedFd) -> Result<OwnedFd> {
    let doing = || "receiving the terminal of init";
    let sock = socket::accept(listener).doing(doing)?;
    let (_, fds) = socket::recv(&sock, &mut [0; 256]).doing(doing)?;
    fds.into_iter().next().ok_or_else(|| Error::new(Kind::System, format!("{}: it sent none", doing())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("SIGTERM"), Some(15));
        assert_eq!(signal("term"), Some(15));
        assert_eq!(signal("9"), Some(9));
        assert_eq!(signal("SIGRTMIN+3"), Some(37));
        assert_eq!(signal("RTMIN"), Some(34));
        for word in ["", "0", "65", "SIGNONE", "RTMIN-1", "RTMIN+99", "-1"] {
            assert_eq!(signal(word), None, "{word:?}");
        }
    }
}
