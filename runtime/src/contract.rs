//! The contract with engines: words, exit codes and file formats that their code matches on.
//!
//! Owns each of them once, with who reads it. Never decides when one is due: the code that fails does.
//! `tests/lifecycle/engines.rs` replays every caller's own calls against it.
//!
//! # Who calls how
//!
//! | Caller | Words that are unlike the manual | Why they must work |
//! |---|---|---|
//! | containerd's shim, dockerd | `update --resources=- ID`, `restore … -no-subreaper …`, `kill --all ID 9` of a stopped container | Go's flags have one dash or two (`src/args.rs`); the shim kills after every end |
//! | containerd's shim | `delete ID` of a container never started, `delete --force ID` after everything, without `--systemd-cgroup` | its only clean-up; what it needs is in the state |
//! | containerd's shim | descriptor 3 is its listening socket; with a terminal stdout and stderr are one pipe that it reads to the end | nothing beyond what was asked for reaches the workload, nothing of ours stays open |
//! | conmon, Podman | `--cgroup-manager disabled`, no PATH and no bus address in the environment | `--cgroups=disabled`; clean-up calls |
//! | Podman | `restore --lsm-mount-context`, `checkpoint --help` | probes: the first for [`value_missing`], the second succeeds only where checkpoints work |
//! | CRI-O | `update --resources - ID`, `kill ID KILL`, `exec --process FILE ID` in the foreground | signals without SIG; exit codes pass through |
//! | CRI-O, dockerd, containerd | `features` with both streams read as one, without privileges | a word on stderr spoils the document; without `linux` in it containerd 2.1 crashes |
//! | dockerd | `--version` | [`version`] |
//! | BuildKit | `run --bundle B --keep ID` | reads the state, and deletes, after the end |
//! | buildah | `kill ID` without a signal, `state ID` every 100 ms | the document may not lag behind the end |

use nix::errno::Errno;
use serde_json::Value;

use crate::error::{Error, Kind};

/// The container's process is gone.
///
/// containerd's shim and CRI-O take it (or `no such process`) for success of a `kill` that came late; other
/// words leave a pod in Terminating (containerd issues 3059 and 4214).
pub const NOT_RUNNING: &str = "container not running";

/// Go's words for a program that no directory of PATH has; containerd, dockerd and Podman look for them.
pub const NO_SUCH_PROGRAM: &str = "executable file not found in $PATH";

/// Exit code for a program that is there and cannot be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;

/// Exit code for a program that is not there.
pub const EXIT_NOT_FOUND: i32 = 127;

/// Exit code of a failed `exec`, whatever failed: as runc-exec(8) has it, it cannot be taken for the program's own.
///
/// CRI-O hands it to its client; conmon, the shim and dockerd make 126 and 127 of the text.
pub const EXIT_NO_EXEC: i32 = 255;

/// The exit code for an error of `kind`; `for_workload` where the call's code stands for a program's.
///
/// buildah and BuildKit pass it on; conmon, the shim and dockerd go by the text instead.
pub fn exit_code(kind: Kind, for_workload: bool, otherwise: i32) -> i32 {
    match kind {
        Kind::CommandNotFound if for_workload => EXIT_NOT_FOUND,
        Kind::NotExecutable if for_workload => EXIT_NOT_EXECUTABLE,
        _ => otherwise,
    }
}

/// The error for a container whose process is gone.
pub fn not_running() -> Error {
    Error::new(Kind::NotRunning, NOT_RUNNING)
}

/// The error for a container that is not there.
///
/// containerd's shim looks for `does not exist` at `delete` and `kill`, and for no other words at `delete`.
pub fn absent(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("container {id} does not exist"))
}

/// The error for a program that no directory of PATH has.
pub fn program_missing(name: &str) -> Error {
    Error::new(Kind::CommandNotFound, format!("exec: {name:?}: {NO_SUCH_PROGRAM}"))
}

