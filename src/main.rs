//! locule: dispatch, and the one place that prints errors and exits.
//!
//! Owns the exit code and the error's way out (standard error, and the file of `--log`).
//! Never acts itself: the verbs are in `commands`, what they call is in `locule_runtime`.

mod args;
mod cli;
mod commands;
#[cfg(test)]
mod docs;
mod log;
mod out;
mod signals;

use std::process::ExitCode;
use std::time::Instant;

use locule_runtime::{Error, Kind};

use crate::args::Globals;
use crate::cli::{Asked, Verb};
use crate::log::Log;
use crate::out::Out;

/// What a shell reports for a program that died of SIGPIPE.
const BROKEN_PIPE: i32 = 128 + libc::SIGPIPE;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    args.next();
    let mut globals = Globals::default();
    let mut out = Out::default();
    // Global options are read into place one by one, so that an error in a later word
    // still goes to the log file that an earlier one named.
    let asked = globals.read(&mut args).and_then(|verb| cli::ask(verb, args));
    let log = Log::new(globals.log.as_deref(), globals.log_format, globals.debug);
    let (verb, result) = match asked {
        Ok(Asked::Text(text)) => (None, out.write(&text).map(|()| 0)),
        Ok(Asked::Run(verb, matches)) => {
            let begun = Instant::now();
            log.debug(format_args!("locule {} {}", env!("CARGO_PKG_VERSION"), verb.name));
            let result = (verb.run)(&globals, &matches, &mut out);
            log.debug(format_args!("{} took {} µs", verb.name, begun.elapsed().as_micros()));
            (Some(verb), result)
        }
        Err(err) => (None, Err(err)),
    };
    for warning in locule_runtime::warn::take() {
        log.warning(&warning);
    }
    let status = match result {
        Ok(status) => status,
        Err(_) if out.broken() => BROKEN_PIPE,
        Err(err) => {
            log.error(&err.to_string());
            failure(verb, &err)
        }
    };
    // A status above 255 cannot be told to the parent; none of ours is.
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

/// The exit code of a failed call, as `locule(1)` lists them.
fn failure(verb: Option<&Verb>, err: &Error) -> i32 {
    match (verb, err.kind()) {
        (Some(verb), Kind::CommandNotFound) if verb.becomes_workload => 127,
        (Some(verb), Kind::NotExecutable) if verb.becomes_workload => 126,
        (Some(verb), _) => verb.failure,
        (None, _) => 1,
    }
}
