//! What systemd's generator makes of the machines: links that start them with the host, and their order.
//!
//! Reads definitions alone; takes no lock, opens no image, asks nobody. A definition that cannot be read becomes a
//! unit that fails with the reason, not silence (systemd.generator(7)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::definition::Definition;
use crate::keeper::unit;
use crate::{Context, Home, Result, boot};

/// What is to be written below the directory that systemd names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Files by their path below it.
    pub files: BTreeMap<PathBuf, String>,
    /// Links by their path below it.
    pub links: BTreeMap<PathBuf, PathBuf>,
}

/// Where the package installs the template unit, which links name.
pub const TEMPLATE: &str = "/usr/lib/systemd/system/locule@.service";

/// What all machines that start with the host are part of.
const TARGET: &str = "locule.target";

/// What the machines of `home` ask for.
pub fn plan(home: &Home, template: &Path) -> Result<Made> {
    let mut made = Made::default();
    for name in home.list()? {
        let machine = home.machine(&name)?;
        let unit = unit::name(&machine);
        let drop_in = Path::new(&format!("{unit}.d")).join("50-locule.conf");
        let wants = Path::new(&format!("{TARGET}.wants")).join(&unit);
        match machine.definition() {
            Ok(definition) => {
                if let Some(text) = order(home, &definition) {
                    made.files.insert(drop_in, text);
                }
                if boot::starts(&machine, &definition) && !unit::is_disabled(&machine) {
                    made.links.insert(wants, template.to_owned());
                }
            }
            Err(err) => {
                // In one line, and without what a unit file reads as its own.
                let reason = err
                    .to_string()
                    .replace(['\n', '\r'], " ")
                    .replace('%', "%%")
                    .replace(['"', '\\', '$'], "'");
                let text = format!(
                    "# {}\n[Service]\nExecStart=\nExecStart=/bin/sh -c 'echo \"$1\" >&2; exit 1' sh \"{}\"\nType=exec\n",
                    "made by locule generator: the definition cannot be read",
                    reason.replace('\'', "\u{2019}")
                );
                made.files.insert(drop_in, text);
                made.links.insert(wants, template.to_owned());
            }
        }
    }
    if !made.links.is_empty() {
        let wants = Path::new("multi-user.target.wants").join(TARGET);
        made.links.insert(wants, template.with_file_name(TARGET));
    }
    Ok(made)
}

/// The drop-in of a machine that has an order.
fn order(home: &Home, definition: &Definition) -> Option<String> {
    let units = |names: &[String]| -> Vec<String> {
        // What is no name cannot be a unit; `boot` tells of it.
        names.iter().filter_map(|name| home.machine(name).ok()).map(|machine| unit::name(&machine)).collect()
    };
    let boot = &definition.boot;
    let (requires, mut after) = (units(&boot.requires), units(&boot.after));
    after.extend(requires.iter().cloned());
    let mut text = String::new();
    if !after.is_empty() {
        text.push_str(&format!("After={}\n", after.join(" ")));
    }
    if !requires.is_empty() {
        text.push_str(&format!("Requires={}\n", requires.join(" ")));
    }
    let mut service = String::new();
    if let Some(timeout) = definition.init.stop_timeout {
        // The keeper kills the machine itself when it is late; systemd's own patience ends after that.
        service.push_str(&format!("TimeoutStopSec={}\n", timeout.0.as_secs() + 30));
    }
    if text.is_empty() && service.is_empty() {
        return None;
    }
    let unit = if text.is_empty() { String::new() } else { format!("[Unit]\n{text}") };
    let service = if service.is_empty() { String::new() } else { format!("[Service]\n{service}") };
    Some(format!("# made by locule generator from machine.toml\n{unit}{service}"))
}

/// Writes it below `dir`.
pub fn write(made: &Made, dir: &Path) -> Result<()> {
    let parent = |path: &Path| {
        let parent = path.parent().unwrap_or(dir).to_owned();
        std::fs::create_dir_all(&parent).doing(|| format!("making {}", parent.display()))
    };
    for (path, text) in &made.files {
        let path = dir.join(path);
        parent(&path)?;
        std::fs::write(&path, text).doing(|| format!("writing {}", path.display()))?;
    }
    for (path, target) in &made.links {
        let path = dir.join(path);
        parent(&path)?;
        match std::os::unix::fs::symlink(target, &path) {
            Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(err).doing(|| format!("linking {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(dir: &Path, name: &str, text: &str) {
        let machine = dir.join("machines").join(name);
        std::fs::create_dir_all(&machine).unwrap();
        std::fs::write(machine.join("machine.toml"), text).unwrap();
    }

    #[test]
    fn machines_become_links_and_orders() {
        let dir = tempfile::tempdir().unwrap();
        machine(dir.path(), "db", "image = \"host\"\n[boot]\nstart = \"on\"\n");
        machine(dir.path(), "off", "image = \"host\"\n");
        machine(dir.path(), "last", "image = \"host\"\n[boot]\nstart = \"last\"\n");
        machine(dir.path(), "not", "disabled = true\nimage = \"host\"\n[boot]\nstart = \"on\"\n");
        machine(
            dir.path(),
            "web",
            "image = \"host\"\n[boot]\nstart = \"on\"\nafter = [\"off\"]\nrequires = [\"db\"]\n[init]\nstop-timeout = \"2m\"\n",
        );
        machine(dir.path(), "wrong", "image = 5 # 100% \"$x\" '\n");
        let home = Home::new(dir.path(), &dir.path().join("run"));
        let made = plan(&home, Path::new(TEMPLATE)).unwrap();
        let links: Vec<_> = made.links.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            links,
            [
                "locule.target.wants/locule@db.service",
                "locule.target.wants/locule@web.service",
                "locule.target.wants/locule@wrong.service",
                "multi-user.target.wants/locule.target"
            ]
        );
        let web = &made.files[Path::new("locule@web.service.d/50-locule.conf")];
        assert!(
            web.contains("[Unit]\nAfter=locule@off.service locule@db.service\nRequires=locule@db.service\n"),
            "{web}"
        );
        assert!(web.contains("TimeoutStopSec=150\n"), "{web}");
        let wrong = &made.files[Path::new("locule@wrong.service.d/50-locule.conf")];
        assert!(wrong.contains("ExecStart=\nExecStart=") && wrong.contains("machine.toml"), "{wrong}");
        assert_eq!(wrong.lines().count(), 5, "{wrong}");
        assert_eq!(made.files.len(), 2);

        // One that ran when the host went down starts again with it.
        boot::remember(&home.machine("last").unwrap(), true).unwrap();
        let made = plan(&home, Path::new(TEMPLATE)).unwrap();
        assert!(made.links.contains_key(Path::new("locule.target.wants/locule@last.service")));
        let out = tempfile::tempdir().unwrap();
        write(&made, out.path()).unwrap();
        write(&made, out.path()).unwrap();
        let link = out.path().join("locule.target.wants/locule@db.service");
        assert_eq!(std::fs::read_link(link).unwrap(), Path::new(TEMPLATE));
    }
}
