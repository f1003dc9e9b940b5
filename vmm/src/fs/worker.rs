//! One thread's way of acting for the guest's processes.
//!
//! Who may do what is the guest kernel's to decide: it knows all groups and capabilities of the caller, of which
//! a request tells two ids. So a thread keeps its capabilities, whatever ids it acts with, and takes the
//! caller's ids and mask only where they become part of a file: when one is made. What it gives up is
//! `CAP_FSETID` where the guest says that the caller has it not, so that the kernel takes set-id bits away as
//! it would have done for the caller.
//!
//! Needed: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETUID, SETGID; for device nodes MKNOD, for
//! `security.capability` SETFCAP, for the tidiest way of changing ids SETPCAP (a thread's first act). In a user
//! namespace they reach as far as the ids that are mapped in it: others are refused with EOVERFLOW.

use std::marker::PhantomData;
use std::sync::Arc;

use nix::errno::Errno;

use super::abi::InHeader;
use super::server::Server;
use super::sys::ids;
use crate::Doing as _;
use std::os::fd::AsFd as _;

/// What serves requests on one thread; see [`Server::worker`].
#[derive(Debug)]
pub struct Worker {
    pub(super) server: Arc<Server>,
    /// The thread's own ids.
    own: (u32, u32),
    uid: u32,
    gid: u32,
    mask: u32,
    fsetid: bool,
    /// Capabilities stay when ids change; where they do not, each request ends with the thread's own ids.
    keeps: bool,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

impl Worker {
    pub(super) fn new(server: Arc<Server>) -> crate::Result<Worker> {
        ids::own_directory(server.descriptors.as_fd())
            .doing("giving a thread of the file server a directory")?;
        let keeps = ids::keep_capabilities().is_ok();
        // So that no group of the monitor decides about set-group-id bits. A user namespace may forbid it.
        let _ = ids::no_groups();
        ids::set_mask(0);
        let ((_, uid), (_, gid)) = (ids::user(), ids::group());
        Ok(Worker { server, own: (uid, gid), uid, gid, mask: 0, fsetid: true, keeps, _thread: PhantomData })
    }

    /// From here on, files are made for the caller, with its mask.
    pub(super) fn act_for(&mut self, header: &InHeader, mask: u32) -> Result<(), Errno> {
        self.set_ids(header.uid, header.gid)?;
        if mask != self.mask {
            ids::set_mask(mask);
            self.mask = mask;
        }
        Ok(())
    }

    fn set_ids(&mut self, uid: u32, gid: u32) -> Result<(), Errno> {
        if gid != self.gid {
            ids::set_group(gid)?;
            self.gid = gid;
        }
        if uid != self.uid {
            ids::set_user(uid)?;
            self.uid = uid;
        }
        Ok(())
    }

    /// From here on, set-id bits survive changes, or do not.
    pub(super) fn keep_set_id(&mut self, keep: bool) -> Result<(), Errno> {
        if keep != self.fsetid {
            ids::set_fsetid(keep)?;
            self.fsetid = keep;
        }
        Ok(())
    }

    /// After a request.
    pub(super) fn settle(&mut self) {
        if !self.keeps {
            let (uid, gid) = self.own;
            // Back to what the thread was: that cannot be refused.
            let _ = self.set_ids(uid, gid);
        }
    }
}
