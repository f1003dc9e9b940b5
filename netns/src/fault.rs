//! Places where a test can end the process as `kill -9` would; nothing at all in optimised builds.

/// The names of all points, in the order of an attachment, a detachment and a change.
#[cfg(debug_assertions)]
pub const POINTS: &[&str] = &[
    "claimed",
    "recorded",
    "bridge",
    "pair",
    "configured",
    "rules",
    "pool",
    "class",
    "rates",
    "names",
    "removed-link",
    "removed-rules",
    "limited",
];

/// Ends the process here if LOCULE_NETWORK_FAULT names this point.
#[inline]
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("LOCULE_NETWORK_FAULT").is_some_and(|wanted| wanted == name) {
        debug_assert!(POINTS.contains(&name), "{name}");
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
