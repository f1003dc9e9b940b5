//! The session keyring of a container: `_ses.ID`, so that keys of the caller stay outside.
//!
//! Owns the keyring's name and permissions. Best effort by nature: where the kernel has no keyrings
//! there is nothing to protect.

use std::ffi::CString;

use nix::errno::Errno;

use super::{Warnings, lsm};
use crate::error::{Context, Error, Result};
use crate::procfs::Proc;
use crate::sys::keyring as sys;

/// Permission bits that let a later `exec` find the keyring by name: search, by the owner ...
const USER_SEARCH: u32 = 0x0008_0000;
/// ... or by anybody, since in a user namespace the ids need not agree.
const OTHER_SEARCH: u32 = 0x0000_0008;

/// The session keyring to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    name: CString,
    label: Option<String>,
}

/// The keyring of container `id`, with the SELinux label of the process.
pub fn plan(id: &str, label: Option<&str>) -> Result<Keyring> {
    let name = CString::new(format!("_ses.{id}"))
        .map_err(|_| Error::invalid(format!("container id {id:?} has a NUL byte")))?;
    Ok(Keyring { name, label: label.map(String::from) })
}

impl Keyring {
    /// For `create`: makes the keyring the session keyring and lets it be found by `exec`.
    pub fn create(&self, proc: &Proc, new_user_namespace: bool) -> Result<Warnings> {
        let serial = match self.enter(proc)? {
            Ok(serial) => serial,
            Err(warnings) => return Ok(warnings),
        };
        let search = if new_user_namespace { OTHER_SEARCH } else { USER_SEARCH };
        let text = sys::describe(serial).doing(|| self.text("reading"))?;
        let mask = permissions(&text)
            .ok_or_else(|| Error::invalid(format!("{}: unexpected answer {text:?}", self.text("reading"))))?;
        sys::set_permissions(serial, mask | search).doing(|| self.text("setting permissions of"))?;
        Ok(Warnings::new())
    }

    /// For `exec`: makes the container's keyring the session keyring.
    pub fn join(&self, proc: &Proc) -> Result<Warnings> {
        Ok(self.enter(proc)?.err().unwrap_or_default())
    }

    /// The serial number, or the warning when this kernel has no keyrings.
    fn enter(&self, proc: &Proc) -> Result<Result<i32, Warnings>> {
        if self.label.is_some() {
            lsm::set_key_label(proc, self.label.as_deref())?;
        }
        let joined = sys::join_session(&self.name);
        if self.label.is_some() {
            lsm::set_key_label(proc, None)?;
        }
        match joined {
            Ok(serial) => Ok(Ok(serial)),
            Err(Errno::ENOSYS) => Ok(Err(vec![
                "no session keyring: this kernel has none, or a filter forbids keyctl(2)".into(),
            ])),
            Err(errno @ Errno::EDQUOT) => Err(Error::sys(errno, self.text("joining")).hint(
                "raise kernel.keys.maxkeys and maxbytes (root_maxkeys for root), or pass --no-new-keyring",
            )),
            Err(errno) => {
                Err(Error::sys(errno, self.text("joining")).hint("--no-new-keyring does without it"))
            }
        }
    }

    fn text(&self, act: &str) -> String {
        format!("{act} the session keyring {}", self.name.to_string_lossy())
    }
}

/// The permission mask, fourth field of `type;uid;gid;perm;description`.
fn permissions(text: &str) -> Option<u32> {
    u32::from_str_radix(text.split(';').nth(3)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_parsed() {
        assert_eq!(permissions("keyring;0;0;3f1b0000;_ses.web1"), Some(0x3f1b_0000));
        assert_eq!(permissions("keyring;0;0;3f1b0000;a;b"), Some(0x3f1b_0000));
        assert_eq!(permissions("keyring;0;0"), None);
        assert_eq!(permissions("keyring;0;0;x;y"), None);
    }

    #[test]
    fn the_name_is_the_engines() {
        assert_eq!(plan("web1", None).unwrap().name.to_str(), Ok("_ses.web1"));
        assert!(plan("a\0b", None).is_err());
    }
}
