//! Loop devices: a file as a block device (LOOP_CONFIGURE, 5.8).

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4c07;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
/// How often a free device is asked for, which others ask for as well.
const TRIES: usize = 64;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const NO_INFO: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// A loop device, held open: it goes away when nobody holds it and nothing of it is mounted.
#[derive(Debug)]
pub struct Loop {
    file: File,
    number: u32,
}

impl Loop {
    /// Makes a block device of `backing`, past the page cache where its file system can.
    pub fn attach(backing: impl AsFd, read_only: bool) -> std::io::Result<Loop> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut last = Errno::EBUSY;
        for _ in 0..TRIES {
            // SAFETY: no argument.
            let number =
                Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })? as u32;
            let file = OpenOptions::new().read(true).write(!read_only).open(format!("/dev/loop{number}"))?;
            for direct in [DIRECT_IO, 0] {
                let flags = AUTOCLEAR | direct | if read_only { READ_ONLY } else { 0 };
                let config = Config {
                    fd: backing.as_fd().as_raw_fd() as u32,
                    block_size: 0,
                    info: Info { flags, ..NO_INFO },
                    reserved: [0; 8],
                };
                // SAFETY: the kernel reads one struct loop_config, which config is.
                let ret = unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CONFIGURE, &config) };
                match Errno::result(ret) {
                    Ok(_) => return Ok(Loop { file, number }),
                    Err(Errno::EINVAL) if direct != 0 => last = Errno::EINVAL,
                    // Somebody else took it meanwhile.
                    Err(Errno::EBUSY) => {
                        last = Errno::EBUSY;
                        break;
                    }
                    Err(errno) => return Err(errno.into()),
                }
            }
            if last != Errno::EBUSY {
                break;
            }
        }
        Err(last.into())
    }

    /// Opens the device `number` if its file is the inode `inode` of the device `device`.
    pub fn of(number: u32, device: u64, inode: u64) -> Option<Loop> {
        let file = OpenOptions::new().read(true).open(format!("/dev/loop{number}")).ok()?;
        let mut info = NO_INFO;
        // SAFETY: the kernel writes one struct loop_info64, which info is.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), LOOP_GET_STATUS64, &mut info) }).ok()?;
        let same = info.device == device && info.inode == inode;
        same.then_some(Loop { file, number })
    }

    /// Its path.
    pub fn path(&self) -> String {
        format!("/dev/loop{}", self.number)
    }

    /// Takes notice that the file has another size.
    pub fn reread_size(&self) -> nix::Result<()> {
        // SAFETY: no argument.
        Errno::result(unsafe { libc::ioctl(self.file.as_raw_fd(), LOOP_SET_CAPACITY, 0) }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}
