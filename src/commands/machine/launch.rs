//! `launch`: a machine from an image, in one line.
//!
//! Owns the flags, which do nothing but fill a definition (`launch/definition.rs`), and the order: make, start, and
//! undo all of it if the start fails.

mod definition;

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use locule_images::host;
use locule_machines::{Home, Machine, keeper, life, lift};
use locule_runtime::error::Context;
use locule_runtime::process::seal;
use locule_runtime::{Kind, Result};

use super::home;
use crate::args::Globals;
use crate::cli::{Verb, option, switch, text};
use crate::commands::image::pull;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "launch",
    about: "Make a machine from an image and start it",
    usage: "[options] <image> [name] [-- command...]",
    details: "The image is one of locule image ls, or host: the programs of this very system, with an empty home and an \
own /etc, which needs no download. One that is not there is fetched from its registry first, as by locule image pull. \
The options fill the definition of the machine, machine.toml(5), which is all that \
is kept of them: locule set changes it later.\n\n\
The machine runs in the background, and its name is printed. With --interactive, --tty, --rm or --attach it runs in \
the foreground: locule launch lasts as long as its first process, passes signals on to it, and exits with its status.\n\n\
Without a command the image's runs; a system boots its init. Behind -- stands another command: arguments for the \
entrypoint of the image, if it has one, as with engines. A launch that fails leaves nothing behind.",
    examples: &[
        ("A machine of this system's programs, that boots", "locule launch host web1"),
        ("A shell that is gone afterwards", "locule launch -it --rm host -- bash"),
        (
            "With limits, a port, and started with the host",
            "locule launch --memory 512M --cpus 1.5 -p 8080:80 --boot debian:13 web1",
        ),
        (
            "One program, started again whenever it fails",
            "locule launch --restart on-failure host job1 -- /usr/bin/worker",
        ),
    ],
    arguments: |command| {
        command.args(flags()).args(definition::flags()).args([
            Arg::new("image").value_name("image").required(true).help("The image, or host"),
            Arg::new("name-word")
                .value_name("name")
                .help("Name of the machine; by default the image's with a number"),
            Arg::new("command")
                .value_name("command")
                .action(ArgAction::Append)
                .num_args(0..)
                .last(true)
                .value_parser(value_parser!(String))
                .help("The program and its arguments"),
        ])
    },
    run,
    becomes_workload: true,
    ..Verb::BASE
};

fn flags() -> [Arg; 8] {
    [
        option("pull", "WHEN", "Fetch the image: missing is when it is not there")
            .value_parser(["missing", "always", "never"])
            .default_value("missing"),
        switch("detach", "Return when it runs; the default, unless an option below asks for the foreground")
            .short('d'),
        switch("attach", "Stay in the foreground").short('a').conflicts_with("detach"),
        switch("interactive", "Stay in the foreground, and pass standard input on")
            .short('i')
            .conflicts_with("detach"),
        switch("tty", "Give its program a terminal").short('t'),
        switch("rm", "Stay in the foreground, and remove the machine at its end").conflicts_with("detach"),
        switch("no-start", "Make it and do not start it").conflicts_with_all(["attach", "interactive", "rm"]),
        option("name", "NAME", "Name of the machine").conflicts_with("name-word"),
    ]
}

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let flag = |name| matches.get_flag(name);
    let foreground = flag("attach")
        || flag("interactive")
        || flag("rm")
        || (flag("tty") && !flag("detach") && !flag("no-start"));
    // This process makes the container then, and nothing may be opened before it is sealed.
    let seal = if foreground { Some(seal::ensure()?) } else { None };
    let home = home(globals)?;
    let image = text(matches, "image").unwrap_or_default();
    fetch(&home, image, text(matches, "pull").unwrap_or_default())?;
    let definition = definition::read(matches, &home)?;
    let document = definition.document()?;
    let name = match text(matches, "name").or(text(matches, "name-word")) {
        Some(name) => name.to_owned(),
        None => free_name(&home, &definition.image)?,
    };
    let machine = life::create(&home, &name, &definition, &document)?;
    if flag("no-start") {
        out.write(&format!("{name}\n"))?;
        return Ok(0);
    }
    let Some(seal) = seal else {
        life::start(&home, &machine).inspect_err(|_| undo(&home, &machine))?;
        out.write(&format!("{name}\n"))?;
        return Ok(0);
    };
    let ended = keeper::attached(&home, &machine, flag("interactive"), seal);
    // What never ran is undone; what ran is a machine, and stays unless it was not meant to.
    let ran = life::has_run(&machine);
    if flag("rm") || !ran {
        let removed = life::remove(&home, machine.name(), true);
        // The reason why it ended comes before the one why it is still there.
        if ended.is_ok() {
            removed?;
        }
    }
    ended
}

/// Fetches the image where `when` asks for it. What has no registry is for `life::create` to refuse.
fn fetch(home: &Home, image: &str, when: &str) -> Result<()> {
    if image == host::NAME || when == "never" {
        return Ok(());
    }
    let store = home.images()?;
    if when == "missing" {
        match store.find_record(image) {
            Err(err) if err.kind() == locule_images::Kind::NotFound => {}
            other => return other.map(drop).map_err(lift),
        }
    }
    pull::fetch(&store, image).map_err(|err| {
        err.context(format_args!("fetching the image {image}"))
            .hint("locule image ls lists what is here; the image host needs no network")
    })
}

/// Removes a machine whose first start failed. Should that fail, too, the first reason is what is told.
fn undo(home: &Home, machine: &Machine) {
    if let Err(err) = life::remove(home, machine.name(), true) {
        locule_runtime::warn::warn(format!("removing machine {}: {err}", machine.name()));
    }
}

/// The image's name with the smallest number that makes it free.
fn free_name(home: &Home, image: &str) -> Result<String> {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split(['@', ':']).next().unwrap_or(last).to_ascii_lowercase();
    let mut stem: String =
        bare.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(50).collect();
    stem = stem.trim_matches('-').to_owned();
    if stem.is_empty() || stem.ends_with(|c: char| c.is_ascii_digit()) {
        stem.push_str(if stem.is_empty() { "machine" } else { "-" });
    }
    let mut number = 1u64;
    loop {
        let name = format!("{stem}{number}");
        let machine = home.machine(&name)?;
        let free = !machine.dir().try_exists().doing(|| format!("looking for machine {name}"))?;
        if free && life::container(home, &machine).is_ok_and(|container| container.is_none()) {
            return Ok(name);
        }
        number += 1;
    }
}

/// A definition's error in the words of the flag.
fn wrong(flag: &str, value: &str, why: impl std::fmt::Display) -> locule_runtime::Error {
    locule_runtime::Error::new(Kind::Invalid, format!("--{flag} {value}: {why}"))
}
