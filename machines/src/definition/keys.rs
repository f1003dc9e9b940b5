//! The keys of `machine.toml`: type, meaning, when a change holds, the kernel's file and vzctl's option, as one table.
//!
//! Owns the table and the check of a document against it. `set`, `show`, the manual and the completions read it, too.

use std::collections::BTreeMap;

use super::forms::{Form, ULIMITS, UNLIMITED};
use super::tree::{Entry, Place, Value};
use super::units::Size;
use crate::{Error, Result};

/// When a change of a key holds for a machine that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// At once: it is looked up when it is needed.
    WhenNeeded,
    /// At once: the kernel is told and asked whether it took.
    Now,
    /// From the next start.
    NextStart,
    /// Chosen when the machine is made, and never changed.
    WhenMade,
}

impl Holds {
    /// For the manual.
    pub fn word(self) -> &'static str {
        match self {
            Holds::WhenNeeded | Holds::Now => "at once",
            Holds::NextStart => "at the next start",
            Holds::WhenMade => "never; it is chosen when the machine is made",
        }
    }
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path; `*` is a name of the owner's, `[]` each table of a list.
    pub path: &'static str,
    /// The form of its value.
    pub form: Form,
    /// When a change holds.
    pub holds: Holds,
    /// Where the kernel keeps it.
    pub kernel: &'static str,
    /// vzctl's option.
    pub vzctl: &'static str,
    /// Shorter names for `set`.
    pub aliases: &'static [&'static str],
    /// Whether `unlimited` is a value.
    pub unlimited: bool,
    /// What it is.
    pub meaning: &'static str,
}

const fn key(path: &'static str, form: Form, holds: Holds, meaning: &'static str) -> Key {
    Key { path, form, holds, kernel: "", vzctl: "", aliases: &[], unlimited: false, meaning }
}

impl Key {
    const fn kernel(self, kernel: &'static str) -> Key {
        Key { kernel, ..self }
    }
    const fn vzctl(self, vzctl: &'static str) -> Key {
        Key { vzctl, ..self }
    }
    const fn aliases(self, aliases: &'static [&'static str]) -> Key {
        Key { aliases, ..self }
    }
    const fn unlimited(self) -> Key {
        Key { unlimited: true, ..self }
    }

    /// Whether several values can be given.
    pub fn is_list(&self) -> bool {
        matches!(self.form, Form::List(_))
    }
}

use Holds::{NextStart, Now, WhenMade, WhenNeeded};

const TEXTS: Form = Form::List(&Form::Text);
const NAMES: Form = Form::List(&Form::Name);
const ANY: i64 = i64::MAX;

