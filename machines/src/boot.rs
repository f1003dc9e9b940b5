//! Machines that start with the host, and their end with it: in the order of their dependencies, several at once.
//!
//! Owns the order and the bound. Under systemd the same order is in the units that the generator writes; this is for
//! hosts without it, and for hands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::definition::{BootStart, Definition};
use crate::{Error, Home, Kind, Machine, Result, file, keeper, life};

/// The file in a machine's directory that says that it runs, for `boot.start = "last"`: it outlives the host's end.
const RUNS: &str = "runs";

/// How machines are started or stopped together.
#[derive(Debug, Clone, Copy)]
pub struct Choices {
    /// Most at once.
    pub parallel: usize,
    /// How long one may take to be ready, or to end.
    pub limit: Option<Duration>,
}

/// What came of it for each machine, in the order of their ends.
pub type Outcome = Vec<(String, Result<()>)>;

/// Remembers that the machine runs; forgets it when its owner has stopped it.
pub fn remember(machine: &Machine, runs: bool) -> Result<()> {
    let path = mark(machine);
    match runs {
        true => file::write_whole(&path, b""),
        false => file::remove(&path),
    }
}

fn mark(machine: &Machine) -> PathBuf {
    machine.dir().join(RUNS)
}

/// Whether the machine is to start with the host.
pub fn starts(machine: &Machine, definition: &Definition) -> bool {
    !definition.disabled
        && match definition.boot.start {
            BootStart::Off => false,
            BootStart::On => true,
            BootStart::Last => mark(machine).exists(),
        }
}

/// Has systemd, where it runs, start the machine with the host or not, as its definition says now.
pub fn enlist(home: &Home, machine: &Machine, definition: &Definition) -> Result<()> {
    let on = !definition.disabled && definition.boot.start == BootStart::On;
    keeper::unit::enable(home, machine, on)
}

/// Starts every machine that starts with the host, and each only when those that it comes after are ready.
pub fn boot(home: &Home, choices: Choices, told: &(dyn Fn(&str, &Result<()>) + Sync)) -> Result<Outcome> {
    let (nodes, mut outcome) = wanted(home, starts)?;
    check_cycles(&nodes)?;
    let missing: Vec<(String, String)> = nodes
        .iter()
        .flat_map(|(name, node)| node.requires.iter().map(move |other| (name.clone(), other.clone())))
        .filter(|(_, other)| !nodes.contains_key(other))
        .collect();
    let mut nodes = nodes;
    for (name, other) in missing {
        // Required machines start along, as with systemd's Requires=.
        let found = home.find(&other).and_then(|machine| Ok(Node::of(&machine.definition()?)));
        match found {
            Ok(node) => drop(nodes.insert(other, node)),
            Err(err) => {
                nodes.remove(&name);
                outcome.push((name, Err(err.context("boot.requires"))));
            }
        }
    }
    check_cycles(&nodes)?;
    let started = walk(&nodes, choices.parallel, true, &|name| {
        let result = home.find(name).and_then(|machine| {
            life::start(home, &machine)?;
            keeper::await_ready(&machine, choices.limit)
        });
        told(name, &result);
        result
    });
    outcome.extend(started);
    Ok(outcome)
}

/// Stops every machine that runs, and each only when those that come after it have ended. What runs now starts again
/// with the host where that is asked for.
pub fn shutdown(home: &Home, choices: Choices, told: &(dyn Fn(&str, &Result<()>) + Sync)) -> Result<Outcome> {
    let (nodes, mut outcome) =
        wanted(home, |machine, _| life::status(home, machine).is_ok_and(|status| !status.is_down()))?;
    let stopped = walk(&reversed(&nodes), choices.parallel, false, &|name| {
        let result = home.find(name).and_then(|machine| {
            life::stop(home, &machine, choices.limit)?;
            remember(&machine, true)
        });
        told(name, &result);
        result
    });
    // Without a definition there is no order, but an end all the same.
    for (name, result) in &mut outcome {
        let machine = home.machine(name)?;
        *result = match life::status(home, &machine)?.is_down() {
            true => Ok(()),
            false => life::stop(home, &machine, choices.limit).map(drop),
        };
    }
    outcome.retain(|(_, result)| result.is_err());
    outcome.extend(stopped);
    Ok(outcome)
}

