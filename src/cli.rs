//! The verbs: their declarations in one table, and the way from words to a verb's arguments.
//!
//! Only the command of the verb that was asked for is ever built: a whole tree of commands would
//! cost more than most verbs do. Never runs anything itself.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command};
use locule_runtime::{Error, Result, contract};

use crate::args::{self, First, Globals, Rewritten};
use crate::commands;
use crate::out::Out;

/// The runtime-spec version that this build implements.
pub const SPEC_VERSION: &str = "1.3.0";

/// One verb of the command line.
#[derive(Debug)]
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// One line for lists.
    pub about: &'static str,
    /// What stands after the name in a usage line.
    pub usage: &'static str,
    /// What there is to know, in paragraphs.
    pub details: &'static str,
    /// Examples: what one does, and how.
    pub examples: &'static [(&'static str, &'static str)],
    /// Declares the arguments.
    pub arguments: fn(Command) -> Command,
    /// Runs it; the number is the exit code.
    pub run: fn(&Globals, &ArgMatches, &mut Out) -> Result<i32>,
    /// The exit code of a failure.
    pub failure: i32,
    /// Whether the exit code stands for a program inside (126 and 127 as a shell has them).
    pub becomes_workload: bool,
    /// Whether flags end at the first word that is none, because a command follows.
    pub ends_at_id: bool,
    /// `--help` of a verb that is not there yet fails: engines probe it by that.
    pub absent: bool,
}

impl Verb {
    /// What most verbs are, for struct update.
    pub const BASE: Verb = Verb {
        name: "",
        about: "",
        usage: "",
        details: "",
        examples: &[],
        arguments: |command| command,
        run: |_, _, _| Ok(0),
        failure: 1,
        becomes_workload: false,
        ends_at_id: false,
        absent: false,
    };

    /// The clap command of this verb alone.
    pub fn command(&self) -> Command {
        // Help is answered before clap is asked, so that its text and exit code are ours.
        (self.arguments)(Command::new(self.name).disable_help_flag(true).disable_version_flag(true))
    }

    /// The text of `--help`.
    pub fn help(&self) -> String {
        let mut command = self
            .command()
            .about(self.about)
            .override_usage(format!("locule [global options] {} {}", self.name, self.usage));
        if !self.details.is_empty() {
            command = command.long_about(format!("{}\n\n{}", self.about, self.details));
        }
        let mut text = command.render_long_help().to_string();
        for (what, how) in self.examples {
            text.push_str(&format!("\n{what}:\n    {}\n", how.replace('\n', "\n    ")));
        }
        text
    }
}

/// All verbs, in the order of a container's life.
pub const VERBS: &[&Verb] = &[
    &commands::create::VERB,
    &commands::start::VERB,
    &commands::run::VERB,
    &commands::exec::VERB,
    &commands::state::VERB,
    &commands::list::VERB,
    &commands::ps::VERB,
    &commands::kill::VERB,
    &commands::delete::VERB,
    &commands::pause::VERB,
    &commands::resume::VERB,
    &commands::update::VERB,
    &commands::events::VERB,
    &commands::spec::VERB,
    &commands::check::VERB,
    &commands::features::VERB,
    &commands::checkpoint::VERB,
    &commands::restore::VERB,
    &commands::network::create::VERB,
    &commands::network::ls::VERB,
    &commands::network::show::VERB,
    &commands::network::rm::VERB,
    &commands::network::connect::VERB,
    &commands::network::disconnect::VERB,
    &commands::network::set::VERB,
    &commands::network::check::VERB,
    &commands::network::gc::VERB,
    &commands::completion::VERB,
    &commands::image::ls::VERB,
    &commands::image::pull::VERB,
    &commands::image::push::VERB,
    &commands::image::import::VERB,
    &commands::image::save::VERB,
    &commands::image::build::VERB,
    &commands::image::inspect::VERB,
    &commands::image::history::VERB,
    &commands::image::tag::VERB,
    &commands::image::rm::VERB,
    &commands::image::mount::VERB,
    &commands::image::umount::VERB,
    &commands::image::unshare::VERB,
    &commands::image::commit::VERB,
    &commands::image::prune::VERB,
    &commands::image::verify::VERB,
    &commands::machine::launch::VERB,
    &commands::machine::ls::VERB,
    &commands::stats::VERB,
    &commands::top::VERB,
    &commands::machine::enter::VERB,
    &commands::machine::stop::VERB,
    &commands::machine::restart::VERB,
    &commands::machine::rename::VERB,
    &commands::machine::rm::VERB,
    &commands::machine::repair::VERB,
    &commands::machine::clone::VERB,
    &commands::machine::export::VERB,
    &commands::machine::import::VERB,
    &commands::machine::compact::VERB,
    &commands::snapshot::create::VERB,
    &commands::snapshot::ls::VERB,
    &commands::snapshot::restore::VERB,
    &commands::snapshot::rm::VERB,
    &commands::machine::set::VERB,
    &commands::machine::show::VERB,
    &commands::console::VERB,
    &commands::logs::VERB,
    &commands::boot::BOOT,
    &commands::boot::SHUTDOWN,
    &commands::generator::VERB,
    &commands::keeper::VERB,
    &commands::openvz::import::VERB,
    &commands::vm::kernel_ls::VERB,
    &commands::vm::kernel_use::VERB,
    &commands::vm::kernel_build::VERB,
    &commands::help::VERB,
];

