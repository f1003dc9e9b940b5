//! Users without privileges: a user namespace with the subordinate ids that they were given.
//!
//! Owns the reading of /etc/subuid and /etc/subgid and the calls of newuidmap(1) and newgidmap(1).
//! With it, files of images keep different owners; without, all of them belong to the user.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use nix::unistd::{Pid, getegid, geteuid, getuid};

use crate::error::{Context, Result};
use crate::sys::userns;

/// A range of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
}

/// What a namespace of a user can have.
#[derive(Debug, Clone)]
pub struct Subordinate {
    uids: Vec<Range>,
    gids: Vec<Range>,
}

impl Subordinate {
    /// What the caller was given; nothing for root, for whom there is nothing, and without helpers.
    pub fn of_caller() -> Option<Subordinate> {
        if geteuid().is_root() {
            return None;
        }
        let uid = getuid();
        // The files, not the C library's modules: this program is static.
        let name = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| name_of(&text, uid.as_raw()));
        if !["newuidmap", "newgidmap"].iter().all(|helper| in_path(helper)) {
            return None;
        }
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            Some(ranges(&text, name.as_deref(), uid.as_raw())).filter(|ranges| !ranges.is_empty())
        };
        Some(Subordinate { uids: read("/etc/subuid")?, gids: read("/etc/subgid")? })
    }

    /// Makes this process root of a user namespace in which the caller is 0 and the others follow;
    /// with `mounts` also of a mount namespace. The process must have one thread.
    pub fn enter(&self, mounts: bool) -> Result<()> {
        let doing = || "making a user namespace with the subordinate ids";
        let helpers =
            [("newuidmap", geteuid().as_raw(), &self.uids), ("newgidmap", getegid().as_raw(), &self.gids)];
        let also = if mounts { CloneFlags::CLONE_NEWNS } else { CloneFlags::empty() };
        userns::enter(also, |pid| helpers.iter().all(|(helper, own, ranges)| map(helper, pid, *own, ranges)))
            .doing(doing)
            .map_err(|err| {
                err.hint("see whether this kernel lets users make user namespaces, and what /etc/subuid says")
            })
    }
}

fn map(helper: &str, pid: Pid, own: u32, ranges: &[Range]) -> bool {
    let mut command = Command::new(helper);
    command.arg(pid.to_string()).args(["0", &own.to_string(), "1"]);
    let mut next = 1;
    for range in ranges {
        command.args([next.to_string(), range.first.to_string(), range.count.to_string()]);
        next += range.count;
    }
    // Their complaint says nothing that the hint does not.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(Path::new(program)).is_file()))
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The ranges that a file of subuid(5) gives to the user, by name or by number.
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let mut left = u32::MAX - 1;
    let mut found = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [owner, first, count] = fields[..] else { continue };
        if owner != number && Some(owner) != name {
            continue;
        }
        let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else { continue };
        let count = count.min(left);
        if count > 0 && first.checked_add(count).is_some() {
            left -= count;
            found.push(Range { first, count });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_by_name_and_number() {
        let text =
            "root:1:2\nann:100000:65536\n1000:300000:10\nann:x:1\nann:4294967295:5\nbob:200000:65536\n";
        let found = ranges(text, Some("ann"), 1000);
        assert_eq!(found, [Range { first: 100_000, count: 65_536 }, Range { first: 300_000, count: 10 }]);
        assert_eq!(ranges(text, None, 7), []);
        assert_eq!(name_of("root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n", 1000), Some("ann".into()));
        assert_eq!(name_of("ann:x:1000", 1), None);
    }
}
