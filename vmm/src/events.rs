//! The thread of the devices: it waits for kicks, taps and sockets, and calls the device that asked for them.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::sys::Event;
use crate::virtio::device::{Watch, Watcher};
use crate::virtio::transport;
use crate::{Doing as _, Result};

/// Bits of a token that a device chooses; those above are the device's number.
const TOKEN_BITS: u32 = 32;
/// The event that ends the thread.
const STOP: u64 = u64::MAX;

/// All that is watched for all devices; clones share it.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    epoll: Epoll,
    stop: Event,
    devices: Mutex<Vec<transport::Shared>>,
    /// What epoll waits for is a duplicate, so that it cannot be closed or replaced underneath.
    watched: Mutex<HashMap<(u32, RawFd), OwnedFd>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    /// Nothing is watched yet.
    pub fn new() -> Result<Events> {
        let doing = "making the devices' event loop";
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).doing(doing)?;
        let stop = Event::new().doing(doing)?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP)).doing(doing)?;
        Ok(Events(Arc::new(Inner { epoll, stop, devices: Mutex::default(), watched: Mutex::default() })))
    }

    /// Adds a device; its number.
    pub fn add(&self, device: &transport::Shared) -> u32 {
        let mut devices = lock(&self.0.devices);
        devices.push(device.clone());
        devices.len() as u32 - 1
    }

    /// What device `number` has descriptors watched by.
    pub fn watcher(&self, number: u32) -> Watcher {
        Watcher::new(Own { events: self.clone(), number })
    }

    /// Watches nothing for device `number` any more.
    pub fn forget(&self, number: u32) {
        lock(&self.0.watched).retain(|(device, _), descriptor| {
            if *device == number {
                let _ = self.0.epoll.delete(&*descriptor);
            }
            *device != number
        });
    }

    /// Lets `run` return.
    pub fn stop(&self) {
        let _ = self.0.stop.raise();
    }

    /// Calls devices until `stop`.
    pub fn run(&self) -> Result<()> {
        let mut ready = [EpollEvent::empty(); 32];
        loop {
            let count = match self.0.epoll.wait(&mut ready, EpollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other.doing("waiting for devices' events")?,
            };
            for event in &ready[..count] {
                if event.data() == STOP {
                    return Ok(());
                }
                let number = (event.data() >> TOKEN_BITS) as usize;
                let device = lock(&self.0.devices).get(number).cloned();
                if let Some(device) = device {
                    tell(&device, event.data());
                }
            }
        }
    }

    /// Calls devices for what is ready now.
    #[cfg(any(test, fuzzing))]
    pub fn run_once(&self) {
        let mut ready = [EpollEvent::empty(); 32];
        let count = self.0.epoll.wait(&mut ready, EpollTimeout::ZERO).unwrap_or(0);
        for event in &ready[..count] {
            let device = lock(&self.0.devices)[(event.data() >> TOKEN_BITS) as usize].clone();
            tell(&device, event.data());
        }
    }
}

/// Calls a device for what is ready; one that cannot go on is reset.
fn tell(device: &transport::Shared, data: u64) {
    let mut device = lock(device);
    if device.event(data & ((1 << TOKEN_BITS) - 1)).is_err() {
        device.reset();
    }
}

struct Own {
    events: Events,
    number: u32,
}

impl Own {
    fn event(&self, events: u32, token: u64) -> EpollEvent {
        let flags = EpollFlags::from_bits_truncate(events as i32);
        EpollEvent::new(flags, u64::from(self.number) << TOKEN_BITS | token & ((1 << TOKEN_BITS) - 1))
    }
}

impl Watch for Own {
    fn add(&self, descriptor: BorrowedFd, events: u32, token: u64) -> Result<()> {
        let doing = "watching a device's descriptor";
        let own = descriptor.try_clone_to_owned().doing(doing)?;
        self.events.0.epoll.add(&own, self.event(events, token)).doing(doing)?;
        lock(&self.events.0.watched).insert((self.number, descriptor.as_raw_fd()), own);
        Ok(())
    }

    fn change(&self, descriptor: BorrowedFd, events: u32, token: u64) -> Result<()> {
        let watched = lock(&self.events.0.watched);
        match watched.get(&(self.number, descriptor.as_raw_fd())) {
            Some(own) => self
                .events
                .0
                .epoll
                .modify(own, &mut self.event(events, token))
                .doing("watching a device's descriptor"),
            None => Ok(()),
        }
    }

    fn remove(&self, descriptor: BorrowedFd) -> Result<()> {
        match lock(&self.events.0.watched).remove(&(self.number, descriptor.as_raw_fd())) {
            Some(own) => self.events.0.epoll.delete(&own).doing("leaving a device's descriptor alone"),
            None => Ok(()),
        }
    }
}
