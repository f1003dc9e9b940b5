//! The forms that values of a definition have, and whether a value has its form.
//!
//! Owns the words of a refusal. Never knows of keys, files or the kernel's present state.

use std::net::IpAddr;
use std::str::FromStr;

use locule_netns::Mac;
use locule_netns::port::Publish;
use locule_netns::rate::Rate;
use nix::sys::signal::Signal;

use super::tree::Value;
use super::units::{Size, Span};

/// Words that take a limit away, also one that a profile made.
pub const UNLIMITED: &str = "unlimited";

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Text,
    /// A text, or a number that is taken as one.
    Loose,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// An integer from one to the other.
    Number(i64, i64),
    /// Bytes, at least so many.
    Size(u64),
    /// A length of time.
    Span,
    /// Processors with a fraction.
    Processors,
    /// Numbers and ranges of them.
    Numbers,
    /// Bits a second.
    Rate,
    /// An absolute path.
    Path,
    /// A host name.
    HostName,
    /// The name of a machine, a network or a profile.
    Name,
    /// The address of a host.
    Address,
    /// A hardware address.
    Mac,
    /// A published port.
    Port,
    /// The name or number of a signal.
    Signal,
    /// The name of a capability.
    Capability,
    /// Soft and hard limit.
    Ulimit,
    /// Some of `rwm`.
    Access,
    /// A list of these.
    List(&'static Form),
}

/// What rlimits are called, without `RLIMIT_`, by the kernel's number.
pub const ULIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// How many processors' worth of time is a unit of `cpu.limit`: `cpu.max` counts microseconds of 100 ms.
pub const PERIOD: u64 = 100_000;
/// The smallest quota that the kernel takes, in microseconds.
const LEAST_QUOTA: u64 = 1000;

impl Form {
    /// What the manual calls it.
    pub fn word(self) -> String {
        match self {
            Form::Text | Form::Loose => "text".into(),
            Form::Choice(words) => words.join(" | "),
            Form::Switch => "true | false".into(),
            Form::Number(least, i64::MAX) => format!("number from {least}"),
            Form::Number(least, most) => format!("number from {least} to {most}"),
            Form::Size(_) => "size".into(),
            Form::Span => "time".into(),
            Form::Processors => "processors".into(),
            Form::Numbers => "list as 0-3,7".into(),
            Form::Rate => "rate".into(),
            Form::Path => "path".into(),
            Form::HostName => "host name".into(),
            Form::Name => "name".into(),
            Form::Address => "IP address".into(),
            Form::Mac => "hardware address".into(),
            Form::Port => "port".into(),
            Form::Signal => "signal".into(),
            Form::Capability => "capability".into(),
            Form::Ulimit => "soft[:hard]".into(),
            Form::Access => "some of rwm".into(),
            Form::List(form) => format!("list of {}", form.word()),
        }
    }

    /// Whether `value` has this form; if so, the value as `Definition` takes it.
    pub fn check(self, value: &Value) -> Result<Value, String> {
        let same = || Ok(value.clone());
        match (self, value) {
            (Form::Text, Value::Text(text)) if text.contains('\0') => Err("a text cannot hold a NUL".into()),
            (Form::Text | Form::Loose, Value::Text(_)) | (Form::Switch, Value::Switch(_)) => same(),
            (Form::Loose | Form::Ulimit, Value::Number(number)) => {
                self.check(&Value::Text(number.to_string()))
            }
            (Form::Choice(words), Value::Text(text)) if words.contains(&text.as_str()) => same(),
            (Form::Choice(words), _) => Err(format!("{value} is not one of {}", words.join(", "))),
            (Form::Number(least, most), Value::Number(number)) if (least..=most).contains(number) => same(),
            (Form::Number(..), Value::Number(_)) => Err(format!("{value} is no {}", self.word())),
            (Form::Size(least), Value::Number(_) | Value::Text(_)) => {
                size(value, least).map(|()| value.clone())
            }
            (Form::Span, Value::Text(text)) => Span::from_str(text).and_then(|_| same()),
            (Form::Span, Value::Number(0..)) => same(),
            (Form::Processors, Value::Number(number)) => quota(*number as f64).and_then(|_| same()),
            (Form::Processors, Value::Float(number)) => quota(*number).and_then(|_| same()),
            (Form::List(form), Value::List(list)) => {
                let entry = |entry: &super::tree::Entry| {
                    let value = form.check(&entry.value)?;
                    Ok(super::tree::Entry { at: entry.at.clone(), value })
                };
                list.iter().map(entry).collect::<Result<_, String>>().map(Value::List)
            }
            (_, Value::Text(text)) if self.is_text() => self.check_text(text).and_then(|()| same()),
            _ => Err(format!("{value} is {}, and {} is wanted", value.kind(), self.word())),
        }
    }

