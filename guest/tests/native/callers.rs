//! Several containers in one guest, as callers of the monitor have them made: the session and the guest together.

use std::process::Child;

use locule_runtime::error::Kind;
use locule_runtime::isolation::control::{Answer, Ask, Connection};

use crate::lane::{Exec, Tree, finish, process};

/// A guest whose first container, `inner`, runs until its input ends.
fn pod() -> (Tree, Child) {
    let tree = Tree::sh("echo up; read line; exit 3");
    let mut child = tree.spawn();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    (tree, child)
}

/// Ends the first container, and so the guest; its exit code.
fn end(mut child: Child) -> i32 {
    child.stdin = None;
    finish(child).status
}

fn about(tree: &Tree, id: &str) -> Connection {
    let connection = tree.connect();
    connection.ask(&Ask::In(id.to_owned()), &[]).unwrap();
    connection
}

fn answer(connection: &Connection) -> Answer {
    connection.answered().unwrap().unwrap()
}

/// The commands that run in a container.
fn commands(connection: &Connection) -> Vec<String> {
    connection.ask(&Ask::Processes, &[]).unwrap();
    match answer(connection) {
        Answer::Processes(list) => list.into_iter().map(|member| member.command).collect(),
        other => panic!("{other:?}"),
    }
}

/// What `args` say in a container.
fn exec(tree: &Tree, id: &str, args: &[&str]) -> String {
    use std::os::fd::AsFd;
    let connection = about(tree, id);
    let (stdin, to_stdin) = std::io::pipe().unwrap();
    let (stdout, to_stdout) = std::io::pipe().unwrap();
    let (stderr, to_stderr) = std::io::pipe().unwrap();
    let ask = Ask::Exec(Box::new(process(args)));
    connection.ask(&ask, &[stdin.as_fd(), to_stdout.as_fd(), to_stderr.as_fd()]).unwrap();
    drop((stdin, to_stdout, to_stderr));
    let executed = Exec { connection, stdin: Some(to_stdin), stdout, stderr };
    let (ended, said, errors) = executed.started().finish();
    assert!(matches!(ended, Answer::Exited(0)), "{ended:?}: {}", String::from_utf8_lossy(&errors));
    String::from_utf8(said).unwrap()
}

#[test]
fn each_has_its_own_root_processes_and_end() {
    let (tree, child) = pod();
    let script = "trap 'echo got; exit 5' TERM; echo one >/who; cat /who; while :; do sleep 0.1; done";
    let mut one = tree.another("one", script, &[]).go();
    let script = "echo two >/who; cat /who; read line; echo $line; exit 6";
    let mut two = tree.another("two", script, &[("ipc", "inner"), ("uts", "inner")]).go();
    assert_eq!((one.line().as_str(), two.line().as_str()), ("one\n", "two\n"));
    assert_eq!(exec(&tree, "one", &["/bin/hostname"]), "one\n");
    assert_eq!(exec(&tree, "two", &["/bin/hostname"]), "inner\n");
    assert!(commands(&about(&tree, "one")).iter().all(|command| !command.contains("two")));
    assert!(commands(&about(&tree, "two")).iter().all(|command| !command.contains("one")));

    one.connection.ask(&Ask::Signal(15), &[]).unwrap();
    let (ended, said, _) = one.finish();
    assert!(matches!(ended, Answer::Exited(5)), "{ended:?}");
    assert_eq!(said, b"got\n");
    std::io::Write::write_all(two.stdin.as_mut().unwrap(), b"through\n").unwrap();
    let (ended, said, _) = two.finish();
    assert!(matches!(ended, Answer::Exited(6)), "{ended:?}");
    assert_eq!(said, b"through\n");
    assert_eq!(end(child), 3);
}

#[test]
fn one_that_is_killed_leaves_nothing_and_its_name() {
    let (tree, child) = pod();
    for _ in 0..3 {
        let script = "ps -o args | grep -c '[r]ead line'; sleep 1000";
        let mut one = tree.another("one", script, &[("pid", "inner"), ("ipc", "inner")]).go();
        assert_eq!(one.line(), "1\n", "it sees the first one's");
        // As the process that stands for it is killed.
        drop(one);
        let connection = tree.connect();
        connection.ask(&Ask::Gone("one".into()), &[]).unwrap();
        assert!(matches!(answer(&connection), Answer::Done));
        assert!(commands(&about(&tree, "inner")).iter().all(|command| !command.contains("sleep 1000")));
        let connection = about(&tree, "one");
        assert!(matches!(answer(&connection), Answer::Failed(err) if err.kind() == Kind::NotRunning));
    }
    // One that waits for its start, too.
    drop(tree.another("one", "exit 1", &[]).created());
    let mut last = tree.another("two", "echo up; sleep 1000", &[]).go();
    assert_eq!(last.line(), "up\n");
    // The end of the first is that of all.
    assert_eq!(end(child), 3);
    assert!(last.connection.answered().unwrap().is_none());
}

#[test]
fn what_cannot_be_made_is_told_and_can_be_tried_again() {
    let (tree, child) = pod();
    let failed = |exec: Exec| match answer(&exec.connection) {
        Answer::Failed(err) => err,
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(tree.another("inner", "exit 0", &[])).kind(), Kind::Exists);
    let err = failed(tree.another("one", "exit 0", &[("ipc", "nobody")]));
    assert!(err.to_string().contains("nobody"), "{err}");
    std::fs::remove_file(tree.dir.join("containers/one/bin/sh")).unwrap();
    let err = failed(tree.another("one", "exit 0", &[]));
    assert_eq!(err.kind(), Kind::CommandNotFound, "{err}");
    std::fs::remove_dir_all(tree.dir.join("containers/one")).unwrap();
    let connection = tree.connect();
    connection.ask(&Ask::Gone("one".into()), &[]).unwrap();
    assert!(matches!(answer(&connection), Answer::Done));
    let (ended, ..) = tree.another("one", "exit 9", &[]).go().finish();
    assert!(matches!(ended, Answer::Exited(9)), "{ended:?}");
    assert_eq!(end(child), 3);
}
