//! `exec`: one more process in a running container.
//!
//! Owns how the process is put together: the container's own, or that of `--process`, overlaid
//! by the flags. Never joins the container itself.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use locule_runtime::attrs::caps;
use locule_runtime::error::Context;
use locule_runtime::process::seal;
use locule_runtime::spec::{Process, User};
use locule_runtime::{Error, ExecRequest, Result, adopt_fds, contract};

use crate::args::Globals;
use crate::cli::{Verb, given_id, id, option, path, path_parser, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "exec",
    about: "Run a program in a running container",
    usage: "[options] <container-id> [--] <command> [arguments]",
    details: "The process is like the container's own (user, environment, capabilities, limits) but for what \
the options change; without --tty it has no terminal. With --process the process is that of a JSON file in the \
form of config.json's process, and options change that. What follows the name belongs to the command.

In the foreground locule exec lasts as long as the program and exits with its status; 255 says that it could not be \
started, whatever the reason.",
    examples: &[
        ("A shell in web1", "locule exec --tty web1 /bin/sh"),
        ("Another user, one more variable", "locule exec --user 33:33 --env DEBUG=1 web1 id"),
    ],
    arguments: |command| {
        command
            .args([
                option("process", "FILE", "The process as JSON").short('p').value_parser(path_parser()),
                option("env", "KEY=VALUE", "Add to the environment").short('e').action(ArgAction::Append),
                option("cwd", "DIR", "Working directory inside"),
                option("user", "UID[:GID]", "User and group inside, as numbers").short('u'),
                option("additional-gids", "GID", "Add a supplementary group")
                    .short('g')
                    .action(ArgAction::Append)
                    .value_delimiter(',')
                    .value_parser(value_parser!(u32)),
                switch("tty", "Give it a terminal").short('t'),
                option("console-socket", "SOCKET", "AF_UNIX socket that gets the master end of the terminal")
                    .value_parser(path_parser()),
                switch("detach", "Return when the process runs").short('d'),
                option("pid-file", "FILE", "Write the process id to FILE, digits only")
                    .value_parser(path_parser()),
                option("pidfd-socket", "SOCKET", "AF_UNIX socket that gets a pidfd of the process")
                    .value_parser(path_parser()),
                option("preserve-fds", "N", "Pass N descriptors beside the standard ones")
                    .value_parser(value_parser!(u32)),
                option("cap", "CAPABILITY", "Add a capability").short('c').action(ArgAction::Append),
                switch("no-new-privs", "Set no_new_privs"),
                option("apparmor", "PROFILE", "AppArmor profile"),
                option("process-label", "LABEL", "SELinux label"),
                option("cgroup", "PATH", "Existing cgroup below the container's own to run in"),
                switch("ignore-paused", "Also in a paused container; the process starts when it is resumed"),
                switch("no-subreaper", "Accepted for old callers").hide(true),
            ])
            .arg(id())
            .arg(
                Arg::new("command")
                    .action(ArgAction::Append)
                    .num_args(0..)
                    .value_parser(value_parser!(OsString))
                    .help("The program and its arguments"),
            )
    },
    run,
    failure: contract::EXIT_NO_EXEC,
    ends_at_id: true,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let seal = seal::ensure()?;
    let preserved = adopt_fds(matches.get_one("preserve-fds").copied().unwrap_or_default())?;
    let changes = Changes::read(matches)?;
    let file = matches.get_one::<PathBuf>("process").map(|path| {
        let act = || format!("reading the process from {}", path.display());
        std::fs::read(path).doing(act).and_then(|text| serde_json::from_slice(&text).doing(act))
    });
    let file: Option<Process> = file.transpose()?;
    if file.is_none() && changes.args.is_empty() {
        return Err(no_command());
    }
    let container = globals.container(given_id(matches))?;
    let base = match file {
        Some(process) => process,
        // runc's rule: the terminal of the container's own process is not inherited.
        None => {
            Process { terminal: false, args: Vec::new(), ..container.spec()?.process.unwrap_or_default() }
        }
    };
    if matches.get_flag("no-subreaper") {
        locule_runtime::warn::warn("exec --no-subreaper has no effect: exec never adopts processes".into());
    }
    container.exec(ExecRequest {
        seal,
        process: changes.apply(base)?,
        detach: matches.get_flag("detach"),
        pid_file: path(matches, "pid-file")?,
        pidfd_socket: path(matches, "pidfd-socket")?,
        console_socket: path(matches, "console-socket")?,
        preserved,
        ignore_paused: matches.get_flag("ignore-paused"),
        cgroup: text(matches, "cgroup").map(sub_cgroup).transpose()?,
    })
}

