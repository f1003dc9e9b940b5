//! The systemd unit of a machine, where systemd runs this host.
//!
//! Owns the unit's name and when there is one. Talks to systemd by systemctl(1): a machine is started and stopped too
//! seldom for more.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use locule_runtime::cgroup;

use crate::{Context, Error, Home, Kind, Machine, Result};

/// Where the template may be installed.
const PLACES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const TEMPLATE: &str = "locule@.service";
/// Where the links of units are that start with the machines.
const WANTS: &str = "/etc/systemd/system/locule.target.wants";
/// The file in a machine's directory that says in which directory its link was made.
const LINK: &str = "enabled";

/// The unit's name; the characters of a machine's name need no escape but the dash, which a template's instance keeps.
pub fn name(machine: &Machine) -> String {
    format!("locule@{}.service", machine.name())
}

/// The unit that this process is the main process of, by its cgroup.
pub fn own() -> Option<String> {
    let path = cgroup::own().ok()?;
    path.iter()
        .rev()
        .filter_map(|part| part.to_str())
        .find(|part| part.starts_with("locule@") && part.ends_with(".service"))
        .map(str::to_owned)
}

/// Whether `machine` is started and stopped through systemd here: it runs, knows the unit, and the unit knows this home.
pub fn rules(home: &Home) -> bool {
    Path::new("/run/systemd/system").is_dir()
        && home.data() == Path::new(crate::home::DATA)
        && home.run() == Path::new(crate::home::RUN)
        && template().is_some()
}

/// The installed template; of several the one that systemd takes.
pub fn template() -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(TEMPLATE)).find(|path| path.is_file())
}

/// The cgroup of the machine that this keeper starts, below the mount: beside its own in a unit, else `/locule/NAME`.
pub fn payload(machine: &Machine) -> PathBuf {
    let own = cgroup::own().unwrap_or_default();
    match own.file_name().and_then(|name| name.to_str()) {
        Some("supervisor") if self::own().is_some() => own.parent().unwrap_or(Path::new("/")).join("payload"),
        _ => Path::new("/locule").join(machine.name()),
    }
}

/// Moves this process out of its caller's cgroup, so that the caller's end is not the machine's.
pub fn move_out() -> Result<()> {
    let place = Path::new(cgroup::MOUNT).join("locule").join(".keepers");
    let doing = || format!("moving the keeper to {}", place.display());
    std::fs::create_dir_all(&place).doing(doing)?;
    std::fs::write(place.join("cgroup.procs"), "0").doing(doing)
}

/// Enables or disables the unit, as `systemctl enable` would: a link of locule's own, which systemctl shows and takes
/// away like any other. Where links cannot be made, the generator alone starts the machine with the host.
pub fn enable(home: &Home, machine: &Machine, on: bool) -> Result<()> {
    let Some(template) = template().filter(|_| rules(home)) else { return Ok(()) };
    match on {
        true => link(machine, &template, Path::new(WANTS)),
        false => disable(machine),
    }
}

fn link(machine: &Machine, template: &Path, wants: &Path) -> Result<()> {
    let path = wants.join(name(machine));
    let doing = || format!("enabling {}", name(machine));
    let made = std::fs::create_dir_all(wants).and_then(|()| std::os::unix::fs::symlink(template, &path));
    match made {
        Err(err) if matches!(err.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
            return Ok(());
        }
        Err(err) if err.kind() != ErrorKind::AlreadyExists => return Err(err).doing(doing),
        _ => {}
    }
    crate::file::write_whole(&machine.dir().join(LINK), wants.as_os_str().as_encoded_bytes())
}

/// Takes the link of [`enable`] away, with the word that it was made.
pub fn disable(machine: &Machine) -> Result<()> {
    let Some(link) = linked(machine) else { return Ok(()) };
    crate::file::remove(&link)?;
    crate::file::remove(&machine.dir().join(LINK))
}

/// Where the link was made, if it was.
fn linked(machine: &Machine) -> Option<PathBuf> {
    let wants = std::fs::read_to_string(machine.dir().join(LINK)).ok()?;
    Some(Path::new(&wants).join(name(machine)))
}

/// Whether the link that [`enable`] made is gone: the administrator has said `systemctl disable`.
pub fn is_disabled(machine: &Machine) -> bool {
    linked(machine).is_some_and(|link| link.symlink_metadata().is_err())
}

/// Runs `systemctl VERB UNIT`; its own words are the error.
pub fn systemctl(verb: &[&str], unit: &str) -> Result<()> {
    let doing = || format!("running systemctl {} {unit}", verb.join(" "));
    let done = Command::new("systemctl").args(verb).arg(unit).stdin(Stdio::null()).output().doing(doing)?;
    if done.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&done.stderr);
    let told = told.lines().next().unwrap_or("it failed").trim_end_matches('.').to_owned();
    Err(Error::new(Kind::System, format!("{}: {told}", doing())).hint(format!("see journalctl -u {unit}")))
}

/// Whether this host is going down, where a keeper is asked to end by systemd.
pub fn host_goes_down() -> bool {
    own().is_some()
        && Command::new("systemctl")
            .arg("is-system-running")
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|done| done.stdout.starts_with(b"stopping"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_somebody_took_away_stays_away() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), &dir.path().join("run"));
        let machine = home.machine("web1").unwrap();
        std::fs::create_dir_all(machine.dir()).unwrap();
        let wants = dir.path().join("wants");
        assert!(!is_disabled(&machine), "nobody enabled it");
        for _ in 0..2 {
            link(&machine, Path::new("/usr/lib/systemd/system/locule@.service"), &wants).unwrap();
            assert!(!is_disabled(&machine));
        }
        let made = wants.join("locule@web1.service");
        std::fs::remove_file(&made).unwrap();
        assert!(is_disabled(&machine));
        link(&machine, Path::new("/usr/lib/systemd/system/locule@.service"), &wants).unwrap();
        disable(&machine).unwrap();
        assert!(made.symlink_metadata().is_err() && !is_disabled(&machine));
        disable(&machine).unwrap();
    }
}
