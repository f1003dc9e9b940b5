//! What a container could leave behind: cgroups, state, mounts of the lane, processes.
//!
//! Owns a look taken before, to compare with. Looks at what bears the container's name only, as
//! other tests run beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::lane::{Bundle, CGROUP};

/// What there was before.
#[derive(Debug)]
pub struct Leaks {
    root: PathBuf,
    names: Vec<String>,
    before: Seen,
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    cgroups: BTreeSet<PathBuf>,
    state: BTreeSet<PathBuf>,
    mounts: BTreeSet<String>,
    processes: BTreeSet<String>,
}

impl Leaks {
    /// Looks at everything named after the bundle.
    pub fn of(bundle: &Bundle) -> Leaks {
        Leaks::named(bundle, &[bundle.id()])
    }

    /// The same for several names below one state root.
    pub fn named(bundle: &Bundle, names: &[&str]) -> Leaks {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let before = Seen::now(&bundle.root(), &names);
        Leaks { root: bundle.root(), names, before }
    }

    /// Fails unless everything is as it was.
    #[track_caller]
    pub fn none(&self, when: &str) {
        assert_eq!(Seen::now(&self.root, &self.names), self.before, "left behind {when}");
    }
}

impl Seen {
    fn now(root: &Path, names: &[String]) -> Seen {
        let named = |text: &str| names.iter().any(|name| has_word(text, name));
        let mut cgroups = BTreeSet::new();
        directories(Path::new(CGROUP), &mut |path| {
            if named(&path.to_string_lossy()) {
                cgroups.insert(path.to_owned());
            }
        });
        let state = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|line| named(line)).map(str::to_owned).collect();
        Seen { cgroups, state, mounts, processes: processes(&named) }
    }
}

/// Processes in a cgroup of such a name, and calls of the binary with it in their words.
fn processes(named: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |file: &str| {
            fs::read(entry.path().join(file))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        // A zombie holds nothing but its number, which is its parent's to free.
        let dead = read("stat").rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        let words = read("cmdline");
        // Others on this machine may well mention it: who watches the cgroup tree, say.
        let called = words.split('\0').next().is_some_and(|program| program.ends_with("locule"));
        if !dead && (called && named(&words) || named(&read("cgroup"))) {
            found.insert(format!("{pid}: {}", words.replace('\0', " ")));
        }
    }
    found
}

/// Whether `name` is in `text` and not just the beginning of a longer one, as of another test.
fn has_word(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| !text[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

fn directories(path: &Path, see: &mut dyn FnMut(&Path)) {
    see(path);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            directories(&entry.path(), see);
        }
    }
}
