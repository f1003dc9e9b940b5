//! `exec` in a virtual machine: a small process on the host stands for the one inside.
//!
//! It lives in the container's cgroup, hands its standard descriptors to the monitor, passes signals and the size of
//! its terminal on, and ends as the process inside did. So pid files, `--detach` and the wait of the foreground are
//! those of every `exec`.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::setsid;

use super::control::{Answer, Ask, Connection};
use crate::container::Container;
use crate::error::{Context, Error, Kind, Result};
use crate::process::channel::{Channel, Message};
use crate::process::console;
use crate::spec::Process;
use crate::sys::{process, tty};

/// What the process that stands for another one knows.
pub(crate) struct Standing<'a> {
    /// The container.
    pub container: &'a Container,
    /// The process to run inside.
    pub process: &'a Process,
    /// The engine's console socket.
    pub console_socket: Option<&'a OwnedFd>,
    /// Its creator.
    pub channel: &'a Channel,
}

/// Runs in the clone: has the process run inside, and ends as that does.
pub(crate) fn stand(standing: &Standing<'_>) -> ! {
    match set_up(standing) {
        Ok(connection) => go_on(standing, &connection),
        Err(err) => standing.channel.give_up(err),
    }
}

fn set_up(standing: &Standing<'_>) -> Result<Connection> {
    let Standing { container, process: spec, channel, .. } = standing;
    process::set_parent_death_signal(libc::SIGKILL).doing(|| "tying the process to its creator")?;
    process::reset_signals();
    process::block_signals();
    process::forget_environment();
    process::set_undumpable().doing(|| "hiding the process")?;
    setsid().doing(|| "starting a session")?;
    let mut spec = (*spec).clone();
    super::split::forget_policies(&mut spec);
    if spec.terminal {
        let server = match standing.console_socket {
            Some(sock) => console::Server::Socket(sock.as_fd()),
            None => console::Server::Creator(channel),
        };
        let peer = console::open_here(spec.console_size, server)?;
        if let Ok((rows, columns)) = tty::size(&peer)
            && (rows, columns) != (0, 0)
        {
            spec.console_size = Some(crate::spec::ConsoleSize { height: rows.into(), width: columns.into() });
        }
        console::take_raw(&peer)?;
    }
    let connection = Connection::open(container.entry())?;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    connection.ask(&Ask::Exec(Box::new(spec)), &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    match connection.answered()? {
        Some(Answer::Started) => {}
        Some(Answer::Failed(err)) => return Err(err),
        Some(other) => return Err(other.out_of_place()),
        None => return Err(Error::new(Kind::NotRunning, "the machine ended")),
    }
    process::set_parent_death_signal(0).doing(|| "untying the process from its creator")?;
    channel.send(&Message::Ready)?;
    Ok(connection)
}

/// From here on nobody hears an error: the exit code has to do.
fn go_on(standing: &Standing<'_>, connection: &Connection) -> ! {
    let terminal = standing.process.terminal;
    let signals = process::signalfd();
    // End-of-file tells the creator that the process runs. What the monitor has of the standard descriptors is enough,
    // but for a terminal, whose changes of size are told to its session.
    let _ = process::close_all_but(if terminal { 1 } else { 0 }, &kept(connection, signals.as_ref().ok()));
    let Ok(signals) = signals else { process::exit_now(255) };
    loop {
        let mut fds = [
            PollFd::new(connection.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => process::exit_now(255),
        }
        let heard = fds[0].revents().is_some_and(|events| !events.is_empty());
        while let Ok(Some(signal)) = process::next_signal(&signals) {
            let word = match signal {
                libc::SIGWINCH if terminal => match tty::size(std::io::stdin()) {
                    Ok((rows, columns)) => Ask::Resize(rows, columns),
                    Err(_) => continue,
                },
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => continue,
                other => Ask::Signal(other),
            };
            let _ = connection.ask(&word, &[]);
        }
        if heard {
            match connection.answered() {
                Ok(Some(Answer::Exited(code))) => process::exit_now(code),
                Ok(Some(Answer::Killed(signal))) => process::end_by(signal),
                Ok(Some(_)) => {}
                // The machine is gone, and the process with it.
                Ok(None) | Err(_) => process::end_by(libc::SIGKILL),
            }
        }
    }
}

fn kept<'a>(connection: &'a Connection, signals: Option<&'a OwnedFd>) -> Vec<std::os::fd::BorrowedFd<'a>> {
    std::iter::once(connection.as_fd()).chain(signals.map(AsFd::as_fd)).collect()
}