/// The error for a program that the kernel would not execute; `doing` says of what, and how far it came.
///
/// dockerd and Podman read `permission denied` as 126 and `no such file or directory` as 127.
pub fn program_refused(doing: &str, errno: Errno) -> Error {
    let refused = |errno, what: &str, kind| Error::sys(errno, format!("{doing}{what}")).with_kind(kind);
    match errno {
        Errno::ENOENT => refused(errno, "", Kind::CommandNotFound)
            .hint("it, or the interpreter that it names, is not in the container"),
        Errno::ENOTDIR => refused(errno, "", Kind::CommandNotFound),
        // A directory is found, and cannot be executed: EACCES's words make it 126.
        Errno::EISDIR => refused(Errno::EACCES, ": is a directory", Kind::NotExecutable),
        Errno::ENOEXEC => refused(errno, "", Kind::NotExecutable)
            .hint("it is neither a program of this architecture nor a script with #!"),
        errno => refused(errno, "", Kind::NotExecutable),
    }
}

/// The kernel's reason as Go prints it, in lower case: `permission denied`, `no such file or directory`,
/// `no such process`. dockerd, Podman and containerd look for all three.
pub fn reason(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

/// The error for an option without its value. Podman looks for these words to learn that the option exists.
pub fn value_missing(option: &str) -> Error {
    Error::invalid(format!("flag needs an argument: -{option}"))
}

/// The content of a pid file: digits and no newline, for containerd reads nothing else as a number.
///
/// It is complete before the call returns (`state::write_atomic`): engines read it right then.
pub fn pid_file(pid: i32) -> String {
    pid.to_string()
}

/// One record of a `--log` file in JSON, `time` in RFC 3339.
///
/// containerd quotes the last one of level `error` to its user, and Podman reads the whole file as one
/// JSON value: a failing call writes exactly one, by one write(2), and nothing else unless `--debug` asks.
pub fn log_record(level: &str, message: &str, time: &str) -> String {
    format!("{{\"level\":\"{level}\",\"msg\":{},\"time\":\"{time}\"}}\n", Value::from(message))
}

/// `--version`: dockerd wants the word `version` in the first line, and shows what follows `commit:`.
pub fn version(version: &str, commit: Option<&str>, spec: &str) -> String {
    let commit = commit.map(|commit| format!("commit: {commit}\n")).unwrap_or_default();
    format!("locule version {version}\n{commit}spec: {spec}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd's `setExitCodeFromError` decides by the text.
    fn docker_code(text: &str) -> i32 {
        let has = |word: &str| text.contains(word);
        if has("executable file not found") || has("no such file or directory") {
            127
        } else if has("permission denied") {
            126
        } else {
            128
        }
    }

    #[test]
    fn text_and_kind_mean_the_same_code() {
        for (error, code) in [
            (program_missing("a"), 127),
            (program_refused("/a", Errno::ENOENT), 127),
            (program_refused("/a", Errno::EACCES), 126),
            (program_refused("/a", Errno::EISDIR), 126),
        ] {
            assert_eq!(exit_code(error.kind(), true, 1), code);
            assert_eq!(docker_code(&error.to_string()), code, "{error}");
            assert_eq!(exit_code(error.kind(), false, 1), 1);
        }
        assert_eq!(exit_code(program_refused("/a", Errno::ENOEXEC).kind(), true, 1), 126);
        assert_eq!(exit_code(Kind::System, true, 255), 255);
    }

    #[test]
    fn gone_is_said_in_words_that_are_known() {
        assert_eq!(not_running().to_string(), "container not running");
        assert_eq!(absent("a").to_string(), "container a does not exist");
        assert_eq!(reason(Errno::ESRCH), "no such process");
    }

    #[test]
    fn formats() {
        assert_eq!(pid_file(17), "17");
        let record = log_record("error", "creating \"a\"\n: no", "1970-01-01T00:00:00Z");
        assert!(record.ends_with("}\n") && record.lines().count() == 1, "{record}");
        let value: Value = serde_json::from_str(&record).unwrap();
        assert_eq!((&value["level"], &value["msg"]), (&"error".into(), &"creating \"a\"\n: no".into()));
        assert_eq!(version("1", Some("abc"), "1.3.0"), "locule version 1\ncommit: abc\nspec: 1.3.0\n");
        assert_eq!(version("1", None, "1.3.0"), "locule version 1\nspec: 1.3.0\n");
        assert_eq!(
            value_missing("lsm-mount-context").to_string(),
            "flag needs an argument: -lsm-mount-context"
        );
    }
}
