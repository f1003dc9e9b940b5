//! `list`: the containers under the state root.
//!
//! Owns the table. A container whose state cannot be read costs a warning, not the list.

use clap::ArgMatches;
use locule_runtime::{Error, Report, Result, Store};
use nix::errno::Errno;

use crate::args::Globals;
use crate::cli::{Verb, option, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "list",
    about: "List containers",
    usage: "[options]",
    details: "Lists the containers under the state root, as a table, as JSON or by name alone.",
    examples: &[
        ("The names alone", "locule list --quiet"),
        ("Containers that an engine keeps", "locule --root /run/containerd/runc/default list"),
    ],
    arguments: |command| {
        command.args([
            option("format", "FORMAT", "Form of the list")
                .short('f')
                .value_parser(["table", "json"])
                .default_value("table"),
            switch("quiet", "Print names only").short('q'),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let store = globals.store()?;
    if let (None, Some(root)) = (&store, &globals.root) {
        // Nothing was ever created under the default root; a root that was asked for must be there.
        return Err(Error::sys(Errno::ENOENT, format!("listing the state root {}", root.display())));
    }
    let mut ids = store.as_ref().map_or(Ok(Vec::new()), Store::ids)?;
    ids.sort_unstable();
    if matches.get_flag("quiet") {
        let lines: String = ids.iter().flat_map(|id| [id, "\n"]).collect();
        out.write(&lines)?;
        return Ok(0);
    }
    let mut reports = Vec::with_capacity(ids.len());
    for id in &ids {
        match store.as_ref().map(|store| store.load(id).and_then(|container| container.report())) {
            Some(Ok(report)) => reports.push(report),
            Some(Err(err)) => locule_runtime::warn::warn(format!("listing {id}: {err}")),
            None => {}
        }
    }
    match text(matches, "format") {
        Some("json") => out.json(&reports)?,
        _ => out.write(&table(&reports))?,
    }
    Ok(0)
}

/// Columns as Go's tabwriter sets them for runc: three spaces apart, at least twelve wide.
fn table(reports: &[Report]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let rows: Vec<[String; 6]> = std::iter::once(head)
        .chain(reports.iter().map(|report| {
            [
                report.id.clone(),
                report.pid.to_string(),
                report.status.to_string(),
                report.bundle.display().to_string(),
                report.created.clone(),
                report.owner.clone(),
            ]
        }))
        .collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_as_runcs_do() {
        let report = Report {
            id: "a-rather-long-name".into(),
            pid: 7,
            status: locule_runtime::Status::Running,
            bundle: "/b".into(),
            created: "2026-01-02T03:04:05.6Z".into(),
            owner: "root".into(),
            ..Report::default()
        };
        assert_eq!(
            table(&[report]),
            "ID                   PID         STATUS      BUNDLE      CREATED                  OWNER\n\
             a-rather-long-name   7           running     /b          2026-01-02T03:04:05.6Z   root\n"
        );
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }
}
