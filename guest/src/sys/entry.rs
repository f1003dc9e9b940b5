//! The C library's entry.
//!
//! The standard library's own start-up ends a process that has no descriptors 0 to 2 where there is no
//! /dev/null: just what the kernel starts from a tree without devices.

/// Called by the C library. The words are taken from `std::env`, which glibc fills in before.
#[allow(unsafe_code, reason = "only the entry point's name; nothing else may be called main")]
#[unsafe(no_mangle)]
pub extern "C" fn main() -> libc::c_int {
    crate::call()
}
