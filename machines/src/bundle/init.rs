//! The first process: which program, as whom, in what environment, and how it is told to end.
//!
//! Owns the order of precedence: the definition, the image, what a system has by custom. Users are found by name in
//! the machine's own files, read within its root.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use locule_runtime::rootfs::Root;
use locule_runtime::spec::User;
use nix::fcntl::OFlag;

use super::Input;
use crate::{Error, Result};

/// What images have when they say nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where every system has its init.
const SYSTEM: &str = "/sbin/init";
/// Most bytes of /etc/passwd and /etc/group that are read: they are the machine's.
const LARGEST: u64 = 1 << 20;

/// What kind of program the first process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// systemd.
    Systemd,
    /// busybox's init.
    Busybox,
    /// Another init: sysvinit, OpenRC's.
    System,
    /// Any other program.
    Plain,
}

impl Kind {
    /// Whether it boots a system.
    pub fn is_system(self) -> bool {
        self != Kind::Plain
    }

    /// The signal that makes it shut down.
    pub fn stop_signal(self) -> &'static str {
        match self {
            Kind::Systemd => "SIGRTMIN+3",
            Kind::Busybox => "SIGUSR2",
            Kind::System => "SIGPWR",
            Kind::Plain => "SIGTERM",
        }
    }
}

/// The first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Its kind.
    pub kind: Kind,
    /// argv.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Ids.
    pub user: User,
    /// Working directory.
    pub cwd: PathBuf,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// How it is told to end.
    pub stop_signal: String,
}

impl Init {
    /// Decides all of it.
    pub(super) fn of(input: &Input<'_>) -> Result<Init> {
        let (wanted, image) = (&input.definition.init, input.image);
        let args = args(input)?;
        let kind = kind(input.root, &args[0]);
        let terminal = wanted.terminal.unwrap_or(kind.is_system());
        let user = wanted.user.as_deref().or(image.user.as_deref()).unwrap_or_default();
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let cwd = some(&wanted.workdir).or_else(|| some(&image.working_dir)).unwrap_or_else(|| "/".into());
        if !cwd.starts_with('/') {
            return Err(Error::invalid(format!("init.workdir: {cwd:?} is not an absolute path")));
        }
        let stop_signal = some(&wanted.stop_signal)
            .or_else(|| some(&image.stop_signal))
            .unwrap_or_else(|| kind.stop_signal().into());
        Ok(Init {
            kind,
            env: environment(input, kind, terminal),
            user: user_of(input.root, user)?,
            cwd: cwd.into(),
            args,
            terminal,
            stop_signal,
        })
    }
}

/// The definition's command, else the image's, else init.
fn args(input: &Input<'_>) -> Result<Vec<String>> {
    let (wanted, image) = (&input.definition.init, input.image);
    let entrypoint = image.entrypoint.clone().unwrap_or_default();
    let args = match wanted.command.is_empty() {
        false => wanted.command.clone(),
        true => [entrypoint, image.cmd.clone().unwrap_or_default()].concat(),
    };
    if args.first().is_some_and(|program| !program.is_empty()) {
        return Ok(args);
    }
    let there = |path: &str| input.root.resolve(Path::new(path), OFlag::empty()).is_ok();
    match [SYSTEM, "/bin/sh"].into_iter().find(|path| there(path)) {
        Some(path) => Ok(vec![path.to_owned()]),
        None => Err(Error::invalid(format!(
            "the image {} names no program and has no {SYSTEM}",
            input.definition.image
        ))
        .hint("name one: init.command, or words behind the options of launch")),
    }
}

/// Looks at the program by its name, and behind a link.
pub fn kind(root: &Root, program: &str) -> Kind {
    const INITS: [&str; 3] = ["init", "systemd", "openrc-init"];
    let path = Path::new(program);
    let named = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !INITS.contains(&named) {
        return Kind::Plain;
    }
    let place = if path.is_absolute() { path } else { Path::new(SYSTEM) };
    let behind = root
        .resolve(place, OFlag::empty())
        .ok()
        .and_then(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok());
    match behind.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()) {
        Some("systemd") => Kind::Systemd,
        Some("busybox") => Kind::Busybox,
        _ if named == "systemd" => Kind::Systemd,
        _ => Kind::System,
    }
}

fn environment(input: &Input<'_>, kind: Kind, terminal: bool) -> Vec<String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |entry: &str| {
        if let Some((key, value)) = entry.split_once('=') {
            all.insert(key.to_owned(), value.to_owned());
        }
    };
    put(PATH);
    put("container=locule");
    if terminal {
        put("TERM=xterm");
    }
    if kind.is_system() {
        put(&format!("container_uuid={}", input.state.uuid));
    }
    for entry in input.image.env.iter().flatten() {
        put(entry);
    }
    for (key, value) in &input.definition.init.env {
        put(&format!("{key}={value}"));
    }
    all.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// Ids of `user[:group]`, names or numbers, by the files of the root.
