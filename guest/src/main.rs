//! locule-guest: process 1 of a VM container.
//!
//! It makes the guest fit for containers ([`setup`]), makes them by the runtime's own code
//! ([`worker`], a process for each act, since the runtime wants one thread and clones), and serves the
//! monitor over the channel ([`agent`]). It trusts neither of both: whatever the workload does or the
//! host sends, this process goes on, as its end is the end of the machine.
//!
//! Called as process 1 by the kernel, or with `--channel-fd N` as process 1 of a pid namespace whose root
//! directory is laid out like the machine's (tests, and hosts that are no virtual machine). Called as
//! any other process, the first word names a worker's act.

#![cfg_attr(not(test), no_main)]

mod agent;
mod early;
mod modules;
mod network;
mod port;
mod processes;
mod setup;
mod sys;
mod uevent;
mod worker;

/// Where the guest keeps what it makes: the containers' bundles and state.
const PLACE: &str = "/run/locule";

/// The runtime's state root.
const STATE: &str = "/run/locule/state";

/// The first container's bundle; the others' are beside it.
const BUNDLE: &str = "/run/locule/bundle";

/// From words to exit code; process 1 of a machine never comes back.
#[cfg_attr(test, allow(dead_code))]
fn call() -> i32 {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if std::process::id() == 1 {
        // The kernel's words for its own command line arrive here too, so that others mean nothing.
        let channel = words.windows(2).find(|pair| pair[0] == "--channel-fd").map(|pair| pair[1]);
        return agent::main(channel);
    }
    match words[..] {
        ["--version"] => {
            println!("locule-guest {}", env!("CARGO_PKG_VERSION"));
            0
        }
        [act, result, ref rest @ ..] => worker::main(act, result, rest),
        _ => {
            eprintln!("locule-guest: it is process 1 of a VM container, and not to be called by hand");
            1
        }
    }
}

#[cfg(test)]
fn main() {}