/// All keys, in the order of the manual.
pub const KEYS: &[Key] = &[
    key("include", NAMES, WhenNeeded, "Profiles that this definition builds on (see PROFILES).")
        .vzctl("--applyconfig"),
    key("image", Form::Text, WhenMade, "The image it was made from: a name in the store, or host.").vzctl("--ostemplate"),
    key("description", Form::Text, WhenNeeded, "What it is for, in the owner's words.").vzctl("--description"),
    key("hostname", Form::HostName, NextStart, "The name that it has inside; without one its own.").vzctl("--hostname"),
    key("isolation", Form::Choice(&["namespaces", "vm"]), NextStart, "What separates it from the host: namespaces of the host's kernel (default), or a kernel of its own."),
    key("vsock", Form::Switch, NextStart, "A socket to the host without a network (vsock(7)), for isolation vm alone; the host's ends are in the machine's state, as show says."),
    key("disabled", Form::Switch, WhenNeeded, "It cannot be started.").vzctl("--disabled"),
    key("protected", Form::Switch, WhenNeeded, "It cannot be removed."),
    key("privileged", Form::Switch, NextStart, "Without a user namespace and without the default filters: root inside is root outside.").vzctl("--local_uid 0"),
    key("nesting", Form::Switch, NextStart, "Containers can be made inside."),
    key("visible", Form::Switch, NextStart, "Whether the numbers of /proc inside are the machine's own; absent means yes.").vzctl("--meminfo"),
    key("labels.*", Form::Loose, WhenNeeded, "Words of the owner's own."),
    key("init.command", TEXTS, NextStart, "Program and arguments of the first process; without them the image's, and where it has none /sbin/init."),
    key("init.env.*", Form::Loose, NextStart, "Environment beside the image's."),
    key("init.user", Form::Text, NextStart, "User and group inside, as user[:group]; without one the image's."),
    key("init.workdir", Form::Path, NextStart, "Working directory; without one the image's."),
    key("init.terminal", Form::Switch, NextStart, "Whether it has a terminal as its console; absent: an init has, a plain program has not."),
    key("init.stop-signal", Form::Signal, WhenNeeded, "Signal that asks it to end; without one the image's, else what its kind of init understands."),
    key("init.stop-timeout", Form::Span, WhenNeeded, "How long it may take to end before it is killed; absent means 90 s.").vzctl("--stop-timeout"),
    key("memory.limit", Form::Size(4096), Now, "Most memory, with the page cache and the kernel's own. Shrinking reclaims first, and is refused if that does not suffice.")
        .kernel("memory.max").vzctl("--ram, --physpages, --memory").aliases(&["memory", "ram"]).unlimited(),
    key("memory.high", Form::Size(4096), Now, "Above it the machine is slowed and its memory reclaimed.").kernel("memory.high").unlimited(),
    key("memory.guarantee", Form::Size(0), Now, "Memory that is reclaimed from it last.").kernel("memory.low").vzctl("--memguarantee, --vmguarpages"),
    key("memory.swap", Form::Size(0), Now, "Most swap, beside the limit; 0 is none.").kernel("memory.swap.max").vzctl("--swap, --swappages").aliases(&["swap"]).unlimited(),
    key("memory.oom-group", Form::Switch, Now, "Out of memory ends all of the machine instead of one process.").kernel("memory.oom.group"),
    key("cpu.limit", Form::Processors, Now, "CPU time in processors, as 1.5.").kernel("cpu.max").vzctl("--cpulimit").aliases(&["cpus"]).unlimited(),
    key("cpu.weight", Form::Number(1, 10_000), Now, "Share in contention; 100 by default.").kernel("cpu.weight").vzctl("--cpuunits (ten times as much)"),
    key("cpu.burst", Form::Span, Now, "How long it may exceed the limit with what it saved, at most 100 ms times the limit.").kernel("cpu.max.burst").vzctl("--burst_cpulimit"),
    key("cpu.count", Form::Number(1, 1 << 16), Now, "How many processors it sees and uses; the least used ones are chosen.").kernel("cpuset.cpus").vzctl("--cpus").unlimited(),
    key("cpu.set", Form::Numbers, Now, "Which processors it uses.").kernel("cpuset.cpus").vzctl("--cpumask").unlimited(),
    key("cpu.nodes", Form::Numbers, Now, "Which memory nodes it uses.").kernel("cpuset.mems").vzctl("--nodemask").unlimited(),
    key("io.weight", Form::Number(1, 10_000), Now, "Share of block devices in contention; 100 by default.").kernel("io.weight").vzctl("--ioprio"),
    key("io.bps", Form::Size(1), Now, "Most bytes a second on the device that its disk is on, for reading and for writing each.").kernel("io.max (rbps, wbps)").vzctl("--iolimit").unlimited(),
    key("io.iops", Form::Number(1, ANY), Now, "Most operations a second there, for reading and for writing each.").kernel("io.max (riops, wiops)").vzctl("--iopslimit").unlimited(),
    key("pids.limit", Form::Number(1, 1 << 22), Now, "Most tasks (processes and threads).").kernel("pids.max").vzctl("--numproc").aliases(&["pids"]).unlimited(),
    key("pids.ptys", Form::Number(1, 1 << 20), Now, "Most pseudo terminals; those that are open stay.").kernel("devpts max=").vzctl("--numpty"),
    key("hugepages.*", Form::Size(0), Now, "Most memory in huge pages of the size that the key names, as 2M.").kernel("hugetlb.*.max").unlimited(),
    key("cgroup.max", Form::Number(0, ANY), Now, "Most control groups that it may make inside.").kernel("cgroup.max.descendants").vzctl("--num-memory-subgroups").unlimited(),
    key("cgroup.unified.*", Form::Loose, Now, "Any other file of cgroup v2 with what goes into it, after all other limits."),
    key("disk.kind", Form::Choice(&["overlay", "disk"]), WhenMade, "How the root file system is kept: overlay (the image's layers below, an upper directory of its own; default), or disk (a file with a file system in it).").vzctl("--layout"),
    key("disk.size", Form::Size(1 << 20), Now, "Most bytes of the root file system.").kernel("project quota, or the size of the image file").vzctl("--diskspace").aliases(&["disk"]).unlimited(),
    key("disk.inodes", Form::Number(1, ANY), NextStart, "Most inodes (overlay only).").kernel("project quota").vzctl("--diskinodes").unlimited(),
    key("disk.read-only", Form::Switch, NextStart, "The machine cannot write to it."),
    key("mount[].source", Form::Text, NextStart, "A path of the host, or tmpfs.").vzctl("--bindmount_add"),
    key("mount[].target", Form::Path, NextStart, "Where it is inside."),
    key("mount[].options", TEXTS, NextStart, "Options as in config.json: ro, nosuid, idmap, size=64m."),
    key("device[].path", Form::Path, NextStart, "A device node of the host.").vzctl("--devnodes, --devices"),
    key("device[].target", Form::Path, NextStart, "Where it is inside; without one the same."),
    key("device[].access", Form::Access, NextStart, "Reading, writing, making nodes; absent means rw."),
    key("network.*.network", Form::Name, NextStart, "The network; absent is default, host is the host's own, none is loopback alone.").vzctl("--network, --bridge, --netif_add"),
    key("network.*.address", Form::List(&Form::Address), NextStart, "Addresses that it always has; a family without one gets a free one.").vzctl("--ipadd, --ipdel").aliases(&["network.*.ip"]),
    key("network.*.mac", Form::Mac, NextStart, "Hardware address.").vzctl("--mac"),
    key("network.*.ports", Form::List(&Form::Port), NextStart, "Published ports as [address:]host[-host]:inside[-inside][/tcp|/udp]."),
    key("network.*.down", Form::Rate, Now, "Ceiling of what it receives, as 100mbit.").kernel("qdisc").vzctl("--rate with --ratebound yes").unlimited(),
    key("network.*.up", Form::Rate, Now, "Ceiling of what it sends.").kernel("qdisc").vzctl("--rate with --ratebound yes").unlimited(),
    key("network.*.down-rate", Form::Rate, Now, "Guarantee of what it receives, in contention; the network has a rate then.").kernel("qdisc").vzctl("--rate").unlimited(),
    key("network.*.up-rate", Form::Rate, Now, "Guarantee of what it sends, in contention; the network has a rate then.").kernel("qdisc").vzctl("--rate").unlimited(),
    key("network.*.firewall", Form::Switch, Now, "Nobody but the host reaches it unasked.").kernel("nft set"),
    key("network.*.names", NAMES, NextStart, "Other names that its neighbours know it by."),
    key("dns.servers", Form::List(&Form::Address), NextStart, "Addresses of resolvers; absent is the host's way.").vzctl("--nameserver").aliases(&["dns"]),
    key("dns.search", Form::List(&Form::HostName), NextStart, "Domains that are searched.").vzctl("--searchdomain"),
    key("ulimit.*", Form::Ulimit, Now, "The rlimit that the key names (nofile, memlock, …), as soft:hard or one number. A running machine's first process gets it, and what that starts from then on.").kernel("prlimit(2)").vzctl("--numfile, --numflock, --numsiginfo, --lockedpages"),
    key("sysctl.*", Form::Loose, NextStart, "A sysctl of its namespaces.").vzctl("--shmpages (kernel.shmall)"),
    key("capabilities.add", Form::List(&Form::Capability), NextStart, "Granted beside the default.").vzctl("--capability"),
    key("capabilities.drop", Form::List(&Form::Capability), NextStart, "Taken from the default; ALL takes every one.").vzctl("--capability, --netfilter disabled (NET_ADMIN)"),
    key("boot.start", Form::Choice(&["off", "on", "last"]), WhenNeeded, "Whether it starts with the host: last if it ran when the host went down.").vzctl("--onboot").aliases(&["boot"]),
    key("boot.order", Form::Number(-1_000_000, 1_000_000), WhenNeeded, "Higher starts earlier among those that do not depend on each other; absent comes last.").vzctl("--bootorder"),
    key("boot.after", NAMES, WhenNeeded, "Machines that start before it."),
    key("boot.requires", NAMES, WhenNeeded, "Machines without which it does not start."),
    key("boot.ready", Form::Choice(&["started", "notify", "healthy"]), NextStart, "When it counts as started: when its first process runs, says READY=1 (sd_notify(3)), or the health command has succeeded."),
    key("restart.policy", Form::Choice(&["no", "on-failure", "always"]), WhenNeeded, "When it is started again after its first process ended.").aliases(&["restart"]),
    key("restart.max", Form::Number(1, 1 << 31), WhenNeeded, "Most times in a row; absent is without end."),
    key("restart.delay", Form::Span, WhenNeeded, "The first pause; each next is twice as long, up to five minutes. Absent means 1 s."),
    key("health.command", TEXTS, NextStart, "Program and arguments, run inside; exit code 0 is healthy."),
    key("health.interval", Form::Span, NextStart, "Pause between two; absent means 30 s."),
    key("health.timeout", Form::Span, NextStart, "How long it may take; absent means 30 s."),
    key("health.retries", Form::Number(1, 1 << 31), NextStart, "Failures in a row until it is unhealthy; absent means 3."),
    key("health.start-period", Form::Span, NextStart, "Failures before that do not count; absent means none."),
    key("health.restart", Form::Switch, NextStart, "Whether an unhealthy machine is restarted."),
    key("log.driver", Form::Choice(&["file", "journald", "none"]), Now, "Where its output goes."),
    key("log.size", Form::Size(4096), Now, "Most bytes of a file; absent means 10 MiB."),
    key("log.files", Form::Number(1, 1000), Now, "Most files; absent means 3."),
];

