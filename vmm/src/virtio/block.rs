//! The disk: a raw image, read and written straight from and to the guest's memory.
//!
//! Virtio 1.2, 5.2.

use std::fs::File;
use std::os::fd::AsFd as _;

use vm_memory::VolatileSlice;

use super::EVENT_IDX;
use super::chain::{Chain, skip, split};
use super::device::{Activation, Device};
use crate::sys;
use crate::{Doing as _, Error, Result};

/// One disk: a raw image or a block device.
#[derive(Debug)]
pub struct Config {
    /// The image, opened for reading, and for writing unless `read_only`.
    pub file: File,
    /// The guest cannot write.
    pub read_only: bool,
    /// What `/dev/disk/by-id` shows; at most 20 bytes.
    pub id: String,
}

const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const FLUSH: u64 = 1 << 9;

const SIZES: [u16; 1] = [128];
const SECTOR: u64 = 512;
const HEADER: usize = 16;
const ID: usize = 20;

// Requests.
const IN: u32 = 0;
const OUT: u32 = 1;
const SYNC: u32 = 4;
const GET_ID: u32 = 8;

// Their ends.
const OK: u8 = 0;
const FAILED: u8 = 1;
const UNKNOWN: u8 = 2;

/// The device.
pub struct Block {
    file: File,
    read_only: bool,
    id: [u8; ID],
    sectors: u64,
    active: Option<Activation>,
}

impl Block {
    /// A disk.
    pub fn new(config: Config) -> Result<Block> {
        let doing = format!("adding the disk {:?}", config.id);
        if config.id.len() > ID {
            return Err(Error::refused(doing, "its id is longer than 20 bytes"));
        }
        // Also right for block devices, whose length is no attribute.
        let bytes = std::io::Seek::seek(&mut &config.file, std::io::SeekFrom::End(0)).doing(doing)?;
        let mut id = [0; ID];
        id[..config.id.len()].copy_from_slice(config.id.as_bytes());
        Ok(Block {
            file: config.file,
            read_only: config.read_only,
            id,
            sectors: bytes / SECTOR,
            active: None,
        })
    }

    fn serve(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let ring = &mut active.rings[0];
        ring.kick.take().doing("reading a queue's kick")?;
        let disk = Disk { file: &self.file, read_only: self.read_only, id: &self.id, sectors: self.sectors };
        ring.serve(&active.memory, |chain| Ok(disk.answer(chain)))
    }
}

struct Disk<'a> {
    file: &'a File,
    read_only: bool,
    id: &'a [u8; ID],
    sectors: u64,
}

impl Disk<'_> {
    /// Does what a request wants; bytes written to it.
    fn answer(&self, chain: &Chain) -> u32 {
        let room = chain.room();
        // The last byte of the answer is its status. A request without room for it cannot be answered.
        let Some((data, status)) = room.checked_sub(1).and_then(|at| split(&chain.writable, at)) else {
            return 0;
        };
        let header: Option<[u8; HEADER]> = chain.copy(HEADER).try_into().ok();
        let (end, written) = match header {
            Some(header) => self.act(&header, &skip(&chain.readable, HEADER), &data),
            None => (FAILED, 0),
        };
        for slice in &status {
            slice.copy_from(&[end]);
        }
        written as u32 + 1
    }

    fn act(&self, header: &[u8; HEADER], out: &[VolatileSlice], into: &[VolatileSlice]) -> (u8, usize) {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = *header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            IN => match self.place(sector, into) {
                Some(place) => {
                    match whole(into, place, |slices, at| sys::pread(self.file.as_fd(), slices, at)) {
                        Some(read) => (OK, read),
                        None => (FAILED, 0),
                    }
                }
                None => (FAILED, 0),
            },
            OUT if self.read_only => (FAILED, 0),
            OUT => {
                let done = self.place(sector, out).and_then(|place| {
                    whole(out, place, |slices, at| sys::pwrite(self.file.as_fd(), slices, at))
                });
                (if done.is_some() { OK } else { FAILED }, 0)
            }
            SYNC => (if self.file.sync_data().is_ok() { OK } else { FAILED }, 0),
            GET_ID => {
                let mut rest: &[u8] = self.id;
                for slice in into {
                    let take = slice.len().min(rest.len());
                    slice.copy_from(&rest[..take]);
                    rest = &rest[take..];
                }
                (OK, ID - rest.len())
            }
            _ => (UNKNOWN, 0),
        }
    }

    /// Where the data lie in the file; none if they are no whole sectors or lie outside of the disk.
    fn place(&self, sector: u64, data: &[VolatileSlice]) -> Option<i64> {
        let bytes = data.iter().try_fold(0u64, |sum, slice| sum.checked_add(slice.len() as u64))?;
        let end = sector.checked_add(bytes / SECTOR).filter(|end| *end <= self.sectors);
        let place = sector.checked_mul(SECTOR)?;
        end.filter(|_| bytes.is_multiple_of(SECTOR)).and(i64::try_from(place).ok())
    }
}

/// Repeats a call until all slices are moved; none on an error or an early end.
fn whole(
    slices: &[VolatileSlice],
    place: i64,
    call: impl Fn(&[VolatileSlice], i64) -> std::io::Result<usize>,
) -> Option<usize> {
    let total: usize = slices.iter().map(VolatileSlice::len).sum();
    let mut done = 0;
    while done < total {
        match call(&skip(slices, done), place + done as i64) {
            Ok(0) => return None,
            Ok(more) => done += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(total)
}

impl Device for Block {
    fn kind(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        SEG_MAX | FLUSH | EVENT_IDX | if self.read_only { READ_ONLY } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0u8; 16];
        config[..8].copy_from_slice(&self.sectors.to_le_bytes());
        // Segments of a request: the queue without header and status.
        config[12..].copy_from_slice(&u32::from(SIZES[0] - 2).to_le_bytes());
        super::read_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        super::watch_kicks(&activation)?;
        self.active = Some(activation);
        Ok(())
    }

    fn event(&mut self, _token: u64) -> Result<()> {
        self.serve()
    }

    fn reset(&mut self) {
        if let Some(active) = self.active.take() {
            super::forget_kicks(&active);
        }
    }
}
