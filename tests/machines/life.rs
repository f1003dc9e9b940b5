//! From launch to rm.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::thread;

use crate::lab::{Lab, until};

#[test]
fn a_machine_lives_and_leaves_nothing() {
    let lab = Lab::new();
    let name = lab.name("web");
    assert_eq!(lab.ok(&["launch", "host", &name, "--", "sleep", "1000"]).trim(), name);
    assert_eq!(lab.status(&name).as_deref(), Some("running"));
    assert_eq!(lab.sh(&name, "id -u; hostname").trim(), format!("0\n{name}"));
    lab.sh(&name, "echo kept > /root/file; rm /usr/bin/tac");
    lab.ok(&["stop", "--timeout", "100ms", &name]);
    assert_eq!(lab.status(&name).as_deref(), Some("stopped"));
    assert!(lab.refused(&["exec", &name, "true"]).contains("does not exist"));
    lab.ok(&["stop", &name]);
    lab.ok(&["start", &name]);
    lab.ok(&["start", &name]);
    assert_eq!(lab.sh(&name, "cat /root/file; ls /usr/bin/tac || true").trim(), "kept");
    assert!(std::path::Path::new("/usr/bin/tac").exists(), "the host's own program is gone");
    let said = lab.refused(&["rm", &name]);
    assert!(said.contains("running") && said.contains("--force"), "{said}");
    lab.ok(&["rm", "--force", &name]);
    lab.assert_gone(&name);
    let said = lab.refused(&["rm", &name]);
    assert!(said.contains("no machine"), "{said}");
}

#[test]
fn containers_verbs_know_machines() {
    let lab = Lab::new();
    let name = lab.name("web");
    lab.ok(&["launch", "host", &name, "--", "sleep", "1000"]);
    assert!(lab.ok(&["state", &name]).contains("\"running\""));
    assert!(lab.ok(&["list", "--quiet"]).contains(&name));
    lab.ok(&["pause", &name]);
    assert_eq!(lab.status(&name).as_deref(), Some("paused"));
    lab.ok(&["resume", &name]);
    for force in [&["delete", &name][..], &["delete", "--force", &name]] {
        let said = lab.refused(force);
        assert!(said.contains("is a machine") && said.contains("locule rm"), "{said}");
    }
    lab.ok(&["kill", &name, "KILL"]);
    until("its end", || (lab.status(&name)? != "running").then_some(()));
    let said = lab.refused(&["delete", &name]);
    assert!(said.contains("is a machine"), "{said}");
    // What engines look for is what they always got.
    assert!(lab.refused(&["start", "nobody"]).contains("container nobody does not exist"));
    assert!(lab.refused(&["delete", "nobody"]).contains("does not exist"));
    lab.ok(&["delete", "--force", "nobody"]);
}