/// What the flags ask to be different.
#[derive(Debug, Default)]
struct Changes {
    args: Vec<String>,
    env: Vec<String>,
    cwd: Option<PathBuf>,
    uid: Option<u32>,
    gid: Option<u32>,
    additional_gids: Vec<u32>,
    tty: bool,
    capabilities: Vec<String>,
    no_new_privileges: bool,
    apparmor: Option<String>,
    label: Option<String>,
}

impl Changes {
    fn read(matches: &ArgMatches) -> Result<Changes> {
        let (uid, gid) = match text(matches, "user") {
            Some(user) => user_and_group(user)?,
            None => (None, None),
        };
        let owned = |name| text(matches, name).map(str::to_owned);
        Ok(Changes {
            args: matches
                .get_many::<OsString>("command")
                .unwrap_or_default()
                .map(|word| {
                    word.to_str().map(str::to_owned).ok_or_else(|| {
                        Error::invalid(format!(
                            "reading the command: {word:?} is not UTF-8, as JSON documents are"
                        ))
                    })
                })
                .collect::<Result<_>>()?,
            env: matches.get_many("env").unwrap_or_default().cloned().collect(),
            cwd: owned("cwd").map(PathBuf::from),
            uid,
            gid,
            additional_gids: matches.get_many("additional-gids").unwrap_or_default().copied().collect(),
            tty: matches.get_flag("tty"),
            capabilities: matches.get_many("cap").unwrap_or_default().cloned().collect(),
            no_new_privileges: matches.get_flag("no-new-privs"),
            apparmor: owned("apparmor"),
            label: owned("process-label"),
        })
    }

    /// Overlays `base`, as runc does.
    fn apply(self, mut base: Process) -> Result<Process> {
        if !self.args.is_empty() {
            base.args = self.args;
        }
        if base.args.is_empty() {
            return Err(no_command());
        }
        for variable in self.env {
            if variable.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
                return Err(Error::invalid(format!("--env {variable:?} is not of the form KEY=VALUE")));
            }
            base.env.push(variable);
        }
        let User { uid, gid, additional_gids, .. } = &mut base.user;
        *uid = self.uid.unwrap_or(*uid);
        *gid = self.gid.unwrap_or(*gid);
        additional_gids.extend(self.additional_gids);
        base.cwd = self.cwd.unwrap_or(base.cwd);
        base.terminal |= self.tty;
        base.no_new_privileges |= self.no_new_privileges;
        base.apparmor_profile = self.apparmor.or(base.apparmor_profile);
        base.selinux_label = self.label.or(base.selinux_label);
        let names: Vec<String> = self.capabilities.iter().map(|name| capability(name)).collect();
        caps::exec_add(&mut base.capabilities, &names);
        Ok(base)
    }
}

fn no_command() -> Error {
    Error::invalid("exec: the command is missing: usage: locule exec [options] <container-id> <command>")
}

/// `net_admin` and `CAP_NET_ADMIN` are the same; the plan judges the name.
fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

/// Digits only: what is not there is no 0 (CVE-2026-30892), and -1 would leave the ids as they are.
fn user_and_group(word: &str) -> Result<(Option<u32>, Option<u32>)> {
    let number = |what: &str, digits: &str| {
        let only = digits.bytes().all(|byte| byte.is_ascii_digit());
        let id = digits.parse().ok().filter(|id| only && *id != u32::MAX);
        id.map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "--user {word:?}: {what} {digits:?} is not a number of an id: names are not looked up"
            ))
        })
    };
    match word.split_once(':') {
        Some((uid, gid)) => Ok((number("uid", uid)?, number("gid", gid)?)),
        None => Ok((number("uid", word)?, None)),
    }
}

