//! Readiness, notifications and health.

use crate::lab::{Lab, until};

/// Says `words` to the service manager, as a program inside would.
fn say(words: &str) -> String {
    format!(
        "python3 -c 'import os, socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
         s.connect(os.environ[\"NOTIFY_SOCKET\"])\ns.send(b\"{words}\")'"
    )
}

#[test]
fn start_waits_for_the_word() {
    let lab = Lab::new();
    let script =
        format!("while ! [ -e /run/go ]; do sleep 0.1; done; {}; exec sleep 1000", say("STATUS=x\\nREADY=1"));
    lab.launch("m", &script, "[boot]\nready = \"notify\"\n");
    assert_eq!(lab.keeper("m").unwrap()["ready"], false);
    let late = lab.run(&["start", "--wait", "--timeout", "300ms", "m"]);
    assert!(!late.status.success() && String::from_utf8_lossy(&late.stderr).contains("in time"));
    let waiting = lab.command().args(["start", "--wait", "m"]).spawn().unwrap();
    lab.good(&["exec", "m", "touch", "/run/go"]);
    assert!(waiting.wait_with_output().unwrap().status.success());
    assert_eq!(lab.keeper("m").unwrap()["ready"], true);
}

#[test]
fn waiting_for_one_that_ends_fails() {
    let lab = Lab::new();
    lab.make("m", "sleep 0.3; exit 8", "[boot]\nready = \"notify\"\n");
    let done = lab.run(&["start", "--wait", "m"]);
    assert!(!done.status.success());
    assert!(String::from_utf8_lossy(&done.stderr).contains("exit code 8"));
}

#[test]
fn health_is_asked_and_told() {
    let lab = Lab::new();
    let health = "[boot]\nready = \"healthy\"\n[health]\ncommand = [\"test\", \"-e\", \"/run/fine\"]\n\
                  interval = \"100ms\"\ntimeout = \"20s\"\nretries = 2\n";
    lab.launch("m", "exec sleep 1000", health);
    let is = |word: &str| lab.keeper("m").is_some_and(|keeper| keeper["health"] == word);
    until("two failures", || is("unhealthy"));
    assert_eq!(lab.keeper("m").unwrap()["ready"], false);
    lab.good(&["exec", "m", "touch", "/run/fine"]);
    lab.good(&["start", "--wait", "m"]);
    assert!(is("healthy"));
}

#[test]
fn a_check_that_hangs_is_ended_and_an_unhealthy_machine_restarted() {
    let lab = Lab::new();
    let health = "[health]\ncommand = [\"sleep\", \"10000\"]\ninterval = \"100ms\"\ntimeout = \"200ms\"\nretries = 1\n\
                  restart = true\n";
    lab.launch("m", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done", health);
    let init = lab.init("m");
    until("a restart", || {
        lab.keeper("m").is_some_and(|keeper| keeper["init"].as_i64().is_some_and(|now| now != init))
    });
    // Nothing of the check is left inside.
    lab.good(&["stop", "m"]);
}
