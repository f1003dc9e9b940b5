//! Pulling: an image from a registry, unpacked while it comes.
//!
//! Owns the order of things: manifest, configuration, then layers side by side, each downloaded,
//! hashed, decompressed and unpacked at the same time. Nothing gets a name before everything is
//! verified; what was downloaded before a cut is resumed.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use super::client::{Call, Client, Payload, limited, refused, text};
use super::config::{Endpoint, Registries};
use super::policy::Demands;
use super::{Progress, policy, sigstore};
use crate::digest::{Digest, chain_ids};
use crate::error::{Context, Error, Kind, Result};
use crate::import::follow;
use crate::manifest::{Config, Descriptor, Document, LARGEST, Manifest, Platform, media};
use crate::reference::Reference;
use crate::store::{ChunkReader, Incoming, PendingLayer, Record, Store};
use crate::unpack::Options;

/// Layers that are fetched at the same time.
const AT_ONCE: usize = 4;
const CHUNK: usize = 256 << 10;
/// Progress after which earlier failures no longer count.
const WORTH_IT: u64 = 1 << 20;

/// What to pull, and how.
pub struct Pull<'a> {
    /// The image.
    pub reference: &'a Reference,
    /// Which of several platforms.
    pub platform: &'a Platform,
    /// How layers are unpacked.
    pub options: &'a Options,
    /// Where images come from.
    pub registries: &'a Registries,
    /// What may be taken.
    pub policy: &'a policy::Policy,
    /// The client.
    pub client: &'a Client,
    /// Who is told how far it is.
    pub progress: &'a dyn Progress,
}

