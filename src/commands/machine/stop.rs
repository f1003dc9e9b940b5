//! `stop`: the end of a machine that may come again.
//!
//! Owns nothing but the call.

use std::time::Duration;

use clap::ArgMatches;
use locule_machines::life;
use locule_runtime::Result;

use super::{each, given_timeout, home, machines, timeout};
use crate::args::Globals;
use crate::cli::{Verb, switch};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "stop",
    about: "Stop machines",
    usage: "[options] <machine>...",
    details: "The machine's init is asked to shut down by the signal that it understands: SIGRTMIN+3 for systemd, \
SIGPWR for another init (sysvinit by the request of telinit 0), SIGUSR2 for busybox's, SIGTERM for any other program, \
or what the definition or the image names. What still runs after the timeout is killed, all of it at once. An init that \
neither handles, blocks nor ignores its signal is not waited for: the kernel drops such a signal. A restart policy does not bring it back.\n\n\
A machine that does not run is no error.",
    examples: &[
        ("Give it ten seconds", "locule stop --timeout 10s web1"),
        ("At once", "locule stop --kill web1"),
    ],
    arguments: |command| {
        command.args([
            timeout(),
            switch("kill", "Kill it without asking").conflicts_with("timeout"),
            machines(),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let timeout = match matches.get_flag("kill") {
        true => Some(Duration::ZERO),
        false => given_timeout(matches)?,
    };
    each(matches, |name| life::stop(&home, &home.find(name)?, timeout).map(drop))
}
