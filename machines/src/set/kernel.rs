//! A running machine's limits: changed one by one, each read back, all put back if one fails.
//!
//! Owns the order of steps and what undoes each. Never touches the definition.

use std::path::{Path, PathBuf};

use locule_netns::rate::{Rate, Rates};
use locule_runtime::spec::Resources;
use locule_runtime::sys::prctl;
use locule_runtime::{Container, cgroup};

use crate::definition::forms::{ULIMITS, numbers, ulimit};
use crate::limits::ptys::Devpts;
use crate::limits::{self, Limit, cpus};
use crate::{Context, Definition, Error, Home, Kind, Machine, Result, lift};

/// One thing that the kernel is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A file of the cgroup.
    File(Limit),
    /// Rates and firewall of an interface.
    Network {
        /// Its name inside.
        interface: String,
        /// Ceilings and guarantees; `None` leaves one.
        rates: Wish,
        /// Whether nobody reaches it unasked.
        firewall: Option<bool>,
    },
    /// Most pseudo terminals.
    Ptys(u32),
    /// An rlimit of the first process.
    Ulimit {
        /// Without `RLIMIT_`.
        name: String,
        /// Soft and hard.
        limit: (u64, u64),
    },
}

/// The key of pseudo terminals, which no file of the cgroup counts.
pub const PTYS: &str = "pids.ptys";

/// Whether the kernel is told of the key, so that a running machine alone can have another value.
pub fn tells(key: &str) -> bool {
    key == PTYS
        || !limits::files_of(key).is_empty()
        || ["network.", "ulimit.", "cpu.", "disk."].iter().any(|group| key.starts_with(group))
}

/// What of an interface's rates is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// Ceiling towards the machine.
    pub down: Option<Rate>,
    /// Ceiling from it.
    pub up: Option<Rate>,
    /// Guarantee towards it.
    pub down_min: Option<Rate>,
    /// Guarantee from it.
    pub up_min: Option<Rate>,
}

impl Wish {
    /// All of `rates`.
    fn all(rates: Rates) -> Wish {
        let Rates { down, up, down_min, up_min } = rates;
        Wish { down: Some(down), up: Some(up), down_min: Some(down_min), up_min: Some(up_min) }
    }

    /// `rates` with what is changed.
    fn over(self, rates: Rates) -> Rates {
        Rates {
            down: self.down.unwrap_or(rates.down),
            up: self.up.unwrap_or(rates.up),
            down_min: self.down_min.unwrap_or(rates.down_min),
            up_min: self.up_min.unwrap_or(rates.up_min),
        }
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Running<'a> {
    home: &'a Home,
    machine: &'a Machine,
    /// Its container.
    pub container: Container,
}

impl<'a> Running<'a> {
    /// The machine's container with its first process, if it runs.
    pub fn find(home: &'a Home, machine: &'a Machine) -> Result<Option<Running<'a>>> {
        let container = crate::life::container(home, machine)?;
        let Some(container) = container else { return Ok(None) };
        use locule_runtime::Status;
        Ok(match container.status()? {
            Status::Running | Status::Paused | Status::Created => Some(Running { home, machine, container }),
            _ => None,
        })
    }

