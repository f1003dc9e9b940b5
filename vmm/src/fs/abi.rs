//! The FUSE protocol as Linux speaks it (`include/uapi/linux/fuse.h`, 7.31 to 7.45): numbers and structures.
//!
//! Owns the byte layout of every structure, little-endian as both of our architectures are. Judges nothing.

/// The major version of the protocol; there is no other.
pub const MAJOR: u32 = 7;
/// The newest minor version that this server knows.
pub const MINOR: u32 = 45;
/// The oldest minor version that it serves: Linux 5.4, the first with virtio-fs.
pub const MINOR_MIN: u32 = 31;
/// The node id of the top directory.
pub const ROOT: u64 = 1;

/// Requests, by the kernel's names.
pub mod op {
    #![allow(missing_docs, reason = "the names are those of the kernel's header")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

/// What the two sides offer at INIT: the low 32 bits are `flags`, the others `flags2`.
pub mod init {
    #![allow(missing_docs, reason = "the names are those of the kernel's header")]
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const SUBMOUNTS: u64 = 1 << 27;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub const ALLOW_IDMAP: u64 = 1 << 40;
}

/// Which members of [`SetattrIn`] count.
pub mod fattr {
    #![allow(missing_docs, reason = "the names are those of the kernel's header")]
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// How the guest shall treat an opened file.
pub mod fopen {
    #![allow(missing_docs, reason = "the names are those of the kernel's header")]
    pub const DIRECT_IO: u32 = 1 << 0;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const NOFLUSH: u32 = 1 << 5;
}

/// A directory that is the root of another mount: the guest mounts it by itself.
pub const ATTR_SUBMOUNT: u32 = 1 << 0;
/// [`OpenIn::open_flags`]: the writer has no right to keep the set-id bits.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// [`WriteIn::write_flags`]: written back from the guest's page cache.
pub const WRITE_CACHE: u32 = 1 << 0;
/// [`WriteIn::write_flags`]: the writer has no right to keep the set-id bits.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// [`FsyncIn::fsync_flags`]: data only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// [`SetxattrIn::setxattr_flags`]: the list takes the set-group-id bit away.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;

/// A structure of the protocol.
pub trait Wire: Sized {
    /// Its length in bytes.
    const SIZE: usize;
    /// Reads it from the start of `bytes`; `None` if they are too few.
    fn decode(bytes: &[u8]) -> Option<Self>;
    /// Appends it to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}

macro_rules! number {
    ($($type:ty)*) => { $(
        impl Wire for $type {
            const SIZE: usize = size_of::<$type>();
            fn decode(bytes: &[u8]) -> Option<Self> {
                Some(<$type>::from_le_bytes(*bytes.first_chunk()?))
            }
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )* };
}
number!(u16 u32 u64 i32 i64);

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are those of the kernel's header")]
        pub struct $name { $(pub $field: $type),* }

        impl Wire for $name {
            const SIZE: usize = 0 $(+ <$type as Wire>::SIZE)*;
            fn decode(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                $(
                    let $field = <$type as Wire>::decode(rest)?;
                    rest = rest.get(<$type as Wire>::SIZE..)?;
                )*
                let _ = rest;
                Some($name { $($field),* })
            }
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$field.encode(out);)*
            }
        }
    )* };
}

wire! {
    /// `fuse_in_header`: begins each request.
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16 }
    /// `fuse_out_header`: begins each reply; `error` is a negative errno or 0.
    OutHeader { len: u32, error: i32, unique: u64 }
    /// `fuse_attr`.
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// `fuse_entry_out`.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr,
    }
    /// `fuse_attr_out`.
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    /// `fuse_forget_in`.
    ForgetIn { nlookup: u64 }
    /// `fuse_batch_forget_in`, before `count` of [`ForgetOne`].
    BatchForgetIn { count: u32, dummy: u32 }
    /// `fuse_forget_one`.
    ForgetOne { nodeid: u64, nlookup: u64 }
    /// `fuse_setattr_in`.
    SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// `fuse_mknod_in`.
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// `fuse_mkdir_in`.
    MkdirIn { mode: u32, umask: u32 }
    /// `fuse_rename_in`.
    RenameIn { newdir: u64 }
    /// `fuse_rename2_in`.
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    /// `fuse_link_in`.
    LinkIn { oldnodeid: u64 }
    /// `fuse_open_in`.
    OpenIn { flags: u32, open_flags: u32 }
    /// `fuse_create_in`, of CREATE and TMPFILE.
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// `fuse_open_out`.
    OpenOut { fh: u64, open_flags: u32, padding: u32 }
    /// `fuse_release_in`.
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// `fuse_flush_in`.
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// `fuse_read_in`, of READ, READDIR and READDIRPLUS.
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `fuse_write_in`.
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `fuse_write_out`, of WRITE and COPY_FILE_RANGE.
    WriteOut { size: u32, padding: u32 }
    /// `fuse_kstatfs`.
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare0: u64, spare1: u64, spare2: u64,
    }
    /// `fuse_fsync_in`.
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// `fuse_setxattr_in`, as extended by 7.33.
    SetxattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    /// `fuse_setxattr_in` before that.
    SetxattrInShort { size: u32, flags: u32 }
    /// `fuse_getxattr_in` and `fuse_getxattr_out`, also of LISTXATTR.
    Getxattr { size: u32, padding: u32 }
    /// `fuse_init_in`, without what 7.36 added.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// `fuse_init_out`.
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        unused0: u64, unused1: u64, unused2: u64,
    }
    /// `fuse_fallocate_in`.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// `fuse_dirent`, before the name.
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32 }
    /// `fuse_lseek_in`.
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// `fuse_copy_file_range_in`.
    CopyIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
    /// `fuse_sx_time`.
    SxTime { sec: i64, nsec: u32, reserved: i32 }
    /// `fuse_statx`, without its tail of spare words.
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16, ino: u64,
        size: u64, blocks: u64, attributes_mask: u64, atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32,
    }
    /// `fuse_statx_out`, without that tail.
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare0: u64, spare1: u64, stat: Statx }
}

/// Zero bytes at the end of `fuse_statx`.
pub const STATX_SPARE: usize = 14 * 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_header() {
        assert_eq!((InHeader::SIZE, OutHeader::SIZE), (40, 16));
        assert_eq!((Attr::SIZE, EntryOut::SIZE, AttrOut::SIZE), (88, 128, 104));
        assert_eq!((SetattrIn::SIZE, InitOut::SIZE, StatfsOut::SIZE), (88, 64, 80));
        assert_eq!((ReadIn::SIZE, WriteIn::SIZE, CopyIn::SIZE), (40, 40, 56));
        assert_eq!(StatxOut::SIZE + STATX_SPARE, 288);
    }

    #[test]
    fn too_few_bytes_are_refused() {
        assert_eq!(OpenIn::decode(&[0; 7]), None);
        let flags = OpenIn { flags: 0x8000, open_flags: 1 };
        let mut bytes = Vec::new();
        flags.encode(&mut bytes);
        assert_eq!(OpenIn::decode(&bytes), Some(flags));
    }
}
