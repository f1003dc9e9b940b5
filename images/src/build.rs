//! Building images from a distribution's packages, by mmdebstrap.
//!
//! Owns the choice of what a template has (an init, so that it boots as a machine) and the running
//! of the tool. Sources are those that apt on this machine knows, unless a mirror is named.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Kind, Result};

/// What is built.
#[derive(Debug, Clone)]
pub struct Build {
    /// `debian` or `ubuntu`.
    pub distribution: String,
    /// The release: a number or a name.
    pub release: String,
    /// Packages beyond the base.
    pub packages: Vec<String>,
    /// Where packages come from.
    pub mirror: Option<String>,
    /// Without an init: for containers of one process.
    pub minimal: bool,
}

/// Numbers of releases and their names.
const RELEASES: &[(&str, &str, &str)] = &[
    ("debian", "11", "bullseye"),
    ("debian", "12", "bookworm"),
    ("debian", "13", "trixie"),
    ("debian", "sid", "sid"),
    ("ubuntu", "22.04", "jammy"),
    ("ubuntu", "24.04", "noble"),
    ("ubuntu", "26.04", "resolute"),
];

impl Build {
    /// Reads `debian:13`.
    pub fn parse(text: &str) -> Result<Build> {
        let (distribution, release) = text.split_once(':').unwrap_or((text, ""));
        let known = RELEASES.iter().filter(|(name, ..)| *name == distribution);
        let found = known.clone().find(|(_, number, name)| *number == release || *name == release);
        let Some((_, number, _)) = found else {
            let all: Vec<String> =
                RELEASES.iter().map(|(name, number, _)| format!("{name}:{number}")).collect();
            return Err(Error::invalid(format!("no recipe for {text:?}"))
                .hint(format!("there are {}", all.join(", "))));
        };
        Ok(Build {
            distribution: distribution.to_owned(),
            release: (*number).to_owned(),
            packages: Vec::new(),
            mirror: None,
            minimal: false,
        })
    }

    fn suite(&self) -> &'static str {
        let found =
            RELEASES.iter().find(|(name, number, _)| *name == self.distribution && *number == self.release);
        found.map_or("sid", |(_, _, suite)| suite)
    }

    /// Builds the root file system as a tarball in the directory `dir`.
    pub fn run(&self, dir: &Path) -> Result<PathBuf> {
        let target = dir.join("rootfs.tar");
        let doing = || format!("building {}:{} with mmdebstrap", self.distribution, self.release);
        let mut include = if self.minimal {
            Vec::new()
        } else {
            vec!["systemd", "systemd-sysv", "dbus", "iproute2", "libpam-systemd"]
        };
        include.extend(self.packages.iter().map(String::as_str));
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", "--quiet"]);
        if !include.is_empty() {
            command.arg(format!("--include={}", include.join(",")));
        }
        // Made at the first boot, like the keys of a new machine.
        command.arg("--customize-hook=: > \"$1/etc/machine-id\"; rm -f \"$1\"/etc/ssh/ssh_host_* \"$1/etc/hostname\" \"$1/etc/resolv.conf\"");
        command.arg(self.suite()).arg(&target);
        command.args(self.mirror.clone().or_else(|| apt_mirror(&self.distribution)));
        let output = command.stdin(Stdio::null()).output().map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::Unsupported, format!("{}: it is not installed", doing()))
                    .hint("install mmdebstrap")
            }
            _ => Error::new(Kind::System, format!("{}: {err}", doing())),
        })?;
        if output.status.success() {
            return Ok(target);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said
            .lines()
            .rev()
            .find(|line| line.starts_with("E:"))
            .or(said.lines().last())
            .unwrap_or_default();
        Err(Error::new(Kind::System, format!("{}: {why}", doing())))
    }
}

/// The mirror of `distribution` that apt on this machine uses.
fn apt_mirror(distribution: &str) -> Option<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
    }
    let texts = files.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    texts.flat_map(|text| mirrors(&text)).find(|uri| {
        let path = uri.trim_end_matches('/');
        path.ends_with(&format!("/{distribution}")) && !path.contains("security")
    })
}

/// Addresses in a sources.list or a .sources file.
fn mirrors(text: &str) -> Vec<String> {
    let lines =
        text.lines().map(str::trim).filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    lines
        .flat_map(str::split_whitespace)
        .filter(|word| ["http://", "https://", "file:/"].iter().any(|scheme| word.starts_with(scheme)))
        .map(str::to_owned)
        .collect()
}

/// Checks that words are packages' names, since they go to a program's command line.
pub fn check_packages(packages: &[String]) -> Result<()> {
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b':');
    match packages.iter().find(|name| name.is_empty() || !name.bytes().all(plain) || name.starts_with('-')) {
        Some(name) => Err(Error::invalid(format!("{name:?} is no package's name"))),
        None => Ok(()),
    }
}

/// A directory for the work, removed by the caller.
pub fn work_dir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("locule-build-{}", std::process::id()));
    std::fs::create_dir(&dir).doing(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes() {
        assert_eq!(Build::parse("debian:13").unwrap().suite(), "trixie");
        assert_eq!(Build::parse("debian:trixie").unwrap().release, "13");
        assert_eq!(Build::parse("ubuntu:24.04").unwrap().suite(), "noble");
        assert!(Build::parse("debian:13; rm").is_err());
        assert!(check_packages(&["--hook".into()]).is_err());
        assert!(check_packages(&["libstdc++6".into()]).is_ok());
        assert_eq!(
            mirrors("deb [a=b] http://m/debian x main\nURIs: https://n/debian\n# http://no\n"),
            ["http://m/debian", "https://n/debian"]
        );
    }
}
