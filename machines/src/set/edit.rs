//! Changing the text of a definition, and nothing in it that is not asked for.
//!
//! Owns the edits by `toml_edit`: comments, order and spelling of everything else stay. Checks nothing.

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TableLike};

use super::change::{Act, Change, Target};
use crate::definition::tree::{Entry, Value};
use crate::definition::write::plain;
use crate::{Error, Result};

/// `text` with the changes made. `resolved` is what it means with its profiles, whose lists are what `+=` adds to.
pub fn edit(text: &str, resolved: &Entry, changes: &[Change]) -> Result<String> {
    let mut document: DocumentMut = text.parse().map_err(|err: toml_edit::TomlError| {
        Error::invalid(format!("reading the definition: {}", err.message()))
    })?;
    for change in changes {
        one(document.as_table_mut(), resolved, change)?;
    }
    Ok(document.to_string())
}

fn one(root: &mut Table, resolved: &Entry, change: &Change) -> Result<()> {
    let Some((name, tables)) = change.names.split_last() else { return Ok(()) };
    if change.act == Act::Unset {
        remove(root, tables, name);
        return Ok(());
    }
    let inherited = found(resolved, &change.names);
    let table = descend(root, tables, &change.path())?;
    match (&change.act, &change.target) {
        (Act::Set(_), Target::Table) => drop(table.insert(name, Item::Table(Table::new()))),
        (Act::Set(value), _) => put(table, name, value),
        (Act::Add(new), Target::List) => {
            let list = tables_of(table, name, inherited);
            for value in new {
                // One mount or device a target: the new one takes the old one's place.
                let key = element(name);
                let same = value.table().and_then(|table| table.get(key)).map(|entry| entry.value.json());
                list.retain(|table| table.get(key).and_then(Item::as_str).map(Into::into) != same);
                list.push(as_table(value));
            }
        }
        (Act::Remove(names), Target::List) => {
            let list = tables_of(table, name, inherited);
            for gone in names {
                let before = list.len();
                let spelled = gone.json();
                let is = |table: &Table, key: &str| {
                    table.get(key).and_then(Item::as_str).map(Into::into).as_ref() == Some(&spelled)
                };
                list.retain(|table| !is(table, element(name)));
                if list.len() == before {
                    return Err(Error::invalid(format!("{name}: {gone} is not in it")));
                }
            }
            if list.is_empty() {
                table.remove(name);
            }
        }
        (Act::Add(values) | Act::Remove(values), _) => {
            let mut list = match table.get(name).and_then(Item::as_array) {
                Some(array) => array.clone(),
                None => inherited
                    .and_then(|entry| plain(&entry.value.json())?.as_array().cloned())
                    .unwrap_or_default(),
            };
            amend(&mut list, values, matches!(change.act, Act::Add(_)), &change.path())?;
            match table.get_mut(name).and_then(Item::as_value_mut) {
                Some(present) => replace(present, list.into()),
                None => drop(table.insert(name, Item::Value(list.into()))),
            }
        }
        (Act::Unset, _) => {}
    }
    Ok(())
}

/// Which field names an element of a list.
fn element(list: &str) -> &'static str {
    if list == "mount" { "target" } else { "path" }
}

fn amend(list: &mut Array, values: &[Value], add: bool, path: &str) -> Result<()> {
    for value in values {
        let Value::Text(text) = value else { continue };
        let at = list.iter().position(|present| present.as_str() == Some(text));
        match (add, at) {
            (true, None) => list.push(text.as_str()),
            (true, Some(_)) => {}
            (false, Some(at)) => drop(list.remove(at)),
            (false, None) => return Err(Error::invalid(format!("{path}: {text:?} is not in it"))),
        }
    }
    Ok(())
}

fn put(table: &mut dyn TableLike, name: &str, value: &Value) {
    let Some(new) = plain(&value.json()) else { return };
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(present) => replace(present, new),
        None => drop(table.insert(name, Item::Value(new))),
    }
}

