//! Where errors and warnings go: standard error and the file of `--log`, in the format of `--log-format`.
//!
//! Engines read that file: containerd takes the last record of level `error`, Podman parses the
//! whole file as one JSON value. So an error is exactly one record, written by one write(2) to a
//! descriptor opened for appending, and warnings stay out of a JSON file unless `--debug` asks.
//! The file is opened only when there is something to write.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `time="…" level=… msg="…"`, as logrus writes it.
    #[default]
    Text,
    /// `{"level":"…","msg":"…","time":"…"}`.
    Json,
}

/// The log of one call.
#[derive(Debug)]
pub struct Log<'a> {
    file: Option<&'a Path>,
    format: Format,
    debug: bool,
}

impl<'a> Log<'a> {
    /// A log to `file`, or to standard error where there is none.
    pub fn new(file: Option<&'a Path>, format: Format, debug: bool) -> Self {
        Log { file, format, debug }
    }

    /// The one error of the call. Standard error has it in any case, as runc does.
    pub fn error(&self, message: &str) {
        match self.file {
            Some(path) => {
                self.append(path, "error", message);
                to_stderr(&plain("", message));
            }
            None if self.format == Format::Json => to_stderr(&json("error", message, now())),
            None => to_stderr(&plain("", message)),
        }
    }

    /// Something that the user should know although the call goes on.
    pub fn warning(&self, message: &str) {
        match (self.file, self.format) {
            // An engine's channel for one error: see the head of this file.
            (_, Format::Json) if !self.debug => {}
            (Some(path), _) => self.append(path, "warning", message),
            (None, Format::Json) => to_stderr(&json("warning", message, now())),
            (None, Format::Text) => to_stderr(&plain("warning: ", message)),
        }
    }

    /// What `--debug` shows.
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        if !self.debug {
            return;
        }
        let message = message.to_string();
        match (self.file, self.format) {
            (Some(path), _) => self.append(path, "debug", &message),
            (None, Format::Json) => to_stderr(&json("debug", &message, now())),
            (None, Format::Text) => to_stderr(&plain("debug: ", &message)),
        }
    }

    fn append(&self, path: &Path, level: &str, message: &str) {
        let record = match self.format {
            Format::Json => json(level, message, now()),
            Format::Text => text(level, message, now()),
        };
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(record.as_bytes()));
        if let Err(err) = written {
            to_stderr(&plain("", &format!("writing the log {}: {err}", path.display())));
        }
    }
}

fn to_stderr(line: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// One line: an error text with line breaks in it would look like several errors.
fn plain(level: &str, message: &str) -> String {
    format!("locule: {level}{}\n", message.trim_end().replace('\n', " "))
}

fn json(level: &str, message: &str, seconds: u64) -> String {
    let message = serde_json::Value::from(message);
    format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{}\"}}\n", rfc3339(seconds))
}

fn text(level: &str, message: &str, seconds: u64) -> String {
    // JSON's escapes are those that logrus readers undo.
    let message = serde_json::Value::from(message);
    format!("time=\"{}\" level={level} msg={message}\n", rfc3339(seconds))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// UTC in RFC 3339, the only form that containerd's reader takes.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Gregorian date from a day count: years begin in March, eras last 400 years.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(rfc3339(4_102_444_799), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn records_have_the_engines_form() {
        let record = json("error", "creating \"a\"\n: no", 0);
        assert_eq!(
            record,
            "{\"level\":\"error\",\"msg\":\"creating \\\"a\\\"\\n: no\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        let value: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(value["msg"], "creating \"a\"\n: no");
        assert_eq!(
            text("error", "a \"b\"", 0),
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"a \\\"b\\\"\"\n"
        );
        assert_eq!(plain("", "a\nb\n"), "locule: a b\n");
    }
}
