//! The workload's ids: `process.user`, umask and the default of `HOME`.
//!
//! Owns the order setgroups, setgid, setuid. Ids are numbers only: a user is never looked up by a
//! name, so that no passwd file of an image can change who runs (CVE-2016-3697).

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setresgid, setresuid};

use crate::error::{Context, Error, Result};
use crate::procfs::{Base, Proc};
use crate::spec::User;
use crate::sys::prctl;

/// `umask` when the document has none, as in runc.
const DEFAULT_UMASK: u32 = 0o022;

/// Checked ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPlan {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups inside.
    pub groups: Vec<u32>,
    /// umask.
    pub umask: u32,
}

/// Checks `process.user`.
pub fn plan(spec: &User) -> Result<UserPlan> {
    check("process.user.uid", spec.uid)?;
    check("process.user.gid", spec.gid)?;
    for gid in &spec.additional_gids {
        check("process.user.additionalGids", *gid)?;
    }
    let umask = spec.umask.unwrap_or(DEFAULT_UMASK);
    if umask > 0o777 {
        return Err(Error::invalid(format!(
            "process.user.umask: {umask} is above 511 (0777); it is a decimal number"
        )));
    }
    Ok(UserPlan { uid: spec.uid, gid: spec.gid, groups: spec.additional_gids.clone(), umask })
}

/// (uid_t)-1 means "leave as it is" to setresuid(2): the workload would stay root.
fn check(field: &str, id: u32) -> Result<()> {
    if id == u32::MAX {
        return Err(Error::invalid(format!("{field}: {id} is not a valid id")));
    }
    Ok(())
}

impl UserPlan {
    /// Groups, gid, uid, in that order, with real, effective and saved ids alike; then the umask.
    ///
    /// Where the user namespace denies setgroups(2) (user_namespaces(7)) the inherited groups stay,
    /// and asking for additional ones is an error, as in runc.
    pub fn apply(&self, proc: &Proc) -> Result<()> {
        match prctl::set_groups(&self.groups) {
            Ok(()) => {}
            Err(Errno::EPERM) if setgroups_denied(proc) && self.groups.is_empty() => {}
            Err(Errno::EPERM) if setgroups_denied(proc) => {
                return Err(Error::sys(Errno::EPERM, "setting process.user.additionalGids").hint(
                    "a rootless container with one mapped group cannot have any: \
                     map a range of groups or remove them",
                ));
            }
            Err(errno) => {
                let error = Error::sys(errno, format!("setting the groups {:?}", self.groups));
                return Err(match errno {
                    Errno::EINVAL => error.hint("map them in linux.gidMappings"),
                    _ => error,
                });
            }
        }
        let gid = Gid::from_raw(self.gid);
        setresgid(gid, gid, gid).map_err(|errno| unmapped(errno, "gid", self.gid))?;
        let uid = Uid::from_raw(self.uid);
        setresuid(uid, uid, uid).map_err(|errno| unmapped(errno, "uid", self.uid))?;
        umask(Mode::from_bits_truncate(self.umask));
        Ok(())
    }
}

/// EINVAL of setres[ug]id(2) says that the id has no mapping in the user namespace.
fn unmapped(errno: Errno, what: &str, id: u32) -> Error {
    let error = Error::sys(errno, format!("setting process.user.{what} to {id}"));
    match errno {
        Errno::EINVAL => error.hint(format!("map it in linux.{what}Mappings")),
        _ => error,
    }
}

fn setgroups_denied(proc: &Proc) -> bool {
    proc.read(Base::Own, "setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// Gives stdin, stdout and stderr to the workload's user, so that it can open them again by
/// `/dev/stdout`; only the uid changes and `/dev/null` is left alone.
///
/// What the kernel refuses for lack of a right or a mapping is left as it is, as in runc.
pub fn own_stdio(uid: u32) -> Result<()> {
    use nix::sys::stat::{SFlag, fstat, makedev};
    let null = makedev(1, 3);
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let Ok(stat) = fstat(fd) else { continue };
        let device = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR;
        if stat.st_uid == uid || (device && stat.st_rdev == null) {
            continue;
        }
        match nix::unistd::fchown(fd, Some(Uid::from_raw(uid)), None) {
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::ENOSYS) => {}
            result => result.doing(|| format!("giving the standard streams to uid {uid}"))?,
        }
    }
    Ok(())
}

/// The home directory of `uid` in the text of the container's `/etc/passwd`; `/` when it has none.
pub fn home_for(uid: u32, passwd: &str) -> String {
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)))
        .and_then(|fields| fields.get(5).filter(|home| home.starts_with('/')).map(|home| String::from(*home)))
        .unwrap_or_else(|| "/".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_no_id() {
        for user in [
            User { uid: u32::MAX, ..User::default() },
            User { gid: u32::MAX, ..User::default() },
            User { additional_gids: vec![1, u32::MAX], ..User::default() },
        ] {
            assert!(plan(&user).unwrap_err().to_string().contains("4294967295 is not a valid id"));
        }
    }

    #[test]
    fn umask_is_checked_and_has_a_default() {
        assert_eq!(plan(&User::default()).unwrap().umask, 0o022);
        assert_eq!(plan(&User { umask: Some(63), ..User::default() }).unwrap().umask, 0o077);
        assert!(plan(&User { umask: Some(0o1000), ..User::default() }).is_err());
    }

    #[test]
    fn home_is_found_by_number_and_never_by_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/evil:/bin/sh\n\
                      broken\nuser:x:1000:1000::/home/user:\nrel:x:5:5::home:\nempty:x:6:6:::\n";
        assert_eq!(home_for(0, passwd), "/root");
        assert_eq!(home_for(1000, passwd), "/home/user");
        assert_eq!(home_for(5, passwd), "/");
        assert_eq!(home_for(6, passwd), "/");
        assert_eq!(home_for(77, passwd), "/");
        assert_eq!(home_for(0, ""), "/");
    }
}
