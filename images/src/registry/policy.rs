//! policy.json: what may be taken at all.
//!
//! Owns the reading of containers-policy.json(5): the most special scope counts. `reject` and
//! `insecureAcceptAnything` are decided here, signatures by keys in `sigstore`; what demands other
//! signatures is left to skopeo, which verifies them, and refused where it is not installed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use super::sigstore;
use crate::error::{Context, Error, Kind, Result};
use crate::reference::Reference;
use crate::store::Store;

#[derive(Debug, Default, Deserialize)]
struct Document {
    default: Vec<Value>,
    #[serde(default)]
    transports: HashMap<String, HashMap<String, Vec<Value>>>,
}

/// What signatures must fulfil: all of it.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// Signatures by keys.
    pub keys: Vec<sigstore::Rule>,
    /// Something that skopeo must judge.
    pub skopeo: bool,
}

/// The policy of this machine or user.
#[derive(Debug, Default)]
pub struct Policy {
    path: Option<PathBuf>,
    document: Option<Document>,
}

impl Policy {
    /// Reads the file that was named, the user's or the machine's; without any, everything is accepted.
    pub fn of_system(given: Option<&Path>) -> Result<Policy> {
        let user = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
            .map(|dir| dir.join("containers/policy.json"));
        let path = match given {
            Some(given) => Some(given.to_owned()),
            None => user
                .into_iter()
                .chain([PathBuf::from("/etc/containers/policy.json")])
                .find(|path| path.is_file()),
        };
        let Some(path) = path else { return Ok(Policy::default()) };
        let text = std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        let document = serde_json::from_str(&text).doing(|| format!("reading {}", path.display()))?;
        Ok(Policy { path: Some(path), document: Some(document) })
    }

    /// Fails unless `reference` may be taken; gives what its signatures must fulfil first.
    pub fn check(&self, reference: &Reference) -> Result<Demands> {
        let mut demands = Demands::default();
        let (Some(document), Some(path)) = (&self.document, &self.path) else { return Ok(demands) };
        let rules = document.rules(reference);
        let place = || format!("{} ({})", reference, path.display());
        if rules.is_empty() {
            return Err(Error::new(Kind::Denied, format!("the policy has an empty rule for {}", place())));
        }
        for rule in rules {
            match rule.get("type").and_then(Value::as_str) {
                Some("insecureAcceptAnything") => {}
                Some("reject") => {
                    return Err(Error::new(Kind::Denied, format!("the policy rejects {}", place())));
                }
                Some("sigstoreSigned") => match sigstore::Rule::read(rule) {
                    Some(rule) => demands.keys.push(rule),
                    None => demands.skopeo = true,
                },
                Some("signedBy") => demands.skopeo = true,
                other => {
                    let kind = other.unwrap_or("none");
                    return Err(Error::new(
                        Kind::Denied,
                        format!("the policy has a rule of type {kind} for {}", place()),
                    ));
                }
            }
        }
        Ok(demands)
    }

    /// Has skopeo verify `reference`, which must be pinned to what will be taken, by the whole policy.
    pub fn by_skopeo(&self, reference: &Reference, store: &Store, auth_file: Option<&Path>) -> Result<()> {
        self.path.as_deref().map_or(Ok(()), |path| by_skopeo(reference, path, store, auth_file))
    }
}

impl Document {
    /// The rules of the longest scope that covers the image.
    fn rules(&self, reference: &Reference) -> &[Value] {
        let Some(scopes) = self.transports.get("docker") else { return &self.default };
        let name = reference.name();
        let mut whole =
            vec![format!("{name}@{}", reference.version()), format!("{name}:{}", reference.version())];
        let mut scope = name.as_str();
        loop {
            whole.push(scope.to_owned());
            match scope.rsplit_once('/') {
                Some((above, _)) => scope = above,
                None => break,
            }
        }
        let mut host = reference.registry().split(':').next().unwrap_or_default();
        while let Some((_, above)) = host.split_once('.') {
            whole.push(format!("*.{above}"));
            host = above;
        }
        whole.push(String::new());
        whole.iter().find_map(|scope| scopes.get(scope)).map_or(&self.default, Vec::as_slice)
    }
}

/// Has skopeo copy the image to nowhere, under the policy: it verifies the signatures on the way.
fn by_skopeo(reference: &Reference, policy: &Path, store: &Store, auth_file: Option<&Path>) -> Result<()> {
    let doing = || format!("verifying the signatures of {reference} with skopeo");
    // skopeo takes a tag or a digest; the digest is what counts.
    let pinned = format!("docker://{}@{}", reference.name(), reference.version());
    let (dir, _lock) = store.temporary_dir()?;
    let output = Command::new("skopeo")
        .arg("--policy")
        .arg(policy)
        .args(["copy", "--quiet"])
        .args(auth_file.map(|path| format!("--src-authfile={}", path.display())))
        .args(super::config::is_loopback(reference.registry()).then_some("--src-tls-verify=false"))
        .arg(pinned)
        .arg(format!("dir:{}", dir.display()))
        .stdin(Stdio::null())
        .output();
    let _ = std::fs::remove_dir_all(&dir);
    let output = match output {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new(Kind::Denied, format!("the policy demands a signature of {reference}"))
                .hint("install skopeo, which verifies signatures"));
        }
        other => other.doing(doing)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(Kind::Denied, format!("{}: {}", doing(), reason(&said))))
}

/// The reason in skopeo's last line, which is one of a log.
fn reason(said: &str) -> String {
    let line = said.lines().last().unwrap_or_default();
    let told = line.split_once(" msg=\"").and_then(|(_, told)| told.strip_suffix('"'));
    let told = told.map_or_else(|| line.to_owned(), |told| told.replace("\\\"", "\""));
    told.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_special_scope_counts() {
        let text = r#"{
            "default": [{"type": "reject"}],
            "transports": {"docker": {
                "docker.io": [{"type": "insecureAcceptAnything"}],
                "docker.io/library/bad": [{"type": "reject"}],
                "docker.io/library/bad:good": [{"type": "insecureAcceptAnything"}],
                "*.corp.example": [{"type": "insecureAcceptAnything"}],
                "odd.example": [{"type": "futureRule"}]
            }}}"#;
        let policy =
            Policy { path: Some("policy.json".into()), document: serde_json::from_str(text).unwrap() };
        let allowed = |name: &str| policy.check(&name.parse().unwrap()).is_ok();
        assert!(allowed("debian"));
        assert!(!allowed("bad"));
        assert!(allowed("bad:good"));
        assert!(allowed("a.corp.example:5000/x"));
        assert!(!allowed("corp.example/x"));
        assert!(!allowed("other.example/x"));
        assert!(!allowed("odd.example/x"));
        assert!(Policy::default().check(&"x".parse().unwrap()).is_ok());
    }

    #[test]
    fn skopeos_reason_is_found() {
        let said = "one\ntime=\"2026\" level=fatal msg=\"Source image rejected: a \\\"b\\\" c\"\n";
        assert_eq!(reason(said), "Source image rejected: a \"b\" c");
        assert_eq!(reason("plain\x1b[2J"), "plain[2J");
    }
}
