//! Machines: the people's dialect, a verb a file.
//!
//! Owns what these verbs have in common: names of several machines, words while a call waits. Never prints an error.

pub mod clone;
pub mod compact;
pub mod enter;
pub mod export;
pub mod import;
pub mod launch;
pub mod ls;
pub mod progress;
pub mod rename;
pub mod repair;
pub mod restart;
pub mod rm;
pub mod set;
pub mod show;
pub mod stop;

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches};
use locule_machines::definition::Span;
use locule_machines::{Home, lock};
use locule_runtime::{Error, Result};

use crate::args::Globals;
use crate::cli::{option, text};

/// Opens the machines of this host for a verb that acts on them.
pub fn home(globals: &Globals) -> Result<Home> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::unsupported("machines are root's alone in this version: run it as root"));
    }
    lock::on_wait(|text| eprintln!("locule: {text}"));
    globals.home()
}

/// The positional argument that names a machine.
pub fn machine() -> Arg {
    Arg::new("machine").value_name("machine").required(true).help("Name of the machine")
}

/// The positional argument that names several machines.
pub fn machines() -> Arg {
    machine().action(ArgAction::Append).num_args(1..).help("Names of the machines")
}

/// The name that was given.
pub fn given(matches: &ArgMatches) -> &str {
    text(matches, "machine").unwrap_or_default()
}

/// Does something with each machine that was named, all of them though one fails; the first failure is told.
pub fn each(matches: &ArgMatches, mut act: impl FnMut(&str) -> Result<()>) -> Result<i32> {
    let mut first = None;
    for name in matches.get_many::<String>("machine").into_iter().flatten() {
        if let Err(err) = act(name) {
            match &first {
                None => first = Some(err),
                Some(_) => locule_runtime::warn::warn(err.to_string()),
            }
        }
    }
    first.map_or(Ok(0), Err)
}

/// `--timeout`.
pub fn timeout() -> Arg {
    option(
        "timeout",
        "TIME",
        "How long it may take to end before it is killed, as 90s or 5m (default: the machine's own)",
    )
    .short('t')
}

/// The time that was given.
pub fn given_timeout(matches: &ArgMatches) -> Result<Option<Duration>> {
    let read = |text: &str| text.parse::<Span>().map_err(|err| Error::invalid(format!("--timeout: {err}")));
    Ok(text(matches, "timeout").map(read).transpose()?.map(|span| span.0))
}
