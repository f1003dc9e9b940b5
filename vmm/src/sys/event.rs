//! An eventfd whose descriptor can be borrowed.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A non-blocking, close-on-exec eventfd.
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    /// A new one that is not raised.
    pub fn new() -> io::Result<Event> {
        EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map(Event)
    }

    /// Another handle of the same event.
    pub fn try_clone(&self) -> io::Result<Event> {
        self.0.try_clone().map(Event)
    }

    /// Makes it readable. A counter that is full is readable already.
    pub fn raise(&self) -> io::Result<()> {
        match self.0.write(1) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Takes it back; true if it was raised.
    pub fn take(&self) -> io::Result<bool> {
        match self.0.read() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What kvm-ioctls wants.
    pub fn eventfd(&self) -> &EventFd {
        &self.0
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the eventfd, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
