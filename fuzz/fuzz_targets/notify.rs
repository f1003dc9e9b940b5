//! sd_notify messages from inside a container, or from a guest that was taken over: what reaches the service manager is
//! what may, and the same by both ways.
//!
//! The module is compiled in as it stands, between two real sockets.
#![no_main]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use locule_channel::LARGEST_NOTIFICATION;
use locule_runtime::isolation::notify::Way;
use locule_runtime::state::{Entry, Store};
// What the module calls `crate`.
use locule_runtime::{error, plan, state, sys};

#[allow(dead_code, reason = "the target uses the listening half")]
#[path = "../../runtime/src/process/notify.rs"]
mod notify;

const ALLOWED: [&[u8]; 9] = [
    b"READY=1",
    b"RELOADING=1",
    b"STOPPING=1",
    b"WATCHDOG=",
    b"STATUS=",
    b"ERRNO=",
    b"BUSERROR=",
    b"MONOTONIC_USEC=",
    b"EXTEND_TIMEOUT_USEC=",
];

struct Ends {
    container: UnixDatagram,
    monitor: Mutex<Way>,
    between: notify::Notify,
    manager: UnixDatagram,
}

static ENDS: LazyLock<Ends> = LazyLock::new(|| {
    let root = PathBuf::from(format!("/dev/shm/locule-fuzz-{}", std::process::id()));
    let store = Store::create_root(&root, false).expect("a state root on a tmpfs");
    let (entry, _): (Entry, _) = store.claim("fuzzed").expect("an entry in it");
    fs::create_dir(root.join("fuzzed/notify")).expect("the directory of the socket");
    let manager = UnixDatagram::bind(root.join("manager")).expect("the manager's socket");
    manager.set_nonblocking(true).expect("a manager that does not wait");
    // SAFETY: libFuzzer runs its targets on one thread, and this runs once, before anything reads it.
    unsafe { std::env::set_var("NOTIFY_SOCKET", root.join("manager")) };
    let between = notify::Notify::listen(&entry).expect("listening").expect("a manager is named");
    let container = UnixDatagram::unbound().expect("the container's socket");
    container.connect(root.join("fuzzed/notify/notify.sock")).expect("reaching the runtime");
    let directory = fs::File::open(root.join("fuzzed/notify")).expect("the directory of the socket");
    let monitor = Mutex::new(Way::new(directory.into()).expect("the monitor's way"));
    Ends { container, monitor, between, manager }
});

fuzz_target!(|message: &[u8]| {
    let ends = &*ENDS;
    ends.container.send(message).expect("a message");
    let passed = heard(ends);
    if message.len() <= LARGEST_NOTIFICATION {
        let mut monitor = ends.monitor.lock().expect("one thread");
        monitor.take(message);
        assert_eq!((monitor.push(), monitor.held()), (1, 0));
        assert_eq!(heard(ends), passed, "by way of a machine");
    }
    let Some(passed) = passed else { return };
    let length = passed.len();
    assert!(length > 0 && message.len() <= 4096);
    for line in passed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        assert!(ALLOWED.iter().any(|word| line.starts_with(word)), "{}", line.escape_ascii());
        assert!(!line.contains(&0));
        assert!(
            message.split(|byte| *byte == b'\n').any(|said| said == line),
            "not said: {}",
            line.escape_ascii()
        );
    }
});

/// What the manager is told of one message.
fn heard(ends: &Ends) -> Option<Vec<u8>> {
    ends.between.pump().expect("passing it on");
    let mut bytes = [0; 8192];
    let told = ends.manager.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec());
    assert!(ends.manager.recv(&mut bytes).is_err(), "one message became two");
    told
}
