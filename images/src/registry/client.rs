//! The HTTP client of registries: distribution-spec 1.1 and Docker's token flow over `ureq`.
//!
//! Owns retries, redirects, tokens and the choice between TLS and none. Credentials go to the
//! registry and to the token server that it names, never to where it redirects.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Request, Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, SendBody};

use super::auth::{self, Challenge, Credentials};
use super::config::{Endpoint, is_loopback};
use super::dns::Names;
use crate::error::{Context, Error, Kind, Result};

/// The most redirects of one request.
const MOST_REDIRECTS: usize = 5;
/// The longest that a registry may tell to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The most bytes of an answer that is no content.
const LARGEST_ANSWER: u64 = 1 << 20;

/// How long to wait, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a byte from the other side.
    pub idle: Duration,
    /// Attempts of one request.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { idle: Duration::from_secs(30), tries: 5 }
    }
}

/// What is sent along.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Nothing.
    Nothing,
    /// A document.
    Bytes(&'a [u8]),
    /// A file of this size.
    File(&'a Path, u64),
}

/// One request.
#[derive(Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: &'static str,
    /// The whole address.
    pub url: String,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub payload: Payload<'a>,
    /// `pull`, or `pull,push`.
    pub actions: &'static str,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    names: Names,
    patience: Patience,
    auth_file: Option<PathBuf>,
    agents: Mutex<HashMap<(String, bool), Agent>>,
    plain: Mutex<HashMap<String, bool>>,
    tokens: Mutex<HashMap<(String, String), String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// A client with the credentials of `auth_file`, or of where they usually are.
    pub fn new(patience: Patience, auth_file: Option<PathBuf>) -> Client {
        Client {
            names: Names::of_system(),
            patience,
            auth_file,
            agents: Mutex::default(),
            plain: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    /// The file with credentials that was named.
    pub fn auth_file(&self) -> Option<&Path> {
        self.auth_file.as_deref()
    }

    /// How long to wait.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    fn agent(&self, host: &str, insecure: bool) -> Agent {
        let mut agents = locked(&self.agents);
        agents.entry((host.to_owned(), insecure)).or_insert_with(|| self.make_agent(host, insecure)).clone()
    }

    fn make_agent(&self, host: &str, insecure: bool) -> Agent {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if insecure {
            tls = tls.disable_verification(true);
        } else {
            // The machine's own certificates; what cannot be read among them is not trusted.
            let system = rustls_native_certs::load_native_certs().certs;
            let mut certs: Vec<Certificate<'static>> =
                system.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect();
            certs.extend(own_certs(host));
            tls = tls.root_certs(RootCerts::new_with_certs(&certs));
        }
        let mut config = ureq::config::Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("locule/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(self.patience.idle))
            .timeout_recv_response(Some(self.patience.idle))
            .timeout_per_read(Some(self.patience.idle))
            .timeout_per_write(Some(self.patience.idle))
            .max_idle_connections_per_host(8)
            .tls_config(tls.build());
        if is_loopback(host) {
            config = config.proxy(None);
        }
        Agent::with_parts(config.build(), DefaultConnector::new(), self.names.clone())
    }

    /// Scheme and host of an endpoint, as `https://host`.
    pub fn base(&self, endpoint: &Endpoint) -> String {
        let host = match endpoint.reference.registry() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        if !endpoint.insecure {
            return format!("https://{host}");
        }
        let known = locked(&self.plain).get(host).copied();
        let plain = known.unwrap_or_else(|| {
            // TLS without verification if it is spoken, else none: as containers/image has it.
            let plain = self.agent(host, true).get(format!("https://{host}/v2/")).call().is_err();
            locked(&self.plain).insert(host.to_owned(), plain);
            plain
        });
        format!("{}://{host}", if plain { "http" } else { "https" })
    }

    /// Sends `call`; the answer may have any status but those that another attempt may mend.
    pub fn send(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response<Body>> {
        let scope = format!("repository:{}:{}", endpoint.reference.repository(), call.actions);
        let key = (endpoint.reference.registry().to_owned(), scope);
        let mut refreshed = false;
        let mut attempt = 0;
        loop {
            let token = locked(&self.tokens).get(&key).cloned();
            let answer = self.follow(endpoint, call, token.as_deref());
            let pause = match answer {
                Ok(answer) if answer.status() == 401 && !refreshed => {
                    // The first request, or a token that ended in the middle of a pull.
                    refreshed = true;
                    let header = self.authorize(endpoint, &answer, &key.1)?;
                    locked(&self.tokens).insert(key.clone(), header);
                    continue;
                }
                Ok(answer) if again(answer.status().as_u16()) && attempt + 1 < self.patience.tries => {
                    told_pause(&answer).unwrap_or_else(|| backoff(attempt))
                }
                Ok(answer) => return Ok(answer),
                Err(err) if err.kind() == Kind::Network && attempt + 1 < self.patience.tries => {
                    backoff(attempt)
                }
                Err(err) => return Err(err),
            };
            attempt += 1;
            std::thread::sleep(pause);
        }
    }

    /// One request with its redirects.
    fn follow(&self, endpoint: &Endpoint, call: &Call<'_>, token: Option<&str>) -> Result<Response<Body>> {
        let mut url = call.url.clone();
        let first = origin(&url)?;
        for _ in 0..=MOST_REDIRECTS {
            let here = origin(&url)?;
            let same = here == first;
            let answer = self.once(endpoint, call, &url, &here, token.filter(|_| same))?;
            let redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirect || !matches!(call.method, "GET" | "HEAD") {
                return Ok(answer);
            }
            let to = text(&answer, "location")
                .ok_or_else(|| Error::new(Kind::Network, format!("{} redirects to nowhere", here.1)))?;
            url = join(&url, &to)?;
            if url.starts_with("http:") && !endpoint.insecure {
                return Err(Error::new(
                    Kind::Denied,
                    format!("{} redirects from TLS to a connection without", here.1),
                )
                .hint("mark the registry as insecure in registries.conf if that is meant"));
            }
        }
        Err(Error::new(Kind::Network, format!("{} redirects in a circle", first.1)))
    }

    fn once(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        url: &str,
        origin: &(String, String),
        token: Option<&str>,
    ) -> Result<Response<Body>> {
        // Leniency is for the registry that was marked, not for hosts that it redirects to.
        let insecure =
            endpoint.insecure && (origin.1 == endpoint.reference.registry() || is_loopback(&origin.1));
        let agent = self.agent(&origin.1, insecure);
        let mut request = Request::builder().method(call.method).uri(url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let refuse = |err: ureq::http::Error| Error::invalid(format!("asking {}: {err}", origin.1));
        let answer = match &call.payload {
            Payload::Nothing if matches!(call.method, "GET" | "HEAD" | "DELETE") => {
                agent.run(request.body(()).map_err(refuse)?)
            }
            Payload::Nothing => {
                agent.run(request.header("content-length", "0").body(SendBody::none()).map_err(refuse)?)
            }
            Payload::Bytes(bytes) => agent.run(request.body(*bytes).map_err(refuse)?),
            Payload::File(path, size) => {
                let file = std::fs::File::open(path).doing(|| format!("opening {}", path.display()))?;
                let body = SendBody::from_owned_reader(file);
                agent.run(request.header("content-length", size.to_string()).body(body).map_err(refuse)?)
            }
        };
        answer.map_err(|err| network(&origin.1, &err))
    }

    /// What the challenge of `answer` asks for, as an Authorization header.
    fn authorize(&self, endpoint: &Endpoint, answer: &Response<Body>, scope: &str) -> Result<String> {
        let host = endpoint.reference.registry();
        let credentials = auth::find(self.auth_file.as_deref(), &endpoint.reference.name())?;
        let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            challenges.iter().filter_map(|value| value.to_str().ok().and_then(Challenge::read)).collect();
        let denied = || {
            Error::new(
                Kind::Denied,
                format!("{host} wants credentials for {}", endpoint.reference.repository()),
            )
            .hint("log in with podman login or docker login, or name a file with --authfile")
        };
        match challenges.first() {
            Some(Challenge::Basic) => credentials.as_ref().and_then(Credentials::basic).ok_or_else(denied),
            Some(Challenge::Bearer { realm, service, .. }) => {
                self.token(endpoint, realm, service.as_deref(), scope, credentials.as_ref())
            }
            None => Err(denied()),
        }
    }

    fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let (scheme, host) = origin(realm)?;
        if scheme == "http" && !endpoint.insecure && !is_loopback(&host) {
            return Err(Error::new(Kind::Denied, format!("the token server {host} has no TLS")));
        }
        let agent = self.agent(&host, endpoint.insecure && is_loopback(&host));
        let mut query = vec![("scope", scope)];
        query.extend(service.map(|service| ("service", service)));
        let mut last = None;
        for attempt in 0..self.patience.tries {
            let answer = match credentials {
                Some(Credentials::Identity(refresh)) => {
                    let mut form = query.clone();
                    form.extend([
                        ("grant_type", "refresh_token"),
                        ("refresh_token", refresh),
                        ("client_id", "locule"),
                    ]);
                    agent.post(realm).send_form(form)
                }
                other => {
                    let mut request = agent.get(realm);
                    for (key, value) in &query {
                        request = request.query(*key, *value);
                    }
                    if let Some(basic) = other.and_then(Credentials::basic) {
                        request = request.header(header::AUTHORIZATION, basic);
                    }
                    request.call()
                }
            };
            let mut answer = match answer {
                Ok(answer) if again(answer.status().as_u16()) => {
                    last = Some(refused(&host, "giving a token", answer));
                    std::thread::sleep(backoff(attempt));
                    continue;
                }
                Ok(answer) => answer,
                Err(err) => {
                    last = Some(network(&host, &err));
                    std::thread::sleep(backoff(attempt));
                    continue;
                }
            };
            if !answer.status().is_success() {
                return Err(refused(&host, "giving a token", answer));
            }
            let bytes = limited(&mut answer, LARGEST_ANSWER)
                .map_err(|err| err.context(format!("asking {host} for a token")))?;
            let answer: Answer =
                serde_json::from_slice(&bytes).doing(|| format!("reading the token of {host}"))?;
            let token = answer
                .token
                .or(answer.access_token)
                .filter(|token| token.bytes().all(|b| b.is_ascii_graphic()));
            let token = token.ok_or_else(|| Error::new(Kind::Denied, format!("{host} gave no token")))?;
            return Ok(format!("Bearer {token}"));
        }
        Err(last.unwrap_or_else(|| Error::new(Kind::Network, format!("{host} gave no token"))))
    }
}

/// Certificates for this host alone (containers-certs.d(5)).
fn own_certs(host: &str) -> Vec<Certificate<'static>> {
    let mut certs = Vec::new();
    for dir in ["/etc/containers/certs.d", "/etc/docker/certs.d"] {
        let Ok(entries) = std::fs::read_dir(Path::new(dir).join(host)) else { continue };
        for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            if path.extension().is_some_and(|end| end == "crt")
                && let Ok(text) = std::fs::read(&path)
            {
                certs.extend(parse_pem(&text).filter_map(|item| match item {
                    Ok(PemItem::Certificate(cert)) => Some(cert),
                    _ => None,
                }));
            }
        }
    }
    certs
}

/// Statuses that another attempt may mend.
fn again(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(200 << attempt.min(7))
}

fn told_pause(answer: &Response<Body>) -> Option<Duration> {
    let seconds = text(answer, "retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// A header's text.
pub fn text(answer: &Response<Body>, name: &str) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Scheme and authority of an address.
fn origin(url: &str) -> Result<(String, String)> {
    let uri: Uri = url.parse().map_err(|_| Error::new(Kind::Network, format!("{url:?} is no address")))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) if !authority.as_str().contains('@') => {
            Ok((scheme.to_owned(), authority.to_string()))
        }
        _ => Err(Error::new(Kind::Network, format!("{url:?} is no address of a registry"))),
    }
}

/// The address that `to` means on the page `from`.
pub fn join(from: &str, to: &str) -> Result<String> {
    let (scheme, authority) = origin(from)?;
    if to.contains("://") {
        return Ok(to.to_owned());
    }
    match to.strip_prefix("//") {
        Some(rest) => Ok(format!("{scheme}://{rest}")),
        None if to.starts_with('/') => Ok(format!("{scheme}://{authority}{to}")),
        None => {
            Err(Error::new(Kind::Network, format!("{authority} redirects to {to:?}, which is no address")))
        }
    }
}

/// An answer's body, up to `most` bytes.
pub fn limited(answer: &mut Response<Body>, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = answer.body_mut().with_config().limit(u64::MAX).reader().take(most + 1);
    reader
        .read_to_end(&mut bytes)
        .map_err(|err| Error::new(Kind::Network, format!("the answer was cut: {err}")))?;
    if bytes.len() as u64 > most {
        return Err(Error::corrupt(format!("the answer is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// A failure below HTTP.
fn network(host: &str, err: &ureq::Error) -> Error {
    let why = match err {
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Io(err) => err.to_string(),
        other => other.to_string(),
    };
    if why.contains("certificate") {
        // Another attempt sees the same one.
        return Error::new(Kind::Denied, format!("asking {host}: {why}")).hint(format!(
            "put the certificate of its authority into /etc/containers/certs.d/{host}/ca.crt if you trust it"
        ));
    }
    Error::new(Kind::Network, format!("asking {host}: {why}"))
}

/// A status that is a refusal, with the registry's own words where it has any.
pub fn refused(host: &str, what: &str, mut answer: Response<Body>) -> Error {
    #[derive(Deserialize)]
    struct Told {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = answer.status();
    let kind = match status.as_u16() {
        401 | 403 => Kind::Denied,
        404 => Kind::NotFound,
        code if again(code) => Kind::Network,
        _ => Kind::Invalid,
    };
    let told: Option<Told> =
        limited(&mut answer, 64 << 10).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let said = told.and_then(|told| told.errors.into_iter().next()).map(|reason| {
        // A registry's words must not reach a terminal as commands.
        let text = if reason.message.is_empty() { reason.code } else { reason.message };
        text.chars().filter(|c| !c.is_control()).take(200).collect::<String>()
    });
    let said = said.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_lowercase());
    let hint = match status.as_u16() {
        401 | 403 => Some("the credentials do not suffice: log in again, or name others with --authfile"),
        429 => Some("it has had enough of requests for now: try again later, or log in"),
        _ => None,
    };
    let err = Error::new(kind, format!("{what}: {host} refuses with {}: {said}", status.as_u16()));
    match hint {
        Some(hint) => err.hint(hint),
        None => err,
    }
}
