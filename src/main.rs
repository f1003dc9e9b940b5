//! locule: dispatch, and the one place that prints errors and exits.
//!
//! Owns the exit code and the error's way out (standard error, and the file of `--log`).
//! Never acts itself: the verbs are in `commands`, what they call is in `locule_runtime`.

// The standard library's own start-up reads /proc/self/maps, makes a signal stack and ignores
// SIGPIPE: sixteen system calls that a short verb would mostly consist of, and a signal
// disposition that containers would inherit. The C library calls `main` directly instead.
#![cfg_attr(not(test), no_main)]

mod args;
mod cli;
mod commands;
#[cfg(test)]
mod docs;
#[cfg(all(not(test), early_seal))]
mod entry;
mod log;
mod openmetrics;
mod out;
mod table;
mod usage;
mod vm;

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::time::Instant;

use locule_runtime::{Error, contract};
use nix::fcntl::{FcntlArg, fcntl};

use crate::args::Globals;
use crate::cli::{Asked, Verb};
use crate::log::Log;
use crate::out::Out;

/// What a shell reports for a program that died of SIGPIPE; for callers that ignore the signal.
const BROKEN_PIPE: i32 = 128 + libc::SIGPIPE;

/// The C library's entry. The words are taken from `std::env`, which glibc fills in before.
#[allow(unsafe_code, reason = "only the entry point's name; nothing else may be called main")]
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn main() -> libc::c_int {
    open_standard_descriptors();
    call()
}

/// One call of locule, from words to exit code.
fn call() -> i32 {
    let mut args = std::env::args_os();
    let called = args.next();
    // systemd.generator(7): a program of its own, with directories alone as its words.
    let generator = called.is_some_and(|name| name.as_encoded_bytes().ends_with(b"locule-generator"));
    let mut args = generator.then(|| "generator".into()).into_iter().chain(args);
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
            vm::provide();
            let result = (verb.run)(&globals, &matches, &mut out);
            log.debug(format_args!("{} took {} µs", verb.name, begun.elapsed().as_micros()));
            (Some(verb), result)
        }
        Err(err) => (None, Err(err)),
    };
    for warning in locule_runtime::warn::take() {
        log.warning(&warning);
    }
    match result {
        Ok(status) => status,
        Err(_) if out.broken() => BROKEN_PIPE,
        Err(err) => {
            log.error(&err.to_string());
            failure(verb, &err)
        }
    }
}

/// Puts /dev/null where standard input, output or error is closed, so that no file opened later
/// takes its number and gets what is meant for it.
fn open_standard_descriptors() {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let open = |fd| fcntl(fd, FcntlArg::F_GETFD).is_ok();
    if open(stdin.as_fd()) && open(stdout.as_fd()) && open(stderr.as_fd()) {
        return;
    }
    while let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        if null.as_raw_fd() > libc::STDERR_FILENO {
            break;
        }
        let _ = null.into_raw_fd();
    }
}

/// The exit code of a failed call, as `locule(1)` lists them.
fn failure(verb: Option<&Verb>, err: &Error) -> i32 {
    verb.map_or(1, |verb| contract::exit_code(err.kind(), verb.becomes_workload, verb.failure))
}