#[test]
fn the_foreground_is_the_workloads() {
    let lab = Lab::new();
    let name = lab.name("job");
    let output = lab.locule(&[
        "launch",
        "--rm",
        "--name",
        &name,
        "host",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    lab.assert_gone(&name);
    let mut child = lab
        .call(&["launch", "-i", "--rm", "host", &name, "--", "tr", "a-z", "A-Z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"TYPED\n"[..]));
    // Without --rm it stays, and tells how it ended.
    assert_eq!(
        lab.locule(&["launch", "--attach", "host", &name, "--", "sh", "-c", "exit 3"]).status.code(),
        Some(3)
    );
    assert_eq!(lab.status(&name).as_deref(), Some("failed"));
    // A program that is not there is a failure of the launch, with the code that shells have for it.
    let other = lab.name("none");
    assert_eq!(lab.locule(&["launch", "--rm", "host", &other, "--", "/no/such"]).status.code(), Some(127));
    lab.assert_gone(&other);
}

#[test]
fn an_end_is_asked_for_before_it_is_made() {
    let lab = Lab::new();
    let name = lab.name("polite");
    let line = "trap 'echo asked > /root/end; exit 0' TERM; echo > /root/ready; while :; do sleep 0.1; done";
    lab.ok(&["launch", "host", &name, "--", "sh", "-c", line]);
    until("the trap", || {
        lab.locule(&["exec", &name, "test", "-e", "/root/ready"]).status.success().then_some(())
    });
    lab.ok(&["stop", &name]);
    assert_eq!(lab.status(&name).as_deref(), Some("stopped"));
    let stubborn = lab.name("stubborn");
    lab.ok(&[
        "launch",
        "--stop-timeout",
        "200ms",
        "host",
        &stubborn,
        "--",
        "sh",
        "-c",
        "trap '' TERM; sleep 1000",
    ]);
    lab.ok(&["stop", &stubborn]);
    assert_eq!(lab.status(&stubborn).as_deref(), Some("stopped"));
    lab.ok(&["start", &name]);
    assert_eq!(lab.sh(&name, "cat /root/end").trim(), "asked");
    lab.ok(&["stop", "--kill", &name, &stubborn]);
}

#[test]
fn who_cannot_hear_is_not_waited_for_and_who_can_is() {
    let lab = Lab::new();
    // Longer than `until` waits: an end that comes is not by the timeout.
    let launch = |word: &str, program: &[&str]| {
        let name = lab.name(word);
        lab.ok(&[&["launch", "--stop-timeout", "1h", "host", &name, "--"], program].concat());
        name
    };
    let stop = |name: &str| {
        let mut call = lab.call(&["stop", name]).spawn().unwrap();
        let code = until("its end", || call.try_wait().unwrap());
        assert!(code.success());
        let text = fs::read(lab.run().join(".machines").join(name).join("exit.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    let deaf = launch("deaf", &["sleep", "10000"]);
    let pid = serde_json::from_str::<serde_json::Value>(&lab.ok(&["state", &deaf])).unwrap()["pid"].clone();
    until("its sleep", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        (status.starts_with("Name:\tsleep\n") && status.contains("State:\tS")).then_some(())
    });
    assert_eq!(stop(&deaf)["signal"], 9);
    // A signal that is blocked may be taken up later. In sigwait(3) it does not even look blocked.
    for (word, wait) in [("later", "while S not in sigpending(): sleep(0.01)"), ("wait", "sigwait([S])")] {
        let program = format!(
            "from signal import *; from time import sleep; S = SIGTERM; pthread_sigmask(SIG_BLOCK, [S])\n\
             open('/root/ready', 'w')\n{wait}\nsleep(1)\nraise SystemExit(7)"
        );
        let name = launch(word, &["python3", "-c", &program]);
        until("its mask", || {
            lab.locule(&["exec", &name, "test", "-e", "/root/ready"]).status.success().then_some(())
        });
        assert_eq!(stop(&name)["code"], 7, "{word}");
    }
}

#[test]
fn a_name_changes_and_nothing_else() {
    let lab = Lab::new();
    let (old, new) = (lab.name("old"), lab.name("new"));
    lab.ok(&["launch", "host", &old, "--", "sleep", "1000"]);
    lab.sh(&old, "echo kept > /root/file");
    let first = lab.first_id(&old);
    assert!(lab.refused(&["rename", &old, &new]).contains("runs"));
    lab.ok(&["stop", "--kill", &old]);
    lab.ok(&["rename", &old, &new]);
    lab.assert_gone(&old);
    assert_eq!(lab.first_id(&new), first);
    lab.ok(&["start", &new]);
    assert_eq!(lab.sh(&new, "cat /root/file; hostname").trim(), format!("kept\n{new}"));
    assert!(lab.refused(&["rename", &new, "UPPER"]).contains("lower-case"));
    lab.ok(&["launch", "--no-start", "host", &old]);
    assert!(lab.refused(&["rename", &old, &new]).contains("there is a machine"));
}

#[test]
fn many_at_once_have_nothing_in_common() {
    let lab = Lab::new();
    let names: Vec<String> = (0..5).map(|n| lab.name(&format!("m{n}"))).collect();
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| lab.ok(&["launch", "host", name, "--", "sleep", "1000"]));
        }
        // One name can only be taken once.
        let same = lab.name("same");
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let same = same.clone();
                let lab = &lab;
                scope.spawn(move || {
                    lab.locule(&["launch", "host", &same, "--", "sleep", "1000"]).status.success()
                })
            })
            .collect();
        assert_eq!(
            calls.into_iter().filter(|_| true).map(|call| call.join().unwrap()).filter(|ok| *ok).count(),
            1
        );
    });
    let mut ids: Vec<u64> = names.iter().map(|name| lab.first_id(name)).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] + 65536 <= pair[1]), "{ids:?}");
    let mut addresses: Vec<String> =
        names.iter().map(|name| lab.sh(name, "ip -4 -o addr show dev eth0")).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), names.len());
    // Neighbours know each other by name.
    lab.sh(&names[0], &format!("getent hosts {}", names[4]));
}

#[test]
fn who_waits_comes_in_turn() {
    let lab = Lab::new();
    let name = lab.name("busy");
    lab.ok(&["launch", "--no-start", "host", &name]);
    let path = lab.run().join(".machines").join(&name).join("lock");
    let held =
        nix::fcntl::Flock::lock(fs::File::open(path).unwrap(), nix::fcntl::FlockArg::LockExclusive).unwrap();
    let mut child = lab.call(&["rm", &name]).spawn().unwrap();
    thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    assert!(lab.status(&name).is_some());
    drop(held);
    assert!(child.wait().unwrap().success());
    lab.assert_gone(&name);
}
