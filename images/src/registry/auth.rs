//! Credentials: files and helpers of containers-auth.json(5), and the token that they buy.
//!
//! Owns the search for credentials and the reading of a registry's challenge. A secret goes to the
//! registry that it is for, or to the token server that this registry names; never further.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{Context, Error, Kind, Result};

/// What proves who is asking.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Name and password.
    Password(String, String),
    /// A token that buys others.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// The header for the registry or its token server.
    pub fn basic(&self) -> Option<String> {
        match self {
            Credentials::Password(user, password) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Credentials::Identity(_) => None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    #[serde(alias = "identityToken")]
    identitytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry(…)")
    }
}

/// The files that are searched, in this order.
fn files(given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(given) = given {
        return vec![given.to_owned()];
    }
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = var("REGISTRY_AUTH_FILE") {
        return vec![path];
    }
    let home = var("HOME");
    let run = var("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| PathBuf::from(format!("/run/containers/{}", nix::unistd::getuid())));
    let config = var("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = var("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let mut files = vec![if var("XDG_RUNTIME_DIR").is_some() {
        run.join("containers/auth.json")
    } else {
        run.join("auth.json")
    }];
    files.extend(config.map(|dir| dir.join("containers/auth.json")));
    files.extend(docker.map(|dir| dir.join("config.json")));
    files
}

/// The credentials for the repository `name` (`registry/repository`).
pub fn find(given: Option<&Path>, name: &str) -> Result<Option<Credentials>> {
    for path in files(given) {
        let text = match std::fs::read_to_string(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound && given.is_none() => continue,
            other => other.doing(|| format!("reading {}", path.display()))?,
        };
        let document: Document =
            serde_json::from_str(&text).doing(|| format!("reading the credentials in {}", path.display()))?;
        let host = name.split('/').next().unwrap_or_default();
        let helper = document.cred_helpers.get(host).or(document.creds_store.as_ref());
        if let Some(helper) = helper
            && let Some(found) = ask_helper(helper, host)?
        {
            return Ok(Some(found));
        }
        if let Some(found) = document.find(name)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Document {
    /// The longest key that covers `name`; Docker's own keys are addresses.
    fn find(&self, name: &str) -> Result<Option<Credentials>> {
        let mut key = name;
        loop {
            let entry = self.auths.iter().find(|(known, _)| plain(known) == key);
            if let Some((known, entry)) = entry
                && let Some(found) = entry.read(known)?
            {
                return Ok(Some(found));
            }
            match key.rsplit_once('/') {
                Some((above, _)) => key = above,
                None => return Ok(None),
            }
        }
    }
}

/// A key without what makes it an address.
fn plain(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = if key.contains("://") { bare.trim_end_matches("/v1").trim_end_matches("/v2") } else { bare };
    if matches!(bare, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { bare }
}

impl Entry {
    fn read(&self, key: &str) -> Result<Option<Credentials>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::Identity(token.clone())));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let refuse =
            || Error::invalid(format!("the credentials for {key} are not the base64 of NAME:PASSWORD"));
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| refuse())?;
        let text = String::from_utf8(bytes).map_err(|_| refuse())?;
        let (user, password) = text.split_once(':').ok_or_else(refuse)?;
        Ok(Some(Credentials::Password(user.to_owned(), password.trim_end_matches('\0').to_owned())))
    }
}

/// Asks `docker-credential-NAME get`; a helper that knows nothing is no error.
fn ask_helper(helper: &str, host: &str) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    if helper.is_empty()
        || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Err(Error::invalid(format!("the credential helper {helper:?} has no plain name")));
    }
    let program = format!("docker-credential-{helper}");
    let doing = || format!("asking {program} for {host}");
    let host = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .doing(doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read is judged by its exit.
        let _ = stdin.write_all(host.as_bytes());
    }
    let output = child.wait_with_output().doing(doing)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let unknown = said.contains("credentials not found") || said.trim().is_empty();
        let why = said.lines().next().unwrap_or_default().to_owned();
        return if unknown { Ok(None) } else { Err(Error::new(Kind::Denied, format!("{}: {why}", doing()))) };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).doing(doing)?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        _ => Credentials::Password(answer.username, answer.secret),
    }))
}

/// What a registry wants to see, from a `WWW-Authenticate` header (RFC 9110, 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password.
    Basic,
    /// A token of the server `realm`.
    Bearer {
        /// The token server.
        realm: String,
        /// Whom the token is for.
        service: Option<String>,
        /// What it is good for.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads one header's value.
    pub fn read(header: &str) -> Option<Challenge> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut values: HashMap<String, String> = HashMap::new();
        let mut rest = rest.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => {
                    let end = quoted.find('"')?;
                    (&quoted[..end], &quoted[end + 1..])
                }
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            values.insert(key.trim().to_ascii_lowercase(), value.to_owned());
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Challenge::Bearer {
            realm: values.remove("realm")?,
            service: values.remove("service"),
            scope: values.remove("scope"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let text = r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::read(text),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("registry".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(Challenge::read("basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::read("Digest realm=\"x\""), None);
        assert_eq!(Challenge::read("Bearer realm=\"x"), None);
        assert_eq!(Challenge::read("Bearer"), None);
    }

    #[test]
    fn the_most_special_key_counts() {
        let entry = |text: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(text));
        let text = format!(
            r#"{{"auths":{{"x.example":{},"x.example/team":{},"https://index.docker.io/v1/":{}}}}}"#,
            entry("all:1"),
            entry("team:2:3"),
            entry("hub:4")
        );
        let document: Document = serde_json::from_str(&text).unwrap();
        let found = |name: &str| document.find(name).unwrap();
        let password = |user: &str, password: &str| Some(Credentials::Password(user.into(), password.into()));
        assert_eq!(found("x.example/team/app"), password("team", "2:3"));
        assert_eq!(found("x.example/teams"), password("all", "1"));
        assert_eq!(found("docker.io/library/debian"), password("hub", "4"));
        assert_eq!(found("y.example/x"), None);
        assert!(ask_helper("../x", "h").is_err());
    }
}
