//! Pushing: an image of the store to a registry.
//!
//! Owns the order that the distribution-spec wants: content first, the manifest last. What the
//! registry has is not sent again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Progress;
use super::client::{Call, Client, Payload, join, refused, text};
use super::config::{Endpoint, Registries};
use crate::error::{Error, Kind, Result};
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::store::{Image, Store};

const AT_ONCE: usize = 4;
const ACTIONS: &str = "pull,push";

/// What to push, and how.
pub struct Push<'a> {
    /// The image.
    pub image: &'a Image,
    /// The name that it gets there.
    pub reference: &'a Reference,
    /// Where registries are.
    pub registries: &'a Registries,
    /// The client.
    pub client: &'a Client,
    /// Who is told how far it is.
    pub progress: &'a dyn Progress,
}

impl Push<'_> {
    /// Pushes the image.
    pub fn run(&self, store: &Store) -> Result<()> {
        let doing = || format!("pushing {}", self.reference);
        let _share = store.share()?;
        // Mirrors are for pulling; the last place is the registry itself.
        let endpoint = self.registries.endpoints(self.reference)?.pop();
        let endpoint = endpoint.ok_or_else(|| Error::new(Kind::NotFound, "nowhere to push to"))?;
        self.to(store, &endpoint).map_err(|err| err.context(doing()))
    }

    fn to(&self, store: &Store, endpoint: &Endpoint) -> Result<()> {
        let manifest = &self.image.manifest;
        let mut content: Vec<&Descriptor> = Vec::new();
        for descriptor in manifest.layers.iter().chain([&manifest.config]) {
            // The same layer twice is sent once.
            if !content.iter().any(|known| known.digest == descriptor.digest) {
                content.push(descriptor);
            }
        }
        self.progress.begin(manifest.layers.len(), content.iter().map(|descriptor| descriptor.size).sum());
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(content.len()) {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let stop = failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                        let Some(descriptor) = content.get(i).filter(|_| !stop) else { return };
                        if let Err(err) = self.content(store, endpoint, descriptor) {
                            let err = err.context(format!("the layer {}", descriptor.digest.short()));
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(err);
                        }
                        self.progress.bytes(descriptor.size);
                        self.progress.layer();
                    }
                });
            }
        });
        self.progress.end();
        if let Some(err) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(err);
        }
        let record = &self.image.record.manifest;
        let bytes = store.read_document(&record.digest)?;
        let version = self.reference.tag().unwrap_or(record.digest.as_str());
        let answer = self.call(
            endpoint,
            "PUT",
            self.url(endpoint, &format!("manifests/{version}")),
            vec![("content-type", record.media_type.clone())],
            Payload::Bytes(&bytes),
        )?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(refused(endpoint.reference.registry(), "sending the manifest", answer)),
        }
    }

    fn content(&self, store: &Store, endpoint: &Endpoint, descriptor: &Descriptor) -> Result<()> {
        let host = endpoint.reference.registry();
        let mut last = None;
        for _ in 0..self.client.patience().tries {
            let url = self.url(endpoint, &format!("blobs/{}", descriptor.digest));
            let there = self.call(endpoint, "HEAD", url, Vec::new(), Payload::Nothing)?;
            if there.status().is_success() {
                return Ok(());
            }
            let url = self.url(endpoint, "blobs/uploads/");
            let begun = self.call(endpoint, "POST", url.clone(), Vec::new(), Payload::Nothing)?;
            if begun.status() != 202 {
                return Err(refused(host, "beginning an upload", begun));
            }
            let place = text(&begun, "location")
                .ok_or_else(|| Error::new(Kind::Network, format!("{host} names no place for an upload")))?;
            let place = join(&url, &place)?;
            if !same_origin(&place, &url) {
                return Err(Error::new(
                    Kind::Denied,
                    format!("{host} wants the upload elsewhere, at {place}"),
                ));
            }
            let place =
                format!("{place}{}digest={}", if place.contains('?') { '&' } else { '?' }, descriptor.digest);
            let path = store.blob_path(&descriptor.digest);
            let sent = self.call(
                endpoint,
                "PUT",
                place,
                vec![("content-type", "application/octet-stream".into())],
                Payload::File(&path, descriptor.size),
            );
            match sent {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                // The upload's place may be gone after a cut: begin again.
                Ok(answer) if matches!(answer.status().as_u16(), 404 | 416) => {
                    last = Some(refused(host, "sending content", answer));
                }
                Ok(answer) => return Err(refused(host, "sending content", answer)),
                Err(err) if err.kind() == Kind::Network => last = Some(err),
                Err(err) => return Err(err),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Kind::Network, format!("{host} takes no content"))))
    }

    fn url(&self, endpoint: &Endpoint, tail: &str) -> String {
        format!("{}/v2/{}/{tail}", self.client.base(endpoint), endpoint.reference.repository())
    }

    fn call(
        &self,
        endpoint: &Endpoint,
        method: &'static str,
        url: String,
        headers: Vec<(&'static str, String)>,
        payload: Payload<'_>,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        self.client.send(endpoint, &Call { method, url, headers, payload, actions: ACTIONS })
    }
}

/// Whether credentials for `b` may go to `a`.
fn same_origin(a: &str, b: &str) -> bool {
    let origin = |url: &str| url.splitn(4, '/').take(3).map(str::to_owned).collect::<Vec<_>>();
    origin(a) == origin(b)
}
