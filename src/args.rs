//! The command line's grammar, which is that of Go's flag package, as runc's callers write it.
//!
//! Owns the global options and the rewriting of a verb's words into the form that clap reads:
//! one dash or two before a long name, the next word is a flag's value whatever it looks like,
//! `--flag=false`. Never judges a value beyond that; the verbs' own declarations do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::{Arg, ArgAction, Command};
use locule_machines::{Home, home};
use locule_runtime::cgroup::Manager as Made;
use locule_runtime::{Container, Error, Result, Store, contract};
use nix::errno::Errno;

use crate::log::Format;

/// Who shall make cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// This process.
    #[default]
    Cgroupfs,
    /// systemd: the system's, or the user's for a user.
    Systemd,
    /// Nobody.
    Disabled,
}

/// The options that stand before the verb.
#[derive(Debug, Default)]
pub struct Globals {
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--log`.
    pub log: Option<PathBuf>,
    /// `--log-format`.
    pub log_format: Format,
    /// `--debug`.
    pub debug: bool,
    /// `--systemd-cgroup` and `--cgroup-manager`; the later one counts.
    pub manager: Manager,
    /// `--rootless`; `None` is `auto`.
    pub rootless: Option<bool>,
}

/// The first word that is no global option.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// A verb.
    Verb(OsString),
    /// `--help`, or nothing at all.
    Help,
    /// `--version`.
    Version,
}

impl Globals {
    /// Reads global options from `words` up to and including the verb.
    pub fn read(&mut self, words: &mut impl Iterator<Item = OsString>) -> Result<First> {
        while let Some(word) = words.next() {
            let Some(flag) = Flag::of(&word) else { return Ok(First::Verb(word)) };
            match flag.name {
                b"root" => self.root = Some(absolute(flag.value(words)?)?),
                b"data" => {
                    let data = absolute(flag.value(words)?)?;
                    let _ = DATA.set(data.clone());
                    self.data = Some(data);
                }
                b"log" => {
                    self.log = Some(flag.value(words)?.into()).filter(|log: &PathBuf| log != OsStr::new(""))
                }
                b"log-format" => {
                    self.log_format =
                        flag.choice(words, &[("text", Format::Text), ("json", Format::Json)])?;
                }
                b"debug" => self.debug = flag.switch()?,
                b"systemd-cgroup" => {
                    self.manager = if flag.switch()? { Manager::Systemd } else { Manager::Cgroupfs };
                }
                b"cgroup-manager" => {
                    self.manager = flag.choice(
                        words,
                        &[
                            ("cgroupfs", Manager::Cgroupfs),
                            ("systemd", Manager::Systemd),
                            ("disabled", Manager::Disabled),
                        ],
                    )?;
                }
                b"rootless" => {
                    self.rootless = flag.choice(
                        words,
                        &[
                            ("auto", None),
                            ("true", Some(true)),
                            ("false", Some(false)),
                            ("1", Some(true)),
                            ("0", Some(false)),
                        ],
                    )?;
                }
                b"criu" => {
                    flag.value(words)?;
                    locule_runtime::warn::warn("--criu has no effect: criu is taken from PATH".into());
                }
                b"help" | b"h" => return Ok(First::Help),
                b"version" | b"v" => return Ok(First::Version),
                _ => return Err(flag.unknown()),
            }
        }
        Ok(First::Help)
    }

    /// Whether the caller lacks the host root's rights over cgroups.
    pub fn is_rootless(&self) -> bool {
        self.rootless.unwrap_or_else(|| !nix::unistd::geteuid().is_root() || in_user_namespace())
    }

    /// Who makes cgroups, for the library.
    pub fn cgroup_manager(&self) -> Made {
        match self.manager {
            Manager::Cgroupfs => Made::Cgroupfs,
            Manager::Systemd => Made::Systemd { user: self.is_rootless() },
            Manager::Disabled => Made::Disabled,
        }
    }

    /// The state root, and whether it is the user's own run directory rather than a given path.
    fn root(&self) -> (PathBuf, bool) {
        match &self.root {
            Some(root) => (root.clone(), false),
            None => match user_run_directory() {
                Some(run) => (run.join("locule"), true),
                None => (PathBuf::from("/run/locule"), false),
            },
        }
    }

    /// The machines of this host.
    pub fn home(&self) -> Result<Home> {
        let data = data_directory()?.unwrap_or_else(|| PathBuf::from(home::DATA));
        Ok(Home::new(&data, &self.root().0))
    }

    /// Opens the state root for a verb that makes nothing; `None` where there is none yet.
    pub fn store(&self) -> Result<Option<Store>> {
        match Store::open(&self.root().0) {
            Ok(store) => Ok(Some(store)),
            Err(err) if err.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Loads the container called `id`.
    pub fn container(&self, id: &str) -> Result<Container> {
        // Without a root there is no container, and that is the word that callers look for.
        self.store()?.ok_or_else(|| contract::absent(id))?.load(id)
    }

    /// Opens the state root for a verb that makes a container.
    pub fn store_for_creating(&self) -> Result<Store> {
        let (root, sticky) = self.root();
        // Files below XDG_RUNTIME_DIR may be removed when old, but for those with the sticky
        // bit (XDG base directory specification).
        Store::create_root(&root, sticky)
    }
}

/// What `--data` named, also for the verbs of images and networks.
static DATA: OnceLock<PathBuf> = OnceLock::new();

/// The directory of machines, images and networks that was named, if any was.
pub fn data_directory() -> Result<Option<PathBuf>> {
    match (DATA.get(), std::env::var_os("LOCULE_DATA").filter(|data| !data.is_empty())) {
        (Some(data), _) => Ok(Some(data.clone())),
        (None, Some(data)) => absolute(data).map(Some),
        (None, None) => Ok(None),
    }
}

/// runc's rule: `XDG_RUNTIME_DIR` for a user, and for root in a user namespace unless it calls itself root.
fn user_run_directory() -> Option<PathBuf> {
    let run = std::env::var_os("XDG_RUNTIME_DIR").filter(|run| !run.is_empty())?;
    let honoured = !nix::unistd::geteuid().is_root()
        || (std::env::var_os("USER").is_none_or(|user| user != "root") && in_user_namespace());
    honoured.then(|| run.into())
}

/// Whether user ids are not the host's own.
pub fn in_user_namespace() -> bool {
    match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) => !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]),
        Err(_) => false,
    }
}

/// Makes a path of the command line independent of later changes of directory.
pub fn absolute(path: impl Into<PathBuf>) -> Result<PathBuf> {
    let path = path.into();
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("an empty path was given"));
    }
    std::path::absolute(&path).map_err(|err| {
        Error::invalid(format!("finding the directory that {} is relative to: {err}", path.display()))
    })
}

/// A word that begins with a dash, taken apart.
#[derive(Debug)]
struct Flag<'a> {
    word: &'a OsStr,
    name: &'a [u8],
    attached: Option<&'a [u8]>,
}

impl<'a> Flag<'a> {
    /// `None` for a word that is no flag: without a dash, or one dash alone.
    fn of(word: &'a OsStr) -> Option<Self> {
        let bytes = word.as_bytes();
        let bare =
            bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|bare| !bare.is_empty())?;
        let (name, attached) = match bare.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bare[..at], Some(&bare[at + 1..])),
            None => (bare, None),
        };
        Some(Flag { word, name, attached })
    }

    /// The value: after `=`, or the next word whatever it looks like.
    fn value(&self, words: &mut impl Iterator<Item = OsString>) -> Result<OsString> {
        match self.attached {
            Some(value) => Ok(OsString::from_vec(value.to_vec())),
            None => words.next().ok_or_else(|| contract::value_missing(&self.name())),
        }
    }

    fn switch(&self) -> Result<bool> {
        match self.attached {
            None => Ok(true),
            Some(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True") => Ok(true),
            Some(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False") => Ok(false),
            Some(other) => Err(Error::invalid(format!(
                "invalid boolean value {:?} for -{}: give true or false",
                String::from_utf8_lossy(other),
                self.name()
            ))),
        }
    }

    fn choice<T: Copy>(
        &self,
        words: &mut impl Iterator<Item = OsString>,
        choices: &[(&str, T)],
    ) -> Result<T> {
        let value = self.value(words)?;
        choices.iter().find(|(word, _)| value == *word).map(|(_, choice)| *choice).ok_or_else(|| {
            let known: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            Error::invalid(format!(
                "unknown value {value:?} for -{}: one of {}",
                self.name(),
                known.join(", ")
            ))
        })
    }

    fn unknown(&self) -> Error {
        Error::invalid(format!("flag provided but not defined: -{}", self.name()))
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }
}

/// A verb's words, rewritten.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// For clap: flags as `--name` or `--name=value`, then `--`, then everything else.
    Words(Vec<OsString>),
    /// `--help` was among them.
    Help,
}

/// Rewrites the words after a verb. Where `ends_at_id` is set, what follows the first word that
/// is no flag belongs to the command that the verb runs, and one `--` in between is dropped.
pub fn rewrite(
    command: &Command,
    words: impl Iterator<Item = OsString>,
    ends_at_id: bool,
) -> Result<Rewritten> {
    let mut words = words;
    let mut flags = vec![OsString::from(command.get_name())];
    let mut others = Vec::new();
    // A command that is optional can be told from the words before it by `--` alone.
    let has_last = command.get_positionals().any(Arg::is_last_set);
    let mut separated = !has_last;
    while let Some(word) = words.next() {
        if word == "--" {
            if has_last {
                flags.append(&mut others);
                separated = true;
            }
            others.extend(words);
            break;
        }
        let Some(flag) = Flag::of(&word) else {
            others.push(word);
            if ends_at_id {
                others.extend(words.next().filter(|next| next != "--"));
                others.extend(words);
                break;
            }
            continue;
        };
        match find(command, flag.name) {
            Some((long, true)) => {
                let mut joined = OsString::from("--");
                joined.push(long);
                joined.push("=");
                joined.push(flag.value(&mut words)?);
                flags.push(joined);
            }
            Some((long, false)) => {
                if flag.switch()? {
                    flags.push(format!("--{long}").into());
                }
            }
            None if matches!(flag.name, b"help" | b"h") => return Ok(Rewritten::Help),
            None => flags.extend(cluster(command, &flag).ok_or_else(|| flag.unknown())?),
        }
    }
    if separated {
        flags.push("--".into());
    }
    flags.append(&mut others);
    Ok(Rewritten::Words(flags))
}

/// The long name of the option called `name` (long or short), and whether it takes a value.
fn find<'a>(command: &'a Command, name: &[u8]) -> Option<(&'a str, bool)> {
    command.get_arguments().find_map(|arg| {
        let long = arg.get_long()?;
        let short = arg.get_short().is_some_and(|short| name == [short as u8]);
        (short || name == long.as_bytes()).then(|| (long, !matches!(arg.get_action(), ArgAction::SetTrue)))
    })
}

/// `-dt`: several switches behind one dash. runc has none, people expect it.
fn cluster(command: &Command, flag: &Flag<'_>) -> Option<Vec<OsString>> {
    if flag.attached.is_some() || flag.word.as_bytes().starts_with(b"--") {
        return None;
    }
    let switch = |letter: &u8| match find(command, &[*letter]) {
        Some((long, false)) => Some(OsString::from(format!("--{long}"))),
        _ => None,
    };
    flag.name.iter().map(switch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("exec")
            .arg(Arg::new("detach").long("detach").short('d').action(ArgAction::SetTrue))
            .arg(Arg::new("tty").long("tty").short('t').action(ArgAction::SetTrue))
            .arg(Arg::new("env").long("env").short('e').action(ArgAction::Append))
            .arg(Arg::new("id"))
    }

    fn words(line: &[&str]) -> std::vec::IntoIter<OsString> {
        line.iter().map(OsString::from).collect::<Vec<_>>().into_iter()
    }

    fn rewritten(line: &[&str], ends_at_id: bool) -> Vec<String> {
        match rewrite(&command(), words(line), ends_at_id).unwrap() {
            Rewritten::Words(words) => {
                words.into_iter().skip(1).map(|word| word.into_string().unwrap()).collect()
            }
            Rewritten::Help => vec!["help".into()],
        }
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        for line in [["-detach", "a"], ["--detach", "a"], ["-d", "a"], ["--d", "a"], ["--detach=true", "a"]] {
            assert_eq!(rewritten(&line, true), ["--detach", "--", "a"]);
        }
        assert_eq!(rewritten(&["--detach=false", "a"], true), ["--", "a"]);
        assert_eq!(rewritten(&["-dt", "a"], true), ["--detach", "--tty", "--", "a"]);
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        assert_eq!(rewritten(&["--env", "-1", "a"], true), ["--env=-1", "--", "a"]);
        assert_eq!(rewritten(&["-e", "A=b", "-env=C=d", "a"], true), ["--env=A=b", "--env=C=d", "--", "a"]);
        assert_eq!(rewritten(&["--env=", "a"], true), ["--env=", "--", "a"]);
    }

    #[test]
    fn what_follows_the_id_is_the_commands() {
        assert_eq!(
            rewritten(&["-d", "a", "ls", "-d", "--", "--help"], true),
            ["--detach", "--", "a", "ls", "-d", "--", "--help"]
        );
        assert_eq!(rewritten(&["a", "--", "ls", "--", "x"], true), ["--", "a", "ls", "--", "x"]);
        assert_eq!(rewritten(&["--", "a", "-x"], true), ["--", "a", "-x"]);
        assert_eq!(rewritten(&["a", "-d"], false), ["--detach", "--", "a"]);
        assert_eq!(rewritten(&["-", "-d"], false), ["--detach", "--", "-"]);
    }

    #[test]
    fn refusals_use_the_words_that_callers_look_for() {
        let refused = |line: &[&str]| rewrite(&command(), words(line), false).unwrap_err().to_string();
        assert_eq!(refused(&["--env"]), "flag needs an argument: -env");
        assert_eq!(refused(&["--bogus"]), "flag provided but not defined: -bogus");
        assert_eq!(refused(&["-dx"]), "flag provided but not defined: -dx");
        assert_eq!(refused(&["--dt"]), "flag provided but not defined: -dt");
        assert_eq!(refused(&["--detach=no"]), "invalid boolean value \"no\" for -detach: give true or false");
    }

    #[test]
    fn globals_stop_at_the_verb() {
        let mut globals = Globals::default();
        let mut line = words(&[
            "--root",
            "/r/moby",
            "--log",
            "/b/log.json",
            "--log-format",
            "json",
            "-debug",
            "--systemd-cgroup",
            "--rootless=true",
            "create",
            "--root",
        ]);
        assert_eq!(globals.read(&mut line).unwrap(), First::Verb("create".into()));
        assert_eq!(line.next().unwrap(), "--root");
        assert_eq!(globals.root.as_deref(), Some("/r/moby".as_ref()));
        assert_eq!(globals.log.as_deref(), Some("/b/log.json".as_ref()));
        assert_eq!((globals.log_format, globals.debug), (Format::Json, true));
        assert_eq!((globals.manager, globals.rootless), (Manager::Systemd, Some(true)));
    }

    #[test]
    fn the_later_manager_counts() {
        let manager = |line: &[&str]| {
            let mut globals = Globals::default();
            globals.read(&mut words(line)).map(|_| globals.manager)
        };
        assert_eq!(
            manager(&["--systemd-cgroup", "--cgroup-manager", "disabled", "x"]).unwrap(),
            Manager::Disabled
        );
        assert_eq!(manager(&["--systemd-cgroup=false", "x"]).unwrap(), Manager::Cgroupfs);
        let err = manager(&["--cgroup-manager=v1", "x"]).unwrap_err().to_string();
        assert_eq!(err, "unknown value \"v1\" for -cgroup-manager: one of cgroupfs, systemd, disabled");
    }
}
