//! The source of random bytes: the host kernel's.

use super::EVENT_IDX;
use super::device::{Activation, Device};
use crate::sys;
use crate::{Doing as _, Result};

/// Bytes that one request gets at most; the driver asks again for more.
const MOST: usize = 4096;

/// The device.
#[derive(Default)]
pub struct Rng {
    active: Option<Activation>,
}

impl Rng {
    fn serve(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let ring = &mut active.rings[0];
        ring.kick.take().doing("reading a queue's kick")?;
        ring.serve(&active.memory, |chain| {
            let mut bytes = vec![0; chain.room().min(MOST)];
            sys::random(&mut bytes).doing("reading random bytes")?;
            Ok(chain.answer(&bytes))
        })
    }
}

impl Device for Rng {
    fn kind(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16]
    }

    fn vectors(&self) -> usize {
        2
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::read_bytes(&[], offset, data);
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
