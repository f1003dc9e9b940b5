//! `show`: what is asked of a machine, where that is said, what the kernel holds, and what waits for the next start.
//!
//! Owns the comparison. Changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use locule_runtime::isolation::vsock;
use serde::Serialize;
use serde_json::Value as Json;

use super::kernel::{PTYS, Running};
use super::{flat, key_of, pending};
use crate::definition::forms::ULIMITS;
use crate::definition::keys::Holds;
use crate::definition::{FILE, Profiles, Size};
use crate::{Context, Home, Machine, Result, limits};

/// One key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// What is asked for, with profiles; absent where only the kernel has a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Json>,
    /// Where that is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What the kernel holds for the running machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<Json>,
    /// What the machine was started with, where that differs and a start is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Json>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub runs: bool,
    /// Its keys by path.
    pub keys: BTreeMap<String, Shown>,
    /// Paths of keys whose values wait for the next start.
    pub pending: Vec<String>,
    /// Paths of keys for which the kernel holds something else.
    pub differs: Vec<String>,
    /// Where its sockets to the host are while it runs, if it asks for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<PathBuf>,
}

/// Looks at a machine.
pub fn view(home: &Home, machine: &Machine, profiles: &Profiles) -> Result<View> {
    let path = machine.dir().join(FILE);
    let text = std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
    let whole = profiles.resolve(&text, &path)?;
    let definition = crate::Definition::resolve(&text, &path, profiles)?;
    let mut keys: BTreeMap<String, Shown> = flat(&whole)
        .into_iter()
        .map(|(path, entry)| {
            let (asked, from) = (Some(entry.value.json()), Some(entry.at.to_string()));
            (path, Shown { asked, from, effective: None, running: None })
        })
        .collect();
    let running = Running::find(home, machine)?;
    let (mut waiting, mut differs) = (Vec::new(), Vec::new());
    if let Some(running) = &running {
        for (path, held, agrees) in effective(running, &definition)? {
            if agrees == Some(false) {
                differs.push(path.clone());
            }
            keys.entry(path)
                .or_insert(Shown { asked: None, from: None, effective: None, running: None })
                .effective = Some(held);
        }
        if let Some(started) = pending::started_with(machine, &running.container) {
            let paths: Vec<String> = keys.keys().chain(started.keys()).cloned().collect();
            for path in paths {
                let shown = keys.get(&path).and_then(|shown| shown.asked.clone());
                let then = started.get(&path).cloned();
                let waits =
                    key_of(&path).is_some_and(|key| key.holds == Holds::NextStart) || running.waits(&path);
                if waits && shown != then {
                    let entry = keys.entry(path.clone()).or_insert(Shown {
                        asked: None,
                        from: None,
                        effective: None,
                        running: None,
                    });
                    entry.running = Some(then.unwrap_or(Json::Null));
                    waiting.push(path);
                }
            }
        }
    }
    waiting.sort();
    waiting.dedup();
    differs.retain(|path| !waiting.contains(path));
    let sockets = definition.vsock.then(|| home.run().join(machine.name()).join(vsock::DIR));
    let name = machine.name().to_owned();
    Ok(View { name, runs: running.is_some(), keys, pending: waiting, differs, sockets })
}

