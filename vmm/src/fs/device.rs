//! The virtio-fs device: queues of FUSE requests, and the threads that serve them.
//!
//! Queue 0 is for requests that must not wait behind others (FORGET), queue 1 for all others. Every thread takes
//! from both, the first first: a request that waits for a disk holds up one thread, not the queue.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use virtio_queue::{DescriptorChain, QueueT as _};
use vm_memory::{GuestMemory as _, GuestMemoryMmap, Permissions, VolatileSlice};

use super::server::Server;
use super::shares::Shares;
use super::tree::Tree;
use super::worker::Worker;
use crate::memory::Memory;
use crate::starter::Starter;
use crate::sys::Event;
use crate::virtio::{Activation, Device, EVENT_IDX, Ring};
use crate::{Doing as _, Error, Result};

/// `VIRTIO_ID_FS`.
const KIND: u32 = 26;
/// `VIRTIO_RING_F_INDIRECT_DESC`.
const INDIRECT: u64 = 1 << 28;
/// How many threads serve one device.
const THREADS: usize = 2;
/// Room for a request of 1 MiB in single pages, for guests without indirect descriptors.
const QUEUES: &[u16] = &[128, 1024];
/// The name that the guest mounts, filled with NUL, before the count of request queues.
const TAG: usize = 36;

/// The virtio-fs device that serves `tree` under `tag`, with threads that `starter` starts; and what changes the
/// tree while it does.
///
/// # Errors
/// For a tag that is empty or longer than 36 bytes, and as [`Server::new`].
pub fn device(tag: &str, tree: Tree, starter: Starter) -> Result<(Box<dyn Device>, Shares)> {
    if tag.is_empty() || tag.len() > TAG || tag.contains('\0') {
        return Err(Error::refused(format!("sharing the tree {tag:?}"), "a name of 1 to 36 bytes is needed"));
    }
    let mut config = tag.as_bytes().to_vec();
    config.resize(TAG, 0);
    config.extend_from_slice(&1u32.to_le_bytes());
    let server = Server::new(tree)?;
    let shares = server.shares();
    Ok((Box::new(FileSystem { config, server, starter, served: None }), shares))
}

struct FileSystem {
    config: Vec<u8>,
    server: Arc<Server>,
    starter: Starter,
    served: Option<Served>,
}

/// From activation to reset.
struct Served {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

/// Ends the threads: one that waits, by the event; one that works, by the flag.
struct Stop {
    event: Event,
    flag: AtomicBool,
}

impl Device for FileSystem {
    fn kind(&self) -> u32 {
        KIND
    }

    fn features(&self) -> u64 {
        INDIRECT | EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let known = usize::try_from(offset).ok().and_then(|start| self.config.get(start..));
        for (byte, known) in data.iter_mut().zip(known.unwrap_or_default()) {
            *byte = *known;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        self.reset();
        let Activation { memory, rings, .. } = activation;
        let rings: Arc<Vec<Mutex<Ring>>> =
            Arc::new(rings.into_iter().filter(|ring| ring.queue.ready()).map(Mutex::new).collect());
        let event = Event::new().doing("making an event for the file server")?;
        let stop = Arc::new(Stop { event, flag: AtomicBool::new(false) });
        let mut served = Served { stop: stop.clone(), threads: Vec::new() };
        let (tell, told) = channel();
        for number in 0..THREADS {
            let (server, memory, rings) = (self.server.clone(), memory.clone(), rings.clone());
            let (stop, tell) = (stop.clone(), tell.clone());
            let thread = self
                .starter
                .start(&format!("fs{number}"), move || serve(&server, &memory, &rings, &stop, tell))?;
            served.threads.push(thread);
        }
        drop(tell);
        self.served = Some(served);
        told.iter().collect::<Result<()>>()
    }

    fn reset(&mut self) {
        if let Some(served) = self.served.take() {
            // A full counter is raised already; nothing else can fail.
            served.stop.flag.store(true, Ordering::Relaxed);
            let _ = served.stop.event.raise();
            for thread in served.threads {
                let _ = thread.join();
            }
        }
        self.server.reset();
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        self.reset();
    }
}

/// What each thread does until `stop`.
fn serve(
    server: &Arc<Server>,
    memory: &Memory,
    rings: &[Mutex<Ring>],
    stop: &Stop,
    tell: Sender<Result<()>>,
) {
    let mut worker = match server.worker() {
        Ok(worker) => worker,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let kicks: Result<Vec<Event>> = rings
        .iter()
        .map(|ring| lock(ring).kick.try_clone().doing("watching a queue of the file server"))
        .collect();
    let kicks = match kicks {
        Ok(kicks) => kicks,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let _ = tell.send(Ok(()));
    drop(tell);
    loop {
        let mut watched = vec![PollFd::new(stop.event.as_fd(), PollFlags::POLLIN)];
        watched.extend(kicks.iter().map(|kick| PollFd::new(kick.as_fd(), PollFlags::POLLIN)));
        if poll(&mut watched, PollTimeout::NONE).is_err() {
            // Interrupted: nothing is lost.
            continue;
        }
        let ready: Vec<bool> = watched.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        if ready.first() == Some(&true) {
            return;
        }
        for ((ring, kick), ready) in rings.iter().zip(&kicks).zip(ready.into_iter().skip(1)) {
            // Another thread may have been faster.
            if ready && kick.take().unwrap_or(false) {
                drain(&mut worker, memory, ring, kick, stop);
            }
        }
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves what is in the queue until it is empty, or is no queue any more: what a driver breaks stays broken
/// until its reset.
fn drain(worker: &mut Worker, memory: &Memory, ring: &Mutex<Ring>, kick: &Event, stop: &Stop) {
    let mut locked = lock(ring);
    loop {
        if locked.queue.disable_notification::<GuestMemoryMmap>(memory).is_err() {
            return;
        }
        while let Some(chain) = locked.queue.pop_descriptor_chain(memory.clone()) {
            let head = chain.head_index();
            if more(&locked, memory) {
                // For the other threads.
                let _ = kick.raise();
            }
            drop(locked);
            let filled = answer(worker, memory, chain);
            locked = lock(ring);
            if locked.queue.add_used::<GuestMemoryMmap>(memory, head, filled as u32).is_err()
                || locked.notify(memory).is_err()
            {
                return;
            }
            // So that a driver that fills the queue without end cannot hold up its own reset.
            if stop.flag.load(Ordering::Relaxed) {
                return;
            }
        }
        match locked.again(memory) {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

fn more(ring: &Ring, memory: &Memory) -> bool {
    ring.queue
        .avail_idx::<GuestMemoryMmap>(memory, Ordering::Acquire)
        .is_ok_and(|index| index.0 != ring.queue.next_avail())
}

/// Serves the request of one chain; of a chain that is none, nothing is used.
fn answer(worker: &mut Worker, memory: &Memory, chain: DescriptorChain<Memory>) -> usize {
    let map: &GuestMemoryMmap = memory;
    let (mut request, mut reply): (Vec<VolatileSlice<'_>>, Vec<VolatileSlice<'_>>) = (Vec::new(), Vec::new());
    for descriptor in chain {
        let (into, access) = if descriptor.is_write_only() {
            (&mut reply, Permissions::Write)
        } else {
            (&mut request, Permissions::Read)
        };
        let Ok(slices) = map.get_slices(descriptor.addr(), descriptor.len() as usize, access) else {
            return 0;
        };
        for slice in slices {
            let Ok(slice) = slice else { return 0 };
            into.push(slice);
        }
    }
    worker.handle(&request, &reply)
}
