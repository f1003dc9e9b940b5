//! Two names that swap places, over and over, while something else happens.
//!
//! Owns the thread that swaps them (renameat2(2), `RENAME_EXCHANGE`: there is no moment at which
//! one of them is missing).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `act` while `one` and `other` swap places; fails if they hardly did.
#[track_caller]
pub fn swapping<T>(one: &Path, other: &Path, act: impl FnOnce() -> T) -> T {
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Also where `act` panics, or the scope would wait for ever.
        let _stop = Stop(&stop);
        act()
    });
    let swaps = swaps.into_inner();
    println!("{swaps} swaps");
    assert!(swaps > 100, "no race: {swaps} swaps");
    done
}
