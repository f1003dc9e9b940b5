//! References: the names of images, as people write them and as registries know them.
//!
//! Owns the defaults (`docker.io`, `library/`, `latest`) and the grammar of the distribution-spec.
//! Never looks anything up.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The longest name that registries accept, host included.
const LONGEST: usize = 255;

/// `registry/repository[:tag][@digest]`, complete and checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port of the registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name inside the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the image is pinned to.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn version(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// `registry/repository`, as registries.conf and containers-auth.json match it.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same image under another registry and repository.
    pub fn relocated(&self, registry: &str, repository: &str) -> Reference {
        Reference { registry: registry.into(), repository: repository.into(), ..self.clone() }
    }

    /// The same repository at `digest`.
    pub fn pinned(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        let refuse = |why: &str| {
            Error::invalid(format!("the image name {text:?}: {why}"))
                .hint("a name is [REGISTRY/]NAME[:TAG][@DIGEST], such as debian:13")
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (registry, rest) = match name.split_once('/') {
            // As Docker has it: a host has a dot or a port, or is localhost.
            Some((host, rest))
                if host.contains(['.', ':']) || host == "localhost" || host.starts_with('[') =>
            {
                (host, rest)
            }
            _ => ("docker.io", name),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(refuse("the tag is not up to 128 letters, digits, dots, dashes and underscores"));
        }
        if !is_host(registry) {
            return Err(refuse("the registry is not a host with an optional port"));
        }
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository = match path {
            path if registry == "docker.io" && !path.contains('/') => format!("library/{path}"),
            path => path.to_owned(),
        };
        if !repository.split('/').all(is_part) {
            return Err(refuse(
                "a part of the name is not lower-case letters and digits with single separators",
            ));
        }
        if registry.len() + repository.len() >= LONGEST {
            return Err(refuse("it is longer than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A host name, an address or an address in brackets, with an optional port.
fn is_host(host: &str) -> bool {
    let (host, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                ("v6", rest.strip_prefix(':'))
            }
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host, None),
        },
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    port && host.split('.').all(|label| {
        !label.is_empty()
            && label.len() < 64
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, as in the distribution-spec.
fn is_part(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(alnum) || !bytes.last().copied().is_some_and(alnum) {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in_as_docker_does() {
        let digest = Digest::of(b"");
        for (given, full) in [
            ("debian", "docker.io/library/debian:latest".to_owned()),
            ("debian:13", "docker.io/library/debian:13".to_owned()),
            ("grafana/loki", "docker.io/grafana/loki:latest".to_owned()),
            ("index.docker.io/library/a", "docker.io/library/a:latest".to_owned()),
            ("localhost/x:1", "localhost/x:1".to_owned()),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("quay.io/a__b/c-d---e.f:v1.0", "quay.io/a__b/c-d---e.f:v1.0".to_owned()),
            (&format!("a@{digest}"), format!("docker.io/library/a@{digest}")),
            (&format!("a:1@{digest}"), format!("docker.io/library/a:1@{digest}")),
        ] {
            let parsed: Reference = given.parse().unwrap();
            assert_eq!(parsed.to_string(), full);
            assert_eq!(full.parse::<Reference>().unwrap(), parsed);
        }
    }

    #[test]
    fn names_that_could_mean_a_path_are_refused() {
        for bad in [
            "",
            ":",
            "a:",
            "a b",
            "../x",
            "a/../b",
            "A/b",
            "a//b",
            "/a",
            "a/",
            "a:-x",
            "a@sha256:abc",
            "x.y:99999/a",
            "x.y:/a",
            "-.y/a",
            "a___b",
            "a..b",
            "[::1/a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(300).parse::<Reference>().is_err());
    }
}