    /// The directory of its cgroup.
    pub fn group(&self) -> Result<Option<PathBuf>> {
        let path = self.container.cgroup()?.map(|cgroup| cgroup.path().to_owned());
        Ok(path.map(|path| Path::new(cgroup::MOUNT).join(path.strip_prefix("/").unwrap_or(&path))))
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        let group = self.group()?.ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("machine {} runs without a cgroup", self.machine.name()))
                .hint("stop and start it under --cgroup-manager cgroupfs")
        })?;
        Ok(group.join(name))
    }

    /// Whether a change of `key` waits for the next start, as the machine has a kernel of its own, whose terminals and
    /// rlimits the host cannot reach.
    pub fn waits(&self, key: &str) -> bool {
        self.container.is_vm() && (key == PTYS || key.starts_with("ulimit."))
    }

    /// What a file of its cgroup holds.
    pub fn read(&self, name: &str) -> Result<String> {
        if self.container.is_vm() && limits::is_inside(name) {
            // The host's file has room for the machine's kernel, or no limit. That kernel took what is remembered.
            let resources = self.container.spec()?.linux.and_then(|linux| linux.resources);
            return Ok(limits::remembered(&resources.unwrap_or_default(), name));
        }
        let path = self.file(name)?;
        std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display())).map_err(
            |err| match err.errno() {
                Some(nix::errno::Errno::ENOENT) => {
                    let controller = name.split('.').next().unwrap_or(name);
                    err.hint(format!(
                        "the controller {controller} is not enabled there, or this kernel lacks the file"
                    ))
                }
                _ => err,
            },
        )
    }

    /// The disk under its root file system: the root's own, else that of its directory.
    pub fn disk(&self) -> Result<Option<(u32, u32)>> {
        match self.container.init() {
            Ok((pid, _pinned)) => {
                limits::disk_of(Path::new(&format!("/proc/{pid}/root")), self.machine.dir())
            }
            Err(_) => limits::disk_device(self.machine.dir()),
        }
    }

    /// Processors for the definition: those that it has, as long as they fit.
    fn cpus(&self, definition: &Definition) -> Result<Option<String>> {
        if let Some(count) = definition.cpu.count {
            let present = self.read("cpuset.cpus").unwrap_or_default();
            let within = definition.cpu.set.as_deref().and_then(numbers);
            let fits = numbers(present.trim()).is_some_and(|list| {
                list.len() == count as usize
                    && within.is_none_or(|within| list.iter().all(|cpu| within.contains(cpu)))
            });
            if fits {
                return Ok(Some(present.trim().to_owned()));
            }
        }
        cpus::of(definition, &cpus::Loads::read)
    }

    /// What must be told for `keys` to hold as `new` has them.
    pub fn steps(&self, new: &Definition, keys: &[String]) -> Result<Vec<Step>> {
        let files: Vec<String> = keys.iter().flat_map(|key| limits::files_of(key)).collect();
        let of = |name: &str| files.iter().any(|file| file == name);
        let disk = if of("io.max") { self.disk()? } else { Some((0, 0)) };
        let chosen = if of("cpuset.cpus") { self.cpus(new)? } else { None };
        let mut wanted = limits::wanted(new, disk, chosen.as_deref())?;
        wanted.retain(|limit| of(&limit.file));
        for (key, file) in
            keys.iter().flat_map(|key| limits::files_of(key).into_iter().map(move |file| (key, file)))
        {
            if wanted.iter().any(|limit| limit.file == file) {
                continue;
            }
            let value = match (&*file, limits::unlimited(&file)) {
                ("io.max", _) => match disk {
                    Some((major, minor)) => format!("{major}:{minor} rbps=max wbps=max riops=max wiops=max"),
                    None => continue,
                },
                (_, Some(value)) => value.to_owned(),
                // Nobody knows what it held; the next start will not write it.
                (_, None) => continue,
            };
            wanted.push(Limit { key: key.clone(), file, value });
        }
        order(&mut wanted);
        let mut steps: Vec<_> = wanted.into_iter().map(Step::File).collect();
        steps.extend(networks(new, keys)?);
        if keys.iter().any(|key| key == PTYS) {
            steps.push(Step::Ptys(new.pids.ptys.unwrap_or(limits::ptys::MOST)));
        }
        for key in keys {
            if let Some(name) = key.strip_prefix("ulimit.")
                && let Some(text) = new.ulimit.get(name)
            {
                let limit = ulimit(text).map_err(|why| Error::invalid(format!("{key}: {why}")))?;
                steps.push(Step::Ulimit { name: name.to_owned(), limit });
            }
        }
        Ok(steps)
    }

    /// Takes all steps, or none.
    pub fn apply(&self, steps: &[Step]) -> Result<()> {
        let mut undo = Vec::new();
        for step in steps {
            match self.take(step) {
                Ok(before) => undo.extend(before),
                Err(err) => {
                    let failed: Vec<_> = undo
                        .iter()
                        .rev()
                        .filter_map(|step| self.take(step).err())
                        .map(|err| err.to_string())
                        .collect();
                    return Err(if failed.is_empty() {
                        err
                    } else {
                        err.hint(format!(
                            "putting back what was changed before failed as well: {}",
                            failed.join("; ")
                        ))
                    });
                }
            }
        }
        Ok(())
    }

    /// Takes one step and sees that it took; what would undo it, if anything changed.
    fn take(&self, step: &Step) -> Result<Option<Step>> {
        match step {
            Step::File(limit) => self.write(limit),
            Step::Network { interface, rates, firewall } => self.connect(interface, *rates, *firewall),
            Step::Ptys(most) => self.terminals(*most).map_err(|err| err.context(PTYS)),
            Step::Ulimit { name, limit } => self.limit(name, *limit),
        }
    }

    /// All that the cgroup above has, for a list that is to be empty: with processes in it a cpuset cannot be
    /// (`ENOSPC`), and this limits as little.
    fn filled(&self, limit: &Limit) -> Result<Limit> {
        let mut limit = limit.clone();
        if limit.value.is_empty() && limit.file.starts_with("cpuset.") {
            let own = self.file(&limit.file)?;
            let above = own.parent().and_then(Path::parent).unwrap_or(Path::new(cgroup::MOUNT));
            let path = above.join(format!("{}.effective", limit.file));
            let text = std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
            limit.value = text.trim().to_owned();
        }
        Ok(limit)
    }

    fn write(&self, limit: &Limit) -> Result<Option<Step>> {
        let limit = &self.filled(limit)?;
        let Limit { key, file, value } = limit;
        let held = |text: &str| limits::present(file, value, text);
        let before = held(&self.read(file).map_err(|err| err.context(key))?);
        if limits::agrees(file, value, &before) && !(before == "max" && value != "max") {
            return Ok(None);
        }
        let mut resources = Resources::default();
        limits::put(&mut resources, file, value);
        self.container.update(&resources).map_err(|err| err.context(key))?;
        let after = held(&self.read(file)?);
        let undo = Step::File(Limit { value: before, ..limit.clone() });
        if limits::agrees(file, value, &after) {
            return Ok(Some(undo));
        }
        // It took something else: that goes, too.
        if let Step::File(before) = &undo {
            let mut resources = Resources::default();
            limits::put(&mut resources, file, &self.filled(before)?.value);
            let _ = self.container.update(&resources);
        }
        let text =
            format!("{key}: {} holds {after:?} after {value:?} was written", self.file(file)?.display());
        Err(Error::new(Kind::System, text)
            .hint("nothing was changed; does another program manage this cgroup?"))
    }

    fn connect(&self, interface: &str, wish: Wish, firewall: Option<bool>) -> Result<Option<Step>> {
        let networks = self.home.networks()?;
        let name = self.machine.name();
        let find = || -> Result<Option<locule_netns::Wired>> {
            let record = networks.records().load(name).map_err(lift)?;
            Ok(record
                .and_then(|record| record.interfaces.into_iter().find(|wired| wired.interface == interface)))
        };
        // An interface that is not there yet comes with the next start.
        let Some(before) = find()? else { return Ok(None) };
        let rates = wish.over(before.rates);
        let firewall = firewall.unwrap_or(before.firewall);
        if rates == before.rates && firewall == before.firewall {
            return Ok(None);
        }
        let act = |err: Error| err.context(format_args!("network.{interface}"));
        networks.change(name, &before.network, Some(rates), Some(firewall)).map_err(lift).map_err(act)?;
        let after = find()?.ok_or_else(|| act(Error::new(Kind::System, "it was disconnected meanwhile")))?;
        if (after.rates, after.firewall) != (rates, firewall) {
            return Err(act(Error::new(Kind::System, "another program changes its limits")));
        }
        Ok(Some(Step::Network {
            interface: interface.to_owned(),
            rates: Wish::all(before.rates),
            firewall: Some(before.firewall),
        }))
    }

    /// What its devpts gives at most.
    pub fn ptys(&self) -> Result<u32> {
        let (pid, _pinned) = self.container.init()?;
        Ok(Devpts::of(pid)?.most())
    }

    fn terminals(&self, most: u32) -> Result<Option<Step>> {
        let (pid, _pinned) = self.container.init()?;
        let devpts = Devpts::of(pid)?;
        let before = devpts.most();
        if before == most {
            return Ok(None);
        }
        devpts.limit(most)?;
        let after = Devpts::of(pid)?.most();
        if after != most {
            let _ = devpts.limit(before);
            let text = format!("the kernel has max={after} after {most} was set");
            return Err(Error::new(Kind::System, text));
        }
        Ok(Some(Step::Ptys(before)))
    }

    fn limit(&self, name: &str, (soft, hard): (u64, u64)) -> Result<Option<Step>> {
        let (pid, _pinned) = self.container.init()?;
        let Some(resource) = ULIMITS.iter().position(|known| *known == name) else { return Ok(None) };
        let resource = resource as u32;
        let doing = || format!("ulimit.{name}: setting it to {soft}:{hard} for process {pid}");
        let before = prctl::rlimit(pid, resource).doing(doing)?;
        if before == (soft, hard) {
            return Ok(None);
        }
        prctl::set_rlimit(pid, resource, soft, hard).doing(doing)?;
        let after = prctl::rlimit(pid, resource).doing(doing)?;
        if after != (soft, hard) {
            let _ = prctl::set_rlimit(pid, resource, before.0, before.1);
            let text = format!(
                "ulimit.{name}: process {pid} has {}:{} after {soft}:{hard} was set",
                after.0, after.1
            );
            return Err(Error::new(Kind::System, text));
        }
        Ok(Some(Step::Ulimit { name: name.to_owned(), limit: before }))
    }
}

