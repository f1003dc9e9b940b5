//! `ls`: the machines of this host, as columns, for people and programs.
//!
//! Owns the columns, their order and the filters.

use std::cmp::Ordering;

use clap::{Arg, ArgAction, ArgMatches};
use locule_machines::listing::{self, Depth, Entry};
use locule_runtime::{Error, Result};

use super::home;
use crate::args::Globals;
use crate::cli::{Verb, option, switch, text};
use crate::out::Out;
use crate::table::{self, short, span};

/// The declaration.
pub const VERB: Verb = Verb {
    name: "ls",
    about: "List machines",
    usage: "[options] [NAME...]",
    details: "Lists all machines, running or not, or those named. Columns for -o, --sort and --filter: name status uptime \
ip image memory memory-used swap cpus tasks tasks-used disk storage boot ports networks health restarts pid exit hostname \
description isolation created unit labels problem.\n\n\
A filter compares a column with a value, in which * stands for anything: status=running, name=web*, ip=10.0.0.7, \
labels=tier=front. Filters of one column are alternatives, those of several must all fit. Sizes and times are compared as \
they are printed.\n\n\
As JSON: an array of objects with bytes and seconds; a number that there is not is left out.",
    examples: &[
        (
            "Those that run, by the memory that they use",
            "locule ls --filter status=running --sort -memory-used -o name,memory-used,memory",
        ),
        ("Names alone, for a script", "locule ls -q --filter boot=on"),
        ("For a program", "locule ls --format json | jq '.[] | select(.status == \"failed\") | .name'"),
    ],
    arguments: |command| {
        command
            .args([
                option("output", "COLUMNS", "Columns, separated by commas").short('o'),
                option("sort", "COLUMN", "Sort by a column; with - before it the greatest first")
                    .default_value("name"),
                option("filter", "COLUMN=VALUE", "Only those that fit; may be repeated")
                    .short('f')
                    .action(ArgAction::Append),
                option("format", "FORMAT", "Form of the list")
                    .value_parser(["table", "json"])
                    .default_value("table"),
                switch("quiet", "Print names only").short('q'),
                switch("no-header", "Leave out the head of the table").short('H'),
            ])
            .arg(
                Arg::new("names")
                    .value_name("NAME")
                    .action(ArgAction::Append)
                    .num_args(0..)
                    .help("All machines, without any"),
            )
    },
    run,
    ..Verb::BASE
};

/// What a cell holds.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    None,
    Text(String),
    Bytes(u64),
    Number(f64),
    Seconds(u64),
    List(Vec<String>),
}

/// A column: its word, its head, what it shows of a machine.
struct Column {
    word: &'static str,
    head: &'static str,
    value: fn(&Entry) -> Value,
}

const SHOWN: &str = "name,status,uptime,ip,image,memory,cpus,disk,boot";

const COLUMNS: &[Column] = &[
    column("name", "NAME", |entry| Value::Text(entry.name.clone())),
    column("status", "STATUS", |entry| Value::Text(entry.status.into())),
    column("uptime", "UPTIME", |entry| entry.uptime.map_or(Value::None, Value::Seconds)),
    column("ip", "IP", |entry| Value::List(entry.ip.clone())),
    column("image", "IMAGE", |entry| Value::Text(entry.image.clone())),
    column("memory", "MEMORY", |entry| bytes(entry.memory)),
    column("memory-used", "MEMORY-USED", |entry| bytes(entry.memory_used)),
    column("swap", "SWAP", |entry| bytes(entry.swap)),
    column("cpus", "CPUS", |entry| entry.cpus.map_or(Value::None, Value::Number)),
    column("tasks", "TASKS", |entry| number(entry.tasks)),
    column("tasks-used", "TASKS-USED", |entry| number(entry.tasks_used)),
    column("disk", "DISK", |entry| bytes(entry.disk)),
    column("storage", "STORAGE", |entry| Value::Text(entry.storage.into())),
    column("boot", "BOOT", |entry| Value::Text(entry.boot.into())),
    column("ports", "PORTS", |entry| Value::List(entry.ports.clone())),
    column("networks", "NETWORKS", |entry| Value::List(entry.networks.clone())),
    column("health", "HEALTH", |entry| {
        entry.health.map_or(Value::None, |health| Value::Text(format!("{health:?}").to_lowercase()))
    }),
    column("restarts", "RESTARTS", |entry| number(Some(entry.restarts.into()))),
    column("pid", "PID", |entry| entry.pid.map_or(Value::None, |pid| Value::Number(pid.into()))),
    column("exit", "EXIT", |entry| entry.exit.map_or(Value::None, |exit| Value::Number(exit.into()))),
    column("hostname", "HOSTNAME", |entry| Value::Text(entry.hostname.clone())),
    column("description", "DESCRIPTION", |entry| Value::Text(entry.description.clone())),
    column("isolation", "ISOLATION", |entry| Value::Text(entry.isolation.into())),
    column("created", "CREATED", |entry| Value::Text(entry.created.clone())),
    column("unit", "UNIT", |entry| entry.unit.clone().map_or(Value::None, Value::Text)),
    column("labels", "LABELS", |entry| {
        Value::List(entry.labels.iter().map(|(key, value)| format!("{key}={value}")).collect())
    }),
    column("problem", "PROBLEM", |entry| entry.problem.clone().map_or(Value::None, Value::Text)),
];

