//! `completion`: the completion script of a shell.
//!
//! Owns nothing: the scripts are committed files, made from the declarations (see `docs.rs`),
//! so that their generator is no part of the binary.

use clap::{Arg, ArgMatches};
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

const BASH: &str = include_str!("../../completions/locule.bash");
const ZSH: &str = include_str!("../../completions/_locule");
const FISH: &str = include_str!("../../completions/locule.fish");

/// The declaration.
pub const VERB: Verb = Verb {
    name: "completion",
    about: "Print a shell's completion script",
    usage: "<bash|zsh|fish>",
    details: "make install puts the scripts where the shells look for them; this is for everywhere else.",
    examples: &[("Completions in this bash", "source <(locule completion bash)")],
    arguments: |command| {
        command.arg(Arg::new("shell").required(true).value_parser(["bash", "zsh", "fish"]).help("The shell"))
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    out.write(match text(matches, "shell") {
        Some("zsh") => ZSH,
        Some("fish") => FISH,
        _ => BASH,
    })?;
    Ok(0)
}
