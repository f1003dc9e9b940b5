//! A request in a queue as slices of the guest's memory.

use std::sync::atomic::Ordering;

use virtio_queue::{DescriptorChain, QueueT as _};
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, VolatileSlice};

use super::device::Ring;
use crate::memory::Memory;
use crate::{Error, Result};

/// The slices of a request: what the driver wrote, and where it wants the answer.
pub struct Chain<'a> {
    /// The number by which it is given back.
    pub head: u16,
    /// To be read.
    pub readable: Vec<VolatileSlice<'a>>,
    /// To be written, after all that is to be read.
    pub writable: Vec<VolatileSlice<'a>>,
    /// Where the latter are: guest-physical address and bytes.
    pub written: Vec<(GuestAddress, u64)>,
}

impl<'a> Chain<'a> {
    /// Reads the descriptors. One that lies outside of memory, or a readable one after a writable one, ends
    /// the list: the device sees a short request then.
    fn new(chain: DescriptorChain<&'a GuestMemoryMmap>, memory: &'a GuestMemoryMmap) -> Chain<'a> {
        let mut found = Chain {
            head: chain.head_index(),
            readable: Vec::new(),
            writable: Vec::new(),
            written: Vec::new(),
        };
        for descriptor in chain {
            if descriptor.len() == 0 {
                continue;
            }
            let Ok(slice) = memory.get_slice(descriptor.addr(), descriptor.len() as usize) else { break };
            match (descriptor.is_write_only(), found.writable.is_empty()) {
                (true, _) => {
                    found.writable.push(slice);
                    found.written.push((descriptor.addr(), descriptor.len().into()));
                }
                (false, true) => found.readable.push(slice),
                (false, false) => break,
            }
        }
        found
    }

    /// Copies what the driver wrote, at most `most` bytes.
    pub fn copy(&self, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for slice in &self.readable {
            let take = slice.len().min(most - bytes.len());
            let start = bytes.len();
            bytes.resize(start + take, 0);
            slice.copy_to(&mut bytes[start..]);
        }
        bytes
    }

    /// Answers with `bytes`, as far as there is room; how much that was.
    pub fn answer(&self, bytes: &[u8]) -> u32 {
        let mut done = 0;
        for slice in &self.writable {
            let take = slice.len().min(bytes.len() - done);
            slice.copy_from(&bytes[done..done + take]);
            done += take;
        }
        done as u32
    }

    /// Bytes of room for the answer.
    pub fn room(&self) -> usize {
        self.writable.iter().fold(0usize, |room, slice| room.saturating_add(slice.len()))
    }
}

/// The slices without their first `bytes`.
pub fn skip<'a>(slices: &[VolatileSlice<'a>], bytes: usize) -> Vec<VolatileSlice<'a>> {
    let mut skipped = 0;
    let mut rest = Vec::with_capacity(slices.len());
    for slice in slices {
        let here = (bytes - skipped).min(slice.len());
        skipped += here;
        // An offset inside of the slice, so there is something left to name.
        if here < slice.len()
            && let Ok(part) = slice.offset(here)
        {
            rest.push(part);
        }
    }
    rest
}

/// The slices before and from `at` on; none if there are not as many bytes.
pub fn split<'a>(
    slices: &[VolatileSlice<'a>],
    at: usize,
) -> Option<(Vec<VolatileSlice<'a>>, Vec<VolatileSlice<'a>>)> {
    let mut before = Vec::with_capacity(slices.len());
    let mut left = at;
    for slice in slices {
        let here = left.min(slice.len());
        if here > 0 {
            before.push(slice.subslice(0, here).ok()?);
        }
        left -= here;
    }
    (left == 0).then(|| (before, skip(slices, at)))
}

impl Ring {
    /// The next request, if there is one.
    pub fn next<'a>(&mut self, memory: &'a Memory) -> Option<Chain<'a>> {
        let memory: &GuestMemoryMmap = memory;
        self.queue.pop_descriptor_chain(memory).map(|chain| Chain::new(chain, memory))
    }

    /// Gives a request back, with `length` bytes written.
    pub fn done(&mut self, memory: &Memory, head: u16, length: u32) -> Result<()> {
        self.queue
            .add_used::<GuestMemoryMmap>(memory, head, length)
            .map_err(|error| Error::refused("giving a request back", error.to_string()))
    }

    /// Asks the driver to kick for the next request; true if one came meanwhile.
    ///
    /// A driver that claims to have put more in than the queue holds has nothing that `next` would take: it is not
    /// waited for here, or its device would look for ever.
    pub fn again(&mut self, memory: &Memory) -> Result<bool> {
        let failed = |error: virtio_queue::Error| Error::refused("waiting for a request", error.to_string());
        let more = self.queue.enable_notification::<GuestMemoryMmap>(memory).map_err(failed)?;
        let end = self.queue.avail_idx::<GuestMemoryMmap>(memory, Ordering::Acquire).map_err(failed)?;
        Ok(more && end.0.wrapping_sub(self.queue.next_avail()) <= self.queue.size())
    }

    /// Answers every request that there is by `answer`, which tells how many bytes it wrote, and raises the interrupt
    /// for them.
    pub fn serve(&mut self, memory: &Memory, mut answer: impl FnMut(&Chain) -> Result<u32>) -> Result<()> {
        let mut used = false;
        loop {
            let Some(chain) = self.next(memory) else {
                match self.again(memory)? {
                    true => continue,
                    false => break,
                }
            };
            let length = answer(&chain)?;
            self.done(memory, chain.head, length)?;
            used = true;
        }
        if used { self.notify(memory) } else { Ok(()) }
    }

    /// Takes the last request back, to be seen again by `next`.
    pub fn undo(&mut self) {
        let next = self.queue.next_avail();
        self.queue.set_next_avail(next.wrapping_sub(1));
    }
}