/// What the kernel holds, key by key, and whether that is what the definition asks for (`None` where it asks nothing).
fn effective(
    running: &Running<'_>,
    definition: &crate::Definition,
) -> Result<Vec<(String, Json, Option<bool>)>> {
    let mut found = Vec::new();
    let disk = running.disk().unwrap_or(None);
    // What a count of processors means is in the file alone.
    let chosen =
        running.read("cpuset.cpus").ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let asks = definition.cpu.count.is_some() || definition.cpu.set.is_some();
    let wanted = limits::wanted(
        definition,
        disk.or(Some((0, 0))),
        definition.cpu.set.as_deref().or(chosen.as_deref()).filter(|_| asks),
    )?;
    let keys = crate::definition::keys::KEYS
        .iter()
        .filter(|key| key.holds == Holds::Now && !key.path.contains('*'))
        .map(|key| key.path.to_owned());
    let named = wanted.iter().map(|limit| limit.key.clone());
    let mut paths: Vec<String> = keys.chain(named).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let files: Vec<String> = limits::files_of(&path);
        let Some(file) = files.into_iter().next() else { continue };
        let Ok(text) = running.read(&file) else { continue };
        let limit = wanted.iter().find(|limit| limit.file == file);
        let value = limit.map_or_else(
            || {
                disk.filter(|_| file == "io.max")
                    .map_or_else(String::new, |(major, minor)| format!("{major}:{minor} rbps= riops="))
            },
            |limit| limit.value.clone(),
        );
        let held = limits::present(&file, &value, &text);
        let nothing = if file == "io.max" {
            !held.split_whitespace().any(|field| field.contains('=') && !field.ends_with("=max"))
        } else {
            limits::unlimited(&file).is_some_and(|none| none == held)
        };
        let agrees = match limit {
            Some(limit) if definition.cpu.count.is_some() && file == "cpuset.cpus" && limit.key == path => {
                let count = crate::definition::forms::numbers(&held).map(|list| list.len());
                Some(count == definition.cpu.count.map(|count| count as usize))
            }
            Some(limit) => Some(limits::agrees(&file, &limit.value, &held)),
            None if nothing => None,
            // Somebody limits what the definition does not.
            None => Some(false),
        };
        if agrees.is_none()
            || (path == "cpu.set" && definition.cpu.set.is_none())
            || (path == "cpu.count" && definition.cpu.count.is_none())
        {
            continue;
        }
        found.push((path.clone(), spelled(&path, &held), agrees));
    }
    if !running.container.is_vm()
        && let Some(asked) = definition.pids.ptys
        && let Ok(most) = running.ptys()
    {
        found.push((PTYS.to_owned(), most.into(), Some(most == asked)));
    }
    // A virtual machine's first process here is its monitor, whose limits are its own.
    if !running.container.is_vm()
        && let Ok((pid, _)) = running.container.init()
    {
        for (name, text) in &definition.ulimit {
            let Some(resource) = ULIMITS.iter().position(|known| known == name) else { continue };
            let Ok((soft, hard)) = locule_runtime::sys::prctl::rlimit(pid, resource as u32) else { continue };
            let word =
                |limit: u64| if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() };
            let held = if soft == hard { word(soft) } else { format!("{}:{}", word(soft), word(hard)) };
            let agrees = crate::definition::forms::ulimit(text) == Ok((soft, hard));
            found.push((format!("ulimit.{name}"), held.into(), Some(agrees)));
        }
    }
    Ok(found)
}

/// The kernel's word as the definition would have it.
fn spelled(path: &str, held: &str) -> Json {
    if held == "max" || held.is_empty() {
        return crate::definition::forms::UNLIMITED.into();
    }
    let of_line = |name: &str| {
        held.split_whitespace()
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or("max")
            .to_owned()
    };
    let size =
        |text: &str| text.parse().map_or_else(|_| "unlimited".to_owned(), |bytes| Size(bytes).to_string());
    match path {
        "cpu.limit" => {
            let mut words = held.split_whitespace().map(|word| word.parse::<f64>().ok());
            match (words.next().flatten(), words.next().flatten()) {
                (Some(quota), Some(period)) if period > 0.0 => (quota / period).into(),
                _ => "unlimited".into(),
            }
        }
        "cpu.burst" => match held.parse::<u64>() {
            Ok(micros) if micros % 1000 == 0 => format!("{}ms", micros / 1000).into(),
            _ => format!("{held}us").into(),
        },
        "cpu.count" => {
            crate::definition::forms::numbers(held).map_or_else(|| held.into(), |list| list.len().into())
        }
        "io.bps" => size(&of_line("rbps")).into(),
        "io.iops" => match of_line("riops").parse::<u64>() {
            Ok(number) => number.into(),
            Err(_) => "unlimited".into(),
        },
        "memory.oom-group" => (held == "1").into(),
        _ if path.starts_with("memory.") || path.starts_with("hugepages.") => size(held).into(),
        _ => held.parse::<u64>().map_or_else(|_| held.into(), Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_ours() {
        for (path, held, want) in [
            ("memory.limit", "536870912", serde_json::json!("512M")),
            ("memory.limit", "max", "unlimited".into()),
            ("cpu.limit", "150000 100000", serde_json::json!(1.5)),
            ("cpu.limit", "max 100000", "unlimited".into()),
            ("cpu.burst", "20000", "20ms".into()),
            ("cpu.count", "0,2-3", serde_json::json!(3)),
            ("io.bps", "8:0 rbps=1048576 wbps=max riops=max wiops=max", "1M".into()),
            ("io.iops", "8:0 rbps=1048576 riops=max", "unlimited".into()),
            ("pids.limit", "7", serde_json::json!(7)),
            ("memory.oom-group", "1", serde_json::json!(true)),
        ] {
            assert_eq!(spelled(path, held), want, "{path}");
        }
    }
}
