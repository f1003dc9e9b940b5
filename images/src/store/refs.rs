//! Names: one small file for each, written whole.
//!
//! Owns the encoding of a reference as a file name, and how people's short words find an image.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Image, Store};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::Descriptor;
use crate::reference::Reference;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name.
    pub reference: String,
    /// The manifest of this platform.
    pub manifest: Descriptor,
    /// The index that it was chosen from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// When the name was given, in RFC 3339.
    pub added: String,
}

/// A reference as a file name: what is not a plain letter becomes `%XX`.
pub fn encode(reference: &str) -> String {
    let mut name = String::with_capacity(reference.len() + 8);
    for byte in reference.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b':' | b'@' => name.push(byte as char),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

impl Store {
    fn ref_path(&self, reference: &Reference) -> PathBuf {
        let name = encode(&reference.to_string());
        // A name may be longer than a file's may be.
        let name = if name.len() > 200 { Digest::of(name.as_bytes()).hex().to_owned() } else { name };
        self.root.join("refs").join(name)
    }

    /// Gives `reference` to a manifest.
    pub fn tag(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
        index: Option<&Digest>,
    ) -> Result<Record> {
        let record = Record {
            reference: reference.to_string(),
            manifest: manifest.clone(),
            index: index.cloned(),
            added: crate::time::now(),
        };
        let text = serde_json::to_vec(&record).doing(|| format!("writing the name {reference}"))?;
        self.write_whole(&self.ref_path(reference), &text)?;
        Ok(record)
    }

    /// Takes a name away.
    pub fn untag(&self, record: &Record) -> Result<()> {
        let reference: Reference = record.reference.parse()?;
        let path = self.ref_path(&reference);
        fs::remove_file(&path).doing(|| format!("removing the name {reference}"))?;
        super::sync_dir(&self.root.join("refs"))
    }

    /// All names, in order.
    pub fn records(&self) -> Result<Vec<Record>> {
        let dir = self.root.join("refs");
        let doing = || format!("listing {}", dir.display());
        let mut records = Vec::new();
        for entry in fs::read_dir(&dir).doing(doing)? {
            let path = entry.doing(doing)?.path();
            let bytes = match fs::read(&path) {
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.doing(|| format!("reading {}", path.display()))?,
            };
            let record: Record =
                serde_json::from_slice(&bytes).doing(|| format!("reading {}", path.display()))?;
            records.push(record);
        }
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(records)
    }

    /// The image that `words` name: a reference, whole or short, or the beginning of an id.
    pub fn find(&self, words: &str) -> Result<Image> {
        let record = self.find_record(words)?;
        self.read_image(&record)
    }

    /// The record that `words` name.
    pub fn find_record(&self, words: &str) -> Result<Record> {
        let records = self.records()?;
        let mut names: Vec<Reference> = words.parse().into_iter().collect();
        // What was imported or built here under a short name.
        names.extend(format!("localhost/{words}").parse::<Reference>());
        for name in &names {
            if let Some(found) = records.iter().find(|record| record.reference == name.to_string()) {
                return Ok(found.clone());
            }
            if let Some(digest) = name.digest() {
                let same = |record: &&Record| {
                    let known: Option<Reference> = record.reference.parse().ok();
                    known.is_some_and(|known| known.name() == name.name())
                        && (record.manifest.digest == *digest || record.index.as_ref() == Some(digest))
                };
                if let Some(found) = records.iter().find(same) {
                    return Ok(found.clone());
                }
            }
        }
        let id = words.strip_prefix("sha256:").unwrap_or(words);
        if id.len() >= 4 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found: Vec<&Record> = Vec::new();
            for record in &records {
                let config = self.read_image(record).map(|image| image.manifest.config.digest);
                let matches = record.manifest.digest.hex().starts_with(id)
                    || config.is_ok_and(|config| config.hex().starts_with(id));
                if matches && !found.iter().any(|other| other.manifest.digest == record.manifest.digest) {
                    found.push(record);
                }
            }
            match found.as_slice() {
                [one] => return Ok((*one).clone()),
                [] => {}
                _ => return Err(Error::invalid(format!("several images have an id that begins with {id}"))),
            }
        }
        Err(Error::new(Kind::NotFound, format!("no image {words}"))
            .hint("locule image ls lists what is there, locule image pull fetches more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_plain() {
        assert_eq!(encode("docker.io/library/debian:13"), "docker.io%2flibrary%2fdebian:13");
        assert_eq!(encode("../x"), "%2e.%2fx");
        assert_eq!(encode("."), "%2e");
    }
}
