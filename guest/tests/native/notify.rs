//! sd_notify(3) from inside: what reaches the host's socket, in which order, and how much of it at once.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::json;

use crate::lane::{Tree, finish};

/// `say WORDS` says them as a program inside would: busybox has no client, but its logger speaks to any such socket. What
/// it puts before the first line is no word of anybody's.
const SAY: &str = "ln -s $NOTIFY_SOCKET /dev/log; say() { logger \"$(printf \"x\\n$1\")\"; }; ";

fn tree(script: &str) -> (Tree, UnixDatagram) {
    let mut tree = Tree::sh(&format!("{SAY}{script}"));
    tree.config["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/run/notify", "type": "bind", "source": "/run/locule/notify", "options": ["bind", "ro"],
    }));
    tree.config["process"]["env"]
        .as_array_mut()
        .unwrap()
        .push(json!("NOTIFY_SOCKET=/run/notify/notify.sock"));
    let place = tree.dir.join("notify");
    std::fs::create_dir(&place).unwrap();
    let listener = UnixDatagram::bind(place.join("notify.sock")).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    tree.env = vec![("LOCULE_NOTIFY".into(), place.to_str().unwrap().into())];
    (tree, listener)
}

#[track_caller]
fn heard(listener: &UnixDatagram) -> String {
    let mut bytes = [0; 8192];
    let length = listener.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[track_caller]
fn nothing_more(listener: &UnixDatagram) {
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.recv(&mut [0; 8192]).map_err(|err| err.kind()), Err(ErrorKind::WouldBlock));
}

#[test]
fn words_that_may_pass_do_and_no_others() {
    let (mut tree, listener) = tree(
        "stat -c '%a %U' $NOTIFY_SOCKET; touch /run/notify/x; say 'STATUS=begin'; say 'MAINPID=1\\nFDSTORE=1'; \
         say \"STATUS=$(printf %5000s x)\"; \
         say 'READY=1\\nMAINPID=1\\nSTATUS=up'; say STOPPING=1",
    );
    tree.config["mounts"][1]["options"] = json!(["nosuid", "mode=777"]);
    tree.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let output = tree.run();
    assert!(output.status == 0 && output.stdout == "666 root\n", "{output:?}");
    assert!(output.stderr.contains("Read-only"), "{output:?}");
    for want in ["STATUS=begin\n", "READY=1\nSTATUS=up\n", "STOPPING=1\n"] {
        assert_eq!(heard(&listener), want);
    }
    nothing_more(&listener);
}

#[test]
fn more_than_is_taken_at_once_is_neither_lost_nor_in_the_way() {
    // Far more than fits between the two sides, and the listener takes none of it at first.
    let (tree, listener) = tree(
        "i=0; (while [ $i -lt 200 ]; do say STATUS=$i; i=$((i + 1)); done; say READY=1) & echo up; \
         read line; echo got $line; wait",
    );
    let mut child = tree.spawn();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    // Streams and later calls go on meanwhile.
    let (_, out, _) = tree.exec(&["/bin/echo", "beside"]).started().finish();
    assert_eq!(out, b"beside\n");
    for number in 0..200 {
        assert_eq!(heard(&listener), format!("STATUS={number}\n"));
    }
    assert_eq!(heard(&listener), "READY=1\n");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"it\n").unwrap();
    assert_eq!(finish(child).ok(), "got it");
    nothing_more(&listener);
}

#[test]
fn nobody_who_listens_is_no_obstacle() {
    let (tree, listener) = tree("say READY=1; echo said");
    drop(listener);
    assert_eq!(tree.run().ok(), "said");
}

#[test]
fn a_guest_is_not_asked_for_words_that_nobody_wants() {
    let tree = Tree::sh("echo ${NOTIFY_SOCKET-none}; ls /run");
    assert_eq!(tree.run().ok(), "none");
}
