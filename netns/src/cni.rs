//! Networks of kind `cni`: any configuration list of CNI 1.1, run as its specification has it.
//!
//! Owns the order of plugins, what they are told, and what is kept for the calls that follow. Runs plugins one at a
//! time under the caller's lock, so that GC never meets ADD or DEL.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::address::Cidr;
use crate::error::{Context, Error, Kind as ErrorKind, Result};
use crate::network::Network;
use crate::networks::Attachment;
use crate::port::Publish;
use crate::rate::Rates;
use crate::record::{Record, Wired};

/// Versions of the specification that this speaks, ascending.
const VERSIONS: &[&str] = &["0.4.0", "1.0.0", "1.1.0"];
/// Where plugins are looked for unless CNI_PATH says so.
const PATH: &[&str] = &["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// What DEL and CHECK need: everything as it was at ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// The configuration list, with the version that was chosen.
    pub list: Value,
    /// Values for plugins that declare capabilities.
    pub runtime: Map<String, Value>,
    /// What the last plugin answered.
    pub result: Option<Value>,
    /// Where plugins are.
    pub path: Vec<PathBuf>,
}

/// What a plugin is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Add,
    Del,
    Check,
    Status,
    Gc,
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Act::Add => "ADD",
            Act::Del => "DEL",
            Act::Check => "CHECK",
            Act::Status => "STATUS",
            Act::Gc => "GC",
        }
    }
}

/// Reads the configuration list of a network and chooses the version.
pub fn load(network: &Network) -> Result<Value> {
    let path = network.conflist.as_deref().unwrap_or(Path::new(""));
    let doing = || format!("reading the CNI configuration {}", path.display());
    let text = fs::read(path).doing(doing)?;
    let mut list: Value = serde_json::from_slice(&text).doing(doing)?;
    if list.get("plugins").is_none() {
        // A configuration of a single plugin.
        let (version, name) = (list["cniVersion"].clone(), list["name"].clone());
        list = json!({"cniVersion": version, "name": name, "plugins": [list]});
    }
    let wrong = |what: &str| Error::invalid(format!("{}: {what}", doing()));
    let plugins = list["plugins"].as_array().filter(|plugins| !plugins.is_empty());
    let plugins = plugins.ok_or_else(|| wrong("it has no plugins"))?;
    let is_name = |kind: &str| !kind.is_empty() && !kind.contains('/');
    if !plugins.iter().all(|plugin| plugin["type"].as_str().is_some_and(is_name)) {
        return Err(wrong("a plugin has no type, or one that is a path"));
    }
    if list["name"].as_str().is_none_or(str::is_empty) {
        return Err(wrong("it has no name"));
    }
    let declared = list["cniVersions"].as_array().into_iter().flatten().chain([&list["cniVersion"]]);
    let declared: Vec<&str> = declared.filter_map(Value::as_str).collect();
    let version = VERSIONS.iter().rev().find(|version| declared.contains(version));
    let version = version.ok_or_else(|| {
        wrong(&format!("its version is {}: this speaks {}", declared.join(", "), VERSIONS.join(", ")))
    })?;
    list["cniVersion"] = json!(version);
    Ok(list)
}

/// Plans an attachment: what its plugins will be told. Refuses what none of them can do.
pub fn plan(network: &Network, wanted: &Attachment) -> Result<Cached> {
    let list = load(network)?;
    let mut runtime = Map::new();
    if !wanted.ports.is_empty() {
        runtime.insert("portMappings".into(), port_mappings(&wanted.ports));
    }
    if !wanted.rates.is_unlimited() {
        runtime.insert("bandwidth".into(), bandwidth(wanted.rates));
    }
    if !wanted.addresses.is_empty() {
        runtime.insert("ips".into(), json!(wanted.addresses));
    }
    if let Some(mac) = wanted.mac {
        runtime.insert("mac".into(), json!(mac));
    }
    if !wanted.names.is_empty() {
        runtime.insert("aliases".into(), json!({ list["name"].as_str().unwrap_or_default(): wanted.names }));
    }
    for name in runtime.keys().filter(|name| *name != "aliases") {
        let declared = |plugin: &Value| plugin["capabilities"][name] == json!(true);
        if !list["plugins"].as_array().into_iter().flatten().any(declared) {
            return Err(Error::invalid(format!(
                "no plugin of network {} declares the capability {name}, which this connection needs",
                network.name
            )));
        }
    }
    if !network.dns.is_empty() || !network.search.is_empty() {
        runtime.insert("dns".into(), json!({"servers": network.dns, "searches": network.search}));
    }
    let path = match std::env::var_os("CNI_PATH") {
        Some(path) => std::env::split_paths(&path).collect(),
        None => PATH.iter().map(PathBuf::from).collect(),
    };
    Ok(Cached { list, runtime, result: None, path })
}

fn port_mappings(ports: &[Publish]) -> Value {
    let mut mappings = Vec::new();
    for publish in ports {
        for (host, inner) in publish.pairs() {
            let mut mapping = json!({
                "hostPort": host, "containerPort": inner, "protocol": publish.protocol.word(),
            });
            if let Some(address) = publish.address {
                mapping["hostIP"] = json!(address);
            }
            mappings.push(mapping);
        }
    }
    json!(mappings)
}

