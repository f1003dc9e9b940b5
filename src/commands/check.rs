//! `check`: whether a bundle can run on this kernel, or machines on this host, without touching anything.
//!
//! Owns how findings are told. Never makes or changes anything.

use clap::{Arg, ArgMatches};
use locule_runtime::{Error, Result};

use crate::args::{Globals, absolute};
use crate::cli::{Verb, path_parser};
use crate::out::Out;
use crate::vm;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "check",
    about: "Check a bundle, or this host, and touch nothing",
    usage: "[bundle]",
    details: "Reads config.json and plans the container. Prints one line for each reason to refuse it and for \
each warning; what is refused here would be refused by create. Exits with 0 when the container can be made, \
else with 1.\n\nWithout a bundle, and with none in the current directory, it tells what machines need of this host: a line for \
each thing with ok, missing or lacking, and what to do about it. Virtual machines are told of as well: KVM, the \
kernel that would be booted, the program inside. Lacking is what some machines want and others do \
without, and limits of the host that hundreds of machines would meet. Exits with 1 if something is missing.",
    examples: &[
        ("Check the bundle in /srv/web", "locule check /srv/web"),
        ("Is this host ready for machines?", "locule check"),
    ],
    arguments: |command| {
        command.arg(
            Arg::new("bundle")
                .value_parser(path_parser())
                .help("The bundle (default: the current directory, if it has a config.json, else this host)"),
        )
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let bundle = match matches.get_one::<std::path::PathBuf>("bundle") {
        Some(bundle) => bundle.clone(),
        None if std::path::Path::new("config.json").exists() => ".".into(),
        None => return host(globals, out),
    };
    let findings = locule_runtime::check(&absolute(bundle.clone())?)?;
    let mut text = String::new();
    for refusal in &findings.refusals {
        text.push_str(&format!("refused: {refusal}\n"));
    }
    for warning in &findings.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    out.write(&text)?;
    match findings.refusals.len() {
        0 => Ok(0),
        count => Err(Error::invalid(format!("checking {}: {count} reasons to refuse it", bundle.display()))),
    }
}

/// Tells what machines need of this host.
fn host(globals: &Globals, out: &mut Out) -> Result<i32> {
    let findings = locule_machines::host::look(&globals.home()?);
    let mut findings = findings;
    findings.extend(vm::look());
    let mut text = String::new();
    let mut missing = 0;
    for finding in &findings {
        let state = match (&finding.remedy, finding.needed) {
            (None, _) => "ok",
            (Some(_), true) => "missing",
            (Some(_), false) => "lacking",
        };
        missing += usize::from(state == "missing");
        text.push_str(&format!("{state:<8} {}", finding.what));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!(": {remedy}"));
        }
        text.push('\n');
    }
    out.write(&text)?;
    match missing {
        0 => Ok(0),
        count => Err(Error::unsupported(format!("this host is not ready for machines: {count} missing"))),
    }
}
