//! `image …`: images, from words to one call of `locule_images`.
//!
//! Owns what the verbs of this noun have in common: the store's place, errors in the binary's own
//! type, tables. One file a verb; none prints.

pub mod build;
pub mod commit;
pub mod history;
pub mod import;
pub mod inspect;
pub mod ls;
pub mod mount;
mod progress;
pub mod prune;
pub mod pull;
pub mod push;
pub mod rm;
pub mod save;
pub mod tag;
pub mod umount;
pub mod unshare;
pub mod verify;

use std::path::PathBuf;

use clap::{Arg, ArgMatches};
use locule_images::Store;
use locule_images::rootless::Subordinate;
use locule_runtime::{Error, Kind, Result};

use crate::args;
use crate::cli::{option, path_parser};

/// `--images`, which every verb has.
pub fn images() -> Arg {
    option("images", "DIR", "The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user's own below $XDG_DATA_HOME)")
        .value_parser(path_parser())
}

/// `--format`, for verbs that list.
pub fn format() -> Arg {
    option("format", "FORMAT", "Form of the answer").value_parser(["table", "json"]).default_value("table")
}

/// The positional argument that names an image.
pub fn image() -> Arg {
    Arg::new("image").value_name("image").required(true).help("Name of the image, or the beginning of its id")
}

/// Opens the store, to read what has names.
pub fn store(matches: &ArgMatches) -> Result<Store> {
    Store::open(&root(matches)?).map_err(told)
}

/// Opens the store for what makes, reads or removes files of images: a user without privileges does
/// so as root of a user namespace, if there are subordinate ids. Must come before any thread.
pub fn files(matches: &ArgMatches) -> Result<Store> {
    // Of the user, not of the root that the user becomes.
    let root = root(matches)?;
    if let Some(ids) = Subordinate::of_caller() {
        ids.enter(false).map_err(told)?;
    }
    Store::open(&root).map_err(told)
}

/// Where the store is.
fn root(matches: &ArgMatches) -> Result<PathBuf> {
    let given = matches.get_one::<PathBuf>("images").cloned();
    let given =
        given.or_else(|| std::env::var_os("LOCULE_IMAGES").filter(|dir| !dir.is_empty()).map(PathBuf::from));
    match given {
        Some(root) => args::absolute(root),
        None => match args::data_directory()? {
            Some(data) => Ok(data.join("images")),
            None => Store::default_root().map_err(told),
        },
    }
}

/// An error of the images' library as the binary prints it.
pub fn told(err: locule_images::Error) -> Error {
    use locule_images::Kind as Told;
    let kind = match err.kind() {
        Told::Invalid => Kind::Invalid,
        Told::NotFound => Kind::NotFound,
        Told::Unsupported => Kind::Unsupported,
        _ => Kind::System,
    };
    Error::new(kind, err.to_string())
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Rows as columns three spaces apart; the first row is the head.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 3;
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_tables() {
        assert_eq!(size(12), "12 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
        let rows = [["A".to_owned(), "B".to_owned()], ["long".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows), "A      B\nlong   x\n");
    }
}