/// The comment behind a value stays.
fn replace(present: &mut toml_edit::Value, mut new: toml_edit::Value) {
    *new.decor_mut() = present.decor().clone();
    *present = new;
}

/// The table at `tables`, made where it is not.
fn descend<'a>(root: &'a mut Table, tables: &[String], path: &str) -> Result<&'a mut dyn TableLike> {
    let mut table: &mut dyn TableLike = root;
    for (at, name) in tables.iter().enumerate() {
        let fresh = || {
            let mut fresh = Table::new();
            // `[network.eth0]` needs no `[network]`.
            fresh.set_implicit(at + 1 < tables.len());
            Item::Table(fresh)
        };
        table = table
            .entry(name)
            .or_insert_with(fresh)
            .as_table_like_mut()
            .ok_or_else(|| Error::invalid(format!("{path}: {name} is no table in the definition")))?;
    }
    Ok(table)
}

/// Removes what is at the path, and the tables that are empty then.
fn remove(root: &mut Table, tables: &[String], name: &str) {
    remove_below(root, "", tables, name);
}

fn remove_below(table: &mut dyn TableLike, of: &str, tables: &[String], name: &str) {
    let Some((first, rest)) = tables.split_first() else {
        table.remove(name);
        return;
    };
    let Some(item) = table.get_mut(first) else { return };
    let Some(inner) = item.as_table_like_mut() else { return };
    remove_below(inner, first, rest, name);
    if !inner.is_empty() {
        return;
    }
    match (of, first.as_str()) {
        // No network at all is not the same as the default one, nor an interface with nothing special as none.
        ("", "network") => {
            if let Some(table) = item.as_table_mut() {
                table.set_implicit(false);
            }
        }
        ("network", _) => {}
        _ => drop(table.remove(first)),
    }
}

/// The list of tables called `name`, with what a profile gives where the file has none.
fn tables_of<'a>(
    table: &'a mut dyn TableLike,
    name: &str,
    inherited: Option<&Entry>,
) -> &'a mut ArrayOfTables {
    let as_tables = |entries: Vec<Table>| {
        let mut list = ArrayOfTables::new();
        entries.into_iter().for_each(|table| list.push(table));
        list
    };
    let present = table.get(name).map(|item| match item {
        Item::ArrayOfTables(list) => list.clone(),
        // `mount = [{…}]`, which is the same.
        Item::Value(toml_edit::Value::Array(array)) => as_tables(
            array
                .iter()
                .filter_map(|value| value.as_inline_table().cloned())
                .map(toml_edit::InlineTable::into_table)
                .collect(),
        ),
        _ => ArrayOfTables::new(),
    });
    let list = present.unwrap_or_else(|| match inherited.map(|entry| &entry.value) {
        Some(Value::List(list)) => as_tables(list.iter().map(|entry| as_table(&entry.value)).collect()),
        _ => ArrayOfTables::new(),
    });
    // Anew, as the space behind a value's name would stand in the table's heading.
    table.remove(name);
    match table.entry(name).or_insert(Item::ArrayOfTables(list)) {
        Item::ArrayOfTables(list) => list,
        _ => unreachable!("it was just put there"),
    }
}

fn as_table(value: &Value) -> Table {
    let mut table = Table::new();
    // The order of the manual, not of the alphabet.
    for name in ["source", "path", "target", "options", "access"] {
        if let Some(value) = value.table().and_then(|fields| plain(&fields.get(name)?.value.json())) {
            table.insert(name, Item::Value(value));
        }
    }
    table
}