    fn is_text(self) -> bool {
        !matches!(
            self,
            Form::Switch | Form::Number(..) | Form::Size(_) | Form::Span | Form::Processors | Form::List(_)
        )
    }

    fn check_text(self, text: &str) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("{text:?} {why}"));
        match self {
            Form::Numbers if !is_numbers(text) => wrong("is not a list of numbers and ranges such as 0-3,7"),
            Form::Rate => Rate::from_str(text).map(drop).map_err(|err| err.to_string()),
            Form::Path if !text.starts_with('/') || text.contains('\0') => wrong("is not an absolute path"),
            Form::HostName if !is_host_name(text) => {
                wrong("is not a host name: letters, digits and dashes, with dots between, at most 64")
            }
            Form::Name if !is_name(text) => wrong("is not a name: letters, digits, dashes, dots"),
            Form::Address if text.parse::<IpAddr>().is_err() => {
                wrong("is not an IP address (without a prefix length)")
            }
            Form::Mac => Mac::from_str(text).map(drop).map_err(|err| err.to_string()),
            Form::Port => Publish::from_str(text).map(drop).map_err(|err| err.to_string()),
            Form::Signal if !is_signal(text) => wrong("is not a signal such as SIGTERM, RTMIN+3 or 15"),
            Form::Capability if !is_capability(text) => {
                wrong("is not a capability such as NET_ADMIN, nor ALL")
            }
            Form::Ulimit => ulimit(text).map(drop),
            Form::Access if text.is_empty() || !text.chars().all(|c| "rwm".contains(c)) => {
                wrong("is not some of rwm")
            }
            _ => Ok(()),
        }
    }

    /// The value that a word of the command line stands for.
    pub fn word_to_value(self, word: &str) -> Value {
        match self {
            Form::Switch => match word {
                "on" | "yes" | "true" | "1" => Value::Switch(true),
                "off" | "no" | "false" | "0" => Value::Switch(false),
                _ => Value::Text(word.into()),
            },
            Form::Choice(words) if words.contains(&"on") => match word {
                "yes" | "true" => Value::Text("on".into()),
                "no" | "false" => Value::Text("off".into()),
                _ => Value::Text(word.into()),
            },
            Form::Number(..) => word.parse().map_or_else(|_| Value::Text(word.into()), Value::Number),
            Form::Processors => match (word.parse(), word.parse()) {
                (Ok(number), _) => Value::Number(number),
                (_, Ok(number)) => Value::Float(number),
                _ => Value::Text(word.into()),
            },
            _ => Value::Text(word.into()),
        }
    }
}

fn size(value: &Value, least: u64) -> Result<(), String> {
    let bytes = match value {
        Value::Number(number) => {
            Size(u64::try_from(*number).map_err(|_| format!("{number} is less than nothing"))?)
        }
        Value::Text(text) => Size::from_str(text)?,
        _ => return Err(format!("{value} is no size")),
    };
    if bytes.0 < least {
        return Err(format!("{value} is less than {}", Size(least)));
    }
    // What cannot be told to the kernel or to TOML as a number of 64 bits with a sign.
    if i64::try_from(bytes.0).is_err() {
        return Err(format!("{value} is too large"));
    }
    Ok(())
}

/// The quota in microseconds of [`PERIOD`] that `processors` are, if it can be told exactly.
pub fn quota(processors: f64) -> Result<u64, String> {
    let exact = processors * PERIOD as f64;
    if !exact.is_finite() || exact < LEAST_QUOTA as f64 || exact > 1e12 {
        return Err(format!("{processors} processors: must be from 0.01 to 10000000"));
    }
    let micros = exact.round();
    if (exact - micros).abs() > 1e-3 {
        return Err(format!("{processors} processors: cpu.max counts hundred-thousandths, no finer"));
    }
    Ok(micros as u64)
}

/// Soft and hard limit; `u64::MAX` is none.
pub fn ulimit(text: &str) -> Result<(u64, u64), String> {
    let number = |part: &str| match part {
        "unlimited" | "-1" => Ok(u64::MAX),
        _ => part.parse().map_err(|_| format!("{text:?} is not a limit such as 1024 or 1024:4096")),
    };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(format!("{text:?}: the soft limit is above the hard one"));
    }
    Ok((soft, hard))
}