/// The names are those of the container's side: ingress is what it receives.
fn bandwidth(rates: Rates) -> Value {
    let mut bandwidth = json!({});
    for (way, rate) in [("ingress", rates.down), ("egress", rates.up)] {
        if !rate.is_none() {
            bandwidth[format!("{way}Rate")] = json!(rate.0);
            bandwidth[format!("{way}Burst")] = json!(rate.0.max(1 << 20));
        }
    }
    bandwidth
}

/// Runs ADD of all plugins in order; what was begun is undone by the caller's DEL.
pub fn add(network: &Network, record: &Record, wired: &Wired) -> Result<Wired> {
    let mut wired = wired.clone();
    let Some(cached) = wired.cni.as_mut() else {
        return Err(Error::invalid(format!("network {}: it was not planned", network.name)));
    };
    let call = Call { record, interface: &wired.interface };
    if cached.version() == "1.1.0" {
        for plugin in cached.plugins() {
            cached.run(Act::Status, plugin, &call, None, &Map::new())?;
        }
    }
    let mut result = None;
    for plugin in cached.plugins() {
        let answer = cached.run(Act::Add, plugin, &call, result.as_ref(), &cached.runtime)?;
        // A plugin that answers nothing passes on what was before.
        if let Some(answer) = answer {
            result = Some(answer);
        }
    }
    let (addresses, mac) = result.as_ref().map(|result| read(result, call.interface)).unwrap_or_default();
    cached.result = result;
    wired.addresses = addresses;
    wired.mac = mac.and_then(|mac| mac.parse().ok());
    Ok(wired)
}

/// Addresses and hardware address of the container's interface in a result.
fn read(result: &Value, interface: &str) -> (Vec<Cidr>, Option<String>) {
    let interfaces = result["interfaces"].as_array().cloned().unwrap_or_default();
    let ours = |index: &Value| match index.as_u64().and_then(|at| interfaces.get(at as usize)) {
        Some(found) => found["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty()),
        None => true,
    };
    let addresses = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|ip| ours(&ip["interface"]))
        .filter_map(|ip| ip["address"].as_str()?.parse().ok())
        .collect();
    let mac = interfaces
        .iter()
        .find(|found| found["name"] == interface && found["sandbox"].as_str().is_some_and(|s| !s.is_empty()))
        .and_then(|found| found["mac"].as_str().map(str::to_owned));
    (addresses, mac)
}

/// What all plugins of one call are told.
struct Call<'a> {
    record: &'a Record,
    interface: &'a str,
}

impl Cached {
    fn version(&self) -> &str {
        self.list["cniVersion"].as_str().unwrap_or_default()
    }

    fn plugins(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default().iter()
    }

    /// Runs DEL of all plugins in reverse order; also after a failed ADD, and again.
    pub fn delete(&self, record: &Record, wired: &Wired) -> Result<()> {
        let call = Call { record, interface: &wired.interface };
        for plugin in self.plugins().rev() {
            self.run(Act::Del, plugin, &call, self.result.as_ref(), &self.runtime)?;
        }
        Ok(())
    }

    /// Runs CHECK of all plugins; true if the list allows it.
    pub fn check(&self, record: &Record, wired: &Wired) -> Result<bool> {
        if self.list["disableCheck"] == json!(true) {
            return Ok(false);
        }
        let call = Call { record, interface: &wired.interface };
        for plugin in self.plugins() {
            self.run(Act::Check, plugin, &call, self.result.as_ref(), &self.runtime)?;
        }
        Ok(true)
    }

    fn find(&self, kind: &str) -> Result<PathBuf> {
        let found = self.path.iter().map(|dir| dir.join(kind)).find(|path| path.is_file());
        found.ok_or_else(|| {
            let path: Vec<_> = self.path.iter().map(|dir| dir.display().to_string()).collect();
            Error::new(ErrorKind::NotFound, format!("no CNI plugin {kind} in {}", path.join(":")))
                .hint("install it, or set CNI_PATH")
        })
    }

    /// The configuration of one plugin for one act.
    fn config(&self, plugin: &Value, previous: Option<&Value>, runtime: &Map<String, Value>) -> Value {
        let mut config = plugin.clone();
        let mut given = Map::new();
        for (name, value) in runtime {
            if plugin["capabilities"][name] == json!(true) {
                given.insert(name.clone(), value.clone());
            }
        }
        if let Some(object) = config.as_object_mut() {
            object.remove("capabilities");
            object.insert("cniVersion".into(), self.list["cniVersion"].clone());
            object.insert("name".into(), self.list["name"].clone());
            if !given.is_empty() {
                object.insert("runtimeConfig".into(), Value::Object(given));
            }
            if let Some(previous) = previous {
                object.insert("prevResult".into(), previous.clone());
            }
        }
        config
    }