pub fn user_of(root: &Root, text: &str) -> Result<User> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = read(root, "/etc/passwd");
    let groups = read(root, "/etc/group");
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd.lines().map(fields).find(|entry| match user.parse::<u32>() {
        Ok(uid) => number(entry, 2) == Some(uid),
        Err(_) => entry.first() == Some(&user),
    });
    let uid = match (user.parse(), &entry) {
        (Ok(uid), _) => uid,
        (Err(_), Some(entry)) => number(entry, 2).unwrap_or_default(),
        (Err(_), None) => {
            return Err(Error::invalid(format!("the image has no user {user:?}")).hint("give a number"));
        }
    };
    let gid = match group {
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => groups
                .lines()
                .map(fields)
                .find(|entry| entry.first() == Some(&group))
                .and_then(|entry| number(&entry, 2))
                .ok_or_else(|| {
                    Error::invalid(format!("the image has no group {group:?}")).hint("give a number")
                })?,
        },
        None => entry.as_ref().and_then(|entry| number(entry, 3)).unwrap_or_default(),
    };
    // As engines do: the groups of the user's entry, unless a group is named.
    let mut additional_gids = Vec::new();
    if let (None, Some(name)) = (group, entry.as_ref().and_then(|entry| entry.first())) {
        for entry in groups.lines().map(fields) {
            let member = entry.get(3).is_some_and(|members| members.split(',').any(|member| member == *name));
            additional_gids.extend(number(&entry, 2).filter(|other| member && *other != gid));
        }
    }
    Ok(User { uid, gid, umask: None, additional_gids })
}

/// How `user[:group]` logs in, by the files of the root.
pub fn login(root: &Root, text: &str) -> Result<crate::life::Login> {
    let user = user_of(root, text)?;
    let passwd = read(root, "/etc/passwd");
    let entry =
        passwd.lines().map(fields).find(|entry| number(entry, 2) == Some(user.uid)).unwrap_or_default();
    let field = |at: usize| entry.get(at).filter(|field| !field.is_empty()).map(|field| (*field).to_owned());
    let there = |path: &str| path.starts_with('/') && root.resolve(Path::new(path), OFlag::empty()).is_ok();
    Ok(crate::life::Login {
        name: field(0).unwrap_or_else(|| user.uid.to_string()),
        home: field(5).filter(|home| there(home)).unwrap_or_else(|| "/".into()),
        shell: field(6).filter(|shell| there(shell)).unwrap_or_else(|| "/bin/sh".into()),
        user,
    })
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

fn number(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

fn read(root: &Root, path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(fd) = root.open(Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        let _ = std::fs::File::from(fd).take(LARGEST).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn root(files: &[(&str, &str)], links: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        for (link, target) in links {
            std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
        }
        let root = Root::new(OwnedFd::from(std::fs::File::open(dir.path()).unwrap()));
        (dir, root)
    }

    #[test]
    fn users_are_the_machines_own() {
        let files = [
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/srv:/bin/sh\n"),
            ("etc/group", "www:x:34:\nlogs:x:50:other,www\nadm:x:4:www2\n"),
        ];
        let (_dir, root) = root(&files, &[]);
        let of = |text: &str| user_of(&root, text).unwrap();
        assert_eq!(of(""), User::default());
        assert_eq!(of("www"), User { uid: 33, gid: 34, additional_gids: vec![50], ..User::default() });
        assert_eq!(of("33"), of("www"));
        assert_eq!(of("www:logs"), User { uid: 33, gid: 50, ..User::default() });
        assert_eq!(of("7:8"), User { uid: 7, gid: 8, ..User::default() });
        assert!(user_of(&root, "nobody").unwrap_err().to_string().contains("\"nobody\""));
        assert!(user_of(&root, "www:nogroup").is_err());
    }

    #[test]
    fn an_init_is_known_by_what_is_behind_its_name() {
        let files =
            [("usr/lib/systemd/systemd", ""), ("bin/busybox", ""), ("sbin/x", ""), ("bin/openrc-init", "")];
        let (dir, root) = root(&files, &[("sbin/init", "../usr/lib/systemd/systemd")]);
        assert_eq!(kind(&root, "/sbin/init"), Kind::Systemd);
        assert_eq!(kind(&root, "init"), Kind::Systemd);
        assert_eq!(kind(&root, "/bin/openrc-init"), Kind::System);
        assert_eq!(kind(&root, "/bin/busybox"), Kind::Plain);
        assert_eq!(kind(&root, "sleep"), Kind::Plain);
        std::fs::remove_file(dir.path().join("sbin/init")).unwrap();
        // Absolute, and outside of the root it would be the host's.
        std::os::unix::fs::symlink("/bin/busybox", dir.path().join("sbin/init")).unwrap();
        assert_eq!(kind(&root, "/sbin/init"), Kind::Busybox);
    }
}
