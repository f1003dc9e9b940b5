//! Bytes both ways: whole, apart, and none held up by another.

use std::io::{Read, Write};

use locule_runtime::isolation::control::{Answer, Ask};

use crate::lane::{Tree, finish, process};

fn up(child: &mut std::process::Child) {
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    assert_eq!(&up, b"up\n");
}

#[test]
fn the_three_streams_are_apart() {
    let output = Tree::sh("cat; echo err >&2; echo out").run_with(b"in\n");
    assert_eq!((output.status, output.stdout.as_str(), output.stderr.as_str()), (0, "in\nout\n", "err\n"));
}

#[test]
fn megabytes_come_back_as_they_went() {
    let input: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let tree = Tree::sh("cat");
    let mut child = tree.spawn();
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let feeder = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    feeder.join().unwrap();
    assert!(back == input, "{} bytes", back.len());
    assert_eq!(finish(child).status, 0);
}

#[test]
fn an_end_of_the_reader_is_a_closed_pipe_inside() {
    let tree = Tree::sh("yes; echo $? >&2");
    let mut child = tree.spawn();
    up_to(child.stdout.as_mut().unwrap(), 100_000);
    drop(child.stdout.take());
    let output = finish(child);
    assert!(
        output.status == 0 && output.stderr.contains("141") || output.stderr.contains("Broken pipe"),
        "{output:?}"
    );
}

fn up_to(reader: &mut impl Read, bytes: usize) {
    let mut buffer = vec![0; bytes];
    reader.read_exact(&mut buffer).unwrap();
}

#[test]
fn a_workload_that_reads_nothing_more_closes_its_writers_pipe() {
    let tree = Tree::sh("exec <&-; echo up; sleep 1000");
    let mut child = tree.spawn();
    up(&mut child);
    let mut stdin = child.stdin.take().unwrap();
    let chunk = vec![b'x'; 65536];
    let broken = loop {
        if let Err(err) = stdin.write_all(&chunk) {
            break err;
        }
    };
    assert_eq!(broken.kind(), std::io::ErrorKind::BrokenPipe);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn many_processes_with_slow_readers_hold_nobody_up() {
    let tree = Tree::sh("echo up; read line");
    let mut child = tree.spawn();
    up(&mut child);
    let script = "dd if=/dev/zero bs=65536 count=48 2>/dev/null; echo end >&2";
    // These are not read for now.
    let slow: Vec<_> = (0..8).map(|_| tree.exec(&["/bin/sh", "-c", script]).started()).collect();
    let quick: Vec<_> = (0..8).map(|_| tree.exec(&["/bin/sh", "-c", script]).started()).collect();
    for executed in quick {
        let (answer, out, err) = executed.finish();
        assert!(matches!(answer, Answer::Exited(0)), "{answer:?}");
        assert_eq!((out.len(), err.as_slice()), (48 * 65536, b"end\n".as_slice()));
    }
    for executed in slow {
        let (answer, out, err) = executed.finish();
        assert!(matches!(answer, Answer::Exited(0)), "{answer:?}");
        assert_eq!((out.len(), err.as_slice()), (48 * 65536, b"end\n".as_slice()));
    }
    drop(child.stdin.take());
    finish(child);
}

#[test]
fn an_end_is_told_though_nobody_reads() {
    let tree = Tree::sh("echo up; read line");
    let mut child = tree.spawn();
    up(&mut child);
    let executed =
        tree.exec(&["/bin/sh", "-c", "dd if=/dev/zero bs=60000 count=1 2>/dev/null; exit 9"]).started();
    assert!(matches!(executed.connection.answered().unwrap(), Some(Answer::Exited(9))));
    drop(child);
}

#[test]
fn what_is_left_in_the_background_keeps_its_output() {
    let tree = Tree::sh("echo up; read line");
    let mut child = tree.spawn();
    up(&mut child);
    let mut executed = tree.exec(&["/bin/sh", "-c", "echo first; (sleep 0.3; echo second) &"]).started();
    assert!(matches!(executed.connection.answered().unwrap(), Some(Answer::Exited(0))));
    let mut text = String::new();
    executed.stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "first\nsecond\n");
    drop(child.stdin.take());
    finish(child);
}

#[test]
fn a_terminal_has_a_size_echo_and_a_hang_up() {
    let tree = Tree::sh("echo up; read line");
    let mut child = tree.spawn();
    up(&mut child);
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut raw = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    nix::sys::termios::cfmakeraw(&mut raw);
    nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &raw).unwrap();
    locule_runtime::sys::tty::set_size(&pty.slave, 31, 97).unwrap();
    let mut terminal =
        process(&["/bin/sh", "-c", "tty; stty size; read line; echo got $line; stty size; exec sleep 1003"]);
    terminal.terminal = true;
    let connection = tree.connect();
    use std::os::fd::AsFd;
    let peer = pty.slave.as_fd();
    connection.ask(&Ask::Exec(Box::new(terminal)), &[peer, peer, peer]).unwrap();
    drop(pty.slave);
    assert!(matches!(connection.answered().unwrap(), Some(Answer::Started)));
    let mut master = std::fs::File::from(pty.master);
    let mut seen = read_until(&mut master, "31 97\r\n");
    assert!(seen.contains("/dev/pts/"), "{seen:?}");
    connection.ask(&Ask::Resize(12, 34), &[]).unwrap();
    master.write_all(b"word\r").unwrap();
    seen += &read_until(&mut master, "12 34\r\n");
    assert!(seen.contains("word\r\ngot word\r\n"), "{seen:?}");
    // The terminal's end is a hang-up for who works at it.
    drop(master);
    assert!(matches!(connection.answered().unwrap(), Some(Answer::Killed(1))));
    drop(child.stdin.take());
    finish(child);
}

fn read_until(reader: &mut impl Read, word: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(word) {
        let length = reader.read(&mut buffer).unwrap();
        text += &String::from_utf8_lossy(&buffer[..length]);
    }
    text
}
