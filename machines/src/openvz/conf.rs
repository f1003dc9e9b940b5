//! The shell-like files of vzctl: `NAME="value"` lines, of which nothing is ever executed.
//!
//! Owns their grammar. Knows no name.

use crate::{Error, Result};

/// The names and values of a file, in its order; of a name that stands twice the later value counts.
pub fn read(text: &str) -> Result<Vec<(String, String)>> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |why: &str| Error::invalid(format!("line {}: {why}: {line:?}", number + 1));
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("there is no ="))?;
        let name = name.trim();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(fits) {
            return Err(wrong("that is no name"));
        }
        let value = unquote(value.trim()).ok_or_else(|| wrong("the quotation does not end"))?;
        let name = name.to_ascii_uppercase().replace('-', "_");
        entries.retain(|(known, _)| *known != name);
        entries.push((name, value.trim().to_owned()));
    }
    Ok(entries)
}

/// The value without quotes and without a comment behind it.
fn unquote(value: &str) -> Option<String> {
    let mut letters = value.chars();
    match letters.next() {
        Some('"') => {
            let mut text = String::new();
            loop {
                match letters.next()? {
                    '"' => return Some(text),
                    '\\' => text.push(letters.next()?),
                    letter => text.push(letter),
                }
            }
        }
        Some('\'') => letters.as_str().split_once('\'').map(|(text, _)| text.to_owned()),
        _ => Some(value.split(" #").next().unwrap_or(value).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_a_shell_would() {
        let text = "# comment\n\nA=\"b c\" # why\nB=d # e\nexport C='f \"g'\nD=\"h \\\"i\\\"\"\nA=last\nstop-timeout=5\nE=\n";
        let want =
            [("B", "d"), ("C", "f \"g"), ("D", "h \"i\""), ("A", "last"), ("STOP_TIMEOUT", "5"), ("E", "")];
        assert_eq!(read(text).unwrap(), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        // What a shell would execute is text.
        assert_eq!(read("A=\"$(reboot)\"").unwrap()[0].1, "$(reboot)");
        for wrong in ["nothing", "=x", "A B=c", "A=\"b", "A='b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
