//! quotactl_fd(2) for projects (5.14).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
/// The limits of bytes and of inodes are meant.
const QIF_LIMITS: u32 = 1 | 4;
/// In which unit limits of bytes are counted.
const BLOCK: u64 = 1024;

/// `struct if_dqblk` of linux/quota.h.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Block {
    blocks_hard: u64,
    blocks_soft: u64,
    space: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// What a project uses and may use; a limit of 0 is none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in use.
    pub bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Most bytes.
    pub most_bytes: u64,
    /// Most inodes.
    pub most_inodes: u64,
}

fn call(file: impl AsFd, command: u32, project: u32, block: &mut Block) -> nix::Result<()> {
    // SAFETY: the kernel reads or writes one struct if_dqblk, which block is.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_fd().as_raw_fd(),
            (command << 8) | PRJQUOTA,
            project,
            std::ptr::from_mut(block),
        )
    };
    Errno::result(ret).map(drop)
}

/// The quota of `project` on the file system that `file` lies on.
pub fn get(file: impl AsFd, project: u32) -> nix::Result<Quota> {
    let mut block = Block::default();
    match call(file, Q_GETQUOTA, project, &mut block) {
        // XFS knows nothing of a project that never had a file.
        Err(Errno::ENOENT) => return Ok(Quota::default()),
        other => other?,
    }
    Ok(Quota {
        bytes: block.space,
        inodes: block.inodes,
        most_bytes: block.blocks_hard.saturating_mul(BLOCK),
        most_inodes: block.inodes_hard,
    })
}

/// Sets both limits of `project`; 0 is none.
pub fn set(file: impl AsFd, project: u32, bytes: u64, inodes: u64) -> nix::Result<()> {
    let mut block = Block {
        blocks_hard: bytes.div_ceil(BLOCK),
        inodes_hard: inodes,
        valid: QIF_LIMITS,
        ..Block::default()
    };
    call(file, Q_SETQUOTA, project, &mut block)
}
