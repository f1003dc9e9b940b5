//! Failures have the words that they have without a machine, and the guest outlives every breach.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use locule_runtime::isolation::control::Answer;
use serde_json::json;

use crate::lane::{Tree, finish, locule, process};

/// What `locule` itself says of the same container.
fn said_by_locule(tree: &Tree, name: &str) -> String {
    let bundle = tree.dir.join("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    let mut config = tree.config.clone();
    config["root"]["path"] = json!(tree.dir.join("root"));
    config["linux"]["cgroupsPath"] = json!(format!("/{name}"));
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let state = tree.dir.join("state");
    let output = Command::new(locule())
        .args(["--root".as_ref(), state.as_os_str(), "run".as_ref(), "--bundle".as_ref(), bundle.as_os_str()])
        .arg("inner")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap().trim_end().to_owned();
    let told = told.strip_prefix("locule: ").unwrap_or_else(|| panic!("{told}")).to_owned();
    told.strip_prefix("creating inner: ").map(str::to_owned).unwrap_or(told)
}

#[test]
fn what_cannot_be_executed_is_told_in_the_runtimes_words() {
    let name = |what: &str| format!("guest-words-{what}-{}", std::process::id());
    for (what, args, kind) in [
        ("missing", &["nowhere"][..], "CommandNotFound"),
        ("absolute", &["/bin/nowhere"], "CommandNotFound"),
        ("directory", &["/etc"], "NotExecutable"),
        ("mode", &["/etc/passwd"], "NotExecutable"),
    ] {
        let tree = Tree::new(args);
        let output = tree.run();
        let told = output.stderr.lines().last().unwrap_or_default();
        assert_eq!(told, format!("native: {kind}: {}", said_by_locule(&tree, &name(what))), "{what}");
        assert_eq!(output.status, 125);
    }
    let mut tree = Tree::new(&["/bin/true"]);
    tree.config["process"]["cwd"] = json!("/no/such/place");
    tree.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let output = tree.run();
    if output.status != 0 {
        let told = said_by_locule(&tree, &name("cwd"));
        assert!(output.stderr.trim_end().ends_with(&told), "{output:?} is not {told:?}");
    }
}

#[test]
fn an_exec_that_fails_is_told_with_its_kind() {
    let tree = Tree::sh("echo up; read line");
    let mut child = tree.spawn();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let executed = tree.exec_process(process(&["nowhere"]));
    match executed.connection.answered().unwrap() {
        Some(Answer::Failed(err)) => {
            assert_eq!(err.kind(), locule_runtime::Kind::CommandNotFound);
            assert!(err.to_string().contains("nowhere"), "{err}");
        }
        other => panic!("{other:?}"),
    }
    drop(child.stdin.take());
    assert_eq!(finish(child).status, 1);
}

/// A caller may be there before the guest is: what it asks for waits until there is a container.
#[test]
fn who_asks_too_early_waits() {
    let mut tree = Tree::sh("echo up; read line");
    // The guest comes up when it is told.
    let go = tree.dir.join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    tree.env = vec![("LOCULE_LINK".into(), format!("read line <{}", go.display()))];
    let mut child = tree.spawn();
    while !tree.control().exists() {
        std::thread::yield_now();
    }
    let executed = tree.exec(&["/bin/echo", "early"]);
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    std::fs::write(&go, "\n").unwrap();
    let (answer, out, _) = executed.started().finish();
    assert!(matches!(answer, Answer::Exited(0)) && out == b"early\n", "{answer:?}");
    drop(child.stdin.take());
    // The signal is one that process 1 of a namespace does not hear.
    assert_eq!(finish(child).status, 1);
}

/// Starts a guest with a channel of the test's own.
fn bare_guest(tree: &Tree) -> (std::process::Child, UnixStream) {
    use std::os::fd::{AsRawFd, OwnedFd};
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = locule_runtime::sys::process::inheritable(OwnedFd::from(theirs), 500).unwrap();
    let child = Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--cgroup",
            "sh",
            "-c",
        ])
        .arg("mount --rbind \"$1\" \"$1\" && exec chroot \"$1\" /init --channel-fd \"$2\"")
        .arg("guest")
        .arg(&tree.dir)
        .arg(theirs.as_raw_fd().to_string())
        .spawn()
        .unwrap();
    (child, ours)
}

#[test]
fn a_breach_of_the_protocol_is_refused_with_a_word() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]] {
        let tree = Tree::sh("true");
        let (mut guest, mut channel) = bare_guest(&tree);
        channel.write_all(bytes).unwrap();
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while !text.contains("breach of the channel's protocol: a frame") {
            let length = channel.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "{text}");
            text += &String::from_utf8_lossy(&buffer[..length]);
        }
        drop(channel);
        assert_eq!(guest.wait().unwrap().code(), Some(0));
    }
}
