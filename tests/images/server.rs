//! A registry that serves the content of a store, and misbehaves as it is told.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

/// What it does wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Layers end after so many bytes, so many times.
    pub cut: Option<(usize, usize)>,
    /// Layers stop after so many bytes, and the connection stays.
    pub stall: Option<usize>,
    /// What layers hold waits for the test to come to the barrier.
    pub hold: Option<Arc<Barrier>>,
    /// Ranges are not understood.
    pub no_ranges: bool,
    /// So many answers of 429 first.
    pub too_many: usize,
    /// Seconds that these tell to wait.
    pub retry_after: u64,
    /// What every manifest is.
    pub manifest: Option<Vec<u8>>,
    /// Tokens are good for so many requests.
    pub token_uses: Option<usize>,
    /// Layers are redirected to this host.
    pub redirect: Option<String>,
    /// One byte of each layer is wrong.
    pub flip: bool,
    /// Layers are longer than they should be.
    pub longer: bool,
    /// The manifest is another than the one asked for.
    pub wrong_manifest: bool,
    /// Every answer is 500.
    pub broken: bool,
}

/// A request that was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: HashMap<String, String>,
}

/// The running server.
pub struct Server {
    pub host: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

struct State {
    host: String,
    blobs: PathBuf,
    manifest: String,
    faults: Faults,
    cuts: AtomicUsize,
    refusals: AtomicUsize,
    uses: AtomicUsize,
    tokens: AtomicUsize,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Serves the blobs of the store at `store`; `manifest` is what any tag means.
    pub fn start(store: &Path, manifest: &str, faults: Faults) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let state = Arc::new(State {
            host: host.clone(),
            blobs: store.join("blobs/sha256"),
            manifest: manifest.to_owned(),
            faults,
            cuts: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            uses: AtomicUsize::new(0),
            tokens: AtomicUsize::new(0),
            seen: seen.clone(),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Server { host, seen }
    }

    /// Requests whose path holds `part`.
    pub fn asked(&self, part: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path.contains(part)).cloned().collect()
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut headers = HashMap::new();
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let Some((name, value)) = header.trim_end().split_once(':') else { break };
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
            self.seen.lock().unwrap().push(Seen { path: path.clone(), headers: headers.clone() });
            if !self.answer(&mut stream, &path, &headers)? {
                return Ok(());
            }
        }
    }

    /// Whether the connection goes on.
    fn answer(
        &self,
        out: &mut TcpStream,
        path: &str,
        headers: &HashMap<String, String>,
    ) -> std::io::Result<bool> {
        if self.faults.broken {
            return plain(out, "500 Oops", "", b"");
        }
        if path.starts_with("/token") {
            let n = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
            self.uses.store(0, Ordering::SeqCst);
            return plain(out, "200 OK", "", format!(r#"{{"token":"t{n}"}}"#).as_bytes());
        }
        if self.refusals.fetch_add(1, Ordering::SeqCst) < self.faults.too_many {
            return plain(
                out,
                "429 Too Many Requests",
                &format!("Retry-After: {}\r\n", self.faults.retry_after),
                b"{\"errors\":[{\"code\":\"TOOMANYREQUESTS\"}]}",
            );
        }
        if let Some(most) = self.faults.token_uses {
            let current = format!("Bearer t{}", self.tokens.load(Ordering::SeqCst));
            let good = headers.get("authorization") == Some(&current);
            if !good || self.uses.fetch_add(1, Ordering::SeqCst) >= most {
                let challenge = format!(
                    "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"s\"\r\n",
                    self.host
                );
                return plain(out, "401 Unauthorized", &challenge, b"{}");
            }
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/manifests/") {
            let wanted = name.strip_prefix("sha256:").unwrap_or(&self.manifest);
            let Ok(mut bytes) = std::fs::read(self.blobs.join(wanted)) else {
                return plain(out, "404 Not Found", "", b"{}");
            };
            if self.faults.wrong_manifest {
                bytes.push(b' ');
            }
            if let Some(hostile) = &self.faults.manifest {
                bytes.clone_from(hostile);
            }
            return plain(
                out,
                "200 OK",
                "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n",
                &bytes,
            );
        }
        let Some(hex) = name.strip_prefix("sha256:").filter(|_| path.contains("/blobs/")) else {
            return plain(out, "404 Not Found", "", b"{}");
        };
        if let Some(host) = &self.faults.redirect {
            let location = format!("Location: http://{host}{path}\r\n");
            return plain(out, "307 Temporary Redirect", &location, b"");
        }
        let mut bytes = Vec::new();
        std::fs::File::open(self.blobs.join(hex))?.read_to_end(&mut bytes)?;
        let is_layer = bytes.len() > 10_000;
        if is_layer && self.faults.flip {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        if is_layer && self.faults.longer {
            bytes.extend_from_slice(b"more");
        }
        let range = headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let start = range.filter(|_| !self.faults.no_ranges).unwrap_or(0);
        let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
        let body = &bytes[start..];
        write!(out, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len())?;
        if start > 0 {
            write!(out, "Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len())?;
        }
        write!(out, "\r\n")?;
        if let Some(barrier) = self.faults.hold.as_ref().filter(|_| is_layer) {
            barrier.wait();
        }
        if let Some((at, times)) = self.faults.cut.filter(|_| is_layer)
            && self.cuts.fetch_add(1, Ordering::SeqCst) < times
        {
            out.write_all(&body[..at.min(body.len())])?;
            return Ok(false);
        }
        if let Some(at) = self.faults.stall.filter(|_| is_layer) {
            out.write_all(&body[..at.min(body.len())])?;
            out.flush()?;
            // Until the other side has had enough.
            let _ = out.read(&mut [0]);
            return Ok(false);
        }
        out.write_all(body)?;
        Ok(true)
    }
}

fn plain(out: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<bool> {
    write!(out, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
    out.write_all(body)?;
    Ok(true)
}
