//! The numbers that a machine sees of itself in /proc and /sys.
//!
//! Owns their files and their texts. Whoever reads never waits for a process that may be gone.
