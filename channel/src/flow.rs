//! Accounts of one stream's credit, on either side of it.

use crate::WINDOW;
use crate::frame::Violation;

/// What the sender of a stream may still send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    credit: u32,
}

impl Default for Outgoing {
    fn default() -> Self {
        Outgoing { credit: WINDOW }
    }
}

impl Outgoing {
    /// Bytes that may be sent now.
    pub fn room(&self) -> usize {
        self.credit as usize
    }

    /// Takes note of `bytes` sent, never more than [`Outgoing::room`].
    pub fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Takes note of credit that the receiver gave.
    pub fn grant(&mut self, bytes: u32) -> Result<(), Violation> {
        match self.credit.checked_add(bytes) {
            Some(credit) if credit <= WINDOW => {
                self.credit = credit;
                Ok(())
            }
            _ => Err(Violation::new("more credit than a stream can have")),
        }
    }
}

/// What the receiver of a stream has let the sender send.
#[derive(Debug, Clone)]
pub struct Incoming {
    open: u32,
    owed: u32,
}

impl Default for Incoming {
    fn default() -> Self {
        Incoming { open: WINDOW, owed: 0 }
    }
}

impl Incoming {
    /// Takes note of `bytes` received.
    pub fn take(&mut self, bytes: usize) -> Result<(), Violation> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.open = self
            .open
            .checked_sub(bytes)
            .ok_or_else(|| Violation::new("more data than there was credit for"))?;
        Ok(())
    }

    /// Takes note of `bytes` passed on, so that they can be asked for anew.
    pub fn passed(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.owed = self.owed.saturating_add(bytes).min(WINDOW - self.open.min(WINDOW));
    }

    /// Credit to give now: nothing until a quarter of the window is owed, as each costs a frame.
    pub fn credit(&mut self) -> Option<u32> {
        if self.owed < WINDOW / 4 {
            return None;
        }
        let credit = std::mem::take(&mut self.owed);
        self.open += credit;
        Some(credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_sends_the_other_gives_back() {
        let (mut sender, mut receiver) = (Outgoing::default(), Incoming::default());
        for turn in 0..100usize {
            let bytes = (turn * 7919) % 30_000 % (sender.room() + 1);
            sender.spend(bytes);
            receiver.take(bytes).unwrap();
            receiver.passed(bytes);
            if let Some(credit) = receiver.credit() {
                sender.grant(credit).unwrap();
            }
        }
        assert!(sender.room() > (WINDOW / 2) as usize);
    }

    #[test]
    fn neither_side_can_go_beyond_the_window() {
        let mut receiver = Incoming::default();
        receiver.take(WINDOW as usize).unwrap();
        assert!(receiver.take(1).is_err());
        assert!(Outgoing::default().grant(1).is_err());
        let mut sender = Outgoing::default();
        sender.spend(10);
        assert!(sender.grant(u32::MAX).is_err());
        sender.grant(10).unwrap();
        receiver.passed(usize::MAX);
        assert_eq!(receiver.credit(), Some(WINDOW));
        assert_eq!(receiver.credit(), None);
    }
}
