//! Making the limits of a plan real, and changing them under a running container.
//!
//! One pass of small writes. Lowering memory is the one change that can kill, so it has its own
//! procedure. A limit that did not take is an error.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;

use super::fs;
use super::plan::{OnFailure, Value, Write};
use crate::error::{Context, Error, Kind, Result};

/// How often reclaim is asked for before the usage is taken for what the container needs.
const RECLAIM_ROUNDS: usize = 5;

/// Makes all writes on a cgroup that has no process yet, or whose processes hold nothing.
pub(super) fn write_all(cgroup: BorrowedFd<'_>, path: &Path, writes: &[Write]) -> Result<()> {
    writes.iter().try_for_each(|write| write_one(cgroup, path, write))
}

/// Makes all writes on a cgroup in use.
pub(super) fn change_all(
    cgroup: BorrowedFd<'_>,
    path: &Path,
    writes: &[Write],
    check: Option<(Option<u64>, Option<u64>)>,
) -> Result<()> {
    if let Some((memory, swap)) = check {
        check_usage(cgroup, memory, swap)?;
    }
    for write in writes {
        match (&*write.file, write.text().and_then(|text| text.trim().parse::<u64>().ok())) {
            ("memory.max", Some(limit)) => lower_memory(cgroup, path, limit)?,
            _ => write_one(cgroup, path, write)?,
        }
    }
    Ok(())
}

fn write_one(cgroup: BorrowedFd<'_>, path: &Path, write: &Write) -> Result<()> {
    let text = match &write.value {
        Value::Text(text) => text.clone(),
        Value::Period(period) => {
            let present = fs::read(cgroup, &write.file).map_err(|errno| explain(errno, path, write, "?"))?;
            format!("{} {period}", present.split_whitespace().next().unwrap_or("max"))
        }
    };
    match (fs::write(cgroup, &write.file, &text), &write.on_failure) {
        (Ok(()), _) | (Err(_), OnFailure::Ignore) => Ok(()),
        (Err(Errno::ENOENT), OnFailure::IgnoreMissing) => Ok(()),
        (Err(Errno::ENOENT), OnFailure::Instead(file, other)) => {
            write_one(cgroup, path, &Write::new(*file, other))
        }
        (Err(errno), _) => Err(explain(errno, path, write, &text)),
    }
}

fn explain(errno: Errno, path: &Path, write: &Write, text: &str) -> Error {
    let err = Error::sys(errno, format!("writing {text:?} to {} of cgroup {}", write.file, path.display()));
    let controller = write.controller();
    match (errno, &*write.file) {
        (Errno::ENOENT, "memory.swap.max") => {
            err.hint("the kernel counts no swap: leave memory.swap out or set it to memory.limit")
        }
        (Errno::ENOENT, _) if controller == "cgroup" => err.hint("this kernel has no such file"),
        (Errno::ENOENT, _) => err.hint(format!(
            "the controller {controller} is not enabled for this cgroup, or this kernel lacks the file"
        )),
        (Errno::EINVAL, "cpu.max") => {
            err.hint("the quota must not be below cpu.max.burst, nor above what a cgroup above allows")
        }
        (Errno::EINVAL, "cpu.weight") => err.hint("a cgroup with cpu.idle 1 has no weight: set cpu.idle 0"),
        (Errno::ENODEV, _) => err.hint("no such device, or it has no such limit"),
        (Errno::EINVAL | Errno::ERANGE, _) => err.hint("the kernel does not take this value"),
        (Errno::EACCES | Errno::EPERM, _) => err.hint("the cgroup is not delegated to this user"),
        _ => err,
    }
}

fn check_usage(cgroup: BorrowedFd<'_>, memory: Option<u64>, swap: Option<u64>) -> Result<()> {
    let Ok(usage) = fs::read_number(cgroup, "memory.current") else { return Ok(()) };
    for (what, limit) in [("memory+swap", swap), ("memory", memory)] {
        if let Some(limit) = limit.filter(|limit| *limit <= usage) {
            let text = format!("rejecting {what} limit {limit} <= usage {usage}");
            return Err(Error::new(Kind::State, text)
                .hint("give more, or update without memory.checkBeforeUpdate to have memory reclaimed"));
        }
    }
    Ok(())
}

/// Sets `memory.max` without a kill: the kernel answers a limit below the usage with the OOM
/// killer, so memory is first squeezed out by `memory.high` and `memory.reclaim` (kernel 5.19).
fn lower_memory(cgroup: BorrowedFd<'_>, path: &Path, limit: u64) -> Result<()> {
    let write = Write::new("memory.max", limit);
    let usage = || fs::read_number(cgroup, "memory.current");
    let doing = |what: &str| format!("{what} of cgroup {}", path.display());
    // Without the file the write below says why.
    let Ok(current) = usage() else { return write_one(cgroup, path, &write) };
    if current <= limit {
        write_one(cgroup, path, &write)?;
        return read_back(cgroup, path, limit);
    }
    let high = fs::read(cgroup, "memory.high").doing(|| doing("reading memory.high"))?;
    let restore = || {
        fs::write(cgroup, "memory.high", high.trim())
            .doing(|| doing(&format!("restoring memory.high to {}", high.trim())))
    };
    fs::write(cgroup, "memory.high", &limit.to_string()).doing(|| doing("lowering memory.high"))?;
    let mut left = current;
    for _ in 0..RECLAIM_ROUNDS {
        left = usage().unwrap_or(left);
        if left <= limit {
            break;
        }
        // EAGAIN: less was reclaimed than asked for; ENOENT: before 5.19, memory.high did what it could.
        match fs::write(cgroup, "memory.reclaim", &(left - limit).to_string()) {
            Ok(()) | Err(Errno::EAGAIN) => {}
            Err(_) => break,
        }
    }
    left = usage().unwrap_or(left);
    if left > limit {
        restore()?;
        let text = format!(
            "lowering memory.max of cgroup {} to {limit}: its processes use {left} bytes that cannot be reclaimed",
            path.display()
        );
        return Err(Error::new(Kind::State, text)
            .hint("nothing was changed; end something in the container first, or give more"));
    }
    let done = write_one(cgroup, path, &write);
    restore()?;
    done?;
    read_back(cgroup, path, limit)
}

fn read_back(cgroup: BorrowedFd<'_>, path: &Path, limit: u64) -> Result<()> {
    let doing = || format!("reading memory.max of cgroup {}", path.display());
    let present = fs::read_number(cgroup, "memory.max").doing(doing)?;
    // The kernel rounds down to whole pages.
    if present <= limit && limit - present < 1 << 16 {
        return Ok(());
    }
    let text = format!("memory.max of cgroup {} is {present} after {limit} was written", path.display());
    Err(Error::new(Kind::System, text).hint("another program manages this cgroup"))
}
