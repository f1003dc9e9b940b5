//! Id maps of user namespaces: checks, look-ups, and writing them directly or by newuidmap(1).
//!
//! Owns the `uid_map`, `gid_map` and `setgroups` files of one process. /etc/subuid is the helpers'
//! business, never ours.

use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{getegid, geteuid};

use crate::error::{Context, Error, Kind, Result};
use crate::spec::IdMapping;
use crate::sys::fs::openat2;

/// `UID_GID_MAP_MAX_EXTENTS` (kernel 4.15).
const EXTENTS: usize = 340;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Checked uid and gid maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    uid: Vec<IdMapping>,
    gid: Vec<IdMapping>,
}

/// Checks `linux.uidMappings` and `linux.gidMappings` of a new user namespace, which needs both.
pub fn plan(uid: &[IdMapping], gid: &[IdMapping]) -> Result<IdMaps> {
    for (field, maps) in [("linux.uidMappings", uid), ("linux.gidMappings", gid)] {
        if maps.is_empty() {
            return Err(Error::invalid(format!("{field}: a new user namespace needs at least one entry")));
        }
        check(field, maps)?;
    }
    Ok(IdMaps { uid: uid.to_vec(), gid: gid.to_vec() })
}

/// Checks one list of entries as the kernel would; for maps of mounts too.
pub fn check(field: &str, maps: &[IdMapping]) -> Result<()> {
    let wrong = |text: String| Err(Error::invalid(format!("{field}: {text}")));
    if maps.len() > EXTENTS {
        return wrong(format!("{} entries, the kernel takes {EXTENTS}", maps.len()));
    }
    for (index, map) in maps.iter().enumerate() {
        if map.size == 0 {
            return wrong(format!("entry {index} has size 0"));
        }
        // The last id, (uid_t)-1, cannot be mapped.
        if map.container_id.checked_add(map.size).is_none() || map.host_id.checked_add(map.size).is_none() {
            return wrong(format!(
                "entry {index} ({} {} {}) goes beyond the last id",
                map.container_id, map.host_id, map.size
            ));
        }
        for other in &maps[..index] {
            let overlap = |a: u32, b: u32| a < b + other.size && b < a + map.size;
            if overlap(map.container_id, other.container_id) || overlap(map.host_id, other.host_id) {
                return wrong(format!(
                    "entry {index} ({} {} {}) overlaps with ({} {} {})",
                    map.container_id, map.host_id, map.size, other.container_id, other.host_id, other.size
                ));
            }
        }
    }
    Ok(())
}

/// Uid and gid maps from the words that crun reads behind a mount's `idmap=`, and that Podman hands on:
/// `uids=0-1000-10#10-5000-1;gids=@0-0-10`.
///
/// A triplet is an id in the file system, the id outside and how many; behind `@` the second is one of the
/// container, whose maps are `own`.
pub fn of_option(text: &str, own: [&[IdMapping]; 2]) -> Result<(Vec<IdMapping>, Vec<IdMapping>)> {
    let wrong = |what: &str| Error::invalid(format!("option idmap={text}: {what}"));
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (list, own, maps) = match part.split_once('=') {
            Some(("uids", list)) => (list, own[0], &mut uids),
            Some(("gids", list)) => (list, own[1], &mut gids),
            _ => return Err(wrong("expected uids=ID-ID-SIZE#…;gids=ID-ID-SIZE#…")),
        };
        for triplet in list.split('#') {
            let (relative, numbers) = match triplet.strip_prefix('@') {
                Some(numbers) => (true, numbers),
                None => (false, triplet),
            };
            let numbers: Vec<u32> = numbers.split('-').map_while(|number| number.parse().ok()).collect();
            let (&[container_id, outside, size], true) = (&numbers[..], triplet.matches('-').count() == 2)
            else {
                return Err(wrong("each range is three numbers, ID-ID-SIZE"));
            };
            let host_id = if relative { host_id(own, outside) } else { Some(outside) };
            let host_id =
                host_id.ok_or_else(|| wrong("@ names an id that the container's maps do not have"))?;
            maps.push(IdMapping { container_id, host_id, size });
        }
    }
    if uids.is_empty() || gids.is_empty() {
        return Err(wrong("uids and gids must both be given"));
    }
    check("option idmap: uids", &uids)?;
    check("option idmap: gids", &gids)?;
    Ok((uids, gids))
}

/// The id outside of `id` inside, if it is mapped.
pub fn host_id(maps: &[IdMapping], id: u32) -> Option<u32> {
    maps.iter().find_map(|map| {
        let offset = id.checked_sub(map.container_id)?;
        (offset < map.size).then(|| map.host_id.checked_add(offset)).flatten()
    })
}

