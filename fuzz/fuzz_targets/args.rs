//! Command lines: global options, the verb, its words, up to what the verb is given.
//!
//! The binary's modules are compiled in as they stand; nothing is run.
#![no_main]
#![allow(dead_code, reason = "the verbs are declared, not run")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/args.rs"]
mod args;
#[path = "../../src/cli.rs"]
mod cli;
#[path = "../../src/commands/mod.rs"]
mod commands;
#[path = "../../src/log.rs"]
mod log;
#[path = "../../src/openmetrics.rs"]
mod openmetrics;
#[path = "../../src/out.rs"]
mod out;
mod shared;
#[path = "../../src/table.rs"]
mod table;
#[path = "../../src/usage.rs"]
mod usage;
#[path = "../../src/vm/mod.rs"]
mod vm;

use args::{First, Globals, Rewritten};
use cli::Asked;

fuzz_target!(|input: &[u8]| {
    // Words are divided as they are in /proc/PID/cmdline.
    let words: Vec<OsString> =
        input.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let mut globals = Globals::default();
    let mut left = words.into_iter();
    let first = match globals.read(&mut left) {
        Ok(first) => first,
        Err(err) => return shared::refused(&err),
    };
    let _ = (globals.is_rootless(), globals.cgroup_manager());
    if let First::Verb(name) = &first
        && let Ok(verb) = cli::find(&name.to_string_lossy())
    {
        rewritten_once(verb, left.clone());
    }
    match cli::ask(first, left) {
        Ok(Asked::Text(text)) => assert!(!text.is_empty()),
        Ok(Asked::Run(verb, matches)) => {
            assert!(!verb.name.is_empty() && matches.try_contains_id("\u{1}").is_err())
        }
        Err(err) => shared::refused(&err),
    }
    locule_runtime::warn::take();
});

/// What is rewritten is in the form that rewriting leaves alone.
fn rewritten_once(verb: &cli::Verb, words: impl Iterator<Item = OsString>) {
    let command = verb.command();
    let Ok(Rewritten::Words(once)) = args::rewrite(&command, words, verb.ends_at_id) else { return };
    let twice = args::rewrite(&command, once.iter().skip(1).cloned(), verb.ends_at_id);
    assert_eq!(twice.ok(), Some(Rewritten::Words(once)));
}
