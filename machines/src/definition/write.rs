//! A definition as a document, for machines that are made anew.
//!
//! Owns the order of keys, which is that of their table. Never writes what is the default.

use serde_json::Value as Json;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use super::Definition;
use crate::{Context, Result};

impl Definition {
    /// The document that is read back as this definition.
    pub fn document(&self) -> Result<String> {
        let encode =
            |definition: &Definition| serde_json::to_value(definition).doing(|| "encoding the definition");
        let (own, default) = (encode(self)?, encode(&Definition::default())?);
        let mut document = DocumentMut::new();
        fill(document.as_table_mut(), &own, &default);
        // An empty table of networks means that there is none, which absence does not.
        if self.networks.as_ref().is_some_and(std::collections::BTreeMap::is_empty) {
            document.insert("network", Item::Table(Table::new()));
        }
        Ok(document.to_string())
    }
}

/// Puts in `table` what is in `own` other than `default` has it.
fn fill(table: &mut Table, own: &Json, default: &Json) {
    let Json::Object(own) = own else { return };
    // Values come before tables, or TOML would take them for the tables'.
    let mut names: Vec<_> = own.keys().collect();
    names.sort_by_key(|name| {
        super::keys::KEYS.iter().position(|key| key.path.split('.').next() == Some(name))
    });
    for name in names {
        let (value, default) = (&own[name], default.get(name).unwrap_or(&Json::Null));
        if value == default {
            continue;
        }
        match value {
            Json::Object(_) => {
                let mut inner = Table::new();
                fill(&mut inner, value, default);
                inner.set_implicit(inner.iter().all(|(_, item)| item.is_table()) && !inner.is_empty());
                table.insert(name, Item::Table(inner));
            }
            Json::Array(list) if list.iter().any(Json::is_object) => {
                let mut tables = ArrayOfTables::new();
                for entry in list {
                    let mut inner = Table::new();
                    let empty = serde_json::json!({"options": [], "target": null, "access": null});
                    fill(&mut inner, entry, &empty);
                    tables.push(inner);
                }
                table.insert(name, Item::ArrayOfTables(tables));
            }
            other => {
                if let Some(value) = plain(other) {
                    table.insert(name, Item::Value(value));
                }
            }
        }
    }
}

/// A value that is no table; nothing for `null`.
pub(crate) fn plain(value: &Json) -> Option<Value> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(on) => (*on).into(),
        Json::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64()?.into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(list) => list.iter().filter_map(plain).collect::<Array>().into(),
        Json::Object(map) => map
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), plain(value)?)))
            .collect::<InlineTable>()
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text = r#"
            image = "debian:13"
            labels = { team = "a b", "x.y" = "z" }
            visible = false
            [init]
            command = ["/bin/sh", "-c", "echo \"a\""]
            env.PATH = "/bin"
            stop-timeout = "500ms"
            [memory]
            limit = "1536M"
            swap = 0
            [cpu]
            limit = 1.5
            [disk]
            kind = "disk"
            size = "10G"
            [[mount]]
            source = "/srv"
            target = "/srv"
            options = ["ro"]
            [[device]]
            path = "/dev/net/tun"
            [network.eth0]
            ports = ["8080:80"]
            up = "10mbit"
            [network.eth1]
            [sysctl]
            "net.ipv4.ip_forward" = "1"
            [health]
            command = ["/bin/true"]
            [boot]
            start = "on"
            order = -5
        "#;
        let definition = Definition::parse(text, Path::new("m")).unwrap();
        let document = definition.document().unwrap();
        assert_eq!(Definition::parse(&document, Path::new("m")).unwrap(), definition, "{document}");
        assert!(!document.contains("disabled") && !document.contains("weight"), "{document}");
        for networks in [None, Some(std::collections::BTreeMap::new())] {
            let definition = Definition { networks, image: "host".into(), ..Definition::default() };
            let document = definition.document().unwrap();
            assert_eq!(Definition::parse(&document, Path::new("m")).unwrap(), definition, "{document}");
        }
    }
}