const fn column(word: &'static str, head: &'static str, value: fn(&Entry) -> Value) -> Column {
    Column { word, head, value }
}

fn bytes(number: Option<u64>) -> Value {
    number.map_or(Value::None, Value::Bytes)
}

fn number(number: Option<u64>) -> Value {
    number.map_or(Value::None, |number| Value::Number(number as f64))
}

fn find(word: &str) -> Result<&'static Column> {
    COLUMNS.iter().find(|column| column.word == word).ok_or_else(|| {
        let known: Vec<_> = COLUMNS.iter().map(|column| column.word).collect();
        Error::invalid(format!("no column {word:?}: one of {}", known.join(" ")))
    })
}

impl Value {
    /// As it is printed: one line, and a dash for nothing.
    fn shown(&self) -> String {
        let text = match self {
            Value::None => String::new(),
            Value::Text(text) => text.escape_debug().to_string(),
            Value::Bytes(bytes) => short(*bytes),
            Value::Number(number) => number.to_string(),
            Value::Seconds(seconds) => span(*seconds),
            Value::List(list) => list.join(","),
        };
        if text.is_empty() { "-".into() } else { text }
    }

    fn is_number(&self) -> bool {
        matches!(self, Value::Bytes(_) | Value::Number(_) | Value::Seconds(_))
    }

    /// Numbers by their size, texts by their letters, nothing first.
    fn order(&self, other: &Value) -> Ordering {
        let number = |value: &Value| match value {
            Value::Bytes(number) | Value::Seconds(number) => Some(*number as f64),
            Value::Number(number) => Some(*number),
            _ => None,
        };
        match (number(self), number(other)) {
            (None, None) => self.shown().cmp(&other.shown()),
            (a, b) => a.unwrap_or(f64::MIN).total_cmp(&b.unwrap_or(f64::MIN)),
        }
    }

    fn fits(&self, pattern: &str) -> bool {
        match self {
            Value::List(list) if !list.is_empty() => list.iter().any(|item| matches(item, pattern)),
            Value::Text(text) => matches(text, pattern),
            _ => matches(&self.shown(), pattern),
        }
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn matches(text: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return text == pattern };
    let Some(rest) = text.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(&rest[at..], after))
}