/// Puts the files in an order that the kernel takes: no burst above the quota at any time, swap after memory.
fn order(wanted: &mut Vec<Limit>) {
    let place = |file: &str| match file {
        "cpu.max" => 2,
        "cpu.max.burst" => 3,
        // Memory without a limit takes swap's away on its way through the runtime.
        "memory.max" => 4,
        "memory.swap.max" => 5,
        _ => 6,
    };
    wanted.sort_by_key(|limit| place(&limit.file));
    let both = ["cpu.max", "cpu.max.burst"].map(|file| wanted.iter().any(|limit| limit.file == file));
    if both == [true, true] {
        let zero = Limit { key: "cpu.burst".into(), file: "cpu.max.burst".into(), value: "0".into() };
        wanted.insert(0, zero);
    }
}

/// The steps of interfaces whose rates or firewall are among `keys`.
fn networks(new: &Definition, keys: &[String]) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for key in keys {
        let mut names = key.split('.').rev();
        let (Some(field @ ("down" | "up" | "down-rate" | "up-rate" | "firewall")), true) =
            (names.next(), key.starts_with("network."))
        else {
            continue;
        };
        let name = &key["network.".len()..key.len() - field.len() - 1];
        let interface = new.networks.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default();
        let rate = |text: &Option<String>| match text {
            Some(text) => text.parse::<Rate>().map_err(lift),
            None => Ok(Rate(0)),
        };
        let at = steps
            .iter()
            .position(|step| matches!(step, Step::Network { interface, .. } if interface == name));
        let at = at.unwrap_or_else(|| {
            steps.push(Step::Network { interface: name.to_owned(), rates: Wish::default(), firewall: None });
            steps.len() - 1
        });
        if let Step::Network { rates, firewall, .. } = &mut steps[at] {
            match field {
                "down" => rates.down = Some(rate(&interface.down)?),
                "up" => rates.up = Some(rate(&interface.up)?),
                "down-rate" => rates.down_min = Some(rate(&interface.down_rate)?),
                "up-rate" => rates.up_min = Some(rate(&interface.up_rate)?),
                _ => *firewall = Some(interface.firewall),
            }
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_is_never_above_the_quota() {
        let limit =
            |file: &str, value: &str| Limit { key: String::new(), file: file.into(), value: value.into() };
        let mut wanted = vec![
            limit("pids.max", "5"),
            limit("cpu.max.burst", "9"),
            limit("memory.swap.max", "1"),
            limit("memory.max", "max"),
            limit("cpu.max", "9"),
        ];
        order(&mut wanted);
        let written: Vec<_> = wanted.iter().map(|limit| format!("{}={}", limit.file, limit.value)).collect();
        assert_eq!(
            written,
            [
                "cpu.max.burst=0",
                "cpu.max=9",
                "cpu.max.burst=9",
                "memory.max=max",
                "memory.swap.max=1",
                "pids.max=5"
            ]
        );
    }

    #[test]
    fn an_interfaces_keys_are_one_step() {
        let text = "[network.eth0]\nup = \"8mbit\"\nfirewall = true\n";
        let definition = Definition::parse(text, Path::new("m")).unwrap();
        let keys = ["network.eth0.up", "network.eth0.down", "network.eth1.firewall"].map(str::to_owned);
        let steps = networks(&definition, &keys).unwrap();
        assert_eq!(
            steps,
            [
                Step::Network {
                    interface: "eth0".into(),
                    rates: Wish { down: Some(Rate(0)), up: Some(Rate(8_000_000)), ..Wish::default() },
                    firewall: None
                },
                Step::Network { interface: "eth1".into(), rates: Wish::default(), firewall: Some(false) },
            ]
        );
    }
}