impl Pull<'_> {
    /// Pulls the image into the store.
    pub fn run(&self, store: &Store) -> Result<Record> {
        let doing = || format!("pulling {}", self.reference);
        let demands = self.policy.check(self.reference).map_err(|err| err.context(doing()))?;
        let _share = store.share()?;
        let mut last: Option<Error> = None;
        for endpoint in self.registries.endpoints(self.reference)? {
            match self.from(store, &endpoint, &demands) {
                Ok(record) => return Ok(record),
                // A mirror that fails gives way to the next place; the last word counts.
                Err(err)
                    if matches!(
                        err.kind(),
                        Kind::Network | Kind::NotFound | Kind::Denied | Kind::Corrupt
                    ) =>
                {
                    last = Some(err);
                }
                Err(err) => return Err(err.context(doing())),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Kind::NotFound, "nowhere to look")).context(doing()))
    }

    fn from(&self, store: &Store, endpoint: &Endpoint, demands: &Demands) -> Result<Record> {
        let first = self.manifest(endpoint, endpoint.reference.version(), endpoint.reference.digest())?;
        if demands.skopeo {
            // By digest: what is verified is what is taken.
            let pinned = self.reference.pinned(first.0.digest.clone());
            self.policy.by_skopeo(&pinned, store, self.client.auth_file())?;
        }
        // Of an index, or of the image that is chosen from it.
        let early = self.signed(endpoint, &first.0.digest, demands);
        if !media::is_index(&first.0.media_type) {
            early.clone()?;
        }
        let mut fetched = Some(first.1);
        let (manifest, bytes, index) = follow(&first.0, self.platform, &mut |entry| {
            let bytes = match fetched.take() {
                Some(bytes) => bytes,
                None => self.manifest(endpoint, entry.digest.as_str(), Some(&entry.digest))?.1,
            };
            if bytes.len() as u64 != entry.size {
                return Err(Error::corrupt(format!(
                    "the manifest {} has {} bytes, and {} were announced",
                    entry.digest.short(),
                    bytes.len(),
                    entry.size
                )));
            }
            store.write_document(&bytes)?;
            Ok(bytes)
        })?;
        if early.is_err() {
            self.signed(endpoint, &manifest.digest, demands)?;
        }
        let Document::Manifest(image) = Document::read(&bytes, Some(&manifest.media_type))? else {
            return Err(Error::corrupt("an index in the place of an image"));
        };
        image.check_image()?;
        // The second of two that want the same image waits here and then finds everything.
        let _one = one_at_a_time(store, &manifest.digest)?;
        if image.config.size > LARGEST {
            return Err(Error::corrupt(format!("the configuration is larger than {LARGEST} bytes")));
        }
        if let Some(incoming) = store.incoming(&image.config.digest, image.config.size)? {
            self.download(endpoint, incoming, &mut |_| true, &|| false)?;
        }
        let config = Config::read(&store.read_document(&image.config.digest)?, &image)?;
        self.layers(store, endpoint, &image, &config)?;
        store.tag(self.reference, &manifest, index.as_ref())
    }

    /// Fails unless the manifest `digest` is signed as all of `demands` want it.
    fn signed(&self, endpoint: &Endpoint, digest: &Digest, demands: &Demands) -> Result<()> {
        if demands.keys.is_empty() {
            return Ok(());
        }
        let doing = || format!("verifying the signatures of {}@{digest}", self.reference.name());
        let denied = |why: &str| Error::new(Kind::Denied, format!("{}: {why}", doing()));
        // Cosign's place: a tag that says what it is the signature of.
        let tag = format!("{}-{}.sig", digest.algorithm(), digest.hex());
        let (_, bytes) = self.manifest(endpoint, &tag, None).map_err(|err| match err.kind() {
            Kind::NotFound => denied("there is no signature, and the policy demands one"),
            _ => err.context(doing()),
        })?;
        let Document::Manifest(signatures) = Document::read(&bytes, None)? else {
            return Err(denied("an index in the place of signatures"));
        };
        let mut payloads = Vec::new();
        for layer in &signatures.layers {
            let signature = layer.annotations.get(sigstore::SIGNATURE);
            if let Some(signature) = signature.filter(|_| layer.media_type == sigstore::PAYLOAD) {
                let payload = self.document(endpoint, layer).map_err(|err| err.context(doing()))?;
                payloads.push((payload, signature));
            }
        }
        for rule in &demands.keys {
            let keys = rule.keys()?;
            // The first that is signed by a key and still does not fit says most.
            let mut why = None;
            let fits = payloads.iter().any(|(payload, signature)| {
                if !keys.iter().any(|key| key.signed(payload, signature)) {
                    return false;
                }
                match rule.check(payload, digest, self.reference) {
                    Ok(()) => true,
                    Err(err) => {
                        why.get_or_insert(err);
                        false
                    }
                }
            });
            if !fits {
                return Err(match why {
                    Some(why) => why.context(doing()),
                    None => denied("no signature is by a key that the policy names"),
                });
            }
        }
        Ok(())
    }

    /// Small content, verified and not kept.
    fn document(&self, endpoint: &Endpoint, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let host = endpoint.reference.registry();
        let call = Call {
            method: "GET",
            url: format!(
                "{}/v2/{}/blobs/{}",
                self.client.base(endpoint),
                endpoint.reference.repository(),
                descriptor.digest
            ),
            headers: Vec::new(),
            payload: Payload::Nothing,
            actions: "pull",
        };
        let mut answer = self.client.send(endpoint, &call)?;
        if !answer.status().is_success() {
            return Err(refused(host, "fetching content", answer));
        }
        let bytes = limited(&mut answer, sigstore::LARGEST)?;
        let mut hasher = descriptor.digest.hasher();
        hasher.update(&bytes);
        match hasher.finish() == descriptor.digest {
            true => Ok(bytes),
            false => Err(Error::corrupt(format!("{host} gave other content for {}", descriptor.digest))),
        }
    }

    /// A manifest or an index, verified against `pinned` or what the registry says.
    fn manifest(
        &self,
        endpoint: &Endpoint,
        version: &str,
        pinned: Option<&Digest>,
    ) -> Result<(Descriptor, Vec<u8>)> {
        let host = endpoint.reference.registry();
        let accept = [media::MANIFEST, media::INDEX, media::DOCKER_MANIFEST, media::DOCKER_LIST].join(", ");
        let call = Call {
            method: "GET",
            url: format!(
                "{}/v2/{}/manifests/{version}",
                self.client.base(endpoint),
                endpoint.reference.repository()
            ),
            headers: vec![("accept", accept)],
            payload: Payload::Nothing,
            actions: "pull",
        };
        let mut answer = self.client.send(endpoint, &call)?;
        if !answer.status().is_success() {
            return Err(refused(host, "fetching the manifest", answer));
        }
        let kind = text(&answer, "content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let said: Option<Digest> =
            text(&answer, "docker-content-digest").and_then(|digest| digest.parse().ok());
        let bytes = limited(&mut answer, LARGEST).map_err(|err| err.context("fetching the manifest"))?;
        let digest = match pinned {
            Some(pinned) => {
                let mut hasher = pinned.hasher();
                hasher.update(&bytes);
                let found = hasher.finish();
                if found != *pinned {
                    return Err(Error::corrupt(format!("{host} gave the manifest {found} for {pinned}")));
                }
                found
            }
            None => Digest::of(&bytes),
        };
        if let Some(said) = said.filter(|said| said.algorithm() == digest.algorithm() && *said != digest) {
            return Err(Error::corrupt(format!("{host} calls the manifest {said} and gave {digest}")));
        }
        let known = media::is_manifest(&kind) || media::is_index(&kind);
        let media_type = match (known, Document::read(&bytes, None)) {
            (true, _) => kind,
            (false, Ok(Document::Index(_))) => media::INDEX.into(),
            (false, Ok(Document::Manifest(_))) => media::MANIFEST.into(),
            (false, Err(err)) => return Err(err),
        };
        let size = bytes.len() as u64;
        let descriptor =
            Descriptor { media_type, digest, size, platform: None, annotations: Default::default() };
        Ok((descriptor, bytes))
    }

    fn layers(&self, store: &Store, endpoint: &Endpoint, image: &Manifest, config: &Config) -> Result<()> {
        let diff_ids = &config.rootfs.diff_ids;
        let chain = chain_ids(diff_ids);
        let missing = image.layers.iter().filter(|layer| !store.has_blob(&layer.digest));
        self.progress.begin(image.layers.len(), missing.map(|layer| layer.size).sum());
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let pending: Mutex<Vec<Option<PendingLayer>>> = Mutex::new(chain.iter().map(|_| None).collect());
        let stop = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(chain.len()) {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(layer) = image.layers.get(i).filter(|_| !stop()) else { return };
                        let wanted = (!store.has_layer(&chain[i])).then_some(&diff_ids[i]);
                        match self.layer(store, endpoint, layer, wanted, &stop) {
                            Ok(done) => pending.lock().unwrap_or_else(PoisonError::into_inner)[i] = done,
                            Err(err) => {
                                let err = err.context(format!("the layer {}", layer.digest.short()));
                                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                                // A full disk is the reason to tell, whatever else failed: it decides what is kept.
                                if failed.as_ref().is_none_or(|first| err.is_full() && !first.is_full()) {
                                    *failed = Some(err);
                                }
                            }
                        }
                        self.progress.layer();
                    }
                });
            }
        });
        self.progress.end();
        if let Some(err) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            // What a cut download left is there to be resumed, but not on a full disk, whoever filled it. All threads
            // have ended: none makes another.
            if err.is_full() {
                image.layers.iter().for_each(|layer| store.discard_partial(&layer.digest));
            }
            return Err(err);
        }
        store.commit_layers(
            &chain,
            pending.into_inner().unwrap_or_else(PoisonError::into_inner),
            self.options,
        )
    }

    /// One layer: downloaded where it is missing, unpacked where `wanted`, both at once where both.
    fn layer(
        &self,
        store: &Store,
        endpoint: &Endpoint,
        layer: &Descriptor,
        wanted: Option<&Digest>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<PendingLayer>> {
        let Some(incoming) = store.incoming(&layer.digest, layer.size)? else {
            let unpack = |diff_id| store.unpack_layer(store.open_blob(&layer.digest)?, diff_id, self.options);
            return wanted.map(unpack).transpose();
        };
        let Some(diff_id) = wanted else {
            return self.download(endpoint, incoming, &mut |_| !stop(), stop).map(|()| None);
        };
        let (chunks, reader) = ChunkReader::pair();
        std::thread::scope(|scope| {
            let unpacker = scope.spawn(move || store.unpack_layer(reader, diff_id, self.options));
            let begun = incoming.so_far().and_then(|mut file| {
                let mut left = incoming.have();
                while left > 0 {
                    let mut chunk = vec![0; CHUNK.min(left as usize)];
                    file.read_exact(&mut chunk).doing(|| "reading what was downloaded before")?;
                    left -= chunk.len() as u64;
                    if chunks.send(Ok(chunk)).is_err() {
                        break;
                    }
                }
                Ok(())
            });
            let downloaded = begun.and_then(|()| {
                let mut each = |chunk: &[u8]| {
                    // Whoever unpacks went away: its own words say why, later.
                    !stop() && chunks.send(Ok(chunk.to_vec())).is_ok()
                };
                self.download(endpoint, incoming, &mut each, &|| stop() || unpacker.is_finished())
            });
            if downloaded.is_err() {
                let _ = chunks.send(Err(std::io::Error::other("the download failed")));
            }
            drop(chunks);
            let unpacked =
                unpacker.join().unwrap_or_else(|_| Err(Error::corrupt("unpacking the layer failed")));
            match (downloaded, unpacked) {
                (Ok(()), unpacked) => unpacked.map(Some),
                // Stopped because unpacking failed: that is the reason to tell.
                (Err(err), Err(why)) if err.kind() == Kind::Busy || why.is_full() => Err(why),
                (Err(err), _) => Err(err),
            }
        })
    }

    /// Downloads content, resumes where it is cut, and gives it its name. `each` may end it, and so may `stop` before
    /// a request.
    fn download(
        &self,
        endpoint: &Endpoint,
        mut incoming: Incoming<'_>,
        each: &mut dyn FnMut(&[u8]) -> bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let host = endpoint.reference.registry().to_owned();
        let digest = incoming.digest().clone();
        self.progress.bytes(incoming.have());
        let mut failures = 0;
        let mut counted = incoming.have();
        let mut buffer = vec![0; CHUNK];
        while incoming.have() < incoming.size() {
            if stop() {
                return Err(stopped());
            }
            let cut = match self.fetch(endpoint, &digest, &mut incoming, &mut buffer, each)? {
                None => continue,
                Some(cut) => cut,
            };
            if incoming.have() >= counted + WORTH_IT {
                failures = 0;
                counted = incoming.have();
            }
            failures += 1;
            if failures >= self.client.patience().tries {
                return Err(Error::new(
                    Kind::Network,
                    format!(
                        "{host} cut the connection after {} of {} bytes, again and again: {cut}",
                        incoming.have(),
                        incoming.size()
                    ),
                )
                .hint("pull again: it goes on where it ended"));
            }
            std::thread::sleep(std::time::Duration::from_millis(100 << failures.min(6)));
        }
        incoming.finish()
    }

    /// One request for what is missing; the reason if the connection was cut.
    fn fetch(
        &self,
        endpoint: &Endpoint,
        digest: &Digest,
        incoming: &mut Incoming<'_>,
        buffer: &mut [u8],
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<String>> {
        let host = endpoint.reference.registry();
        let have = incoming.have();
        let mut headers = Vec::new();
        if have > 0 {
            headers.push(("range", format!("bytes={have}-")));
        }
        let call = Call {
            method: "GET",
            url: format!(
                "{}/v2/{}/blobs/{digest}",
                self.client.base(endpoint),
                endpoint.reference.repository()
            ),
            headers,
            payload: Payload::Nothing,
            actions: "pull",
        };
        let answer = self.client.send(endpoint, &call)?;
        // Where the registry begins: at the start if it knows no ranges.
        let mut skip = match answer.status().as_u16() {
            200 => have,
            206 => {
                let range = text(&answer, "content-range").unwrap_or_default();
                let start =
                    range.strip_prefix("bytes ").and_then(|rest| rest.split('-').next()?.parse::<u64>().ok());
                if start != Some(have) {
                    return Err(Error::corrupt(format!(
                        "{host} was asked for bytes from {have} on and gave {range:?}"
                    )));
                }
                0
            }
            _ => return Err(refused(host, "fetching content", answer)),
        };
        let (_, body) = answer.into_parts();
        let mut reader = body.into_with_config().limit(u64::MAX).reader();
        loop {
            let n = match reader.read(buffer) {
                Ok(0) if incoming.have() < incoming.size() => return Ok(Some("it ended too early".into())),
                Ok(0) => return Ok(None),
                Ok(n) => n,
                Err(err) => return Ok(Some(err.to_string())),
            };
            let known = n.min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= known as u64;
            let chunk = &buffer[known..n];
            if chunk.is_empty() {
                continue;
            }
            incoming.write(chunk)?;
            self.progress.bytes(chunk.len() as u64);
            if !each(chunk) {
                return Err(stopped());
            }
        }
    }
}

/// Something else failed, and its words count.
fn stopped() -> Error {
    Error::new(Kind::Busy, "the download was stopped")
}

/// Held by whoever brings the image `digest`.
fn one_at_a_time(store: &Store, digest: &Digest) -> Result<Flock<File>> {
    let path = store.root().join("partial").join(format!("image-{}", digest.hex()));
    let doing = || format!("locking {}", path.display());
    let file = File::options().create(true).truncate(false).write(true).open(&path).doing(doing)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::sys(errno, doing()))
}
