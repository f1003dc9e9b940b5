//! Where errors and warnings go: standard error and the file of `--log`, in the format of `--log-format`.
//!
//! Engines read that file (`contract::log_record`). So an error is exactly one record, written by one write(2)
//! to a descriptor opened for appending, and warnings stay out of a JSON file unless `--debug` asks.
//! The file is opened only when there is something to write.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use locule_runtime::contract;
use locule_runtime::time::rfc3339_seconds;

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
            None if self.format == Format::Json => to_stderr(&json("error", message, SystemTime::now())),
            None => to_stderr(&plain("", message)),
        }
    }

    /// Something that the user should know although the call goes on.
    pub fn warning(&self, message: &str) {
        match (self.file, self.format) {
            // An engine's channel for one error: see the head of this file.
            (_, Format::Json) if !self.debug => {}
            (Some(path), _) => self.append(path, "warning", message),
            (None, Format::Json) => to_stderr(&json("warning", message, SystemTime::now())),
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
            (None, Format::Json) => to_stderr(&json("debug", &message, SystemTime::now())),
            (None, Format::Text) => to_stderr(&plain("debug: ", &message)),
        }
    }

    fn append(&self, path: &Path, level: &str, message: &str) {
        let record = match self.format {
            Format::Json => json(level, message, SystemTime::now()),
            Format::Text => text(level, message, SystemTime::now()),
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

fn json(level: &str, message: &str, time: SystemTime) -> String {
    contract::log_record(level, message, &rfc3339_seconds(time))
}

fn text(level: &str, message: &str, time: SystemTime) -> String {
    // JSON's escapes are those that logrus readers undo.
    let message = serde_json::Value::from(message);
    format!("time=\"{}\" level={level} msg={message}\n", rfc3339_seconds(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn records_have_the_engines_form() {
        let record = json("error", "creating \"a\"\n: no", UNIX_EPOCH);
        assert_eq!(
            record,
            "{\"level\":\"error\",\"msg\":\"creating \\\"a\\\"\\n: no\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        let value: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(value["msg"], "creating \"a\"\n: no");
        assert_eq!(
            text("error", "a \"b\"", UNIX_EPOCH),
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"a \\\"b\\\"\"\n"
        );
        assert_eq!(plain("", "a\nb\n"), "locule: a b\n");
    }
}
