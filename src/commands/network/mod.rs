//! `network …`: the networks of a host, a verb a file.
//!
//! Owns the options that all of them have, and the way of errors into the binary's own. Never touches the kernel.

pub mod check;
pub mod connect;
pub mod create;
pub mod disconnect;
pub mod gc;
pub mod ls;
pub mod rm;
pub mod set;
pub mod show;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Arg, ArgMatches};
use locule_netns::networks::{DEFINITIONS, RUNTIME};
use locule_netns::{Networks, error::Kind as Theirs};
use locule_runtime::{Error, Kind, Result};

use crate::cli::{option, path, path_parser};

/// The options of every `network` verb.
fn places() -> [Arg; 2] {
    [
        option(
            "networks",
            "DIR",
            "Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)",
        )
        .value_parser(path_parser()),
        option(
            "claims",
            "DIR",
            "Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)",
        )
        .value_parser(path_parser()),
    ]
}

/// `--format`.
fn format() -> Arg {
    option("format", "FORMAT", "Form of the answer")
        .short('f')
        .value_parser(["table", "json"])
        .default_value("table")
}

/// The positional argument that names the network.
fn network() -> Arg {
    Arg::new("network").value_name("network").required(true).help("Name of the network")
}

/// The networks that the options and the environment name.
fn open(matches: &ArgMatches) -> Result<Networks> {
    let place = |name, variable, default| -> Result<PathBuf> {
        match (path(matches, name)?, std::env::var_os(variable).filter(|value| !value.is_empty())) {
            (Some(path), _) => Ok(path),
            (None, Some(path)) => crate::args::absolute(path),
            (None, None) => Ok(Path::new(default).to_owned()),
        }
    };
    let data = crate::args::data_directory()?.map(|data| data.join("networks"));
    let default = data.as_deref().and_then(Path::to_str).unwrap_or(DEFINITIONS);
    let definitions = place("networks", "LOCULE_NETWORKS", default)?;
    Networks::open(&definitions, &place("claims", "LOCULE_NETWORK_CLAIMS", RUNTIME)?).map_err(lift)
}

/// An error of the networks as the binary's own.
fn lift(err: locule_netns::Error) -> Error {
    let kind = match err.kind() {
        Theirs::System => Kind::System,
        Theirs::Invalid => Kind::Invalid,
        Theirs::Unsupported => Kind::Unsupported,
        Theirs::NotFound => Kind::NotFound,
        Theirs::Taken => Kind::Exists,
    };
    let lifted = match err.errno() {
        Some(errno) => Error::sys(errno, err.doing()).with_kind(kind),
        None => Error::new(kind, err.doing()),
    };
    match err.remedy() {
        Some(remedy) => lifted.hint(remedy.to_owned()),
        None => lifted,
    }
}

/// The value given for `name`, read.
fn read<T: FromStr<Err = locule_netns::Error>>(matches: &ArgMatches, name: &str) -> Result<Option<T>> {
    crate::cli::text(matches, name).map(|text| text.parse().map_err(lift)).transpose()
}

/// All values given for `name`, read.
fn read_all<T: FromStr<Err = locule_netns::Error>>(matches: &ArgMatches, name: &str) -> Result<Vec<T>> {
    texts(matches, name).map(|text| text.parse().map_err(lift)).collect()
}

/// All values given for `name` that are addresses.
fn addresses(matches: &ArgMatches, name: &str) -> Result<Vec<std::net::IpAddr>> {
    texts(matches, name)
        .map(|text| text.parse().map_err(|_| Error::invalid(format!("--{name}: {text:?} is no address"))))
        .collect()
}

/// All texts given for `name`.
fn texts<'a>(matches: &'a ArgMatches, name: &str) -> impl Iterator<Item = &'a str> {
    matches.get_many::<String>(name).into_iter().flatten().map(String::as_str)
}

/// Rows under a head, each column as wide as its longest cell.
fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0) + 2
    };
    let mut text = String::new();
    for row in std::iter::once(&head.map(String::from)).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(&format!("{cell:<width$}", width = width(column)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