/// The tables that are lists, with the way in which `set` writes one of them in a word.
pub const LISTS: &[(&str, &str)] =
    &[("mount", "SOURCE:TARGET[:OPTION,…]"), ("device", "PATH[:TARGET][:ACCESS]")];

/// Which of `KEYS` a path means, name by name; the last `*` takes all that is left.
pub fn find(path: &str) -> Option<(&'static Key, Vec<String>)> {
    let resolved = |pattern: &str| -> Option<Vec<String>> {
        let names: Vec<_> = pattern.split('.').collect();
        let mut rest = path;
        let mut found = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let last = at + 1 == names.len();
            let (part, after) = match rest.split_once('.') {
                _ if last => (rest, ""),
                Some(parts) => parts,
                None => return None,
            };
            if part.is_empty() || (*name != "*" && part != *name) {
                return None;
            }
            found.push(part.to_owned());
            rest = after;
        }
        Some(found)
    };
    for key in KEYS.iter().filter(|key| !key.path.contains("[]")) {
        if let Some(names) = resolved(key.path) {
            return Some((key, names));
        }
        for alias in key.aliases {
            if let Some(given) = resolved(alias) {
                // The owner's names stand in the same order in both.
                let mut given = given.into_iter().zip(alias.split('.')).filter(|(_, name)| *name == "*");
                let name = |name: &str| match name {
                    "*" => given.next().map(|(name, _)| name).unwrap_or_default(),
                    name => name.to_owned(),
                };
                return Some((key, key.path.split('.').map(name).collect()));
            }
        }
    }
    None
}

