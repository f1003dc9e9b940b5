//! `exec` in a virtual machine: a small process on the host stands for the one inside.
//!
//! It lives in the container's cgroup, hands its standard descriptors to the monitor, passes signals and the size of
//! its terminal on, and ends as the process inside did. So pid files, `--detach` and the wait of the foreground are
//! those of every `exec`.

use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::setsid;

use super::control::{Answer, Ask, Connection};
use super::stand::Stand;
use crate::container::Container;
use crate::error::{Context, Error, Kind, Result};
use crate::process::channel::{Channel, Message};
use crate::process::console;
use crate::spec::Process;
use crate::sys::{process, tty};

/// What the process that stands for another one knows.
#[derive(Debug)]
pub struct Standing<'a> {
    /// The container.
    pub container: &'a Container,
    /// The process to run inside.
    pub process: &'a Process,
    /// The engine's console socket.
    pub console_socket: Option<&'a OwnedFd>,
    /// Its creator.
    pub(crate) channel: &'a Channel,
}

/// Runs in the clone: has the process run inside, and ends as that does.
pub(super) fn stand(standing: &Standing<'_>) -> ! {
    match set_up(standing) {
        Ok(connection) => go_on(standing, connection),
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
    let connection = Connection::to(container)?;
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
fn go_on(standing: &Standing<'_>, connection: Connection) -> ! {
    let Ok(stand) = Stand::new(connection, standing.process.terminal) else { process::exit_now(255) };
    // End-of-file tells the creator that the process runs.
    let _ = stand.close_others(&[]);
    loop {
        stand.wait(None);
    }
}
