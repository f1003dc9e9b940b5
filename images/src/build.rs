//! Building images from a distribution's packages, by mmdebstrap.
//!
//! Owns the choice of what a template has (an init, so that it boots as a machine), what it must not
//! have (anything that makes a machine this one), and the running of the tool. Sources are those
//! that apt on this machine knows, unless a mirror is named.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::Flock;

use crate::error::{Context, Error, Kind, Result};
use crate::store::Store;

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
    /// Without documentation, manual pages and translations.
    pub slim: bool,
}

/// What a machine has beyond the base: an init with its bus, logins, and tools to look at itself.
const MACHINE: &[&str] =
    &["systemd", "systemd-sysv", "dbus", "libpam-systemd", "login", "iproute2", "procps"];

/// What is left out where little room is wanted; copyright files stay, as licences demand.
const SLIM: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
];

/// Takes away what would make all machines of the template the same one. An empty machine-id is
/// filled at the first boot (machine-id(5)); Debian makes ssh's host keys at installation alone, so
/// the service is told to make those that are missing.
const GENERALIZE: &str = r#"set -e
: >"$1/etc/machine-id"
[ -L "$1/var/lib/dbus/machine-id" ] || rm -f "$1/var/lib/dbus/machine-id"
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/etc/resolv.conf" "$1/var/lib/systemd/random-seed"
rm -f "$1"/var/cache/debconf/*-old
if [ -x "$1/usr/sbin/sshd" ]; then
    mkdir -p "$1/etc/systemd/system/ssh.service.d"
    printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n' \
        >"$1/etc/systemd/system/ssh.service.d/host-keys.conf"
fi"#;

/// A root file system that was built; it goes away with this value.
#[derive(Debug)]
pub struct Built {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Built {
    /// The root file system as a tarball.
    pub fn tarball(&self) -> PathBuf {
        self.dir.join("rootfs.tar")
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
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
            slim: false,
        })
    }

    fn suite(&self) -> &'static str {
        let found =
            RELEASES.iter().find(|(name, number, _)| *name == self.distribution && *number == self.release);
        found.map_or("sid", |(_, _, suite)| suite)
    }

    /// Builds the root file system; `told` hears what the tool says meanwhile.
    pub fn run(&self, store: &Store, told: &mut dyn FnMut(&str)) -> Result<Built> {
        let (dir, lock) = store.temporary_dir()?;
        let built = Built { dir, _lock: lock };
        let doing = || format!("building {}:{} with mmdebstrap", self.distribution, self.release);
        let sources = match &self.mirror {
            Some(mirror) => vec![format!("deb {mirror} {} main", self.suite())],
            None => sources(&self.distribution, self.suite(), &apt_targets()),
        };
        let mut child = self.command(&built.tarball(), &sources).spawn().map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::Unsupported, format!("{}: it is not installed", doing()))
                    .hint("install mmdebstrap")
            }
            _ => Error::new(Kind::System, format!("{}: {err}", doing())),
        })?;
        let mut reason = None;
        if let Some(said) = child.stderr.take() {
            for line in BufReader::new(said).split(b'\n').map_while(std::result::Result::ok) {
                let line = String::from_utf8_lossy(&line);
                // What packages' scripts say must not reach a terminal as commands.
                let line: String = line.chars().filter(|c| !c.is_control()).collect();
                told(&line);
                // The first error is the cause, the others are what came of it.
                if reason.is_none() && line.starts_with("E:") {
                    reason = Some(line.trim_start_matches("E:").trim().to_owned());
                }
            }
        }
        let status = child.wait().doing(doing)?;
        if status.success() {
            return Ok(built);
        }
        let reason = reason.unwrap_or_else(|| status.to_string());
        let unsigned = ["NO_PUBKEY", "not signed", "keyring"].iter().any(|word| reason.contains(word));
        let err = Error::new(Kind::System, format!("{}: {reason}", doing()));
        let distribution = &self.distribution;
        Err(if unsigned {
            err.hint(format!("install the package {}", keyring(distribution)))
        } else if sources.is_empty() {
            err.hint(format!(
                "apt on this machine has no source of {distribution} packages: name one with --mirror"
            ))
        } else {
            err
        })
    }

    fn command(&self, tarball: &Path, sources: &[String]) -> Command {
        let mut include: Vec<&str> = if self.minimal { Vec::new() } else { MACHINE.to_vec() };
        include.extend(self.packages.iter().map(String::as_str));
        let mut command = Command::new("mmdebstrap");
        command.arg("--variant=minbase").args(apt_proxies().iter().map(|line| format!("--aptopt={line}")));
        if !include.is_empty() {
            command.arg(format!("--include={}", include.join(",")));
        }
        if self.slim {
            command.args(SLIM.iter().map(|line| format!("--dpkgopt={line}")));
        }
        command.arg(format!("--customize-hook={GENERALIZE}"));
        // A build that fails leaves nothing: it need not be safe from a power cut either.
        command.arg("--dpkgopt=force-unsafe-io");
        command.arg(self.suite()).arg(tarball).args(sources);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// The package with the keys that sign `distribution`'s packages.
fn keyring(distribution: &str) -> &'static str {
    if distribution == "ubuntu" { "ubuntu-keyring" } else { "debian-archive-keyring" }
}

/// What apt on this machine fetches packages from: address and release, a line each.
fn apt_targets() -> String {
    said(&["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
}

/// The proxies that apt on this machine goes through, as lines of its configuration.
fn apt_proxies() -> Vec<String> {
    let dump = said(&["apt-config", "dump"]);
    let proxies = dump
        .lines()
        .filter(|line| line.starts_with("Acquire::http::Proxy") || line.starts_with("Acquire::https::Proxy"));
    proxies.map(str::to_owned).collect()
}

/// A program's output; nothing where it is missing or fails.
fn said(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Lines of sources.list for `suite`, from the places where apt has this distribution's other releases.
fn sources(distribution: &str, suite: &str, targets: &str) -> Vec<String> {
    let components = if distribution == "ubuntu" { "main universe" } else { "main" };
    let known: Vec<(&str, &str)> = targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(uri, _)| ["http://", "https://", "file:/"].iter().any(|scheme| uri.starts_with(scheme)))
        .collect();
    let named = |uri: &str, end: &str| {
        uri.trim_end_matches('/')
            .rsplit('/')
            .next()
            .is_some_and(|last| last == format!("{distribution}{end}"))
    };
    let find = |wanted: &dyn Fn(&str, &str) -> bool| {
        known.iter().find(|(uri, release)| wanted(uri, release)).map(|(uri, _)| *uri)
    };
    let Some(main) = find(&|uri, release| named(uri, "") && !release.ends_with("-security")) else {
        return Vec::new();
    };
    let mut lines = vec![format!("deb {main} {suite} {components}")];
    // What is never released has no updates either.
    if suite != "sid" {
        if let Some(uri) = find(&|uri, release| named(uri, "") && release.ends_with("-updates")) {
            lines.push(format!("deb {uri} {suite}-updates {components}"));
        }
        let security = find(&|uri, release| {
            release.ends_with("-security") && (named(uri, "-security") || named(uri, ""))
        });
        if let Some(uri) = security {
            lines.push(format!("deb {uri} {suite}-security {components}"));
        }
    }
    lines
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
    }

    #[test]
    fn sources_are_those_of_apt() {
        let targets = "http://m/debian/ bookworm\nhttp://m/debian/ bookworm-updates\n\
            http://m/debian-security/ bookworm-security\nhttp://m/debian/ bookworm-backports\n\
            http://other/apt stable\ncdrom://x/debian bookworm\n";
        assert_eq!(
            sources("debian", "trixie", targets),
            [
                "deb http://m/debian/ trixie main",
                "deb http://m/debian/ trixie-updates main",
                "deb http://m/debian-security/ trixie-security main"
            ]
        );
        assert_eq!(sources("debian", "sid", targets), ["deb http://m/debian/ sid main"]);
        assert!(sources("ubuntu", "noble", targets).is_empty());
        let ubuntu = "http://m/ubuntu noble-security\nhttp://m/ubuntu noble\n";
        assert_eq!(
            sources("ubuntu", "noble", ubuntu),
            ["deb http://m/ubuntu noble main universe", "deb http://m/ubuntu noble-security main universe"]
        );
    }
}
