//! Sockets that a service manager opened: `LISTEN_FDS` and what goes with it (sd_listen_fds(3)).

use std::process::Command;

use crate::lane::{Bundle, Output, complete};
use crate::user::User;

const SHOW: &str = "echo $LISTEN_FDS $(($LISTEN_PID - $$)) $LISTEN_FDNAMES ${LISTEN_PIDFDID-none}; \
                    head -n 1 <&3; head -n 1 <&4; test -e /proc/self/fd/5 || echo two";

/// Runs `call` with two files as descriptors 3 and 4, and variables; `$$` in these is the call itself.
fn activated(call: &Command, bundle: &Bundle, variables: &str) -> Output {
    let (a, b) = (bundle.file("a", "first\n"), bundle.file("b", "second\n"));
    let script = format!("exec 3<{} 4<{}; {variables} exec \"$@\"", a.display(), b.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(call.get_program()).args(call.get_args());
    command.current_dir(call.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
    for (name, value) in call.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    complete(&mut command)
}

const BOTH: &str = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b LISTEN_PIDFDID=7";

#[test]
fn run_hands_them_over() {
    let mut bundle = Bundle::new();
    bundle.script(SHOW);
    let out = activated(&bundle.command(&["run", bundle.id()]), &bundle, BOTH);
    assert_eq!(out.ok(), "2 0 a:b none\nfirst\nsecond\ntwo");
}

#[test]
fn others_follow_them() {
    let mut bundle = Bundle::new();
    bundle.script("echo $LISTEN_FDS; cat <&3; cat <&4");
    let call = bundle.command(&["run", "--preserve-fds", "1", bundle.id()]);
    let out = activated(&call, &bundle, "LISTEN_PID=$$ LISTEN_FDS=1");
    assert_eq!(out.ok(), "1\nfirst\nsecond");
}

#[test]
fn those_of_another_process_stay_outside() {
    let mut bundle = Bundle::new();
    bundle.script("echo ${LISTEN_FDS-none} ${LISTEN_PID-none}; test -e /proc/self/fd/3 || echo closed");
    let out = activated(&bundle.command(&["run", bundle.id()]), &bundle, "LISTEN_PID=1 LISTEN_FDS=2");
    assert_eq!(out.ok(), "none none\nclosed");
}

#[test]
fn exec_names_the_pid_inside() {
    let mut bundle = Bundle::new();
    bundle.up();
    let out = activated(&bundle.command(&["exec", bundle.id(), "sh", "-c", SHOW]), &bundle, BOTH);
    assert_eq!(out.ok(), "2 0 a:b none\nfirst\nsecond\ntwo");
}

#[test]
fn create_keeps_them_for_the_workload() {
    let mut bundle = Bundle::new();
    bundle.script(&format!("exec >/mnt/out; {SHOW}"));
    let out = bundle.directory("out");
    bundle.mount("/mnt", "bind", out.to_str().unwrap(), &["bind"]);
    let call = bundle.command(&["create", bundle.id()]);
    // The container would keep the pipes of the call open.
    let (stdout, stderr) = (bundle.file("stdout", ""), bundle.file("stderr", ""));
    let quiet = format!("exec >{} 2>{};", stdout.display(), stderr.display());
    activated(&call, &bundle, &format!("{quiet} {BOTH}")).ok();
    bundle.start().wait_for("stopped");
    let told = std::fs::read_to_string(out.join("out")).unwrap();
    assert_eq!(told, "2 0 a:b none\nfirst\nsecond\ntwo\n");
}

#[test]
fn a_user_gets_them_too() {
    let mut user = User::new();
    user.bundle.script(SHOW);
    let out = activated(&user.command(&["run", user.id()]), &user.bundle, BOTH);
    assert_eq!(out.ok(), "2 0 a:b none\nfirst\nsecond\ntwo");
}