/// A machine's place in the order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    /// Higher comes earlier among those that could start now.
    order: i32,
    after: BTreeSet<String>,
    requires: BTreeSet<String>,
}

impl Node {
    fn of(definition: &Definition) -> Node {
        let boot = &definition.boot;
        Node {
            order: boot.order.unwrap_or(i32::MIN),
            after: boot.after.iter().chain(&boot.requires).cloned().collect(),
            requires: boot.requires.iter().cloned().collect(),
        }
    }
}

type Nodes = BTreeMap<String, Node>;

/// The machines that `is_wanted`, and those whose definition cannot be read.
fn wanted(home: &Home, is_wanted: impl Fn(&Machine, &Definition) -> bool) -> Result<(Nodes, Outcome)> {
    let mut nodes = Nodes::new();
    let mut broken = Outcome::new();
    for name in home.list()? {
        let machine = home.machine(&name)?;
        match machine.definition() {
            Ok(definition) if is_wanted(&machine, &definition) => {
                nodes.insert(name, Node::of(&definition));
            }
            Ok(_) => {}
            Err(err) => broken.push((name, Err(err))),
        }
    }
    Ok((nodes, broken))
}

/// The order of the end: whoever comes after another ends before it.
fn reversed(nodes: &Nodes) -> Nodes {
    let mut reversed: Nodes = nodes
        .iter()
        .map(|(name, node)| (name.clone(), Node { order: node.order.saturating_neg(), ..Node::default() }))
        .collect();
    for (name, node) in nodes {
        for before in &node.after {
            if let Some(other) = reversed.get_mut(before) {
                other.after.insert(name.clone());
            }
        }
    }
    reversed
}

/// Refuses machines that wait for each other.
fn check_cycles(nodes: &Nodes) -> Result<()> {
    let mut left: BTreeSet<&String> = nodes.keys().collect();
    loop {
        let free: Vec<&String> = left
            .iter()
            .filter(|name| nodes[**name].after.iter().all(|other| other == **name || !left.contains(other)))
            .copied()
            .collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            left.remove(name);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = left.into_iter().map(String::as_str).collect();
    Err(Error::invalid(format!("machines that wait for each other: {}", names.join(", ")))
        .hint("take one out of another's boot.after or boot.requires"))
}

struct Progress {
    waiting: BTreeSet<String>,
    running: usize,
    ended: BTreeMap<String, bool>,
    outcome: Outcome,
}

/// Acts on every node, `parallel` at once, each when those before it are done; in a cycle all the same in the end.
fn walk(
    nodes: &Nodes,
    parallel: usize,
    heed_requires: bool,
    act: &(dyn Fn(&str) -> Result<()> + Sync),
) -> Outcome {
    let progress = Mutex::new(Progress {
        waiting: nodes.keys().cloned().collect(),
        running: 0,
        ended: BTreeMap::new(),
        outcome: Vec::new(),
    });
    let changed = Condvar::new();
    let lock = || match progress.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    };
    std::thread::scope(|scope| {
        for _ in 0..parallel.clamp(1, nodes.len().max(1)) {
            scope.spawn(|| {
                let mut guard = lock();
                loop {
                    let Some(name) = next(nodes, &guard) else {
                        if guard.waiting.is_empty() {
                            return;
                        }
                        guard = wait(&changed, guard);
                        continue;
                    };
                    guard.waiting.remove(&name);
                    guard.running += 1;
                    let failed = nodes[&name]
                        .requires
                        .iter()
                        .find(|other| guard.ended.get(*other) == Some(&false))
                        .filter(|_| heed_requires)
                        .cloned();
                    drop(guard);
                    let result = match failed {
                        None => act(&name),
                        Some(other) => Err(Error::new(
                            Kind::State,
                            format!("machine {name} was not started: it requires {other}, which failed"),
                        )),
                    };
                    guard = lock();
                    guard.running -= 1;
                    guard.ended.insert(name.clone(), result.is_ok());
                    guard.outcome.push((name, result));
                    changed.notify_all();
                }
            });
        }
    });
    let done = match progress.into_inner() {
        Ok(done) => done,
        Err(poisoned) => poisoned.into_inner(),
    };
    done.outcome
}