/// `: did you mean …`, where something known is near `name`, spelled behind `prefix`.
pub fn nearest(prefix: &str, name: &str) -> String {
    let begin = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
    let mut known: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.path.strip_prefix(&*begin))
        .filter_map(|rest| rest.split('.').next())
        .map(|name| name.trim_end_matches("[]"))
        .filter(|name| *name != "*")
        .collect();
    known.dedup();
    // The last name of another table, or what the kernel or vzctl call it.
    let elsewhere = KEYS.iter().find(|key| {
        key.path.rsplit('.').next() == Some(name)
            || key.aliases.contains(&name)
            || key.kernel == format!("{begin}{name}")
            || key.vzctl.split([',', ' ']).any(|option| option.strip_prefix("--") == Some(name))
    });
    if let Some(key) = elsewhere {
        return format!(": did you mean {}?", key.path);
    }
    let close = known
        .iter()
        .map(|known| (distance(name, known), *known))
        .filter(|(distance, known)| *distance <= 1 + known.len().min(name.len()) / 3)
        .min();
    if let Some((_, known)) = close {
        return format!(": did you mean {begin}{known}?");
    }
    format!(": {} here", known.join(", "))
}

/// How many letters must be changed, put in or left out to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// Refuses what is wrong in `document`, one file; what may be written in several ways is made one.
pub fn check(document: &mut Entry) -> Result<()> {
    match &mut document.value {
        Value::Table(table) => check_table(table, "", ""),
        _ => Ok(()),
    }
}