/// The text of a `uid_map` file.
pub fn text(maps: &[IdMapping]) -> String {
    maps.iter().fold(String::new(), |mut text, map| {
        // Infallible: writing to a String.
        let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
        text
    })
}

/// How a map comes into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Written by the caller.
    Direct,
    /// Written by newuidmap(1) or newgidmap(1), which have the right and know /etc/subuid.
    Helper,
}

/// Without the capability the kernel takes a single entry for the caller's own id alone.
fn way(maps: &[IdMapping], own: u32, capable: bool) -> Way {
    match maps {
        _ if capable => Way::Direct,
        [map] if map.size == 1 && map.host_id == own => Way::Direct,
        _ => Way::Helper,
    }
}

impl IdMaps {
    /// The uid entries.
    pub fn uids(&self) -> &[IdMapping] {
        &self.uid
    }

    /// The gid entries.
    pub fn gids(&self) -> &[IdMapping] {
        &self.gid
    }

    /// The uid outside of `uid` inside.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        host_id(&self.uid, uid)
    }

    /// The gid outside of `gid` inside.
    pub fn host_gid(&self, gid: u32) -> Option<u32> {
        host_id(&self.gid, gid)
    }

    /// Refuses ids of the workload that have no mapping, by their fields.
    pub fn check_user(&self, uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
        let wrong = |field: &str, id: u32, maps: &str| {
            Err(Error::invalid(format!("process.user.{field}: {id} is not mapped by linux.{maps}")))
        };
        if self.host_uid(uid).is_none() {
            return wrong("uid", uid, "uidMappings");
        }
        if self.host_gid(gid).is_none() {
            return wrong("gid", gid, "gidMappings");
        }
        match groups.iter().find(|gid| self.host_gid(**gid).is_none()) {
            Some(gid) => wrong("additionalGids", *gid, "gidMappings"),
            None => Ok(()),
        }
    }

    /// Writes both maps of process `pid`, whose /proc directory `proc_pid` is.
    ///
    /// `pid` must be a child that has not been waited for, so that no other process can have the
    /// number, and dumpable, as otherwise its files belong to root. For the caller's single own group setgroups(2) is denied first, as the kernel wants.
    pub fn apply(&self, proc_pid: impl AsFd, pid: i32) -> Result<()> {
        let own = crate::sys::caps::get().doing(|| "reading the runtime's capabilities")?.effective;
        let (has_setuid, has_setgid) = (own & 1 << CAP_SETUID != 0, own & 1 << CAP_SETGID != 0);
        match way(&self.gid, getegid().as_raw(), has_setgid) {
            Way::Direct => {
                if !has_setgid {
                    write(&proc_pid, "setgroups", "deny")?;
                }
                write(&proc_pid, "gid_map", &text(&self.gid))?;
            }
            Way::Helper => run("newgidmap", "/etc/subgid", pid, &self.gid)?,
        }
        match way(&self.uid, geteuid().as_raw(), has_setuid) {
            Way::Direct => write(&proc_pid, "uid_map", &text(&self.uid)),
            Way::Helper => run("newuidmap", "/etc/subuid", pid, &self.uid),
        }
    }
}

fn write(proc_pid: impl AsFd, name: &str, text: &str) -> Result<()> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_SYMLINKS;
    let result = openat2(proc_pid, name, OFlag::O_WRONLY, 0, resolve)
        .and_then(|file| nix::unistd::write(&file, text.as_bytes()));
    result.map(drop).map_err(|errno| {
        let error = Error::sys(errno, format!("writing {:?} to {name}", text.trim_end()));
        match errno {
            Errno::EPERM => error.hint(
                "an id outside is not mapped in the runtime's own user namespace, \
                 or it is 0 and the runtime lacks CAP_SETFCAP",
            ),
            _ => error,
        }
    })
}