/// Words that stand before a verb of their own: what is done, and on what.
pub const NOUNS: &[(&str, &str)] = &[
    ("image", "Images: fetch, import, list, mount, export"),
    ("snapshot", "Saved states of machines: create, list, restore, remove"),
    ("network", "Networks: create, list, connect containers, publish ports"),
    ("openvz", "OpenVZ: make machines from its containers' configurations"),
    ("vm", "Virtual machines: the kernels that they boot"),
    ("vm kernel", "Kernels of virtual machines: list, choose, build"),
];

/// The global options, for help, manual and completions; `args::Globals::read` reads them.
pub fn global_arguments() -> Vec<Arg> {
    vec![
        option(
            "root",
            "DIR",
            "Directory of the containers' state, on a tmpfs (default: /run/locule, or $XDG_RUNTIME_DIR/locule for a user)",
        ),
        option(
            "data",
            "DIR",
            "Directory of machines, images and networks (default: $LOCULE_DATA, or /var/lib/locule)",
        ),
        option("log", "FILE", "Append errors and warnings to FILE; errors go to standard error as well"),
        option("log-format", "FORMAT", "Form of the log's records")
            .value_parser(["text", "json"])
            .default_value("text"),
        switch("debug", "Log each call and its duration, and warnings also to a JSON log"),
        switch("systemd-cgroup", "Let systemd manage cgroups: cgroupsPath is then slice:prefix:name"),
        option(
            "cgroup-manager",
            "MANAGER",
            "Who manages cgroups; of this and --systemd-cgroup the later counts",
        )
        .value_parser(["cgroupfs", "systemd", "disabled"])
        .default_value("cgroupfs"),
        option("rootless", "BOOL", "Whether missing permissions on cgroups are ignored")
            .value_parser(["auto", "true", "false"])
            .default_value("auto"),
    ]
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// A text to print.
    Text(String),
    /// A verb with its arguments.
    Run(&'static Verb, ArgMatches),
}

/// Finds the verb and reads its words.
pub fn ask(first: First, words: impl Iterator<Item = OsString>) -> Result<Asked> {
    let name = match first {
        First::Help => return Ok(Asked::Text(help())),
        First::Version => {
            return Ok(Asked::Text(contract::version(env!("CARGO_PKG_VERSION"), COMMIT, SPEC_VERSION)));
        }
        First::Verb(name) => name,
    };
    let mut words = words;
    let mut name = name.to_string_lossy().into_owned();
    while NOUNS.iter().any(|(noun, _)| *noun == name) {
        match words.next() {
            Some(word) if !word.to_string_lossy().starts_with('-') => {
                name = format!("{name} {}", word.to_string_lossy());
            }
            _ => return Ok(Asked::Text(noun_help(&name))),
        }
    }
    let verb = find(&name)?;
    let command = verb.command();
    match args::rewrite(&command, words, verb.ends_at_id)? {
        // Podman takes a successful `checkpoint --help` for support of checkpoints.
        Rewritten::Help if verb.absent => Err(commands::checkpoint::absent(verb.name)),
        Rewritten::Help => Ok(Asked::Text(verb.help())),
        Rewritten::Words(words) => {
            let matches = command.try_get_matches_from(words).map_err(|err| refusal(verb, &err))?;
            Ok(Asked::Run(verb, matches))
        }
    }
}

/// The verb called `name`.
pub fn find(name: &str) -> Result<&'static Verb> {
    let name = if name == "h" { "help" } else { name };
    VERBS
        .iter()
        .find(|verb| verb.name == name)
        .copied()
        .ok_or_else(|| Error::invalid(format!("no command {name:?}: locule --help lists the commands")))
}

