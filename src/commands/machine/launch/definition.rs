//! The flags of `launch` that describe a machine, as engines' users type them, and the definition that they fill.
//!
//! Owns the translation. What a flag means is said where its field of `machine.toml` is used.

use std::collections::BTreeMap;
use std::fs;

use clap::{Arg, ArgMatches};
use locule_machines::definition::{
    BootStart, Definition, Device, DiskKind, Health, Interface, Isolation, Mount, RestartPolicy, Size, Span,
};
use locule_machines::{Home, lift};
use locule_runtime::Result;
use locule_runtime::error::Context;

use super::wrong;
use crate::cli::{option, several, switch, text};

/// The flags.
pub fn flags() -> Vec<Arg> {
    vec![
        several("profile", "NAME", "Build on a profile of /etc/locule/profiles"),
        option("description", "TEXT", "What it is for"),
        option("hostname", "NAME", "Name that it has inside; by default its own"),
        several("label", "KEY=VALUE", "A word of your own").short('l'),
        several("env", "KEY[=VALUE]", "Add to the environment; without a value the caller's").short('e'),
        several("env-file", "FILE", "Add the lines of a file to the environment"),
        option("entrypoint", "PROGRAM", "Run this program instead of the image's entrypoint"),
        option("user", "USER[:GROUP]", "User inside, by name or number").short('u'),
        option("workdir", "DIR", "Working directory inside").short('w'),
        option("stop-signal", "SIGNAL", "Signal that asks it to end"),
        option("stop-timeout", "TIME", "How long it may take to end before it is killed (default: 90s)"),
        option("memory", "SIZE", "Memory limit, as 512M or 2G").short('m'),
        option("memory-reservation", "SIZE", "Memory that is reclaimed last"),
        option("swap", "SIZE", "Swap beside the memory; 0 is none"),
        option("cpus", "NUMBER", "CPU time in processors, as 1.5"),
        option("cpuset-cpus", "LIST", "Which processors, as 0-3,7"),
        option("cpu-weight", "WEIGHT", "Share of CPU time in contention, 1 to 10000 (default: 100)"),
        option("pids", "NUMBER", "Most tasks"),
        option("disk", "SIZE", "Size of the root file system, as 10G"),
        option("storage", "KIND", "How the root file system is kept").value_parser(["overlay", "disk"]),
        switch("read-only", "It cannot write to its root file system"),
        several(
            "volume",
            "SOURCE:TARGET[:OPTIONS]",
            "A file or directory of the host, as /srv/www:/var/www:ro",
        )
        .short('v'),
        several("tmpfs", "TARGET[:OPTIONS]", "A file system in memory, as /cache:size=64m"),
        several(
            "device",
            "PATH[:TARGET[:ACCESS]]",
            "A device of the host, as /dev/kvm or /dev/ttyS0:/dev/modem:rw",
        ),
        several("network", "NAME", "A network; host is the host's own, none is loopback alone"),
        several("ip", "ADDRESS", "Address on the first network, one a family"),
        option("mac", "ADDRESS", "Hardware address on the first network"),
        several("publish", "[ADDRESS:]PORT:PORT[/PROTOCOL]", "Lead a port of the host to the machine")
            .short('p'),
        several("dns", "ADDRESS", "A resolver"),
        several("dns-search", "DOMAIN", "A domain that is searched"),
        option(
            "restart",
            "POLICY",
            "no, on-failure[:TIMES], always, or unless-stopped (started with the host as well)",
        ),
        switch("boot", "Start it with the host"),
        option("isolation", "KIND", "What separates it from the host").value_parser(["namespaces", "vm"]),
        switch("vsock", "A socket to the host without a network, with --isolation vm"),
        switch("privileged", "Without a user namespace and without filters: root inside is root outside"),
        switch("nesting", "Containers can be made inside"),
        several("cap-add", "CAPABILITY", "Grant a capability; ALL is every one"),
        several("cap-drop", "CAPABILITY", "Take a capability; ALL is every one"),
        several("ulimit", "NAME=SOFT[:HARD]", "A resource limit, as nofile=4096"),
        several("sysctl", "KEY=VALUE", "A sysctl of its namespaces"),
        option("health-cmd", "COMMAND", "Command of the shell that tells its health by its exit code"),
        option("health-interval", "TIME", "Pause between two questions (default: 30s)"),
        option("health-timeout", "TIME", "How long an answer may take (default: 30s)"),
        option("health-retries", "NUMBER", "Failures in a row until it is unhealthy (default: 3)"),
        option("health-start-period", "TIME", "How long failures do not count at first"),
    ]
}