fn wait<'a>(changed: &Condvar, guard: MutexGuard<'a, Progress>) -> MutexGuard<'a, Progress> {
    match changed.wait(guard) {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Who comes next: nothing that it waits for is left, and of those the first in order.
fn next(nodes: &Nodes, progress: &Progress) -> Option<String> {
    let free = progress.waiting.iter().filter(|name| {
        nodes[*name]
            .after
            .iter()
            .all(|other| other == *name || !nodes.contains_key(other) || progress.ended.contains_key(other))
    });
    let first = free.min_by_key(|name| std::cmp::Reverse(nodes[*name].order));
    match first {
        Some(name) => Some(name.clone()),
        // Nothing runs that could free one: a cycle.
        None if progress.running == 0 => progress.waiting.first().cloned(),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(order: i32, after: &[&str], requires: &[&str]) -> Node {
        let boot = crate::definition::Boot {
            order: Some(order),
            after: after.iter().map(|name| name.to_string()).collect(),
            requires: requires.iter().map(|name| name.to_string()).collect(),
            ..Default::default()
        };
        Node::of(&Definition { boot, ..Definition::default() })
    }

    fn nodes(list: &[(&str, Node)]) -> Nodes {
        list.iter().map(|(name, node)| (name.to_string(), node.clone())).collect()
    }

    fn order(nodes: &Nodes, parallel: usize, fails: &str) -> (Vec<String>, Vec<String>) {
        let seen = Mutex::new(Vec::new());
        let outcome = walk(nodes, parallel, true, &|name| {
            seen.lock().unwrap().push(name.to_owned());
            if name == fails { Err(Error::invalid("no")) } else { Ok(()) }
        });
        let failed =
            outcome.into_iter().filter(|(_, result)| result.is_err()).map(|(name, _)| name).collect();
        (seen.into_inner().unwrap(), failed)
    }

    #[test]
    fn dependencies_come_first_then_the_order() {
        let all = nodes(&[
            ("web", node(5, &["db"], &[])),
            ("db", node(0, &[], &["store"])),
            ("store", node(0, &["not-there"], &[])),
            ("early", node(9, &[], &[])),
            ("late", node(-9, &[], &[])),
        ]);
        check_cycles(&all).unwrap();
        assert_eq!(order(&all, 1, "").0, ["early", "store", "db", "web", "late"]);
        let (seen, failed) = order(&all, 4, "");
        let at = |name: &str| seen.iter().position(|one| one == name).unwrap();
        assert!(at("store") < at("db") && at("db") < at("web") && failed.is_empty());
        assert_eq!(order(&reversed(&all), 1, "").0, ["late", "web", "db", "store", "early"]);
    }

    #[test]
    fn what_requires_a_failed_one_is_not_started_what_only_follows_is() {
        let all = nodes(&[
            ("a", node(0, &[], &[])),
            ("follows", node(0, &["a"], &[])),
            ("requires", node(0, &[], &["a"])),
            ("requires-too", node(0, &[], &["requires"])),
        ]);
        let (seen, mut failed) = order(&all, 2, "a");
        failed.sort();
        assert_eq!(failed, ["a", "requires", "requires-too"]);
        assert!(seen.contains(&"follows".to_owned()));
    }

    #[test]
    fn cycles_are_named_and_still_end() {
        let all =
            nodes(&[("a", node(0, &["b"], &[])), ("b", node(0, &["a"], &[])), ("c", node(0, &["c"], &[]))]);
        let text = check_cycles(&all).unwrap_err().to_string();
        assert!(
            text.contains("a, b") && !text.contains('c'.to_string().as_str().repeat(2).as_str()),
            "{text}"
        );
        let mut seen = order(&all, 3, "").0;
        seen.sort();
        assert_eq!(seen, ["a", "b", "c"]);
    }
}
