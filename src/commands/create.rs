//! `create`: a container from a bundle, up to the point where `start` is awaited.
//!
//! Owns the options that `run` shares. Never waits for the workload.

use clap::{ArgMatches, Command, value_parser};
use locule_runtime::process::seal;
use locule_runtime::spec::StringMap;
use locule_runtime::{CreateRequest, Isolation, Result, adopt_fds};

use crate::args::{Globals, absolute};
use crate::cli::{Verb, given_id, id, option, path, path_parser, switch, text};
use crate::out::Out;
use crate::vm;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "create",
    about: "Create a container from a bundle",
    usage: "[options] <container-id>",
    details: "The bundle is a directory with config.json and a root file system. The container's \
namespaces, mounts and limits are made, and its first process waits; locule start lets it execute \
the program of config.json. The name must be free under the state root.

A create that fails leaves nothing behind.",
    examples: &[(
        "Create web1 from a bundle and start it",
        "locule create --bundle /srv/web web1\nlocule start web1",
    )],
    arguments: |command| arguments(command).arg(id()),
    run,
    ..Verb::BASE
};

/// The options that describe the container to make.
pub fn arguments(command: Command) -> Command {
    command.args([
        option("bundle", "DIR", "The bundle (default: the current directory)")
            .short('b')
            .value_parser(path_parser()),
        option("console-socket", "SOCKET", "AF_UNIX socket that gets the master end of the terminal")
            .value_parser(path_parser()),
        option("pid-file", "FILE", "Write the process id to FILE, digits only").value_parser(path_parser()),
        option("pidfd-socket", "SOCKET", "AF_UNIX socket that gets a pidfd of the process")
            .value_parser(path_parser()),
        option("preserve-fds", "N", "Pass N descriptors beside the standard ones and those of LISTEN_FDS")
            .value_parser(value_parser!(u32)),
        switch("no-pivot", "Move the root mount instead of pivot_root, for a root on a ramdisk"),
        switch("no-new-keyring", "Keep the caller's session keyring"),
        option(
            "isolation",
            "KIND",
            "What separates it from the host; default is the annotation org.locule.isolation",
        )
        .value_parser(["namespaces", "vm"]),
        option("vm-identity", "WHAT", "What a virtual machine believes to run on (default: kvm)")
            .value_parser(["kvm", "hyperv", "none"]),
        switch("trace-startup", "Tell the stages of a virtual machine's start on standard error"),
    ])
}

/// What is wanted of a virtual machine, as the annotations that say it.
fn machine(matches: &ArgMatches) -> StringMap {
    let identity = text(matches, "vm-identity").map(|word| ("identity", word));
    let trace = matches.get_flag("trace-startup").then_some(("trace", "true"));
    identity
        .into_iter()
        .chain(trace)
        .map(|(key, word)| (format!("{}{key}", vm::PREFIX), word.into()))
        .collect()
}

/// What separates the container from the host: the option's word, else that of the name that this program was called by.
fn isolation(matches: &ArgMatches) -> Result<Option<Isolation>> {
    match text(matches, "isolation") {
        Some(word) => Isolation::parse(word).map(Some),
        None => Ok(vm::called_as_vm().then_some(Isolation::Vm)),
    }
}

/// Reads those options, in a sealed copy of the binary: nothing is opened before that.
pub fn request(globals: &Globals, matches: &ArgMatches) -> Result<CreateRequest> {
    let seal = seal::ensure()?;
    Ok(CreateRequest {
        seal,
        id: given_id(matches).to_owned(),
        bundle: match path(matches, "bundle")? {
            Some(bundle) => bundle,
            None => absolute(".")?,
        },
        pid_file: path(matches, "pid-file")?,
        pidfd_socket: path(matches, "pidfd-socket")?,
        console_socket: path(matches, "console-socket")?,
        preserved: adopt_fds(matches.get_one("preserve-fds").copied().unwrap_or_default())?,
        no_pivot: matches.get_flag("no-pivot"),
        no_new_keyring: matches.get_flag("no-new-keyring"),
        manager: globals.cgroup_manager(),
        rootless: globals.is_rootless(),
        isolation: isolation(matches)?,
        machine: machine(matches),
    })
}

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let request = request(globals, matches)?;
    locule_runtime::create(&globals.store_for_creating()?, request)?;
    Ok(0)
}
