//! `key=value`, `key+=value`, `key-=value`, `key=`: what is asked to be changed.
//!
//! Owns the reading of these words. Changes nothing.

use crate::definition::forms::{Form, UNLIMITED};
use crate::definition::keys::{self, Key, LISTS};
use crate::definition::tree::{Entry, Place, Value};
use crate::{Error, Result};

/// What is changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A value of this key.
    Key(&'static str),
    /// A whole table, as an interface.
    Table,
    /// A list of tables: mounts or devices.
    List,
}

/// How it is changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// It has this value.
    Set(Value),
    /// These are added to it.
    Add(Vec<Value>),
    /// These are taken from it.
    Remove(Vec<Value>),
    /// It is not said any more.
    Unset,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Of what.
    pub target: Target,
    /// Its path, name by name.
    pub names: Vec<String>,
    /// How.
    pub act: Act,
}

impl Change {
    /// The path with dots.
    pub fn path(&self) -> String {
        self.names.join(".")
    }

    /// Reads one word.
    pub fn parse(word: &str) -> Result<Change> {
        let (left, right) = word.split_once('=').ok_or_else(|| {
            Error::invalid(format!("{word:?} is no change")).hint("KEY=VALUE, KEY+=VALUE, KEY-=VALUE or KEY=")
        })?;
        let (path, sign) = match left.as_bytes().last() {
            Some(b'+') => (&left[..left.len() - 1], '+'),
            Some(b'-') => (&left[..left.len() - 1], '-'),
            _ => (left, '='),
        };
        if let Some((key, names)) = keys::find(path) {
            if let Some(name) = names.last() {
                keys::check_name(key, name).map_err(|why| Error::invalid(format!("{path}: {why}")))?;
            }
            // An interface's name stands before the last.
            if let [table, name, ..] = names.as_slice()
                && table == "network"
            {
                keys::check_name(key, name).map_err(|why| Error::invalid(format!("{path}: {why}")))?;
            }
            let act = act(key, path, sign, right)?;
            return Ok(Change { target: Target::Key(key.path), names, act });
        }
        if LISTS.iter().any(|(list, _)| *list == path) {
            return list(path, sign, right);
        }
        let names: Vec<String> = path.split('.').map(str::to_owned).collect();
        if path == "network" && sign == '=' && right == "none" {
            // An empty table: no interface at all.
            return Ok(Change {
                target: Target::Table,
                names,
                act: Act::Set(Value::Table(Default::default())),
            });
        }
        if is_table(&names) {
            return match (sign, right) {
                ('=', "") => Ok(Change { target: Target::Table, names, act: Act::Unset }),
                _ => Err(Error::invalid(format!("{path} is a table"))
                    .hint(format!("set its keys, or remove it: {path}="))),
            };
        }
        Err(keys::unknown(path))
    }
}

/// Whether the names lead to a table.
fn is_table(names: &[String]) -> bool {
    keys::KEYS.iter().any(|key| {
        let pattern: Vec<_> = key.path.split('.').collect();
        pattern.len() > names.len()
            && names.iter().zip(pattern).all(|(name, pattern)| pattern == "*" || pattern == name)
    })
}

fn act(key: &'static Key, path: &str, sign: char, right: &str) -> Result<Act> {
    if right.is_empty() {
        return match sign {
            '=' => Ok(Act::Unset),
            _ => Err(Error::invalid(format!(
                "{path}: nothing to {}",
                if sign == '+' { "add" } else { "remove" }
            ))),
        };
    }
    let Form::List(form) = key.form else {
        if sign != '=' {
            return Err(Error::invalid(format!("{path} is no list: write {path}={right}")));
        }
        let value = match key.unlimited && matches!(right, UNLIMITED | "max" | "none") {
            true => Value::Text(UNLIMITED.into()),
            false => key.form.word_to_value(right),
        };
        return checked(key, path, value).map(Act::Set);
    };
    let list = if right.starts_with('[') {
        // As in the file.
        let tree = crate::definition::tree::read(&format!("value = {right}"), path)?;
        match tree.at("value").map(|entry| &entry.value) {
            Some(Value::List(list)) => list.iter().map(|entry| entry.value.clone()).collect(),
            _ => return Err(Error::invalid(format!("{path}: {right:?} is no array"))),
        }
    } else if *form == Form::Text {
        right.split_whitespace().map(|word| Value::Text(word.into())).collect()
    } else {
        right.split(',').map(|word| Value::Text(word.trim().into())).collect::<Vec<_>>()
    };
    let entry = |value: &Value| Entry { at: Place::of(path), value: value.clone() };
    checked(key, path, Value::List(list.iter().map(entry).collect()))?;
    Ok(match sign {
        '+' => Act::Add(list),
        '-' => Act::Remove(list),
        _ => Act::Set(Value::List(list.iter().map(entry).collect())),
    })
}

/// The value, once it has the key's form.
fn checked(key: &Key, path: &str, value: Value) -> Result<Value> {
    if key.unlimited && value == Value::Text(UNLIMITED.into()) {
        return Ok(value);
    }
    key.form.check(&value).map_err(|why| Error::invalid(format!("{path}: {why}")))
}

