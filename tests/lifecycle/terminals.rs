//! Terminals: served by the caller's own, or handed to a console socket.
//!
//! Owns the ptys of the tests. The device nodes inside are the business of `tests/host`.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::LocalFlags;
use nix::unistd::Pid;
use serde_json::json;

use crate::lane::{Bundle, until};
use crate::pty::{ConsoleSocket, Terminal};

#[test]
fn run_serves_the_callers_terminal() {
    let mut bundle = Bundle::new();
    bundle.set("process.terminal", json!(true));
    bundle.script(
        "stty size; tty; trap 'stty size' WINCH; echo ready
         read line; echo got $line; until read line; do :; done; echo and $line; exit 5",
    );
    let mut terminal = Terminal::new(33, 99);
    let before = terminal.settings();
    let mut command = bundle.command(&["run", bundle.id()]);
    terminal.attach(&mut command);
    let mut child = command.spawn().unwrap();
    let said = terminal.until("ready\r\n");
    assert!(said.starts_with("33 99\r\n/dev/pts/0\r\n"), "{said:?}");
    let raw = terminal.settings();
    assert!(!raw.local_flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG), "raw");
    terminal.write("one\r");
    terminal.until("got one\r\n");
    terminal.resize(44, 55);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGWINCH).unwrap();
    terminal.until("44 55\r\n");
    terminal.write("two\r");
    terminal.until("and two\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(terminal.settings().local_flags, before.local_flags, "put back");
    assert_eq!(terminal.settings().input_flags, before.input_flags);
    bundle.assert_gone();
}

#[test]
fn an_interrupt_key_reaches_the_foreground_job() {
    let mut bundle = Bundle::new();
    bundle.set("process.terminal", json!(true));
    bundle.script("trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 1000 & wait; done");
    let mut terminal = Terminal::new(24, 80);
    let mut command = bundle.command(&["run", bundle.id()]);
    terminal.attach(&mut command);
    let mut child = command.spawn().unwrap();
    terminal.until("ready");
    terminal.write("\x03");
    terminal.until("interrupted");
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn everything_written_before_the_end_arrives() {
    let mut bundle = Bundle::new();
    bundle.set("process.terminal", json!(true)).script("seq 1 20000; echo last");
    let mut command = bundle.command(&["run", bundle.id()]);
    let out = crate::lane::complete(&mut command);
    assert_eq!(out.status, 0);
    assert!(
        out.stdout.ends_with("20000\nlast\n"),
        "{:?}",
        &out.stdout[out.stdout.len().saturating_sub(60)..]
    );
    assert_eq!(out.stdout.lines().count(), 20_001);
}

#[test]
fn a_workload_that_leaves_its_terminal_costs_no_time() {
    let mut bundle = Bundle::new();
    bundle.set("process.terminal", json!(true));
    bundle.script("echo gone; exec sleep 1000 <>/dev/null >&0 2>&0");
    let mut terminal = Terminal::new(24, 80);
    let mut command = bundle.command(&["run", bundle.id()]);
    terminal.attach(&mut command);
    let mut child = command.spawn().unwrap();
    terminal.until("gone");
    // Clock ticks of user and system time: a relay that spins on a hang-up uses all there are.
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        crate::lane::field(&status, "voluntary_ctxt_switches").parse::<u64>().unwrap()
    };
    until("it has settled", || {
        let before = (ticks(), switches());
        std::thread::sleep(std::time::Duration::from_millis(300));
        before == (ticks(), switches())
    });
    bundle.kill("KILL");
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn exec_serves_the_callers_terminal() {
    let mut bundle = Bundle::new();
    bundle.up();
    let mut terminal = Terminal::new(20, 70);
    let mut command =
        bundle.command(&["exec", "--tty", bundle.id(), "sh", "-c", "stty size; read x; exit $x"]);
    terminal.attach(&mut command);
    let mut child = command.spawn().unwrap();
    terminal.until("20 70");
    terminal.write("44\r");
    assert_eq!(child.wait().unwrap().code(), Some(44));
}

#[test]
fn a_console_socket_gets_the_master() {
    let mut bundle = Bundle::new();
    bundle
        .set("process.terminal", json!(true))
        .set("process.consoleSize", json!({"height": 31, "width": 91}));
    bundle.script("stty size; test -t 0 && test -t 1 && test -t 2 && echo all; read x; echo got $x; read x");
    let console = ConsoleSocket::new(&bundle, "console.sock");
    // As containerd's shim has it: one pipe for both streams, which it reads to its end.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = bundle.command(&["create", "--console-socket", console.path(), bundle.id()]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said, "", "the pipe ends with create, though the container goes on");
    let mut terminal = console.receive();
    for number in 0..3 {
        let target = fs::read_link(format!("/proc/{}/fd/{number}", bundle.pid())).unwrap();
        assert!(target.to_str().unwrap().starts_with("/dev/pts/"), "{number}: {target:?}");
    }
    bundle.start();
    terminal.until("31 91\r\nall\r\n");
    terminal.write("this\n");
    terminal.until("got this\r\n");
    terminal.write("\n");
    bundle.wait_for("stopped");
    terminal.hung_up();
    bundle.delete().assert_gone();
}

#[test]
fn exec_hands_its_terminal_over_too() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut bundle = Bundle::new();
    bundle.up();
    let console = ConsoleSocket::new(&bundle, "exec.sock");
    let process = json!({
        "terminal": true, "consoleSize": {"height": 12, "width": 34}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["sh", "-c", "stty size; tty; read x; echo got $x"], "user": {"uid": 0, "gid": 0},
    });
    let file = bundle.file("process.json", process.to_string());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let words = [
        "exec",
        "--process",
        file.to_str().unwrap(),
        "--console-socket",
        console.path(),
        "--detach",
        "--pid-file",
        "exec.pid",
        bundle.id(),
    ];
    let mut command = bundle.command(&words);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    let mut terminal = console.receive();
    terminal.until("12 34\r\n/dev/pts/0\r\n");
    terminal.write("it\n");
    terminal.until("got it\r\n");
    terminal.hung_up();
    let pid = Pid::from_raw(fs::read_to_string(bundle.path("exec.pid")).unwrap().parse().unwrap());
    nix::sys::wait::waitpid(pid, None).unwrap();
}

