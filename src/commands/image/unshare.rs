//! `image unshare`: a user's own namespaces, in which the user is root and may mount images.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use locule_images::rootless::Subordinate;
use locule_runtime::error::Context;
use locule_runtime::{Error, Kind, Result};

use super::{images, root, told};
use crate::args::Globals;
use crate::cli::Verb;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image unshare",
    about: "Run a program where a user without privileges may mount images",
    usage: "[options] [command [arguments]]",
    details: "Runs the command, or a shell, in a user namespace and a mount namespace of its own. The user is root \
there, and has the subordinate ids of /etc/subuid and /etc/subgid; the store is the user's. What is mounted ends with \
the command.",
    examples: &[(
        "A container on an image, without privileges",
        "locule image unshare sh -c 'locule image mount app box/rootfs && locule run --bundle box box1'",
    )],
    arguments: |command| {
        command.args([
            images(),
            Arg::new("command")
                .value_name("command")
                .action(ArgAction::Append)
                .num_args(0..)
                .value_parser(value_parser!(OsString))
                .help("The program and its arguments (default: $SHELL)"),
        ])
    },
    run,
    ends_at_id: true,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    if nix::unistd::geteuid().is_root() {
        return Err(Error::invalid("image unshare is for users without privileges: root mounts without it"));
    }
    let store = root(matches)?;
    let ids = Subordinate::of_caller().ok_or_else(|| {
        Error::new(
            Kind::Unsupported,
            "there are no subordinate ids: install uidmap and add the user to /etc/subuid and /etc/subgid",
        )
    })?;
    let mut words = matches.get_many::<OsString>("command").unwrap_or_default();
    let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh".into());
    let program = words.next().cloned().unwrap_or_else(shell);
    ids.enter(true).map_err(told)?;
    let failed = Command::new(&program).args(words).env("LOCULE_IMAGES", store).exec();
    Err(failed).doing(|| format!("running {}", program.display()))
}