/// What stands at the path.
fn found<'a>(tree: &'a Entry, names: &[String]) -> Option<&'a Entry> {
    names.iter().try_fold(tree, |entry, name| entry.value.table()?.get(name))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::definition::Profiles;

    fn changed(text: &str, words: &[&str]) -> Result<String> {
        let profiles = Profiles::of(Vec::new());
        let resolved = profiles.resolve(text, Path::new("m")).unwrap();
        let changes: Vec<_> = words.iter().map(|word| Change::parse(word).unwrap()).collect();
        edit(text, &resolved, &changes)
    }

    const TEXT: &str = "# The web server.\nimage = \"host\" # built in\n\n[memory]\n# Enough for now.\nlimit = \"512M\" # half\n\n# To the world.\n[network.eth0]\nports = [\"80:80\"]\n";

    #[test]
    fn comments_and_order_stay() {
        let text = changed(TEXT, &["memory=1G", "network.eth0.ports+=443:443", "hostname=web"]).unwrap();
        assert_eq!(
            text,
            "# The web server.\nimage = \"host\" # built in\nhostname = \"web\"\n\n[memory]\n# Enough for now.\nlimit = \"1G\" # half\n\n# To the world.\n[network.eth0]\nports = [\"80:80\", \"443:443\"]\n"
        );
        assert_eq!(changed(TEXT, &[]).unwrap(), TEXT);
    }

    #[test]
    fn keys_come_and_go() {
        assert_eq!(changed("", &["cpus=1.5"]).unwrap(), "[cpu]\nlimit = 1.5\n");
        assert_eq!(changed("[cpu]\nlimit = 1.5\n", &["cpus="]).unwrap(), "");
        assert_eq!(changed("memory.limit = \"1G\"\n", &["memory=2G"]).unwrap(), "memory.limit = \"2G\"\n");
        assert_eq!(
            changed("memory = { limit = \"1G\" }\n", &["swap=0"]).unwrap().replace(' ', ""),
            "memory={limit=\"1G\",swap=\"0\"}\n"
        );
        assert_eq!(changed("", &["network.eth1.up=1mbit"]).unwrap(), "[network.eth1]\nup = \"1mbit\"\n");
        assert_eq!(changed("", &["network=none"]).unwrap(), "[network]\n");
        assert_eq!(
            changed("", &["sysctl.net.ipv4.ip_forward=1"]).unwrap(),
            "[sysctl]\n\"net.ipv4.ip_forward\" = \"1\"\n"
        );
        assert!(!changed(TEXT, &["network.eth0="]).unwrap().contains("eth0"));
        // The last interface's end is not the default network's return.
        let text = changed("[network.eth0]\nup = \"1mbit\"\n", &["network.eth0="]).unwrap();
        assert_eq!(text, "[network]\n");
        assert_eq!(
            changed("[network.eth0]\nup = \"1mbit\"\n", &["network.eth0.up="]).unwrap(),
            "[network.eth0]\n"
        );
    }

    #[test]
    fn lists_grow_and_shrink() {
        let text = changed("", &["mount+=/a:/x", "mount+=/b:/y:ro"]).unwrap();
        assert_eq!(
            text,
            "[[mount]]\nsource = \"/a\"\ntarget = \"/x\"\n\n[[mount]]\nsource = \"/b\"\ntarget = \"/y\"\noptions = [\"ro\"]\n"
        );
        let text = changed(&text, &["mount+=/c:/x"]).unwrap();
        assert!(!text.contains("/a") && text.contains("/c"), "{text}");
        let text = changed(&text, &["mount-=/x"]).unwrap();
        assert!(!text.contains("/c") && text.contains("/b"), "{text}");
        assert_eq!(changed(&text, &["mount-=/y"]).unwrap(), "");
        assert!(changed(&text, &["mount-=/z"]).unwrap_err().to_string().contains("is not in it"));
        assert!(
            changed(TEXT, &["network.eth0.ports-=1:1"]).unwrap_err().to_string().contains("is not in it")
        );
        assert_eq!(
            changed("device = [{path = \"/dev/a\"}]\n", &["device+=/dev/b:rw"])
                .unwrap()
                .matches("[[device]]")
                .count(),
            2
        );
    }

    #[test]
    fn adding_adds_to_what_a_profile_says() {
        let text =
            changed("include = [\"hardened\"]\n", &["mount+=/a:/x", "capabilities.drop+=CHOWN"]).unwrap();
        assert_eq!(text.matches("[[mount]]").count(), 3, "{text}");
        assert!(text.contains("drop = [\"ALL\", \"CHOWN\"]"), "{text}");
    }
}