#[test]
fn wishes_that_contradict_each_other() {
    let mut bundle = Bundle::new();
    bundle.try_create(&["--console-socket", "none.sock"]).refused_with(&["terminal is not set"]);
    bundle.set("process.terminal", json!(true));
    bundle.try_create(&[]).refused_with(&["--console-socket"]);
    bundle.run_with(&["--detach"]).refused_with(&["--console-socket"]);
    bundle.try_create(&["--console-socket", "none.sock"]).refused_with(&["none.sock", "no such file"]);
    bundle.file("plain", "");
    bundle.try_create(&["--console-socket", "plain"]).refused_with(&["plain", "connection refused"]);
    let long = format!("{}/console.sock", "x/".repeat(200));
    fs::create_dir_all(bundle.path(&"x/".repeat(200))).unwrap();
    bundle.try_create(&["--console-socket", &long]).refused_with(&["console socket", "no such file"]);
    let long = "n".repeat(200);
    bundle.try_create(&["--console-socket", &long]).refused_with(&["console socket"]);
    bundle.assert_gone();
    bundle.set("process.terminal", json!(false)).up();
    bundle.exec_with(&["--tty", "--detach"], &["sh"]).refused_with(&["--console-socket"]);
    bundle.exec_with(&["--console-socket", "none.sock"], &["sh"]).refused_with(&["no terminal"]);
}

#[test]
fn a_deep_console_socket_works() {
    let mut bundle = Bundle::new();
    bundle.set("process.terminal", json!(true)).script("echo deep");
    let deep = format!("{}console.sock", "a-long-directory/".repeat(12));
    bundle.directory(&"a-long-directory/".repeat(12));
    // Longer than sun_path: bound by a short way, given to locule in full.
    let dir = fs::File::open(bundle.path(&"a-long-directory/".repeat(12))).unwrap();
    let short = format!("/proc/self/fd/{}/console.sock", std::os::fd::AsRawFd::as_raw_fd(&dir));
    let console = ConsoleSocket::at(short.into());
    let mut command = bundle.command(&["create", "--console-socket", &deep, bundle.id()]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    bundle.start();
    console.receive().until("deep");
    let _ = OwnedFd::from(dir);
}
