//! The systemd unit of a machine, where systemd runs this host.
//!
//! Owns the unit's name and when there is one. Talks to systemd by systemctl(1): a machine is started and stopped too
//! seldom for more.

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
        && PLACES.iter().any(|place| Path::new(place).join(TEMPLATE).is_file())
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
