//! Signatures in cosign's form, with a key that a policy names.
//!
//! Owns the reading of such a rule (`sigstoreSigned` of containers-policy.json(5)), of the payload
//! and of its signature. What names anything beyond keys (Fulcio, Rekor, a PKI) is not for here.
//! A signature counts only for the very manifest that is taken, under the very name.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::reference::Reference;

/// The media type of a payload.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature of a payload.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What the payload says that it is.
const TYPE: &str = "cosign container image signature";
/// The largest payload.
pub const LARGEST: u64 = 1 << 20;
/// A SubjectPublicKeyInfo of a key on P-256 up to its point (RFC 5480).
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT: usize = 65;

/// One rule of a policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    #[serde(rename = "type")]
    _type: String,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    signed_identity: Option<Identity>,
}

/// Which name a signature must have for an image.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Identity {
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    ExactReference {
        docker_reference: String,
    },
    ExactRepository {
        docker_repository: String,
    },
    #[serde(rename = "remapIdentity")]
    Remap {
        prefix: String,
        signed_prefix: String,
    },
}

impl Rule {
    /// The rule, if keys decide it; nothing where it demands more.
    pub fn read(rule: &Value) -> Option<Rule> {
        serde_json::from_value(rule.clone()).ok()
    }

    /// The keys, any of which will do.
    pub fn keys(&self) -> Result<Vec<Key>> {
        let paths = self.key_path.iter().chain(self.key_paths.iter().flatten());
        let datas = self.key_data.iter().chain(self.key_datas.iter().flatten());
        let mut keys = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(path).doing(|| format!("reading {}", path.display()))?;
            keys.push(Key::read(&text, path)?);
        }
        for data in datas {
            let place = Path::new("keyData of the policy");
            let text = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or_else(|| Error::invalid("the keyData of the policy is no base64 of PEM"))?;
            keys.push(Key::read(&text, place)?);
        }
        match keys.is_empty() {
            true => Err(Error::new(Kind::Denied, "the policy demands a signature and names no key")),
            false => Ok(keys),
        }
    }

    /// Fails unless `payload` speaks of the manifest `digest` under the name `wanted`.
    pub fn check(&self, payload: &[u8], digest: &Digest, wanted: &Reference) -> Result<()> {
        #[derive(Deserialize)]
        struct Payload {
            critical: Critical,
        }
        #[derive(Deserialize)]
        struct Critical {
            identity: Named,
            image: Pinned,
            #[serde(rename = "type")]
            kind: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Named {
            docker_reference: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Pinned {
            docker_manifest_digest: String,
        }
        let payload: Payload = serde_json::from_slice(payload).doing(|| "reading a signature's payload")?;
        let critical = payload.critical;
        let denied = |why: String| Err(Error::new(Kind::Denied, why));
        if critical.kind != TYPE {
            return denied(format!("a signature of type {:?}", critical.kind));
        }
        if critical.image.docker_manifest_digest != digest.as_str() {
            return denied("a signature of another image".to_owned());
        }
        let signed = &critical.identity.docker_reference;
        match self.matches(signed, wanted) {
            true => Ok(()),
            false => denied(format!("a signature for the name {signed:?}")),
        }
    }

    /// containers-policy.json(5), signedIdentity.
    fn matches(&self, signed: &str, wanted: &Reference) -> bool {
        let same_repository = |name: &str, other: &Reference| {
            name.parse::<Reference>().is_ok_and(|name| name.name() == other.name())
        };
        let exact = |signed: &str, wanted: &Reference| {
            !is_bare(signed) && signed.parse::<Reference>().is_ok_and(|signed| signed == *wanted)
        };
        let digest_or_exact = |wanted: &Reference| match wanted.digest() {
            Some(_) => same_repository(signed, wanted),
            None => exact(signed, wanted),
        };
        match self.signed_identity.as_ref().unwrap_or(&Identity::MatchRepoDigestOrExact) {
            Identity::MatchExact => exact(signed, wanted),
            Identity::MatchRepoDigestOrExact => digest_or_exact(wanted),
            Identity::MatchRepository => same_repository(signed, wanted),
            Identity::ExactReference { docker_reference } => {
                docker_reference.parse::<Reference>().is_ok_and(|wanted| exact(signed, &wanted))
            }
            Identity::ExactRepository { docker_repository } => {
                docker_repository.parse::<Reference>().is_ok_and(|wanted| same_repository(signed, &wanted))
            }
            Identity::Remap { prefix, signed_prefix } => {
                let text = wanted.to_string();
                let rest = text
                    .strip_prefix(prefix.as_str())
                    .filter(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
                match rest.map(|rest| format!("{signed_prefix}{rest}").parse::<Reference>()) {
                    Some(Ok(wanted)) => digest_or_exact(&wanted),
                    Some(Err(_)) => false,
                    None => digest_or_exact(wanted),
                }
            }
        }
    }
}

/// A name without tag and digest, which is no exact one.
fn is_bare(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    !last.contains(':') && !name.contains('@')
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    fn read(pem: &str, place: &Path) -> Result<Key> {
        let refuse = || {
            Error::new(Kind::Unsupported, format!("{} holds no ECDSA key on P-256", place.display()))
                .hint("such keys are what cosign generate-key-pair makes")
        };
        let (_, rest) = pem.split_once("-----BEGIN PUBLIC KEY-----").ok_or_else(refuse)?;
        let (text, _) = rest.split_once("-----END PUBLIC KEY-----").ok_or_else(refuse)?;
        let text: String = text.split_whitespace().collect();
        let der = STANDARD.decode(text).map_err(|_| refuse())?;
        let point = der.strip_prefix(P256).filter(|point| point.len() == POINT).ok_or_else(refuse)?;
        Ok(Key(point.to_vec()))
    }

    /// Whether `signature`, in base64, is this key's of `payload`.
    pub fn signed(&self, payload: &[u8], signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|signature| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(payload, &signature).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(identity: &str) -> Rule {
        let text = format!(r#"{{"type":"sigstoreSigned","keyPath":"/k"{identity}}}"#);
        Rule::read(&serde_json::from_str(&text).unwrap()).unwrap()
    }

    #[test]
    fn names_are_matched_as_the_policy_says() {
        let identity = |text: &str| rule(&format!(r#","signedIdentity":{{"type":{text}}}"#));
        let tagged: Reference = "x.example/app:1".parse().unwrap();
        let pinned: Reference = format!("x.example/app@{}", Digest::of(b"")).parse().unwrap();
        let usual = rule("");
        assert!(usual.matches("x.example/app:1", &tagged));
        assert!(!usual.matches("x.example/app:2", &tagged));
        // A name without a tag is not every tag's.
        assert!(!usual.matches("x.example/app", &tagged));
        assert!(usual.matches("x.example/app", &pinned));
        assert!(!usual.matches("x.example/other", &pinned));
        assert!(!identity(r#""matchExact""#).matches("x.example/app:1", &pinned));
        assert!(identity(r#""matchRepository""#).matches("x.example/app", &tagged));
        assert!(!identity(r#""matchRepository""#).matches("y.example/app", &tagged));
        let exact = identity(r#""exactRepository","dockerRepository":"z.example/app""#);
        assert!(exact.matches("z.example/app:9", &tagged) && !exact.matches("x.example/app:1", &tagged));
        let exact = identity(r#""exactReference","dockerReference":"z.example/app:1""#);
        assert!(exact.matches("z.example/app:1", &tagged) && !exact.matches("z.example/app:2", &tagged));
        let moved = identity(r#""remapIdentity","prefix":"x.example","signedPrefix":"up.example/y""#);
        assert!(moved.matches("up.example/y/app:1", &tagged) && !moved.matches("x.example/app:1", &tagged));
        assert!(!moved.matches("nonsense name", &tagged));
    }

    #[test]
    fn what_demands_more_is_not_read() {
        for more in
            [r#","fulcio":{}"#, r#","rekorPublicKeyPath":"/x""#, r#","signedIdentity":{"type":"new"}"#]
        {
            let text = format!(r#"{{"type":"sigstoreSigned","keyPath":"/k"{more}}}"#);
            assert!(Rule::read(&serde_json::from_str(&text).unwrap()).is_none(), "{more}");
        }
    }

    #[test]
    fn keys_and_payloads_that_are_none_are_refused() {
        let place = Path::new("k");
        for text in
            ["", "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----"]
        {
            assert!(Key::read(text, place).is_err(), "{text}");
        }
        let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert!(Key::read(ed25519, place).unwrap_err().to_string().contains("P-256"));
        let wanted = "x.example/app:1".parse().unwrap();
        for payload in ["", "{}", "[", r#"{"critical":{"type":1}}"#] {
            assert!(rule("").check(payload.as_bytes(), &Digest::of(b""), &wanted).is_err());
        }
    }
}