/// Where a name of a table leads.
enum Step {
    Key(&'static Key),
    /// A table, by its path as `KEYS` write it.
    Table(String),
    /// A list of tables, the same way.
    List(String),
    Nowhere,
}

/// Where `name` in the table `pattern` leads, which is a path as `KEYS` write it.
fn step(pattern: &str, name: &str) -> Step {
    let (own, any) = (join(pattern, name), join(pattern, "*"));
    if let Some(key) = KEYS.iter().find(|key| key.path == own || key.path == any) {
        return Step::Key(key);
    }
    let below = |base: &str, mark: &str| {
        KEYS.iter().any(|key| key.path.strip_prefix(base).is_some_and(|rest| rest.starts_with(mark)))
    };
    if below(&own, "[].") {
        return Step::List(format!("{own}[]"));
    }
    [own, any].into_iter().find(|base| below(base, ".")).map_or(Step::Nowhere, Step::Table)
}

fn join(table: &str, name: &str) -> String {
    match table {
        "" => name.to_owned(),
        table => format!("{table}.{name}"),
    }
}

/// `pattern` is the path as `KEYS` write it, `path` the same as the owner does.
fn check_table(table: &mut BTreeMap<String, Entry>, pattern: &str, path: &str) -> Result<()> {
    for (name, entry) in table {
        let here = join(path, name);
        let no_table = |at: &Place, here: &str, value: &Value| {
            Err(at.refuse(format!("{here} is {}, and a table is wanted", value.kind())))
        };
        match (step(pattern, name), &mut entry.value) {
            (Step::Key(key), _) => {
                check_name(key, name).map_err(|why| entry.at.refuse(format!("{here}: {why}")))?;
                check_value(key, entry, &here)?;
            }
            (Step::Table(next), Value::Table(inner)) => {
                if next == "network.*" {
                    interface_name(name).map_err(|why| entry.at.refuse(format!("{here}: {why}")))?;
                }
                check_table(inner, &next, &here)?;
            }
            (Step::Table(_), value) => return no_table(&entry.at, &here, value),
            (Step::List(next), Value::List(list)) => {
                for (number, entry) in list.iter_mut().enumerate() {
                    let here = format!("{here}[{number}]");
                    match &mut entry.value {
                        Value::Table(inner) => check_table(inner, &next, &here)?,
                        value => return no_table(&entry.at, &here, value),
                    }
                }
            }
            (Step::List(_), value) => {
                let text =
                    format!("{here} is {}, and a list of tables is wanted: write [[{here}]]", value.kind());
                return Err(entry.at.refuse(text));
            }
            (Step::Nowhere, _) => {
                let text = format!("there is no key {here}{}", nearest(path, name));
                return Err(entry.at.refuse(text));
            }
        }
    }
    Ok(())
}

/// Checks one value of `key` at `path`.
pub fn check_value(key: &Key, entry: &mut Entry, path: &str) -> Result<()> {
    if key.unlimited && entry.value == Value::Text(UNLIMITED.into()) {
        return Ok(());
    }
    if let (Value::Table(_), Form::Loose) = (&entry.value, key.form) {
        let text =
            format!("{path} is a table: a name with dots is quoted, as \"net.ipv4.ip_forward\" = \"1\"");
        return Err(entry.at.refuse(text));
    }
    // The very element of a list is named.
    if let (Form::List(form), Value::List(list)) = (key.form, &entry.value)
        && let Some((bad, why)) =
            list.iter().find_map(|entry| form.check(&entry.value).err().map(|why| (entry, why)))
    {
        return Err(bad.at.refuse(format!("{path}: {why}")));
    }
    entry.value = key.form.check(&entry.value).map_err(|why| entry.at.refuse(format!("{path}: {why}")))?;
    Ok(())
}

/// Refuses names of the owner's that the kernel could not take.
pub fn check_name(key: &Key, name: &str) -> Result<(), String> {
    match key.path {
        "ulimit.*" if !ULIMITS.contains(&name) => Err(format!("no such rlimit: {}", ULIMITS.join(", "))),
        "hugepages.*" => match name.parse::<Size>() {
            Ok(size) if size.0.is_power_of_two() && size.0 >= 4096 => Ok(()),
            _ => Err(format!("{name:?} is not the size of a huge page such as 2M or 1G")),
        },
        "cgroup.unified.*" if name.contains('/') || name.find('.').is_none_or(|at| at == 0) => {
            Err("must be the name of a file, as memory.zswap.max".into())
        }
        "cgroup.unified.*" => match KEYS.iter().find(|key| key.kernel.split(' ').next() == Some(name)) {
            Some(key) => Err(format!("that is {}", key.path)),
            None => Ok(()),
        },
        "init.env.*" if name.is_empty() || name.contains(['=', '\0']) => {
            Err("the name of a variable is not empty and has no =".into())
        }
        path if path.starts_with("network.*") => interface_name(name),
        _ => Ok(()),
    }
}

fn interface_name(name: &str) -> Result<(), String> {
    let fits = !name.is_empty()
        && name.len() <= 15
        && !matches!(name, "." | ".." | "lo")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if fits { Ok(()) } else { Err("an interface's name has at most 15 letters, no /, : or space".into()) }
}

/// Refuses a path that is no key, naming the nearest.
pub fn unknown(path: &str) -> Error {
    let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
    let told = if table.is_empty() || KEYS.iter().any(|key| key.path.starts_with(&format!("{table}."))) {
        nearest(table, name)
    } else {
        nearest("", path.split('.').next().unwrap_or(path))
    };
    Error::invalid(format!("there is no key {path}{told}"))
}

/// Takes away what says `unlimited`: a limit that is absent is none.
pub fn lift_unlimited(document: &mut Entry) {
    fn lift(table: &mut BTreeMap<String, Entry>, pattern: &str) {
        table.retain(|name, entry| match (&mut entry.value, step(pattern, name)) {
            (Value::Text(text), Step::Key(key)) if key.unlimited => {
                text != UNLIMITED && !(key.form == Form::Rate && text == "none")
            }
            (Value::Table(inner), Step::Table(next)) => {
                lift(inner, &next);
                true
            }
            _ => true,
        });
    }
    if let Value::Table(table) = &mut document.value {
        lift(table, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Definition;

    #[test]
    fn paths_and_aliases_find_their_key() {
        for (path, key, names) in [
            ("memory.limit", "memory.limit", vec!["memory", "limit"]),
            ("memory", "memory.limit", vec!["memory", "limit"]),
            ("cpus", "cpu.limit", vec!["cpu", "limit"]),
            ("network.eth0.ip", "network.*.address", vec!["network", "eth0", "address"]),
            ("network.eth0.up", "network.*.up", vec!["network", "eth0", "up"]),
            ("sysctl.net.ipv4.ip_forward", "sysctl.*", vec!["sysctl", "net.ipv4.ip_forward"]),
            (
                "cgroup.unified.memory.zswap.max",
                "cgroup.unified.*",
                vec!["cgroup", "unified", "memory.zswap.max"],
            ),
        ] {
            let (found, parts) = find(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((found.path, parts), (key, names.into_iter().map(str::to_owned).collect()), "{path}");
        }
        for path in ["", "memory.", "network.eth0", "mount[].source", "nothing", "memory.limit.x"] {
            assert!(find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn no_key_or_alias_stands_twice() {
        let mut all: Vec<_> = KEYS.iter().flat_map(|key| key.aliases.iter().chain([&key.path])).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(KEYS.iter().all(|key| key.meaning.ends_with('.')));
    }

    /// The table and the struct have the same keys: each key alone is read into something that differs from nothing.
    #[test]
    fn the_table_and_the_struct_have_the_same_keys() {
        for key in KEYS {
            let value = sample(key.form);
            let path = key.path.replace('*', if key.path.starts_with("hugepages") { "2M" } else { "nofile" });
            let path =
                if key.path.starts_with("cgroup.unified") { "cgroup.unified.\"a.b\"".into() } else { path };
            let text = match path.split_once("[].") {
                Some((list, name)) => format!("[[{list}]]\n{name} = {value}\n"),
                None => format!("{path} = {value}\n"),
            };
            let mut tree = super::super::tree::read(&text, "t").unwrap();
            check(&mut tree).unwrap_or_else(|err| panic!("{text}: {err}"));
            let read: Definition =
                serde_json::from_value(tree.value.json()).unwrap_or_else(|err| panic!("{text}: {err}"));
            let again = serde_json::to_value(&read).unwrap();
            let spelled = serde_json::to_value(Definition::default()).unwrap();
            assert_ne!(again, spelled, "{text} is read into nothing");
        }
        // And back: every leaf that the struct writes is a key.
        fn leaves(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) if !map.is_empty() => {
                    for (name, inner) in map {
                        leaves(
                            inner,
                            &if path.is_empty() { name.clone() } else { format!("{path}.{name}") },
                            found,
                        );
                    }
                }
                _ => found.push(path.to_owned()),
            }
        }
        let mut found = Vec::new();
        leaves(&serde_json::to_value(Definition::default()).unwrap(), "", &mut found);
        for path in found {
            let begins = |key: &&Key| {
                key.path == path
                    || key.path.starts_with(&format!("{path}."))
                    || key.path.starts_with(&format!("{path}[]."))
            };
            assert!(KEYS.iter().any(|key| begins(&key)), "{path} is no key");
        }
    }

    fn sample(form: Form) -> String {
        match form {
            Form::Text | Form::Loose => "\"words\"".into(),
            // The last one is never the default.
            Form::Choice(words) => format!("{:?}", words[words.len() - 1]),
            Form::Switch => "true".into(),
            Form::Number(_, _) => "7".into(),
            Form::Size(_) => "\"4M\"".into(),
            Form::Span => "\"7s\"".into(),
            Form::Processors => "1.5".into(),
            Form::Numbers => "\"0-1\"".into(),
            Form::Rate => "\"7mbit\"".into(),
            Form::Path => "\"/p\"".into(),
            Form::HostName | Form::Name => "\"n\"".into(),
            Form::Address => "\"10.0.0.1\"".into(),
            Form::Mac => "\"02:00:00:00:00:01\"".into(),
            Form::Port => "\"80:80\"".into(),
            Form::Signal => "\"TERM\"".into(),
            Form::Capability => "\"NET_ADMIN\"".into(),
            Form::Ulimit => "\"7:8\"".into(),
            Form::Access => "\"r\"".into(),
            Form::List(form) => format!("[{}]", sample(*form)),
        }
    }

    fn refusal(text: &str) -> String {
        let mut tree = super::super::tree::read(text, "machine.toml").unwrap();
        check(&mut tree).unwrap_err().to_string()
    }

    #[test]
    fn refusals_name_place_key_and_reason() {
        for (text, want) in [
            (
                "\n[memory]\nlimit = \"12Q\"\n",
                "reading machine.toml:3:9: memory.limit: \"12Q\" is not a size such as 512M or 2G",
            ),
            (
                "[memory]\nlimt = 1\n",
                "reading machine.toml:2:8: there is no key memory.limt: did you mean memory.limit?",
            ),
            ("memory = \"1G\"\n", "reading machine.toml:1:10: memory is a string, and a table is wanted"),
            ("cpulimit = 5\n", "there is no key cpulimit: did you mean cpu.limit?"),
            ("[memory]\nmax = 5\n", "did you mean memory.limit?"),
            ("[sysctl]\nnet.ipv4.ip_forward = 1\n", "a name with dots is quoted"),
            (
                "[network.eth0]\nports = [\"80:80\", \"x\"]\n",
                "reading machine.toml:2:19: network.eth0.ports: ",
            ),
            ("[network.\"a b\"]\nup = \"1mbit\"\n", "at most 15 letters"),
            ("[network]\neth0 = 1\n", "network.eth0 is an integer, and a table is wanted"),
            ("[mount]\nsource = \"/\"\n", "write [[mount]]"),
            ("[[mount]]\nsrc = \"/\"\n", "mount[0].src"),
            ("mount = [1]\n", "mount[0] is an integer, and a table is wanted"),
            ("[boot]\nstart = true\n", "true is not one of off, on, last"),
            ("[ulimit]\nfiles = 5\n", "no such rlimit"),
            ("[hugepages]\n3M = 5\n", "is not the size of a huge page"),
            ("[cgroup.unified]\n\"memory.max\" = 5\n", "that is memory.limit"),
            ("xyzzy = 1\n", "there is no key xyzzy: "),
        ] {
            let told = refusal(text);
            assert!(told.contains(want), "{text:?}: {told}");
        }
    }
}