/// The definition that the flags ask for.
pub fn read(matches: &ArgMatches, home: &Home) -> Result<Definition> {
    let flag = |name| matches.get_flag(name);
    let owned = |name| text(matches, name).map(str::to_owned);
    let mut definition = Definition {
        include: all(matches, "profile"),
        image: owned("image").unwrap_or_default(),
        description: owned("description").unwrap_or_default(),
        hostname: owned("hostname"),
        vsock: flag("vsock"),
        privileged: flag("privileged"),
        nesting: flag("nesting"),
        labels: pairs(matches, "label")?,
        ulimit: pairs(matches, "ulimit")?,
        sysctl: pairs(matches, "sysctl")?,
        ..Definition::default()
    };
    if text(matches, "isolation") == Some("vm") {
        definition.isolation = Isolation::Vm;
    }
    init(matches, home, &mut definition)?;
    limits(matches, &mut definition)?;
    definition.mounts = mounts(matches)?;
    for word in all(matches, "device") {
        let mut parts = word.splitn(3, ':').map(str::to_owned);
        definition.devices.push(Device {
            path: parts.next().unwrap_or_default(),
            target: parts.next().filter(|target| !target.is_empty()),
            access: parts.next(),
        });
    }
    definition.networks = networks(matches);
    definition.dns.servers = all(matches, "dns");
    definition.dns.search = all(matches, "dns-search");
    definition.capabilities.add = all(matches, "cap-add");
    definition.capabilities.drop = all(matches, "cap-drop");
    if flag("boot") {
        definition.boot.start = BootStart::On;
    }
    restart(matches, &mut definition)?;
    definition.health = health(matches)?;
    Ok(definition)
}

fn all(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
}

/// `KEY=VALUE`, several times.
fn pairs(matches: &ArgMatches, name: &str) -> Result<BTreeMap<String, String>> {
    all(matches, name)
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            None if name == "label" && !word.is_empty() => Ok((word.clone(), String::new())),
            _ => Err(wrong(name, word, "not KEY=VALUE")),
        })
        .collect()
}

/// The value of a flag, read by what it is.
fn value<T: std::str::FromStr>(matches: &ArgMatches, name: &str) -> Result<Option<T>>
where
    T::Err: std::fmt::Display,
{
    text(matches, name).map(|word| word.parse().map_err(|err| wrong(name, word, err))).transpose()
}

fn init(matches: &ArgMatches, home: &Home, definition: &mut Definition) -> Result<()> {
    let command = all(matches, "command");
    let entrypoint = text(matches, "entrypoint");
    let init = &mut definition.init;
    init.command = match (entrypoint, command.is_empty()) {
        (Some(program), _) => [vec![program.to_owned()], command].concat(),
        (None, true) => Vec::new(),
        (None, false) if definition.image == locule_images::host::NAME => command,
        (None, false) => {
            let image = home.images()?.find(&definition.image).map_err(lift)?;
            let own = image.config.config.and_then(|run| run.entrypoint).unwrap_or_default();
            [own, command].concat()
        }
    };
    for path in all(matches, "env-file") {
        let lines = fs::read_to_string(&path).doing(|| format!("reading {path}"))?;
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            environment(&mut init.env, line);
        }
    }
    for word in all(matches, "env") {
        environment(&mut init.env, &word);
    }
    let owned = |name| text(matches, name).map(str::to_owned);
    init.user = owned("user");
    init.workdir = owned("workdir");
    init.stop_signal = owned("stop-signal");
    init.stop_timeout = value::<Span>(matches, "stop-timeout")?;
    if matches.get_flag("tty") {
        init.terminal = Some(true);
    }
    Ok(())
}

/// `KEY=VALUE`, or a variable that the caller has.
fn environment(env: &mut BTreeMap<String, String>, word: &str) {
    match word.split_once('=') {
        Some((key, value)) => {
            env.insert(key.to_owned(), value.to_owned());
        }
        None => {
            if let Ok(value) = std::env::var(word) {
                env.insert(word.to_owned(), value);
            }
        }
    }
}

fn limits(matches: &ArgMatches, definition: &mut Definition) -> Result<()> {
    definition.memory.limit = value::<Size>(matches, "memory")?;
    definition.memory.guarantee = value::<Size>(matches, "memory-reservation")?;
    definition.memory.swap = value::<Size>(matches, "swap")?;
    definition.cpu.limit = value::<f64>(matches, "cpus")?;
    if let Some(limit) = definition.cpu.limit.filter(|limit| !limit.is_finite() || *limit <= 0.0) {
        return Err(wrong("cpus", &limit.to_string(), "a number above 0 is meant"));
    }
    definition.cpu.set = text(matches, "cpuset-cpus").map(str::to_owned);
    definition.cpu.weight = value(matches, "cpu-weight")?;
    definition.pids.limit = value(matches, "pids")?;
    definition.disk.size = value::<Size>(matches, "disk")?;
    if text(matches, "storage") == Some("disk") {
        definition.disk.kind = DiskKind::Disk;
    }
    definition.disk.read_only = matches.get_flag("read-only");
    Ok(())
}

