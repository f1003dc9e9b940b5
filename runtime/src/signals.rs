//! Signal names, as `kill` and the engines write them.
//!
//! Owns the table of names. Never sends anything.

use crate::{Error, Result};
use libc::c_int;

/// Names without `SIG`; the numbers are the architecture's own.
const NAMES: [(&str, c_int); 35] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGIO),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("UNUSED", libc::SIGSYS),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// The kernel's real-time range; glibc keeps the first two for itself, so its SIGRTMIN is 34,
/// and that is what `kill -l`, systemd and engines mean by `RTMIN`.
const RTMIN: c_int = 34;
const RTMAX: c_int = 64;

/// Reads a signal by number (0 only tests for existence) or by name, with or without `SIG`,
/// in any case, `RTMIN+n` and `RTMAX-n` included.
pub fn parse(word: &str) -> Result<c_int> {
    let unknown = || {
        Error::invalid(format!(
            "unknown signal {word:?}: give a number up to {RTMAX}, or a name such as TERM or SIGTERM"
        ))
    };
    if let Ok(number) = word.parse::<c_int>() {
        return if (0..=RTMAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let real_time = if let Some(offset) = name.strip_prefix("RTMIN") {
        signed_offset(offset, '+').map(|offset| RTMIN + offset)
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        signed_offset(offset, '-').map(|offset| RTMAX - offset)
    } else {
        None
    };
    real_time.filter(|number| (RTMIN..=RTMAX).contains(number)).ok_or_else(unknown)
}

fn signed_offset(text: &str, sign: char) -> Option<c_int> {
    match text.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<u8>().ok().map(c_int::from)
        }
        Some(_) => None,
        None => text.is_empty().then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for word in ["9", "KILL", "SIGKILL", "kill", "SigKill"] {
            assert_eq!(parse(word).unwrap(), 9, "{word}");
        }
        assert_eq!(parse("0").unwrap(), 0);
        assert_eq!(parse("SIGRTMIN").unwrap(), 34);
        assert_eq!(parse("SIGRTMIN+3").unwrap(), 37);
        assert_eq!(parse("rtmax-1").unwrap(), 63);
        assert_eq!(parse("64").unwrap(), 64);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for word in
            ["", "SIG", "TERMINATE", "65", "-1", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN++1"]
        {
            let err = parse(word).unwrap_err().to_string();
            assert!(err.contains(&format!("{word:?}")), "{word}: {err}");
        }
    }
}
