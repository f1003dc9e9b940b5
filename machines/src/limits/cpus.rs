//! Which processors a machine gets that asks for a number of them.
//!
//! Owns the choice: those that the fewest machines are bound to. What others are bound to is read from their cgroups,
//! which lie at known places (`/locule/NAME`, or `payload` below the unit `locule@NAME.service`); nothing is recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use locule_runtime::cgroup::MOUNT;

use crate::definition::forms::numbers;
use crate::{Context, Definition, Error, Result};

/// How much each processor of the host is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loads(BTreeMap<u32, f64>);

impl Loads {
    /// Of the host as it is.
    pub fn read() -> Result<Loads> {
        let mount = Path::new(MOUNT);
        let online = std::fs::read_to_string(mount.join("cpuset.cpus.effective"))
            .or_else(|_| std::fs::read_to_string("/sys/devices/system/cpu/online"))
            .doing(|| "reading which processors are online")?;
        let online = numbers(online.trim()).unwrap_or_default();
        let sets = machines(mount).into_iter().filter_map(|dir| {
            let list = std::fs::read_to_string(dir.join("cpuset.cpus")).ok()?;
            numbers(list.trim())
        });
        Ok(Loads::of(&online, sets))
    }

    /// Of processors `online`, when machines are bound to `sets`.
    pub fn of(online: &[u32], sets: impl IntoIterator<Item = Vec<u32>>) -> Loads {
        let mut loads: BTreeMap<u32, f64> = online.iter().map(|cpu| (*cpu, 0.0)).collect();
        for set in sets {
            // A machine that is bound to many uses each of them less.
            let share = 1.0 / set.len().max(1) as f64;
            for cpu in set {
                if let Some(load) = loads.get_mut(&cpu) {
                    *load += share;
                }
            }
        }
        Loads(loads)
    }

    /// The `count` least used processors, of those in `within` if it is given.
    pub fn choose(&self, count: u32, within: Option<&[u32]>) -> Result<Vec<u32>> {
        let mut free: Vec<_> = self
            .0
            .iter()
            .filter(|(cpu, _)| within.is_none_or(|within| within.contains(cpu)))
            .map(|(cpu, load)| (*load, *cpu))
            .collect();
        if free.len() < count as usize {
            let of = if within.is_some() { "cpu.set has" } else { "this host has" };
            return Err(Error::invalid(format!(
                "cpu.count is {count}, and {of} {} processors online",
                free.len()
            )));
        }
        free.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut chosen: Vec<_> = free.into_iter().take(count as usize).map(|(_, cpu)| cpu).collect();
        chosen.sort_unstable();
        Ok(chosen)
    }
}

/// Directories of machines' cgroups.
fn machines(mount: &Path) -> Vec<PathBuf> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    };
    let mut found = below(&mount.join("locule"));
    // Units are a few slices deep.
    let mut slices = vec![mount.to_owned()];
    for _ in 0..4 {
        let mut deeper = Vec::new();
        for dir in slices.iter().flat_map(|slice| below(slice)) {
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("locule@") && name.ends_with(".service") {
                found.push(dir.join("payload"));
            } else if name.ends_with(".slice") {
                deeper.push(dir);
            }
        }
        slices = deeper;
    }
    found
}

/// The processors for a definition, as a list: chosen by `cpu.count`, named by `cpu.set`, or `None` for all.
pub fn of(definition: &Definition, loads: &dyn Fn() -> Result<Loads>) -> Result<Option<String>> {
    let set = definition.cpu.set.as_deref();
    let Some(count) = definition.cpu.count else { return Ok(set.map(str::to_owned)) };
    let within = set.and_then(numbers);
    let chosen = loads()?.choose(count, within.as_deref())?;
    Ok(Some(chosen.iter().map(u32::to_string).collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_are_chosen() {
        let loads = Loads::of(&[0, 1, 2, 3], [vec![0], vec![0, 1], vec![2, 3], vec![9]]);
        assert_eq!(loads.choose(1, None).unwrap(), [1]);
        assert_eq!(loads.choose(3, None).unwrap(), [1, 2, 3]);
        assert_eq!(loads.choose(1, Some(&[0, 3])).unwrap(), [3]);
        assert!(loads.choose(5, None).unwrap_err().to_string().contains("this host has 4 processors"));
        assert!(loads.choose(2, Some(&[0, 9])).unwrap_err().to_string().contains("cpu.set has 1"));
    }

    /// Machines of one processor each, one after the other, are spread evenly.
    #[test]
    fn machines_are_spread() {
        let online: Vec<u32> = (0..8).collect();
        let mut sets: Vec<Vec<u32>> = Vec::new();
        for _ in 0..40 {
            sets.push(Loads::of(&online, sets.clone()).choose(1, None).unwrap());
        }
        for cpu in online {
            assert_eq!(sets.iter().filter(|set| set.contains(&cpu)).count(), 5);
        }
    }

    #[test]
    fn machines_are_found_where_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [
            "locule/web1",
            "system.slice/system-locule.slice/locule@db.service/payload",
            "system.slice/other.service",
            "my.slice/locule@x.service/payload",
        ];
        for path in paths {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let mut found: Vec<_> = machines(dir.path())
            .iter()
            .map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        found.sort();
        assert_eq!(found, [paths[0], paths[3], paths[1]]);
    }

    #[test]
    fn a_set_is_taken_as_it_is() {
        let mut definition = Definition::default();
        let none = || Err(Error::invalid("not asked"));
        assert_eq!(of(&definition, &none).unwrap(), None);
        definition.cpu.set = Some("0-1".into());
        assert_eq!(of(&definition, &none).unwrap().as_deref(), Some("0-1"));
        definition.cpu.count = Some(1);
        let loads = || Ok(Loads::of(&[0, 1], [vec![0]]));
        assert_eq!(of(&definition, &loads).unwrap().as_deref(), Some("1"));
    }
}
