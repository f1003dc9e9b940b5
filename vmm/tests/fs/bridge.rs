//! The file server behind this machine's own `/dev/fuse`, so that real programs run against it without a guest.
//!
//! Owns a mount in a mount namespace of the calling thread's own, and the threads that serve it. What virtio
//! does with queues is done here with `read` and `write`; all else is what a guest gets.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use locule_vmm::fs::Server;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use vm_memory::VolatileSlice;

/// The kernel gives no request that is longer: 1 MiB to write, and what comes before it.
const REQUEST_MAX: usize = (1 << 20) + 4096;

/// A mount that ends when it is dropped.
pub struct Mount {
    target: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl Mount {
    /// Mounts what `server` serves on `target`, for this thread and the processes that it starts.
    pub fn new(server: &Arc<Server>, target: &Path, threads: usize) -> Mount {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: run as root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            device.as_raw_fd()
        );
        mount(Some("locule"), target, Some("fuse.locule"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let threads = (0..threads)
            .map(|_| {
                let (server, device) = (server.clone(), device.try_clone().unwrap());
                std::thread::spawn(move || serve(&server, &device))
            })
            .collect();
        Mount { target: target.to_owned(), threads }
    }
}

fn serve(server: &Arc<Server>, mut device: &File) {
    let mut worker = server.worker().unwrap();
    let mut request = vec![0; REQUEST_MAX];
    let mut reply = vec![0; REQUEST_MAX];
    loop {
        let count = match device.read(&mut request) {
            Ok(count) => count,
            // A request that was given up before it was read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR | libc::EAGAIN)) => {
                continue;
            }
            // Unmounted.
            Err(_) => return,
        };
        let filled = worker
            .handle(&[VolatileSlice::from(&mut request[..count])], &[VolatileSlice::from(&mut reply[..])]);
        if filled > 0 {
            // Nobody waits any more for a request that was given up.
            let _ = device.write(&reply[..filled]);
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        umount2(&self.target, MntFlags::MNT_DETACH).unwrap();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}