/// runc's `[controller:]path`; a controller has no meaning in the one hierarchy of cgroup v2.
fn sub_cgroup(word: &str) -> Result<String> {
    match word.split_once(':') {
        Some(("", path)) => Ok(path.to_owned()),
        Some((controller, _)) => Err(Error::unsupported(format!(
            "--cgroup {word:?}: cgroup v2 has one hierarchy, not one of {controller:?}: give the path alone"
        ))),
        None => Ok(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule_runtime::spec::Capabilities;

    fn changes(line: &[&str]) -> Result<Changes> {
        let words = ["exec"].iter().chain(line).copied();
        Changes::read(&VERB.command().try_get_matches_from(words).unwrap())
    }

    fn base() -> Process {
        Process {
            args: vec!["sh".into()],
            env: vec!["A=1".into()],
            cwd: "/".into(),
            user: User { uid: 5, gid: 6, additional_gids: vec![7], ..User::default() },
            capabilities: Some(Capabilities {
                bounding: vec!["CAP_KILL".into()],
                inheritable: vec!["CAP_KILL".into()],
                ..Capabilities::default()
            }),
            apparmor_profile: Some("own".into()),
            ..Process::default()
        }
    }

    #[test]
    fn without_flags_only_the_command_differs() {
        let process = changes(&["--", "a", "ls", "-l"]).unwrap().apply(base()).unwrap();
        assert_eq!(process.args, ["ls", "-l"]);
        let plain = base();
        assert_eq!(
            (process.env, process.cwd, process.user, process.capabilities, process.apparmor_profile),
            (plain.env, plain.cwd, plain.user, plain.capabilities, plain.apparmor_profile)
        );
        assert!(!process.terminal && !process.no_new_privileges);
    }

    #[test]
    fn each_flag_lands_in_its_field() {
        let line = [
            "--tty",
            "--no-new-privs",
            "--env=B=2",
            "--env=C=",
            "--cwd=/w",
            "--user=1:2",
            "--additional-gids=8",
            "--additional-gids=9,10",
            "--cap=net_admin",
            "--cap=CAP_KILL",
            "--apparmor=other",
            "--process-label=l",
            "--",
            "a",
            "ls",
        ];
        let process = changes(&line).unwrap().apply(base()).unwrap();
        assert!(process.terminal && process.no_new_privileges);
        assert_eq!(process.env, ["A=1", "B=2", "C="]);
        assert_eq!(process.cwd, PathBuf::from("/w"));
        assert_eq!((process.user.uid, process.user.gid), (1, 2));
        assert_eq!(process.user.additional_gids, [7, 8, 9, 10]);
        let sets = process.capabilities.unwrap();
        assert_eq!(sets.bounding, ["CAP_KILL", "CAP_NET_ADMIN"]);
        assert_eq!(sets.effective, ["CAP_NET_ADMIN", "CAP_KILL"]);
        assert_eq!(sets.permitted, ["CAP_NET_ADMIN", "CAP_KILL"]);
        assert_eq!(sets.inheritable, ["CAP_KILL"]);
        assert_eq!(sets.ambient, ["CAP_KILL"], "ambient only where inheritable");
        assert_eq!(process.apparmor_profile.as_deref(), Some("other"));
        assert_eq!(process.selinux_label.as_deref(), Some("l"));
    }

    #[test]
    fn a_user_alone_keeps_the_group() {
        let process = changes(&["--user=1", "--", "a", "ls"]).unwrap().apply(base()).unwrap();
        assert_eq!((process.user.uid, process.user.gid), (1, 6));
    }

    #[test]
    fn nonsense_is_refused_with_its_word() {
        let told =
            |line: &[&str]| changes(line).and_then(|changes| changes.apply(base())).unwrap_err().to_string();
        assert!(told(&["--user=root", "--", "a", "ls"]).contains("\"root\" is not a number"));
        for word in ["", ":", ":2", "1:a", "1:2:3", "-1", "+1", " 1", "1 ", "0x1", "4294967295", "4294967296"]
        {
            assert!(user_and_group(word).is_err(), "{word:?}");
        }
        assert_eq!(user_and_group("4294967294:0").unwrap(), (Some(u32::MAX - 1), Some(0)));
        assert!(told(&["--user=1:", "--", "a", "ls"]).contains("gid \"\""));
        assert!(told(&["--env=NOVALUE", "--", "a", "ls"]).contains("\"NOVALUE\""));
        assert!(told(&["--env==x", "--", "a", "ls"]).contains("KEY=VALUE"));
        let empty = Process { args: Vec::new(), ..base() };
        assert!(
            changes(&["--", "a"])
                .unwrap()
                .apply(empty)
                .unwrap_err()
                .to_string()
                .contains("command is missing")
        );
    }

    #[test]
    fn cgroups_have_no_controller() {
        assert_eq!(sub_cgroup("/sub").unwrap(), "/sub");
        assert_eq!(sub_cgroup(":sub").unwrap(), "sub");
        assert!(sub_cgroup("cpu:sub").unwrap_err().to_string().contains("\"cpu\""));
    }
}