/// The numbers of a list as `0-3,7`.
pub fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 1 << 20 {
            return None;
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

fn is_numbers(list: &str) -> bool {
    numbers(list).is_some()
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_signal(text: &str) -> bool {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let real_time = |rest: &str, signs: &[char]| {
        rest.is_empty() || rest.strip_prefix(signs).is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n <= 30))
    };
    text.parse::<u32>().is_ok_and(|number| (1..=64).contains(&number))
        || name.strip_prefix("RTMIN").is_some_and(|rest| real_time(rest, &['+']))
        || name.strip_prefix("RTMAX").is_some_and(|rest| real_time(rest, &['-']))
        || Signal::from_str(&format!("SIG{name}")).is_ok()
}

fn is_capability(text: &str) -> bool {
    let name = text.to_ascii_uppercase();
    let full = if name.starts_with("CAP_") { name.clone() } else { format!("CAP_{name}") };
    name == "ALL" || locule_runtime::attrs::caps::known_names().contains(&full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn each_form_takes_what_it_should_and_nothing_else() {
        const WORDS: Form = Form::Choice(&["off", "on"]);
        let good: &[(Form, Value)] = &[
            (WORDS, text("on")),
            (Form::Number(1, 10), Value::Number(10)),
            (Form::Size(1), text("1.5G")),
            (Form::Size(0), Value::Number(0)),
            (Form::Span, text("90s")),
            (Form::Processors, Value::Float(1.5)),
            (Form::Processors, Value::Number(2)),
            (Form::Numbers, text("0-3,7")),
            (Form::Rate, text("20mbit")),
            (Form::Path, text("/a")),
            (Form::HostName, text("web1.example.org")),
            (Form::Address, text("fd00::1")),
            (Form::Mac, text("02:00:00:00:00:01")),
            (Form::Port, text("127.0.0.1:8080:80/tcp")),
            (Form::Signal, text("SIGRTMIN+3")),
            (Form::Signal, text("TERM")),
            (Form::Signal, text("15")),
            (Form::Capability, text("net_admin")),
            (Form::Capability, text("ALL")),
            (Form::Ulimit, text("1024:unlimited")),
            (Form::Access, text("rw")),
        ];
        for (form, value) in good {
            assert_eq!(form.check(value).as_ref(), Ok(value), "{form:?}");
        }
        let bad: &[(Form, Value)] = &[
            (WORDS, text("maybe")),
            (Form::Switch, text("true")),
            (Form::Number(1, 10), Value::Number(0)),
            (Form::Number(1, 10), text("5")),
            (Form::Size(1), text("12Q")),
            (Form::Size(1), Value::Number(0)),
            (Form::Size(0), Value::Number(-1)),
            (Form::Size(0), text("16777215T")),
            (Form::Span, text("1 day")),
            (Form::Processors, Value::Float(0.001)),
            (Form::Processors, Value::Float(f64::NAN)),
            (Form::Processors, Value::Float(0.123_456_7)),
            (Form::Numbers, text("3-1")),
            (Form::Numbers, text("")),
            (Form::Rate, text("20")),
            (Form::Path, text("a")),
            (Form::HostName, text("a..b")),
            (Form::Address, text("10.0.0.1/24")),
            (Form::Mac, text("nothing")),
            (Form::Port, text("80")),
            (Form::Signal, text("SIGNOTHING")),
            (Form::Signal, text("65")),
            (Form::Capability, text("CAP_NOTHING")),
            (Form::Ulimit, text("5:4")),
            (Form::Access, text("rx")),
            (Form::Text, text("a\0b")),
        ];
        for (form, value) in bad {
            assert!(form.check(value).is_err(), "{form:?} takes {value}");
        }
        assert_eq!(Form::Ulimit.check(&Value::Number(5)), Ok(text("5")));
    }

    #[test]
    fn quotas_are_exact() {
        for (processors, micros) in
            [(0.01, 1000), (0.1, 10_000), (0.333, 33_300), (1.5, 150_000), (64.0, 6_400_000)]
        {
            assert_eq!(quota(processors), Ok(micros), "{processors}");
        }
        // Every hundredth up to 64 processors, which binary fractions do not hit.
        for hundredths in 1..=6400_u64 {
            assert_eq!(quota(hundredths as f64 / 100.0), Ok(hundredths * 1000));
        }
    }
}