    fn run(
        &self,
        act: Act,
        plugin: &Value,
        call: &Call<'_>,
        previous: Option<&Value>,
        runtime: &Map<String, Value>,
    ) -> Result<Option<Value>> {
        let mut config = self.config(plugin, previous, runtime);
        if act == Act::Gc {
            config["cni.dev/valid-attachments"] = runtime.get("valid").cloned().unwrap_or_default();
            config["cni.dev/attachments"] = config["cni.dev/valid-attachments"].clone();
        }
        let kind = plugin["type"].as_str().unwrap_or_default();
        let doing = || format!("{} of the CNI plugin {kind}", act.word());
        let mut command = Command::new(self.find(kind)?);
        command
            .env("CNI_COMMAND", act.word())
            .env("CNI_PATH", std::env::join_paths(&self.path).unwrap_or_default());
        if !matches!(act, Act::Status | Act::Gc) {
            // A namespace that is gone has no path, and DEL must do without.
            let netns = call.record.owner.path().filter(|_| call.record.owner.lives()).unwrap_or_default();
            command.env("CNI_CONTAINERID", &call.record.container).env("CNI_IFNAME", call.interface);
            command.env("CNI_NETNS", netns);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().doing(doing)?;
        let text = config.to_string();
        // A plugin need not read all of it, and then this fails.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().doing(doing)?;
        let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        if output.status.success() {
            return Ok(answer.filter(|_| act == Act::Add));
        }
        let told = match &answer {
            Some(answer) => {
                let details = answer["details"].as_str().filter(|details| !details.is_empty());
                let message = answer["msg"].as_str().unwrap_or("it failed");
                let code = answer["code"].as_u64().unwrap_or_default();
                format!("{message}{} (code {code})", details.map(|d| format!(": {d}")).unwrap_or_default())
            }
            None => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        };
        Err(Error::new(ErrorKind::System, format!("{}: {told}", doing())))
    }
}

/// Runs GC of a network's plugins: what belongs to none of `living` goes. Never instead of DEL.
pub fn collect(network: &Network, living: &[(String, String)]) -> Result<bool> {
    let list = load(network)?;
    if list["cniVersion"] != json!("1.1.0") || list["disableGC"] == json!(true) {
        return Ok(false);
    }
    let cached = Cached { list, ..plan(network, &Attachment::default())? };
    let valid: Vec<_> = living
        .iter()
        .map(|(container, interface)| json!({"containerID": container, "ifname": interface}))
        .collect();
    let owner = crate::record::Owner {
        process: None,
        pin: None,
        namespace: crate::sys::proc::NamespaceId { dev: 0, ino: 0 },
        boot: String::new(),
    };
    let record = Record::new("", owner);
    let call = Call { record: &record, interface: "" };
    let runtime = Map::from_iter([("valid".to_owned(), json!(valid))]);
    for plugin in cached.plugins() {
        cached.run(Act::Gc, plugin, &call, None, &runtime)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Kind;

    fn cached(list: Value) -> Cached {
        Cached { list, runtime: Map::new(), result: None, path: Vec::new() }
    }

    #[test]
    fn only_declared_capabilities_are_told() {
        let cached = cached(json!({"cniVersion": "1.0.0", "name": "n", "plugins": []}));
        let runtime = Map::from_iter([("ips".into(), json!(["10.0.0.1"])), ("mac".into(), json!("x"))]);
        let plugin = json!({"type": "t", "capabilities": {"ips": true, "mac": false}, "more": 1});
        let config = cached.config(&plugin, Some(&json!({"ips": []})), &runtime);
        assert_eq!(
            config,
            json!({"type": "t", "more": 1, "cniVersion": "1.0.0", "name": "n",
                   "runtimeConfig": {"ips": ["10.0.0.1"]}, "prevResult": {"ips": []}})
        );
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        let path = std::env::temp_dir().join(format!("cni-{}.conflist", std::process::id()));
        let network = Network { conflist: Some(path.clone()), ..Network::new("x", Kind::Cni) };
        let read = |text: Value| {
            fs::write(&path, text.to_string()).unwrap();
            load(&network).map(|list| list["cniVersion"].as_str().unwrap_or_default().to_owned())
        };
        let plugins = json!([{"type": "bridge"}]);
        let both = json!({"cniVersion": "0.4.0", "cniVersions": ["0.4.0", "1.0.0", "7.0.0"], "name": "n", "plugins": plugins});
        assert_eq!(read(both).unwrap(), "1.0.0");
        assert_eq!(read(json!({"cniVersion": "1.1.0", "name": "n", "type": "bridge"})).unwrap(), "1.1.0");
        assert!(read(json!({"cniVersion": "9.0.0", "name": "n", "plugins": plugins})).is_err());
        assert!(read(json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "../x"}]})).is_err());
        assert!(read(json!({"cniVersion": "1.0.0", "name": "n", "plugins": []})).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn addresses_of_the_host_side_are_left_out() {
        let result = json!({
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/x"}],
            "ips": [{"address": "10.0.0.5/24", "interface": 1}, {"address": "10.0.0.1/24", "interface": 0}],
        });
        let (addresses, mac) = read(&result, "eth0");
        assert_eq!(addresses, ["10.0.0.5/24".parse().unwrap()]);
        assert_eq!(mac.as_deref(), Some("02:00:00:00:00:01"));
    }
}