/// A mount as docker spells it, a device as well.
fn list(path: &str, sign: char, right: &str) -> Result<Change> {
    let form = LISTS.iter().find(|(list, _)| *list == path).map_or("", |(_, form)| form);
    let wrong = |why: &str| {
        Error::invalid(format!("{path}: {why}")).hint(format!("{path}+={form}, {path}-=NAME or {path}="))
    };
    let text = |word: &str| Value::Text(word.into());
    let act = match (sign, right) {
        ('=', "") => Act::Unset,
        (_, "") => return Err(wrong("nothing is named")),
        ('-', name) => Act::Remove(vec![text(name)]),
        ('+', word) => {
            let mut parts = word.split(':');
            let mut fields = vec![];
            match path {
                "mount" => {
                    fields.push(("source", text(parts.next().unwrap_or_default())));
                    fields.push(("target", text(parts.next().ok_or_else(|| wrong("no target"))?)));
                    if let Some(options) = parts.next() {
                        let entry = |word: &str| Entry { at: Place::of(path), value: text(word) };
                        fields.push(("options", Value::List(options.split(',').map(entry).collect())));
                    }
                }
                _ => {
                    fields.push(("path", text(parts.next().unwrap_or_default())));
                    for part in parts.by_ref() {
                        fields.push((if part.starts_with('/') { "target" } else { "access" }, text(part)));
                    }
                }
            }
            if parts.next().is_some() {
                return Err(wrong("one colon too many"));
            }
            let table = fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), Entry { at: Place::of(path), value }))
                .collect();
            Act::Add(vec![Value::Table(table)])
        }
        _ => return Err(wrong("a list is changed by += and -=")),
    };
    Ok(Change { target: Target::List, names: vec![path.to_owned()], act })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(word: &str) -> (String, Act) {
        let change = Change::parse(word).unwrap_or_else(|err| panic!("{word}: {err}"));
        (change.path(), change.act)
    }

    #[test]
    fn words_become_changes() {
        let text = |text: &str| Value::Text(text.into());
        for (word, path, act) in [
            ("memory=2G", "memory.limit", Act::Set(text("2G"))),
            ("memory=max", "memory.limit", Act::Set(text("unlimited"))),
            ("cpus=1.5", "cpu.limit", Act::Set(Value::Float(1.5))),
            ("cpus=2", "cpu.limit", Act::Set(Value::Number(2))),
            ("pids=100", "pids.limit", Act::Set(Value::Number(100))),
            ("boot=yes", "boot.start", Act::Set(text("on"))),
            ("disabled=on", "disabled", Act::Set(Value::Switch(true))),
            ("restart=no", "restart.policy", Act::Set(text("no"))),
            ("memory=", "memory.limit", Act::Unset),
            ("network.eth0=", "network.eth0", Act::Unset),
            ("health=", "health", Act::Unset),
            ("mount=", "mount", Act::Unset),
            ("dns+=10.0.0.1,fd00::1", "dns.servers", Act::Add(vec![text("10.0.0.1"), text("fd00::1")])),
            ("boot.after-=db", "boot.after", Act::Remove(vec![text("db")])),
            ("mount-=/srv", "mount", Act::Remove(vec![text("/srv")])),
            ("sysctl.net.ipv4.ip_forward=1", "sysctl.net.ipv4.ip_forward", Act::Set(text("1"))),
            ("init.env.A=b=c", "init.env.A", Act::Set(text("b=c"))),
            ("network.eth0.up=none", "network.eth0.up", Act::Set(text("unlimited"))),
        ] {
            assert_eq!(parsed(word), (path.into(), act), "{word}");
        }
        let (_, act) = parsed(r#"init.command=["/bin/sh", "-c", "a b"]"#);
        let Act::Set(Value::List(list)) = act else { panic!() };
        assert_eq!(list.len(), 3);
        let (_, act) = parsed("mount+=/srv/a:/srv:ro,nosuid");
        let Act::Add(list) = act else { panic!() };
        assert_eq!(
            list[0].json(),
            serde_json::json!({"source": "/srv/a", "target": "/srv", "options": ["ro", "nosuid"]})
        );
        let (_, act) = parsed("device+=/dev/a:/dev/b:rw");
        let Act::Add(list) = act else { panic!() };
        assert_eq!(list[0].json(), serde_json::json!({"path": "/dev/a", "target": "/dev/b", "access": "rw"}));
        assert!(matches!(parsed("network=none").1, Act::Set(Value::Table(_))));
    }

    #[test]
    fn wrong_words_are_refused_in_words() {
        for (word, want) in [
            ("memory", "is no change"),
            ("memory=12Q", "memory: \"12Q\" is not a size such as 512M or 2G"),
            ("memroy=1G", "there is no key memroy: did you mean memory?"),
            ("memory.limt=1G", "there is no key memory.limt: did you mean memory.limit?"),
            ("memory+=1G", "memory is no list"),
            ("dns+=", "nothing to add"),
            ("dns+=x", "is not an IP address"),
            ("network.eth0=web", "network.eth0 is a table"),
            ("network.a b.up=1mbit", "at most 15 letters"),
            ("mount=/a:/b", "changed by += and -="),
            ("mount+=/a", "no target"),
            ("ulimit.files=5", "no such rlimit"),
            ("cpulimit=50", "did you mean cpu.limit?"),
            ("=5", "there is no key"),
            ("cpus=0", "must be from 0.01"),
        ] {
            let err = Change::parse(word).unwrap_err().to_string();
            assert!(err.contains(want), "{word}: {err}");
        }
    }
}
