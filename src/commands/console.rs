//! `console`: the caller's terminal at a machine's console.
//!
//! Owns nothing but the words.

use std::io::Write;

use clap::{Arg, ArgMatches};
use locule_machines::keeper::console::{self, Left, Use};
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "console",
    about: "Attach to a machine's console",
    usage: "[options] <machine>",
    details: "Shows the machine's last output and then what comes; where the machine has a terminal, what is typed \
goes to it. Several callers may be attached at once. Ctrl-p Ctrl-q detaches, and so does Esc followed by a dot; the \
machine goes on. The console stays through restarts of the machine.

Of a machine that does not run the last output is shown, also after a crash; with --wait the console waits for its \
start, and shows it from the first line on.",
    examples: &[
        ("The console of web1", "locule console web1"),
        ("Watch web1 boot, from another terminal", "locule console --wait --watch web1"),
    ],
    arguments: |command| {
        command.args([
            switch("watch", "Look only: nothing that is typed reaches the machine"),
            switch("wait", "Wait for a machine that is not started").short('w'),
            switch("no-past", "Leave out the last output"),
            Arg::new("machine").value_name("machine").required(true).help("Name of the machine"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let machine = globals.home()?.find(text(matches, "machine").unwrap_or_default())?;
    let left = console::attach(
        &machine,
        Use {
            watch: matches.get_flag("watch"),
            without_past: matches.get_flag("no-past"),
            wait: matches.get_flag("wait"),
        },
    )?;
    let said = match left {
        Left::Detached => "detached",
        Left::Over => "it does not run any more",
        Left::NotRunning => "it does not run; this was its last output",
    };
    // Standard output is the machine's alone. A terminal that is gone needs no word.
    let _ = writeln!(std::io::stderr(), "\r\n[{}: {said}]", machine.name());
    Ok(0)
}
