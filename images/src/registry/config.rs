//! registries.conf: where images really come from, and how strictly.
//!
//! Owns the reading of containers-registries.conf(5), version 2: prefix, location, mirrors,
//! insecure, blocked. Short names are not searched for: they mean docker.io, as with Docker.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::reference::Reference;

#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    registry: Vec<Registry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

/// The configuration of this machine or user.
#[derive(Debug, Default)]
pub struct Registries {
    registries: Vec<Registry>,
}

/// One place that an image may come from.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The image's name there.
    pub reference: Reference,
    /// Whether TLS is not verified, or missing.
    pub insecure: bool,
}

impl Registries {
    /// Reads the configuration: `$CONTAINERS_REGISTRIES_CONF`, the user's file, or the machine's with its drop-ins.
    pub fn of_system() -> Result<Registries> {
        if let Some(path) = std::env::var_os("CONTAINERS_REGISTRIES_CONF") {
            return Registries::read(&[PathBuf::from(path)]);
        }
        let config = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
        let user = config.map(|dir| dir.join("containers/registries.conf")).filter(|path| path.is_file());
        let main = user.unwrap_or_else(|| PathBuf::from("/etc/containers/registries.conf"));
        let mut paths = vec![main];
        if let Ok(entries) = std::fs::read_dir("/etc/containers/registries.conf.d") {
            let mut drop_ins: Vec<PathBuf> = entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.extension().is_some_and(|end| end == "conf"))
                .collect();
            drop_ins.sort();
            paths.extend(drop_ins);
        }
        Registries::read(&paths)
    }

    /// Reads these files, the later ones over the earlier; what is not there says nothing.
    pub fn read(paths: &[PathBuf]) -> Result<Registries> {
        let mut all = Registries::default();
        for path in paths {
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            all.add(&text, path)?;
        }
        Ok(all)
    }

    fn add(&mut self, text: &str, path: &Path) -> Result<()> {
        let document: Document = toml::from_str(text)
            .map_err(|err| Error::invalid(format!("reading {}: {}", path.display(), err.message())))?;
        for registry in document.registry {
            let prefix = registry.prefix.clone().or_else(|| registry.location.clone());
            let Some(prefix) = prefix else {
                return Err(Error::invalid(format!(
                    "reading {}: a [[registry]] without prefix or location",
                    path.display()
                )));
            };
            let registry = Registry { prefix: Some(prefix.trim_end_matches('/').to_owned()), ..registry };
            self.registries.retain(|known| known.prefix != registry.prefix);
            self.registries.push(registry);
        }
        Ok(())
    }

    /// Where `reference` is looked for, in this order.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let name = reference.name();
        let best = self
            .registries
            .iter()
            .filter_map(|registry| {
                let prefix = registry.prefix.as_deref()?;
                Some((matched(prefix, &name)?, registry))
            })
            .max_by_key(|(length, _)| *length);
        let Some((length, registry)) = best else {
            return Ok(vec![Endpoint {
                reference: reference.clone(),
                insecure: is_loopback(reference.registry()),
            }]);
        };
        if registry.blocked {
            return Err(Error::new(
                Kind::Denied,
                format!("the registry of {reference} is blocked by registries.conf"),
            ));
        }
        let moved = |location: &str| -> Result<Reference> {
            let place = format!("{}{}", location.trim_end_matches('/'), &name[length..]);
            let (host, repository) = place.split_once('/').ok_or_else(|| {
                Error::invalid(format!("registries.conf moves {name} to {place}, which is no name"))
            })?;
            Ok(reference.relocated(host, repository))
        };
        let mut endpoints = Vec::new();
        for mirror in &registry.mirror {
            let digest = reference.digest().is_some();
            let serves = match mirror.pull_from_mirror.as_deref() {
                Some("digest-only") => digest,
                Some("tag-only") => !digest,
                _ => digest || !registry.mirror_by_digest_only,
            };
            if serves {
                let reference = moved(&mirror.location)?;
                let insecure = mirror.insecure || is_loopback(reference.registry());
                endpoints.push(Endpoint { reference, insecure });
            }
        }
        let reference = match &registry.location {
            Some(location) => moved(location)?,
            None => reference.clone(),
        };
        let insecure = registry.insecure || is_loopback(reference.registry());
        endpoints.push(Endpoint { reference, insecure });
        Ok(endpoints)
    }
}

/// How much of `name` the prefix covers.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let host = name.split('/').next().unwrap_or_default();
        let plain = host.split(':').next().unwrap_or_default();
        return plain.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

/// What goes to this machine itself needs no TLS, as Docker and containerd have it.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str, reference: &str) -> Vec<String> {
        let mut registries = Registries::default();
        registries.add(text, Path::new("test")).unwrap();
        let found = registries.endpoints(&reference.parse().unwrap()).unwrap();
        found
            .iter()
            .map(|found| format!("{}{}", if found.insecure { "!" } else { "" }, found.reference))
            .collect()
    }

    #[test]
    fn mirrors_come_first() {
        let text = r#"
            unqualified-search-registries = ["quay.io"]
            [[registry]]
            prefix = "docker.io"
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.example:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "by-digest.example"
            pull-from-mirror = "digest-only"
            [[registry]]
            location = "docker.io/private"
            blocked = true
            [[registry]]
            prefix = "*.old.example"
            location = "new.example/old"
        "#;
        assert_eq!(
            places(text, "debian:13"),
            ["!mirror.example:5000/hub/library/debian:13", "docker.io/library/debian:13"]
        );
        let pinned = format!("debian@{}", crate::Digest::of(b""));
        assert_eq!(places(text, &pinned).len(), 3);
        assert_eq!(places(text, "a.old.example/x:1"), ["new.example/old/x:1"]);
        assert_eq!(places(text, "old.example/x:1"), ["old.example/x:1"]);
        assert_eq!(places(text, "localhost:5000/x:1"), ["!localhost:5000/x:1"]);
        let mut registries = Registries::default();
        registries.add(text, Path::new("test")).unwrap();
        let told = registries.endpoints(&"docker.io/private/x".parse().unwrap()).unwrap_err();
        assert_eq!(told.kind(), Kind::Denied);
        assert!(registries.endpoints(&"docker.io/privateer/x".parse().unwrap()).is_ok());
        assert!(registries.add("[[registry]]\ninsecure = 3", Path::new("x")).is_err());
    }
}
