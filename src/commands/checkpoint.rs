//! `checkpoint`: not there yet, and says so.
//!
//! Owns the refusal that `restore` shares. Never pretends: engines probe for support.

use clap::{Arg, ArgAction, ArgMatches, Command};
use locule_runtime::Error;

use crate::args::Globals;
use crate::cli::{Verb, id, option, switch};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "checkpoint",
    about: "Save a running container (not there yet)",
    usage: "[options] <container-id>",
    details: "locule cannot save containers yet. The call fails without touching the container, and so does \
its --help, because engines take a successful one for support.",
    arguments: |command| {
        arguments(command)
            .args([
                option("parent-path", "DIR", "Images of an earlier pre-dump"),
                switch("leave-running", "Leave the container running"),
                option("status-fd", "FD", "Descriptor for CRIU's readiness"),
                option("page-server", "ADDRESS:PORT", "Page server"),
                switch("pre-dump", "Save memory only"),
            ])
            .arg(id())
    },
    run: |_: &Globals, _: &ArgMatches, _: &mut Out| Err(absent("checkpoint")),
    absent: true,
    ..Verb::BASE
};

/// The refusal.
pub fn absent(verb: &str) -> Error {
    Error::unsupported(format!(
        "{verb} is not there yet: this version of locule cannot save or restore containers"
    ))
}

/// runc's options that both verbs have; declared so that a caller's words are understood before they are refused.
pub fn arguments(command: Command) -> Command {
    command.args([
        option("image-path", "DIR", "Directory of the image"),
        option("work-path", "DIR", "Directory of work files and logs"),
        switch("tcp-established", "Allow open TCP connections"),
        switch("tcp-close", "Close TCP connections"),
        switch("ext-unix-sk", "Allow external UNIX sockets"),
        switch("shell-job", "Allow a terminal from outside"),
        switch("lazy-pages", "Restore memory on demand"),
        switch("file-locks", "Allow file locks"),
        switch("auto-dedup", "Deduplicate memory images"),
        option("manage-cgroups-mode", "MODE", "soft, full, strict or ignore"),
        Arg::new("empty-ns")
            .long("empty-ns")
            .value_name("NAMESPACE")
            .action(ArgAction::Append)
            .help("Restore empty"),
    ])
}
