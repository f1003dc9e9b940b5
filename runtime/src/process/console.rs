//! The workload's terminal: a pty of the container's own devpts, its master given to who serves it.
//!
//! Everything by descriptor: the multiplexer is opened inside the root and verified, its other end
//! comes from the kernel (CVE-2025-52565).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::fstat;
use nix::sys::termios::{OutputFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Uid, fchown};

use super::channel::{Channel, Message};
use crate::error::{Context, Error, Kind, Result};
use crate::rootfs::Root;
use crate::spec::ConsoleSize;
use crate::sys::fs::openat2;
use crate::sys::mount::{attach, clone_tree};
use crate::sys::process::{dup_to, fs_magic};
use crate::sys::{socket, tty};

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// What `ENOSPC` means of a multiplexer.
const NO_MORE: &str = "every terminal is taken: raise max= of the devpts, or kernel.pty.max of the host";

/// Who gets the master.
#[derive(Debug, Clone, Copy)]
pub enum Server<'a> {
    /// The engine behind `--console-socket`.
    Socket(BorrowedFd<'a>),
    /// The creator itself.
    Creator(&'a Channel),
}

/// Opens a pty in the container whose root is `root`, hands out its master, and returns the other end.
pub fn open(root: &Root, size: Option<ConsoleSize>, server: Server<'_>) -> Result<OwnedFd> {
    let doing = || "opening a terminal in the container";
    let master = root
        .open(Path::new("/dev/pts/ptmx"), OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK)
        .map_err(|errno| {
        Error::sys(errno, doing()).hint(match errno {
            Errno::ENOSPC => NO_MORE,
            _ => "process.terminal needs a devpts mounted on /dev/pts",
        })
    })?;
    let device = fstat(&master).doing(doing)?.st_rdev;
    if fs_magic(&master).doing(doing)? != DEVPTS_SUPER_MAGIC || device != nix::sys::stat::makedev(5, 2) {
        return Err(Error::new(
            Kind::Invalid,
            format!("{}: /dev/pts/ptmx is not a pty multiplexer", doing()),
        ));
    }
    serve(master, size, server)
}

/// Opens a pty of the host's for a process elsewhere, hands out its master, and returns the other end.
pub fn open_here(size: Option<ConsoleSize>, server: Server<'_>) -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let doing = "opening a terminal";
    let master = openat2(AT_FDCWD, "/dev/ptmx", flags, 0, 0).map_err(|errno| match errno {
        Errno::ENOSPC => Error::sys(errno, doing).hint(NO_MORE),
        _ => Error::sys(errno, doing),
    })?;
    serve(master, size, server)
}

/// Sets the pty of `master` up, hands the master out, and returns the other end.
fn serve(master: OwnedFd, size: Option<ConsoleSize>, server: Server<'_>) -> Result<OwnedFd> {
    let doing = || "opening a terminal";
    nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).doing(doing)?;
    let peer = tty::open_peer(&master).doing(doing)?;
    let wanted = size.map(|size| (size.height as u16, size.width as u16));
    let size = match server {
        // The caller's own terminal decides, and at once: the workload may ask before it is served.
        Server::Creator(_) => tty::size(std::io::stdin()).ok().filter(|size| *size != (0, 0)).or(wanted),
        Server::Socket(_) => wanted,
    };
    if let Some((rows, columns)) = size.filter(|size| *size != (0, 0)) {
        tty::set_size(&peer, rows, columns).doing(|| "setting the terminal's size")?;
    }
    match server {
        Server::Socket(sock) => socket::send(sock, b"/dev/ptmx", &[master.as_fd()])
            .doing(|| "sending the terminal to the console socket")?,
        Server::Creator(channel) => {
            // The caller's own terminal ends the lines; both would end them twice.
            let mut settings = tcgetattr(&peer).doing(doing)?;
            settings.output_flags.remove(OutputFlags::ONLCR);
            tcsetattr(&peer, SetArg::TCSANOW, &settings).doing(doing)?;
            channel.send(&Message::Master(master))?;
        }
    }
    Ok(peer)
}

/// Shows the terminal as /dev/console.
pub fn mount_console(root: &Root, peer: &OwnedFd) -> Result<()> {
    let doing = || "mounting the terminal on /dev/console";
    let place = root.make_file(Path::new("/dev/console")).map_err(|err| err.context(doing()))?;
    attach(clone_tree(peer, c"", false).doing(doing)?, &place).doing(doing)
}

/// Makes the terminal the session's, and the three standard descriptors.
pub fn take(peer: &OwnedFd, uid: u32) -> Result<()> {
    let doing = || "taking the terminal";
    // An unmapped owner inside is the best that can be had for an unmapped user.
    let _ = fchown(peer, Some(Uid::from_raw(uid)), None::<Gid>);
    tty::set_controlling(peer).doing(doing)?;
    for number in 0..3 {
        dup_to(peer, number).doing(doing)?;
    }
    Ok(())
}

/// As [`take`], for a terminal that only carries what another one elsewhere says: nothing is edited, echoed or
/// turned into signals here. How lines end stays as it is, as that is the reader's affair.
pub fn take_raw(peer: &OwnedFd) -> Result<()> {
    let doing = || "setting up the terminal";
    let mut settings = tcgetattr(peer).doing(doing)?;
    let output = settings.output_flags;
    cfmakeraw(&mut settings);
    settings.output_flags = output;
    tcsetattr(peer, SetArg::TCSANOW, &settings).doing(doing)?;
    take(peer, 0)
}