/// clap's several lines as one, in our words.
fn refusal(verb: &Verb, err: &clap::Error) -> Error {
    let named = |kind| match err.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let reason = match (err.kind(), named(ContextKind::InvalidArg), named(ContextKind::InvalidValue)) {
        (clap::error::ErrorKind::MissingRequiredArgument, Some(arg), _) => format!("{arg} is missing"),
        (clap::error::ErrorKind::UnknownArgument, Some(word), _) => format!("one word too many: {word}"),
        (clap::error::ErrorKind::ArgumentConflict, Some(arg), _) => {
            let other = named(ContextKind::PriorArg).unwrap_or_else(|| "another option".into());
            format!("{arg} cannot be used together with {other}")
        }
        _ => {
            let text = err.to_string();
            let told = text.strip_prefix("error: ").unwrap_or(&text);
            told.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
        }
    };
    Error::invalid(format!("{}: {reason}: usage: locule {} {}", verb.name, verb.name, verb.usage))
}

/// The commit that this was built from, where the build said so.
pub const COMMIT: Option<&str> = option_env!("LOCULE_COMMIT");

/// `locule --help`.
pub fn help() -> String {
    let mut command = Command::new("locule")
        .about("Run containers from OCI bundles")
        .override_usage("locule [global options] COMMAND [options] [arguments]")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(global_arguments())
        .arg(switch("help", "Print this, or with a command its own help").short('h'))
        .arg(switch("version", "Print the version").short('v'));
    let mut text = command.render_long_help().to_string();
    text.push_str("\nCommands:\n");
    for verb in VERBS.iter().filter(|verb| !verb.name.contains(' ')) {
        text.push_str(&format!("  {:<12}{}\n", verb.name, verb.about));
    }
    for (noun, about) in NOUNS.iter().filter(|(noun, _)| !noun.contains(' ')) {
        text.push_str(&format!("  {noun:<12}{about}\n"));
    }
    text.push_str(
        "\nlocule COMMAND --help tells more; so do the manual pages locule(1) and locule-COMMAND(1).\n",
    );
    text
}

/// `locule NOUN --help`, or the noun alone.
pub fn noun_help(noun: &str) -> String {
    let mut text =
        format!("Usage: locule [global options] {noun} COMMAND [options] [arguments]\n\nCommands:\n");
    for verb in VERBS {
        if let Some(name) = verb.name.strip_prefix(noun).and_then(|rest| rest.strip_prefix(' ')) {
            text.push_str(&format!("  {name:<12}{}\n", verb.about));
        }
    }
    text.push_str(&format!("\nlocule {noun} COMMAND --help tells more.\n"));
    text
}

/// The positional argument that names the container.
pub fn id() -> Arg {
    Arg::new("id").value_name("container-id").required(true).help("Name of the container")
}

/// An option with a value.
pub fn option(long: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(long).long(long).value_name(value).help(help).action(ArgAction::Set)
}

/// An option with a value that may be given several times.
pub fn several(long: &'static str, value: &'static str, help: &'static str) -> Arg {
    option(long, value, help).action(ArgAction::Append)
}

/// An option without a value.
pub fn switch(long: &'static str, help: &'static str) -> Arg {
    Arg::new(long).long(long).help(help).action(ArgAction::SetTrue)
}

/// The text given for `name`.
pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// The container's name.
pub fn given_id(matches: &ArgMatches) -> &str {
    text(matches, "id").unwrap_or_default()
}

/// The path given for `name`, made absolute.
pub fn path(matches: &ArgMatches, name: &str) -> Result<Option<std::path::PathBuf>> {
    matches.get_one::<std::path::PathBuf>(name).map(args::absolute).transpose()
}

/// A parser for options that name a path.
pub fn path_parser() -> clap::builder::ValueParser {
    clap::value_parser!(std::path::PathBuf)
}
