//! `ps`: the processes of a container, by the host's ps or as JSON.
//!
//! Owns the filter over ps's lines. Never reads /proc itself.

use std::ffi::OsString;
use std::process::Command;

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use locule_runtime::error::Context;
use locule_runtime::isolation::control::Member;
use locule_runtime::{Error, Kind, Result};

use crate::args::Globals;
use crate::cli::{Verb, given_id, id, option, text};
use crate::out::Out;
use crate::table;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "ps",
    about: "List the processes of a container",
    usage: "[options] <container-id> [ps options]",
    details: "The table is that of the host's ps(1), reduced to the processes of the container; what follows the \
name is given to ps (default: -ef) and must keep its PID column. --format json prints the host's process \
ids as an array.\n\nOf a virtual machine the table shows the processes inside, as its own kernel counts them, and takes no \
options of ps; --format json has the ids of those that stand for it on the host.",
    examples: &[("Memory of each process", "locule ps web1 -o pid,rss,args")],
    arguments: |command| {
        command
            .arg(
                option("format", "FORMAT", "Form of the list")
                    .short('f')
                    .value_parser(["table", "json"])
                    .default_value("table"),
            )
            .arg(id())
            .arg(
                Arg::new("ps-options")
                    .action(ArgAction::Append)
                    .num_args(0..)
                    .value_parser(value_parser!(OsString))
                    .help("Options for ps"),
            )
    },
    run,
    ends_at_id: true,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let container = globals.container(given_id(matches))?;
    let mut options: Vec<OsString> = matches.get_many("ps-options").unwrap_or_default().cloned().collect();
    if text(matches, "format") == Some("json") {
        out.json(&container.pids()?)?;
        return Ok(0);
    }
    if container.is_vm() {
        if !options.is_empty() {
            return Err(Error::unsupported(
                "listing processes: the host's ps does not see those inside a virtual machine: leave its options out",
            ));
        }
        out.write(&inside(&container.members()?))?;
        return Ok(0);
    }
    let pids = container.pids()?;
    if options.is_empty() {
        options.push("-ef".into());
    }
    let answer = Command::new("ps")
        .args(&options)
        .output()
        .doing(|| "running ps")
        .map_err(|err| err.hint("install procps, or use --format json"))?;
    if !answer.status.success() {
        let told = String::from_utf8_lossy(&answer.stderr);
        return Err(Error::new(Kind::System, format!("running ps: {}: {}", answer.status, told.trim())));
    }
    out.write(&filter(&String::from_utf8_lossy(&answer.stdout), &pids)?)?;
    Ok(0)
}

/// The processes of a virtual machine as a table.
fn inside(members: &[Member]) -> String {
    let columns = [
        ("UID", true),
        ("PID", true),
        ("PPID", true),
        ("S", false),
        ("RSS", true),
        ("TIME", true),
        ("CMD", false),
    ];
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|member| {
            let seconds = member.cpu / 1000;
            vec![
                member.uid.to_string(),
                member.pid.to_string(),
                member.ppid.to_string(),
                member.state.clone(),
                table::short(member.rss),
                format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
                member.command.clone(),
            ]
        })
        .collect();
    table::table(&columns, &rows)
}

/// The head of `table` and those of its lines whose PID is among `pids`.
fn filter(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_ascii_whitespace().position(|name| name == "PID").ok_or_else(|| {
        Error::invalid("listing processes: the output of ps has no PID column: add pid to the ps options")
    })?;
    let mut text = format!("{head}\n");
    for line in lines {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|word| word.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_pid_column() {
        let table = "UID   PID  PPID CMD\nroot    7     1 sh\nroot   77     7 sleep 7\n\n";
        assert_eq!(filter(table, &[77]).unwrap(), "UID   PID  PPID CMD\nroot   77     7 sleep 7\n");
        assert_eq!(filter(table, &[]).unwrap(), "UID   PID  PPID CMD\n");
        assert!(filter("CMD\nsh\n", &[1]).unwrap_err().to_string().contains("no PID column"));
    }
}