fn mounts(matches: &ArgMatches) -> Result<Vec<Mount>> {
    let options = |text: Option<&str>| -> Vec<String> {
        // Labels of SELinux are given by relabelling flags elsewhere; rw is what a mount is anyway.
        let known = |word: &&str| !word.is_empty() && !matches!(*word, "rw" | "z" | "Z");
        text.unwrap_or_default().split(',').filter(known).map(str::to_owned).collect()
    };
    let mut mounts = Vec::new();
    for word in all(matches, "volume") {
        let mut parts = word.splitn(3, ':');
        match (parts.next(), parts.next()) {
            (Some(source), Some(target)) if source.starts_with('/') && target.starts_with('/') => {
                mounts.push(Mount {
                    source: source.to_owned(),
                    target: target.to_owned(),
                    options: options(parts.next()),
                });
            }
            (Some(source), Some(target)) if is_name(source) && target.starts_with('/') => {
                let why = "there are no named volumes: name a directory of the host, as /srv/";
                return Err(wrong("volume", &word, format!("{why}{source}:{target}")));
            }
            _ => return Err(wrong("volume", &word, "not SOURCE:TARGET[:OPTIONS] with two absolute paths")),
        }
    }
    for word in all(matches, "tmpfs") {
        let (target, rest) =
            word.split_once(':').map_or((word.as_str(), None), |(target, rest)| (target, Some(rest)));
        mounts.push(Mount { source: "tmpfs".into(), target: target.to_owned(), options: options(rest) });
    }
    Ok(mounts)
}

/// Whether this is what engines take for the name of a volume.
fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn networks(matches: &ArgMatches) -> Option<BTreeMap<String, Interface>> {
    let named = all(matches, "network");
    let (addresses, ports) = (all(matches, "ip"), all(matches, "publish"));
    let mac = text(matches, "mac").map(str::to_owned);
    if named.is_empty() && addresses.is_empty() && ports.is_empty() && mac.is_none() {
        return None;
    }
    let mut interfaces: BTreeMap<String, Interface> = BTreeMap::new();
    let names = if named.is_empty() { vec![None] } else { named.into_iter().map(Some).collect() };
    for (number, network) in names.into_iter().enumerate() {
        let mut interface = Interface { network, ..Interface::default() };
        if number == 0 {
            interface.address.clone_from(&addresses);
            interface.ports.clone_from(&ports);
            interface.mac.clone_from(&mac);
        }
        interfaces.insert(format!("eth{number}"), interface);
    }
    Some(interfaces)
}

fn restart(matches: &ArgMatches, definition: &mut Definition) -> Result<()> {
    let Some(word) = text(matches, "restart") else { return Ok(()) };
    let (policy, times) = word.split_once(':').map_or((word, None), |(policy, times)| (policy, Some(times)));
    definition.restart.policy = match policy {
        "no" => RestartPolicy::No,
        "on-failure" => RestartPolicy::OnFailure,
        "always" => RestartPolicy::Always,
        "unless-stopped" => {
            if definition.boot.start == BootStart::Off {
                definition.boot.start = BootStart::Last;
            }
            RestartPolicy::Always
        }
        _ => return Err(wrong("restart", word, "one of no, on-failure[:TIMES], always, unless-stopped")),
    };
    definition.restart.max = match (policy, times) {
        (_, None) => None,
        ("on-failure", Some(times)) => {
            Some(times.parse().map_err(|_| wrong("restart", word, "TIMES is a number"))?)
        }
        _ => return Err(wrong("restart", word, "only on-failure is counted")),
    };
    Ok(())
}

fn health(matches: &ArgMatches) -> Result<Option<Health>> {
    let Some(command) = text(matches, "health-cmd") else {
        let others = ["health-interval", "health-timeout", "health-retries", "health-start-period"];
        return match others.iter().find(|name| text(matches, name).is_some()) {
            Some(name) => Err(wrong(name, text(matches, name).unwrap_or_default(), "needs --health-cmd")),
            None => Ok(None),
        };
    };
    Ok(Some(Health {
        command: ["/bin/sh", "-c", command].map(str::to_owned).into(),
        interval: value(matches, "health-interval")?,
        timeout: value(matches, "health-timeout")?,
        retries: value(matches, "health-retries")?,
        start_period: value(matches, "health-start-period")?,
        restart: false,
    }))
}
