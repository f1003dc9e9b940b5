//! The end of a machine: its keeper is told, its init asked, all of it killed when that takes too long.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use locule_runtime::Container;
use locule_runtime::rootfs::Root;
use locule_runtime::signals;
use locule_runtime::sys::clone::{pidfd_open, pidfd_signal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{STOP_TIMEOUT, ask, clean, container, is_alive};
use crate::keeper::record::{Ended, Keeper};
use crate::keeper::unit;
use crate::{Context, Error, Home, Kind, Machine, Result, boot, bundle, file, lock, root};

/// Whether the machine's owner asked for its end since it was started.
pub fn is_stop_asked(machine: &Machine) -> bool {
    machine.run().join(STOP).exists()
}

/// Tells the keeper that an end is what the owner wants.
const STOP: &str = "stop";

/// Forgets that an end was asked for: it starts anew.
pub fn forget_stop(machine: &Machine) -> Result<()> {
    file::remove(&machine.run().join(STOP))
}

/// Stops a machine: its init is asked to, and killed after `timeout` (the definition's, unless given).
///
/// Returns once nothing of it is left; false if it did not run.
pub fn stop(home: &Home, machine: &Machine, timeout: Option<Duration>) -> Result<bool> {
    let _lock = machine.lock("stop")?;
    let timeout = timeout.unwrap_or_else(|| {
        let own = machine.definition().ok().and_then(|definition| definition.init.stop_timeout);
        own.map_or(STOP_TIMEOUT, |span| span.0)
    });
    // One whose keeper died gets another, which writes down how it ended.
    if Keeper::living(machine).is_none()
        && container(home, machine)?.is_some_and(|container| container.status().is_ok_and(is_alive))
        && let Err(err) = crate::keeper::spawn(home, machine)
    {
        locule_runtime::warn::warn(format!("{err}; stopping it without a keeper"));
    }
    let keeper = Keeper::living(machine);
    if let Some(keeper) = &keeper {
        ask_keeper(home, machine, keeper, timeout)?;
    }
    // There was none, or it died over it.
    let awaited = stop_unit(home, machine)?;
    // Nobody is there any more to read it: it is not for the next.
    forget_stop(machine)?;
    let Some(left) = container(home, machine)? else { return Ok(keeper.is_some() || awaited) };
    let ran = left.status().is_ok_and(is_alive);
    halt(&left, stop_signal_of(home, machine, &left), timeout)?;
    clean(home, machine)?;
    Ok(ran || keeper.is_some() || awaited)
}

/// Has systemd not start a machine again that rebooted: between its two keepers there is nobody else to be told. False
/// if it is not about to.
fn stop_unit(home: &Home, machine: &Machine) -> Result<bool> {
    if !Ended::read(machine).is_some_and(|ended| ended.reboot && !ended.stopped) || !unit::rules(home) {
        return Ok(false);
    }
    unit::systemctl(&["stop"], &unit::name(machine))?;
    Ended::claim(machine)?;
    boot::remember(machine, false)?;
    Ok(true)
}

/// Has the keeper end its machine, and itself.
fn ask_keeper(home: &Home, machine: &Machine, keeper: &Keeper, timeout: Duration) -> Result<()> {
    lock::make_private(machine.run())?;
    let mark = machine.run().join(STOP);
    let text = format!("{}\n", timeout.as_millis());
    locule_runtime::state::write_atomic(&mark, text.as_bytes())?;
    let doing = || format!("stopping the keeper of machine {}", machine.name());
    let pidfd = match pidfd_open(keeper.keeper.pid) {
        // Only now is the number pinned.
        Ok(pidfd) if keeper.keeper.alive() => pidfd,
        Ok(_) | Err(Errno::ESRCH) => return Ok(()),
        Err(errno) => return Err(errno).doing(doing),
    };
    match pidfd_signal(&pidfd, libc::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno).doing(doing),
    }
    if !ends(&pidfd, timeout).doing(doing)? {
        if let Some(container) = container(home, machine)? {
            container.kill(libc::SIGKILL, true)?;
        }
        if !ends(&pidfd, Duration::from_secs(30)).doing(doing)? {
            return Err(Error::new(Kind::System, format!("{}: it does not end", doing()))
                .hint(format!("kill it (pid {}), then locule repair", keeper.keeper.pid)));
        }
    }
    Ok(())
}

/// The signal of a container whose keeper is gone, by what was written at its start.
pub fn stop_signal_of(home: &Home, machine: &Machine, container: &Container) -> i32 {
    let definition = machine.definition().unwrap_or_default();
    let wanted = definition.init.stop_signal.clone().or_else(|| {
        let image = root::config(home, machine).ok()?;
        image.stop_signal
    });
    let program =
        container.spec().ok().and_then(|spec| spec.process?.args.first().cloned()).unwrap_or_default();
    let kind = fs::File::open(root::place(machine))
        .map(|root| bundle::kind(&Root::new(OwnedFd::from(root)), &program))
        .unwrap_or(bundle::InitKind::Plain);
    signals::parse(wanted.as_deref().unwrap_or(kind.stop_signal())).unwrap_or(libc::SIGTERM)
}

/// Asks a container's init to end ([`ask`]); kills all of it after `timeout`, or at once if it cannot hear. Returns once
/// init is gone.
pub fn halt(container: &Container, signal: i32, timeout: Duration) -> Result<()> {
    let Ok((_, pidfd)) = container.init() else { return Ok(()) };
    let doing = || format!("stopping {}", container.id());
    if !timeout.is_zero() && ask(container, signal)? && ends(&pidfd, timeout).doing(doing)? {
        return Ok(());
    }
    container.kill(libc::SIGKILL, true)?;
    ends(&pidfd, Duration::from_secs(30)).doing(doing).map(drop)
}

/// Waits for a process to end.
pub(super) fn ends(pidfd: &OwnedFd, limit: Duration) -> nix::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let left = PollTimeout::try_from(left.min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) if Instant::now() < until => {}
            Err(Errno::EINTR) => {}
            other => return other.map(|ready| ready > 0),
        }
    }
}
