//! `terminal`, `consoleSize`, the session keyring and what else a caller hands over.
//!
//! Owns the caller's end of the console socket.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::lane::{Bundle, listen, receive};

/// All that the workload writes on the terminal that comes over `listener`.
fn all(listener: &UnixListener) -> String {
    let (_, master) = receive(listener);
    let mut text = Vec::new();
    // EIO: the other end is closed.
    let _ = File::from(master).read_to_end(&mut text);
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_and_its_size() {
    let mut bundle = Bundle::new();
    let socket = bundle.path("console");
    let listener = listen(&socket);
    bundle
        .set("process.terminal", json!(true))
        .set("process.consoleSize", json!({"height": 33, "width": 101}));
    bundle.script("stty size; tty; stat -c %t /dev/console; test -t 0 && test -t 1 && test -t 2 && echo all");
    let shown = std::thread::scope(|scope| {
        let reader = scope.spawn(|| all(&listener));
        bundle.try_create(&["--console-socket", socket.to_str().unwrap()]).ok();
        bundle.start();
        reader.join().unwrap()
    });
    assert_eq!(shown, "33 101\n/dev/pts/0\n88\nall\n");
}

#[test]
fn a_terminal_for_exec() {
    let mut bundle = Bundle::new();
    let socket = bundle.path("console");
    let listener = listen(&socket);
    bundle.up();
    let shown = std::thread::scope(|scope| {
        let reader = scope.spawn(|| all(&listener));
        let options = ["--tty", "--detach", "--console-socket", socket.to_str().unwrap()];
        bundle.exec_with(&options, &["sh", "-c", "tty; echo done"]).ok();
        reader.join().unwrap()
    });
    assert_eq!(shown, "/dev/pts/0\ndone\n");
}

#[test]
fn a_terminal_wants_somebody_to_serve_it() {
    let mut bundle = Bundle::new();
    bundle.set("process.terminal", json!(true)).try_create(&[]).refused_with(&["--console-socket"]);
    bundle.assert_gone();
    let socket = bundle.path("console");
    let _listener = listen(&socket);
    bundle.set("process.terminal", json!(false));
    bundle.try_create(&["--console-socket", socket.to_str().unwrap()]).refused_with(&["process.terminal"]);
}

#[test]
fn a_devpts_without_a_terminal_left_says_what_to_raise() {
    let mut bundle = Bundle::new();
    let socket = bundle.path("console");
    let listener = listen(&socket);
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let devpts = mounts.iter_mut().find(|mount| mount["type"] == "devpts").unwrap();
        devpts["options"].as_array_mut().unwrap().push(json!("max=1"));
    });
    bundle.up();
    let options = ["--tty", "--detach", "--console-socket", socket.to_str().unwrap()];
    let _only = std::thread::scope(|scope| {
        let reader = scope.spawn(|| receive(&listener));
        bundle.exec_with(&options, &["sleep", "1000"]).ok();
        reader.join().unwrap()
    });
    let words = ["ENOSPC", "max= of the devpts", "kernel.pty.max"];
    bundle.exec_with(&options, &["true"]).refused_with(&words);
}

/// The keyring is the container's own, and `exec` has the same.
#[test]
fn a_session_keyring() {
    let mut bundle = Bundle::new();
    // The default document hides the list of keys.
    bundle.set("linux.maskedPaths", json!([])).up();
    let name = format!("_ses.{}", bundle.id());
    let serial = |text: &str| text.lines().find(|line| line.contains(&name)).map(|line| line[..8].to_owned());
    let keys = bundle.exec("cat /proc/keys");
    assert!(serial(keys.ok()).is_some(), "{keys:?}");
    assert_eq!(serial(keys.ok()), serial(bundle.exec("cat /proc/keys").ok()), "exec joins it");
    let mut bundle = Bundle::new();
    bundle.set("linux.maskedPaths", json!([])).script("cat /proc/keys");
    assert!(!bundle.run_with(&["--no-new-keyring"]).ok().contains(&format!("_ses.{}", bundle.id())));
}

#[test]
fn pid_file() {
    let mut bundle = Bundle::new();
    bundle.script("true").try_create(&["--pid-file", "pid"]).ok();
    assert_eq!(std::fs::read_to_string(bundle.path("pid")).unwrap(), bundle.pid().to_string());
}
