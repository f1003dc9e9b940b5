//! The words that a call may fail with because another was quicker.

/// What may go wrong where several work on one container.
pub const EXPECTED: [&str; 11] = [
    "does not exist",
    "already exists",
    "container not running",
    "not stopped",
    "has stopped",
    "running already",
    "creating already",
    "its creation was interrupted",
    "stopped container",
    "container not paused",
    // A creation or start whose init a deletion killed meanwhile.
    "the container's init died",
];
