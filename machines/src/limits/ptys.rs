//! How many pseudo terminals a running machine may have: an option of its devpts, which the host may change.
//!
//! Owns the finding of that file system, inside the machine's root, and the options that a change must not touch.
//! Nothing but a devpts of the machine's own is ever changed.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use locule_runtime::rootfs::Root;
use locule_runtime::sys::mount::{fsconfig_reconfigure, fsconfig_string, fspick};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{fstat, major, minor};
use nix::sys::statfs::fstatfs;

use crate::{Context, Error, Kind, Result};

/// As many as the kernel gives where nobody says less (`NR_UNIX98_PTY_MAX`).
pub const MOST: u32 = 1 << 20;
/// Where terminals are.
const PLACE: &str = "/dev/pts";
/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS: i64 = 0x1cd1;

/// A machine's devpts.
#[derive(Debug)]
pub struct Devpts {
    place: OwnedFd,
    options: Vec<(String, String)>,
}

impl Devpts {
    /// That of the machine whose first process is `pid`.
    pub fn of(pid: i32) -> Result<Devpts> {
        let doing = || format!("looking at {PLACE} of process {pid}");
        let root = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(format!("/proc/{pid}/root"))
            .doing(doing)?;
        let root = Root::new(OwnedFd::from(root));
        let place = root.resolve(Path::new(PLACE), OFlag::O_DIRECTORY).doing(doing)?;
        let device = fstat(&place).doing(doing)?.st_dev;
        let hosts = std::fs::metadata(PLACE).is_ok_and(|meta| meta.dev() == device);
        if fstatfs(&place).doing(doing)?.filesystem_type().0 != DEVPTS || hosts {
            return Err(Error::new(
                Kind::Unsupported,
                format!("{}: the machine has no devpts of its own there", doing()),
            )
            .hint("it holds from the next start on"));
        }
        let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).doing(doing)?;
        let options = options(&table, (major(device), minor(device)))
            .ok_or_else(|| Error::new(Kind::System, format!("{}: it is in no table of mounts", doing())))?;
        Ok(Devpts { place, options })
    }

    /// Most terminals.
    pub fn most(&self) -> u32 {
        let max = self.options.iter().find(|(key, _)| key == "max");
        max.and_then(|(_, value)| value.parse().ok()).unwrap_or(MOST)
    }

    /// Has it give at most so many; the others that are there stay.
    pub fn limit(&self, most: u32) -> Result<()> {
        let doing = || format!("giving {PLACE} the option max={most}");
        let context = fspick(self.place.as_fd()).doing(doing)?;
        // What is not said would be the default's again.
        let kept = self.options.iter().filter(|(key, _)| key != "max").cloned();
        for (key, value) in kept.chain([("max".to_owned(), most.to_string())]) {
            let text = |word: String| CString::new(word).map_err(|_| Errno::EINVAL);
            text(key).and_then(|key| fsconfig_string(&context, &key, &text(value)?)).doing(doing)?;
        }
        fsconfig_reconfigure(&context).doing(doing)
    }
}

/// The options with values of the devpts that is device `number`, by a table of mounts (proc_pid_mountinfo(5)).
fn options(table: &str, number: (u64, u64)) -> Option<Vec<(String, String)>> {
    let number = format!("{}:{}", number.0, number.1);
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    let last = line.split_once(" - devpts ")?.1.split(' ').nth(1)?;
    let pairs = last.split(',').filter_map(|option| option.split_once('='));
    Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_the_table() {
        let table = "22 1 0:20 / /dev rw - tmpfs tmpfs rw,size=64k\n\
            23 22 0:21 / /dev/pts rw,nosuid,noexec - devpts devpts rw,gid=100005,mode=620,ptmxmode=666,max=9\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let all = [pair("gid", "100005"), pair("mode", "620"), pair("ptmxmode", "666"), pair("max", "9")];
        assert_eq!(options(table, (0, 21)).unwrap(), all);
        assert!(options(table, (0, 20)).is_none(), "it is no devpts");
        assert!(options(table, (0, 22)).is_none());
    }
}
