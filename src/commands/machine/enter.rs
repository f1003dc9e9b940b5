//! `enter`: a login shell in a machine.
//!
//! Owns which shell that is: the user's, by the machine's own files.

use clap::ArgMatches;
use locule_machines::life;
use locule_runtime::process::seal;
use locule_runtime::spec::Process;
use locule_runtime::{ExecRequest, Result};

use super::{given, home, machine};
use crate::args::Globals;
use crate::cli::{Verb, option, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "enter",
    about: "Open a login shell in a running machine",
    usage: "[options] <machine>",
    details: "The shell is the one that the user has in the machine's /etc/passwd, with an environment of its own, and \
with a terminal where the caller has one. locule exec runs other programs. The exit code is the shell's.",
    examples: &[("As another user", "locule enter --user www-data web1")],
    arguments: |command| {
        command.args([
            option("user", "USER[:GROUP]", "User inside, by name or number (default: root)").short('u'),
            machine(),
        ])
    },
    run,
    failure: locule_runtime::contract::EXIT_NO_EXEC,
    becomes_workload: true,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let seal = seal::ensure()?;
    let home = home(globals)?;
    let machine = home.find(given(matches))?;
    let container = life::running(&home, &machine)?;
    let login = life::login(&machine, text(matches, "user").unwrap_or("root"))?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "container=locule".to_owned(),
        format!("HOME={}", login.home),
        format!("USER={}", login.name),
        format!("LOGNAME={}", login.name),
        format!("SHELL={}", login.shell),
    ];
    if let Some(kind) = std::env::var("TERM").ok().filter(|_| terminal) {
        env.push(format!("TERM={kind}"));
    }
    let base = container.spec()?.process.unwrap_or_default();
    container.exec(ExecRequest {
        seal,
        process: Process {
            terminal,
            console_size: None,
            user: login.user,
            args: vec![login.shell, "-l".to_owned()],
            env,
            cwd: login.home.into(),
            ..base
        },
        detach: false,
        pid_file: None,
        pidfd_socket: None,
        console_socket: None,
        preserved: Vec::new(),
        ignore_paused: false,
        cgroup: None,
    })
}
