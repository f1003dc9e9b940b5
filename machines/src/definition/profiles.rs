//! Profiles: parts of definitions that many machines share, put together by `include`.
//!
//! Owns where profiles are looked for and the order in which they are merged. A profile is merged once, before the
//! file that first names it; later files win, tables are merged, everything else is replaced. Never writes a file.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::keys;
use super::tree::{self, Entry, Value};
use crate::{Context, Error, Kind, Result};

/// Where profiles are, the first found of a name counting: the host's own, then those of the package.
pub const DIRS: [&str; 2] = ["/etc/locule/profiles", "/usr/share/locule/profiles"];

/// The profiles that the binary brings along, for hosts where nothing is installed.
pub const SHIPPED: &[(&str, &str)] = &[
    ("tiny", include_str!("../../profiles/tiny.toml")),
    ("small", include_str!("../../profiles/small.toml")),
    ("medium", include_str!("../../profiles/medium.toml")),
    ("large", include_str!("../../profiles/large.toml")),
    ("systemd", include_str!("../../profiles/systemd.toml")),
    ("service", include_str!("../../profiles/service.toml")),
    ("web", include_str!("../../profiles/web.toml")),
    ("database", include_str!("../../profiles/database.toml")),
    ("nesting", include_str!("../../profiles/nesting.toml")),
    ("hardened", include_str!("../../profiles/hardened.toml")),
    ("offline", include_str!("../../profiles/offline.toml")),
    ("background", include_str!("../../profiles/background.toml")),
];

/// Where profiles are looked for.
#[derive(Debug, Clone)]
pub struct Profiles {
    dirs: Vec<PathBuf>,
}

impl Default for Profiles {
    fn default() -> Profiles {
        Profiles { dirs: DIRS.map(PathBuf::from).to_vec() }
    }
}

impl Profiles {
    /// Those of `dirs`, then those that the binary brings along.
    pub fn of(dirs: Vec<PathBuf>) -> Profiles {
        Profiles { dirs }
    }

    /// The text of profile `name`, and where it stands.
    fn read(&self, name: &str) -> Result<Option<(String, String)>> {
        for dir in &self.dirs {
            let path = dir.join(format!("{name}.toml"));
            match std::fs::read_to_string(&path) {
                Ok(text) => return Ok(Some((text, path.display().to_string()))),
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
                Err(err) if err.raw_os_error() == Some(Errno::ENOTDIR as i32) => {}
                Err(err) => return Err(err).doing(|| format!("reading {}", path.display())),
            }
        }
        let shipped = SHIPPED.iter().find(|(known, _)| *known == name);
        Ok(shipped.map(|(_, text)| ((*text).to_owned(), format!("profile {name}"))))
    }

    /// The names of all profiles.
    pub fn names(&self) -> Vec<String> {
        let in_dirs = self.dirs.iter().filter_map(|dir| dir.read_dir().ok()).flatten().filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".toml").map(str::to_owned)
        });
        let mut names: Vec<_> = in_dirs.chain(SHIPPED.iter().map(|(name, _)| (*name).to_owned())).collect();
        names.sort();
        names.dedup();
        names
    }

    /// `text` of `file` with all that it includes.
    pub fn resolve(&self, text: &str, file: &Path) -> Result<Entry> {
        let file = file.display().to_string();
        let own = checked(text, &file)?;
        let mut whole = Entry::empty(&file);
        let mut walk = Walk { profiles: self, done: Vec::new(), under_way: Vec::new() };
        walk.include(&own, &mut whole)?;
        whole.merge(own);
        keys::lift_unlimited(&mut whole);
        Ok(whole)
    }
}

fn checked(text: &str, file: &str) -> Result<Entry> {
    let mut tree = tree::read(text, file)?;
    keys::check(&mut tree)?;
    Ok(tree)
}

struct Walk<'a> {
    profiles: &'a Profiles,
    done: Vec<String>,
    under_way: Vec<String>,
}