/// Filters by column.
struct Filters(Vec<(&'static Column, Vec<String>)>);

impl Filters {
    fn read<'a>(words: impl Iterator<Item = &'a String>) -> Result<Filters> {
        let mut filters: Vec<(&'static Column, Vec<String>)> = Vec::new();
        for word in words {
            let (name, pattern) = word.split_once('=').ok_or_else(|| {
                Error::invalid(format!("--filter {word:?}: give COLUMN=VALUE, as status=running"))
            })?;
            let column = find(name)?;
            match filters.iter_mut().find(|(known, _)| known.word == column.word) {
                Some((_, patterns)) => patterns.push(pattern.to_owned()),
                None => filters.push((column, vec![pattern.to_owned()])),
            }
        }
        Ok(Filters(filters))
    }

    fn fit(&self, entry: &Entry) -> bool {
        self.0.iter().all(|(column, patterns)| {
            let value = (column.value)(entry);
            patterns.iter().any(|pattern| value.fits(pattern))
        })
    }
}

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let columns: Vec<_> =
        text(matches, "output").unwrap_or(SHOWN).split(',').map(find).collect::<Result<_>>()?;
    let filters = Filters::read(matches.get_many::<String>("filter").into_iter().flatten())?;
    let order = text(matches, "sort").unwrap_or("name");
    let (by, reverse) = order.strip_prefix('-').map_or((order, false), |by| (by, true));
    let by = find(by)?;
    let (json, quiet) = (text(matches, "format") == Some("json"), matches.get_flag("quiet"));
    let shown: Vec<_> = if quiet { Vec::new() } else { columns.iter().map(|column| column.word).collect() };
    let mut asked = shown.into_iter().chain([by.word]).chain(filters.0.iter().map(|(column, _)| column.word));
    let depth = match quiet && asked.clone().all(|word| word == "name") {
        true => Depth::Name,
        false if json || asked.any(|word| matches!(word, "memory-used" | "tasks-used")) => Depth::Use,
        false => Depth::State,
    };
    let names: Vec<String> = matches.get_many("names").into_iter().flatten().cloned().collect();
    let mut entries = listing::list(&home(globals)?, (!names.is_empty()).then_some(names), depth)?;
    entries.retain(|entry| filters.fit(entry));
    if by.word != "name" || reverse {
        entries.sort_by(|a, b| {
            let order = (by.value)(a).order(&(by.value)(b));
            if reverse { order.reverse() } else { order }
        });
    }
    if quiet {
        out.write(&entries.iter().flat_map(|entry| [entry.name.as_str(), "\n"]).collect::<String>())?;
        return Ok(0);
    }
    if json {
        out.json(&entries)?;
        return Ok(0);
    }
    if columns.iter().all(|column| column.word != "problem") {
        for (name, problem) in entries.iter().filter_map(|entry| Some((&entry.name, entry.problem.as_ref()?)))
        {
            locule_runtime::warn::warn(format!("machine {name}: {problem}"));
        }
    }
    let values: Vec<Vec<Value>> =
        entries.iter().map(|entry| columns.iter().map(|column| (column.value)(entry)).collect()).collect();
    let heads: Vec<table::Column> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| (column.head, values.iter().any(|row| row[at].is_number())))
        .collect();
    let rows: Vec<Vec<String>> = values.iter().map(|row| row.iter().map(Value::shown).collect()).collect();
    let shown = table::table(&heads, &rows);
    out.write(match matches.get_flag("no-header") {
        true => shown.split_once('\n').map_or("", |(_, rest)| rest),
        false => &shown,
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, memory: Option<u64>) -> Entry {
        Entry {
            name: name.into(),
            status: "running",
            ip: vec!["10.0.0.7".into(), "fd00::7".into()],
            labels: [("tier".to_owned(), "front".to_owned())].into(),
            memory,
            ..Entry::default()
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (text, pattern, fits) in [
            ("web1", "web1", true),
            ("web1", "web", false),
            ("web1", "web*", true),
            ("web1", "*1", true),
            ("web12", "w*b*2", true),
            ("web1", "*x*", false),
            ("", "*", true),
        ] {
            assert_eq!(matches(text, pattern), fits, "{text} {pattern}");
        }
    }

    #[test]
    fn filters_of_several_columns_must_all_fit() {
        let fits = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            Filters::read(words.iter()).unwrap().fit(&entry("web1", Some(512 << 20)))
        };
        assert!(fits(&["status=running", "name=db*", "name=web*"]));
        assert!(fits(&["ip=fd00::7", "labels=tier=front", "memory=512M"]));
        assert!(!fits(&["status=running", "name=db*"]));
        assert!(fits(&["health=-"]), "nothing is a dash");
        assert!(Filters::read(["colour=red".to_owned()].iter()).is_err());
        assert!(Filters::read(["running".to_owned()].iter()).is_err());
    }

    #[test]
    fn numbers_are_sorted_as_numbers() {
        let column = find("memory").unwrap();
        let value = |memory| (column.value)(&entry("a", memory));
        assert_eq!(value(Some(9 << 20)).order(&value(Some(512 << 20))), Ordering::Less);
        assert_eq!(value(None).order(&value(Some(0))), Ordering::Less);
        assert_eq!(value(None).shown(), "-");
    }

    #[test]
    fn every_column_is_in_the_manual() {
        for column in COLUMNS {
            assert!(VERB.details.split([' ', '.']).any(|word| word == column.word), "{}", column.word);
        }
        assert!(SHOWN.split(',').all(|word| find(word).is_ok()));
    }
}
