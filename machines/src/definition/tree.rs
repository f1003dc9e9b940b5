//! A TOML document as a tree in which every value knows where it was written.
//!
//! Owns reading, merging and turning into JSON, from which `Definition` is made. Never judges a value; `keys` does.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml_edit::{Document, Item, TableLike};

use crate::{Error, Result};

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    line: usize,
    column: usize,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where.
    pub at: Place,
    /// What.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Number(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Switch(bool),
    /// An array, or an array of tables.
    List(Vec<Entry>),
    /// A table.
    Table(BTreeMap<String, Entry>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            _ => write!(f, "{}:{}:{}", self.file, self.line, self.column),
        }
    }
}

impl Place {
    /// A file as a whole.
    pub fn of(file: &str) -> Place {
        Place { file: file.into(), line: 0, column: 0 }
    }

    /// Refuses what stands here.
    pub fn refuse(&self, why: impl fmt::Display) -> Error {
        Error::invalid(format!("reading {self}: {why}"))
    }
}

impl Value {
    /// What it is, in TOML's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Number(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Switch(_) => "true or false",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// The table, where it is one.
    pub fn table(&self) -> Option<&BTreeMap<String, Entry>> {
        match self {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number:?}"),
            Value::Switch(on) => write!(f, "{on}"),
            other => write!(f, "{}", other.json()),
        }
    }
}

/// The document as it is read: text, and where its lines begin.
struct Source<'a> {
    file: Arc<str>,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, span: Option<Range<usize>>) -> Place {
        let Some(at) = span.map(|span| span.start.min(self.text.len())) else {
            return Place { file: Arc::clone(&self.file), line: 0, column: 0 };
        };
        let before = self.text.get(..at).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        Place {
            file: Arc::clone(&self.file),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
        }
    }

    fn table(&self, table: &dyn TableLike) -> Result<BTreeMap<String, Entry>> {
        let mut entries = BTreeMap::new();
        for (name, item) in table.iter() {
            if item.is_none() {
                continue;
            }
            let key = table.key(name).and_then(toml_edit::Key::span);
            // A table stands where its name does, a value where it begins.
            let span = if item.is_table_like() { key.or_else(|| item.span()) } else { item.span().or(key) };
            entries.insert(name.to_owned(), Entry { at: self.place(span), value: self.item(item)? });
        }
        Ok(entries)
    }

    fn item(&self, item: &Item) -> Result<Value> {
        if let Some(table) = item.as_table_like() {
            return Ok(Value::Table(self.table(table)?));
        }
        match item {
            Item::ArrayOfTables(tables) => {
                let entry = |table: &toml_edit::Table| {
                    Ok(Entry { at: self.place(table.span()), value: Value::Table(self.table(table)?) })
                };
                Ok(Value::List(tables.iter().map(entry).collect::<Result<_>>()?))
            }
            Item::Value(value) => self.value(value),
            _ => Ok(Value::Table(BTreeMap::new())),
        }
    }

    fn value(&self, value: &toml_edit::Value) -> Result<Value> {
        use toml_edit::Value as Toml;
        Ok(match value {
            Toml::String(text) => Value::Text(text.value().clone()),
            Toml::Integer(number) => Value::Number(*number.value()),
            Toml::Float(number) => Value::Float(*number.value()),
            Toml::Boolean(on) => Value::Switch(*on.value()),
            Toml::Datetime(_) => {
                return Err(self.place(value.span()).refuse("a date is no value of any key: quote it"));
            }
            Toml::Array(list) => {
                let entry =
                    |value: &Toml| Ok(Entry { at: self.place(value.span()), value: self.value(value)? });
                Value::List(list.iter().map(entry).collect::<Result<_>>()?)
            }
            Toml::InlineTable(table) => Value::Table(self.table(table)?),
        })
    }
}

/// Reads `text`, which stands in `file`.
pub fn read(text: &str, file: &str) -> Result<Entry> {
    let source = Source { file: file.into(), text };
    let document = Document::parse(text).map_err(|err| {
        let why: Vec<_> = err.message().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        source.place(err.span()).refuse(why.join(", "))
    })?;
    Ok(Entry { at: Place::of(file), value: Value::Table(source.table(document.as_table())?) })
}

impl Entry {
    /// An empty document.
    pub fn empty(file: &str) -> Entry {
        Entry { at: Place::of(file), value: Value::Table(BTreeMap::new()) }
    }

    /// What stands at the dotted `path`.
    pub fn at(&self, path: &str) -> Option<&Entry> {
        path.split('.').try_fold(self, |entry, name| entry.value.table()?.get(name))
    }

    /// Where `path` was written, or else the document.
    pub fn place(&self, path: &str) -> &Place {
        self.at(path).map_or(&self.at, |entry| &entry.at)
    }

    /// Puts `over` on top: tables are merged, everything else is replaced.
    pub fn merge(&mut self, over: Entry) {
        match (&mut self.value, over.value) {
            (Value::Table(base), Value::Table(over)) => {
                for (name, entry) in over {
                    match base.get_mut(&name) {
                        Some(present) => present.merge(entry),
                        None => drop(base.insert(name, entry)),
                    }
                }
            }
            (value, over) => *value = over,
        }
        self.at = over.at;
    }
}

impl Value {
    /// The same in JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.clone().into(),
            Value::Number(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Switch(on) => (*on).into(),
            Value::List(list) => list.iter().map(|entry| entry.value.json()).collect(),
            Value::Table(table) => serde_json::Value::Object(
                table.iter().map(|(name, entry)| (name.clone(), entry.value.json())).collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "image = \"host\"\n[memory]\nlimit = \"1G\"\n\n[[mount]]\nsource = \"/a\"\n[network]\neth0.ports = [\"80:80\",\n  \"ü\", \"81:81\"]\n";

    #[test]
    fn places_are_lines_and_columns() {
        let tree = read(TEXT, "m.toml").unwrap();
        let place = |path| tree.place(path).to_string();
        assert_eq!(place("image"), "m.toml:1:9");
        assert_eq!(place("memory"), "m.toml:2:2");
        assert_eq!(place("memory.limit"), "m.toml:3:9");
        assert_eq!(place("memory.nothing"), "m.toml");
        let Value::List(mounts) = &tree.at("mount").unwrap().value else { panic!() };
        assert_eq!(mounts[0].at.to_string(), "m.toml:5:1");
        let Value::List(ports) = &tree.at("network.eth0.ports").unwrap().value else { panic!() };
        assert_eq!(ports[2].at.to_string(), "m.toml:9:8");
    }

    #[test]
    fn a_broken_document_says_where() {
        for (text, place) in [
            ("a = ", "m.toml:1:"),
            ("a = 1\na = 2\n", "m.toml:2:"),
            ("[x\n", "m.toml:1:"),
            ("d = 2020-01-01", "m.toml:1:5"),
        ] {
            let err = read(text, "m.toml").unwrap_err().to_string();
            assert!(err.contains(place) && !err.contains('\n'), "{text:?}: {err}");
        }
    }

    #[test]
    fn tables_merge_and_lists_are_replaced() {
        let mut base = read("a.x = 1\na.y = 2\nl = [1, 2]\n", "base").unwrap();
        base.merge(read("a.y = 3\nl = [4]\nn = true\n", "over").unwrap());
        let json = serde_json::json!({"a": {"x": 1, "y": 3}, "l": [4], "n": true});
        assert_eq!(base.value.json(), json);
        assert_eq!(base.place("a.x").to_string(), "base:1:7");
        assert_eq!(base.place("a.y").to_string(), "over:1:7");
    }
}