/// Runs newuidmap(1) or newgidmap(1).
fn run(name: &str, file: &str, pid: i32, maps: &[IdMapping]) -> Result<()> {
    let Some(program) = find(name) else {
        return Err(Error::new(Kind::Unsupported, format!("mapping ids: {name} is not in PATH"))
            .hint("install the package uidmap (shadow-utils), or map your own id alone"));
    };
    let numbers = maps.iter().flat_map(|map| [map.container_id, map.host_id, map.size]);
    let output = Command::new(&program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .env_clear()
        .output()
        .doing(|| format!("running {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(Kind::System, format!("mapping ids: {}: {}", program.display(), said.trim()))
        .hint(format!("give the user a large enough range in {file}")))
}

/// An executable of that name in an absolute directory of PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH.into());
    path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| PathBuf::from(dir).join(name)).find(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping { container_id, host_id, size }
    }

    #[test]
    fn wrong_maps_are_refused() {
        for (maps, text) in [
            (vec![map(0, 0, 0)], "entry 0 has size 0"),
            (vec![map(0, u32::MAX, 1)], "beyond the last id"),
            (vec![map(1, 0, u32::MAX)], "beyond the last id"),
            (vec![map(0, 1000, 10), map(9, 5000, 1)], "entry 1 (9 5000 1) overlaps with (0 1000 10)"),
            (vec![map(0, 1000, 10), map(10, 1009, 1)], "overlaps"),
            (vec![map(5, 5, 10), map(0, 100, 6)], "overlaps"),
            ((0..341).map(|id| map(id, id, 1)).collect(), "341 entries"),
        ] {
            let err = check("linux.uidMappings", &maps).unwrap_err().to_string();
            assert!(err.starts_with("linux.uidMappings: ") && err.contains(text), "{err}");
        }
        assert!(check("f", &[map(0, 1000, 10), map(10, 1010, 1), map(11, 0, 1)]).is_ok());
        assert!(check("f", &[map(0, 0, u32::MAX)]).is_ok());
        assert!(plan(&[], &[map(0, 0, 1)]).is_err());
        assert!(plan(&[map(0, 0, 1)], &[]).is_err());
    }

    #[test]
    fn maps_of_an_option() {
        let own = [map(0, 1, 1), map(1, 2, 1000)];
        let read = |text: &str| of_option(text, [&own, &own]);
        // crun(1)'s own example: 3 of the container is 4 outside.
        let (uids, gids) = read("uids=@1-3-10#20-70-1;gids=0-100-10").unwrap();
        assert_eq!(uids, [map(1, 4, 10), map(20, 70, 1)]);
        assert_eq!(gids, [map(0, 100, 10)]);
        for (text, told) in [
            ("uids=0-1-10", "both"),
            ("uids=0-1;gids=0-1-1", "three numbers"),
            ("uids=0-1-1-1;gids=0-1-1", "three numbers"),
            ("uids=0-x-1;gids=0-1-1", "three numbers"),
            ("uids=0-1-1#;gids=0-1-1", "three numbers"),
            ("uids=-1-1-1;gids=0-1-1", "three numbers"),
            ("ids=0-1-1", "expected uids="),
            ("uids=@0-5000-1;gids=0-1-1", "@ names an id"),
            ("uids=0-1-0;gids=0-1-1", "size 0"),
        ] {
            let err = read(text).unwrap_err().to_string();
            assert!(err.contains(told), "{text}: {err}");
        }
    }

    #[test]
    fn ids_are_found() {
        let maps = [map(0, 1000, 1), map(1, 100_000, 65_536)];
        assert_eq!(host_id(&maps, 0), Some(1000));
        assert_eq!(host_id(&maps, 1), Some(100_000));
        assert_eq!(host_id(&maps, 65_536), Some(165_535));
        assert_eq!(host_id(&maps, 65_537), None);
        assert_eq!(host_id(&[], 0), None);
        assert_eq!(text(&maps), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn unmapped_users_are_named() {
        let maps = plan(&[map(0, 1000, 2)], &[map(0, 1000, 1)]).unwrap();
        assert!(maps.check_user(1, 0, &[0]).is_ok());
        for (uid, gid, groups, field) in
            [(2, 0, vec![], "uid: 2"), (0, 1, vec![], "gid: 1"), (0, 0, vec![0, 9], "additionalGids: 9")]
        {
            let err = maps.check_user(uid, gid, &groups).unwrap_err().to_string();
            assert!(err.starts_with(&format!("process.user.{field} is not mapped")), "{err}");
        }
    }

    #[test]
    fn helpers_are_for_more_than_the_own_id() {
        assert_eq!(way(&[map(0, 0, 65_536)], 0, true), Way::Direct);
        assert_eq!(way(&[map(0, 1000, 1)], 1000, false), Way::Direct);
        assert_eq!(way(&[map(0, 1000, 2)], 1000, false), Way::Helper);
        assert_eq!(way(&[map(0, 1001, 1)], 1000, false), Way::Helper);
        assert_eq!(way(&[map(0, 1000, 1), map(1, 100_000, 9)], 1000, false), Way::Helper);
    }
}