impl Walk<'_> {
    /// Merges into `whole` what `document` includes.
    fn include(&mut self, document: &Entry, whole: &mut Entry) -> Result<()> {
        let Some(Value::List(names)) = document.at("include").map(|entry| &entry.value) else {
            return Ok(());
        };
        for Entry { at, value } in names {
            let Value::Text(name) = value else { continue };
            if self.under_way.contains(name) {
                let circle = self.under_way.join(" includes ");
                return Err(at.refuse(format!("include: {circle} includes {name}: a circle")));
            }
            if self.done.contains(name) {
                continue;
            }
            let Some((text, file)) = self.profiles.read(name)? else {
                let text = format!("reading {at}: include: there is no profile {name:?}");
                let places: Vec<_> = self.profiles.dirs.iter().map(|dir| dir.display().to_string()).collect();
                return Err(Error::new(Kind::Invalid, text).hint(format!(
                    "{} are there; others are files NAME.toml in {}",
                    self.profiles.names().join(", "),
                    places.join(" or ")
                )));
            };
            let profile = checked(&text, &file)?;
            self.under_way.push(name.clone());
            self.include(&profile, whole)?;
            self.under_way.pop();
            self.done.push(name.clone());
            whole.merge(profile);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles(files: &[(&str, &str)]) -> (tempfile::TempDir, Profiles) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
        }
        let profiles = Profiles::of(vec![dir.path().join("absent"), dir.path().to_owned()]);
        (dir, profiles)
    }

    fn json(profiles: &Profiles, text: &str) -> Result<serde_json::Value> {
        profiles.resolve(text, Path::new("machine.toml")).map(|tree| tree.value.json())
    }

    #[test]
    fn later_wins_tables_merge_lists_are_replaced() {
        let (_dir, profiles) = profiles(&[
            ("base", "[memory]\nlimit = \"1G\"\nswap = 0\n[dns]\nservers = [\"10.0.0.1\"]\n"),
            ("a", "include = [\"base\"]\n[memory]\nlimit = \"2G\"\n"),
            ("b", "include = [\"base\"]\n[cpu]\nweight = 50\n[dns]\nservers = [\"10.0.0.2\"]\n"),
        ]);
        let json = json(&profiles, "include = [\"a\", \"b\"]\n[cpu]\nweight = 70\n").unwrap();
        // `base` is merged once, before `a`: it does not take back what `a` said.
        assert_eq!(json["memory"], serde_json::json!({"limit": "2G", "swap": 0}));
        assert_eq!(json["cpu"]["weight"], 70);
        assert_eq!(json["dns"]["servers"], serde_json::json!(["10.0.0.2"]));
        assert_eq!(json["include"], serde_json::json!(["a", "b"]));
    }

    #[test]
    fn unlimited_takes_a_profiles_limit_away() {
        let (_dir, profiles) = profiles(&[(
            "a",
            "[memory]\nlimit = \"1G\"\n[network.eth0]\nup = \"1mbit\"\ndown = \"1mbit\"\n",
        )]);
        let text = "include = [\"a\"]\n[memory]\nlimit = \"unlimited\"\n[network.eth0]\nup = \"none\"\n";
        let json = json(&profiles, text).unwrap();
        assert_eq!(json["memory"], serde_json::json!({}));
        assert_eq!(json["network"]["eth0"], serde_json::json!({"down": "1mbit"}));
    }

    #[test]
    fn circles_and_absent_profiles_are_refused() {
        let (dir, profiles) = profiles(&[
            ("a", "include = [\"b\"]\n"),
            ("b", "include = [\"a\"]\n"),
            ("self", "include = [\"self\"]\n"),
            ("bad", "[memory]\nlimit = \"x\"\n"),
        ]);
        let refusal = |text: &str| json(&profiles, text).unwrap_err().to_string();
        let told = refusal("include = [\"a\"]\n");
        assert!(told.contains("b.toml:1:12: include: a includes b includes a: a circle"), "{told}");
        assert!(refusal("include = [\"self\"]\n").contains("a circle"));
        let told = refusal("\ninclude = [\"nothing\"]\n");
        assert!(
            told.starts_with("reading machine.toml:2:12: include: there is no profile \"nothing\""),
            "{told}"
        );
        let told = refusal("include = [\"bad\"]\n");
        assert!(told.contains(&format!("{}/bad.toml:2:9: memory.limit", dir.path().display())), "{told}");
        assert!(refusal("include = [\"../a\"]\n").contains("is not a name"));
    }

    #[test]
    fn shipped_profiles_are_right_and_described() {
        let profiles = Profiles::of(Vec::new());
        for (name, text) in SHIPPED {
            crate::Definition::resolve(text, Path::new(name), &profiles).unwrap();
            assert!(text.starts_with("# "), "{name} says what it is for");
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles")).unwrap().count();
        assert_eq!(files, SHIPPED.len());
    }
}
