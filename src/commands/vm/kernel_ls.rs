//! `vm kernel ls`: the kernels that virtual machines could boot.
//!
//! Owns the table. The verdicts are `crate::vm::kernel`'s.

use clap::ArgMatches;
use locule_runtime::Result;
use serde_json::json;

use crate::args::Globals;
use crate::cli::{Verb, option, text};
use crate::out::Out;
use crate::table;
use crate::vm::kernel;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "vm kernel ls",
    about: "List the kernels of this host, and whether virtual machines can boot them",
    usage: "[options]",
    details: "A virtual machine boots a kernel that is installed on this host. It needs virtio-pci, virtio-fs and \
virtio-console: built in, as in Debian's from 13 (trixie) on, or as modules, as in Debian 12's, which then come from an \
initramfs that is made and kept beside the unpacked kernel. The one marked * is used: that of locule vm kernel use, else the \
newest that qualifies, those without an initramfs first.",
    examples: &[("For a program", "locule vm kernel ls --format json")],
    arguments: |command| {
        command.arg(
            option("format", "FORMAT", "Form of the list")
                .value_parser(["table", "json"])
                .default_value("table"),
        )
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let mut all = kernel::all();
    let used = kernel::chosen().ok();
    if let Some(used) = &used
        && !all.contains(used)
    {
        all.insert(0, used.clone());
    }
    if text(matches, "format") == Some("json") {
        let list: Vec<_> = all
            .iter()
            .map(|kernel| {
                json!({
                    "version": kernel.version, "image": kernel.image, "modules": kernel.modules,
                    "used": used.as_ref() == Some(kernel), "initramfs": !kernel.early.is_empty(),
                    "problems": kernel.problems,
                })
            })
            .collect();
        out.json(&list)?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|kernel| {
            vec![
                if used.as_ref() == Some(kernel) { "*".into() } else { String::new() },
                kernel.version.clone().unwrap_or_else(|| "-".into()),
                kernel.image.display().to_string(),
                match (kernel.problems.is_empty(), kernel.early.is_empty()) {
                    (true, true) => "yes".into(),
                    (true, false) => "yes (initramfs)".into(),
                    _ => format!("no: {}", kernel.problems.join("; ")),
                },
            ]
        })
        .collect();
    let columns = [("", false), ("VERSION", false), ("IMAGE", false), ("BOOTS", false)];
    out.write(&table::table(&columns, &rows))?;
    Ok(0)
}
