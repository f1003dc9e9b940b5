//! A registry behind TLS with certificates of its own, names and passwords, and a token server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use crate::{DockerRegistry, Lane, tool};

/// The registry's name. It is not called localhost: what is there needs no verification.
const NAME: &str = "registry.test";

/// An authority and a certificate for [`NAME`], as `KIND-ca.crt`, `KIND.crt` and `KIND.key`.
fn certificates(lane: &Lane, kind: &str) {
    let (ca, key) = (lane.text(&format!("{kind}-ca.crt")), lane.text(&format!("{kind}-ca.key")));
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let request = |words: &[&str]| tool("openssl", &[&["req"], &ec[..], words].concat());
    request(&[
        "-x509",
        "-days",
        "2",
        "-subj",
        &format!("/CN={kind} authority"),
        "-keyout",
        &key,
        "-out",
        &ca,
    ]);
    let (own_key, own) = (lane.text(&format!("{kind}.key")), lane.text(&format!("{kind}.crt")));
    let asked = lane.text("asked.csr");
    request(&["-subj", &format!("/CN={NAME}"), "-keyout", &own_key, "-out", &asked]);
    let extensions = lane.text("extensions");
    fs::write(&extensions, format!("subjectAltName=DNS:{NAME}\n")).unwrap();
    tool(
        "openssl",
        &[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &asked,
            "-CA",
            &ca,
            "-CAkey",
            &key,
            "-CAcreateserial",
            "-extfile",
            &extensions,
            "-out",
            &own,
        ],
    );
}

/// A call on a machine that trusts `ca` for the registry `host` and knows its address.
fn call(lane: &Lane, host: &str, ca: Option<&str>, words: &[&str]) -> Output {
    let hosts = lane.text("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost\n127.0.0.1 {NAME}\n")).unwrap();
    let trusted = lane.path("certs.d");
    let _ = fs::remove_dir_all(&trusted);
    fs::create_dir_all(trusted.join(host)).unwrap();
    if let Some(ca) = ca {
        fs::copy(lane.path(ca), trusted.join(host).join("ca.crt")).unwrap();
    }
    // In a mount namespace that ends with the call.
    let script = "mount --bind \"$1\" /etc/hosts; mount -t tmpfs tmpfs /etc/containers; cp -r \"$2\" /etc/containers/certs.d; shift 2; exec \"$@\"";
    let inner = lane.command(words);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh", &hosts])
        .arg(&trusted)
        .arg(inner.get_program())
        .args(inner.get_args());
    for (key, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.output().unwrap()
}

#[track_caller]
fn fine(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The one line of a refusal.
#[track_caller]
fn refused(output: &Output, parts: &[&str]) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert_eq!(told.lines().count(), 1, "{told}");
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    told
}

fn behind_tls(lane: &Lane, more: &str) -> (DockerRegistry, String) {
    certificates(lane, "right");
    let tls = format!(
        "  tls: {{certificate: {}, key: {}}}\n{more}",
        lane.text("right.crt"),
        lane.text("right.key")
    );
    let registry = DockerRegistry::start(lane, &tls);
    let port = registry.host.rsplit_once(':').unwrap().1.to_owned();
    (registry, format!("{NAME}:{port}"))
}

#[test]
fn certificates_decide() {
    let lane = Lane::new();
    lane.image("app:1");
    // bcrypt of "secret", as htpasswd -B writes it.
    let htpasswd = lane.text("htpasswd");
    fs::write(&htpasswd, "user:$2b$05$ZS8uRtJaMCicXzuB4XjhROe5adT0A/mXudO4ZOXySen.ykLDNk8KC\n").unwrap();
    let (_registry, host) =
        behind_tls(&lane, &format!("auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}\n"));
    certificates(&lane, "wrong");
    let name = format!("{host}/app:1");
    let auth = lane.text("auth.json");
    // base64 of user:secret.
    fs::write(&auth, format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#)).unwrap();
    let push = ["push", "--tries", "1", "--authfile", &auth, "app:1", &name];

    for ca in [None, Some("wrong-ca.crt")] {
        let told = refused(&call(&lane, &host, ca, &push), &[NAME, "certificate", "certs.d"]);
        assert!(!told.contains("secret") && !told.contains("dXNlcj"), "{told}");
    }
    fine(&call(&lane, &host, Some("right-ca.crt"), &push));
    let other = Lane::new();
    fs::copy(lane.path("right-ca.crt"), other.path("right-ca.crt")).unwrap();
    let pull = ["pull", "--tries", "1", "--authfile", &auth, &name];
    fine(&call(&other, &host, Some("right-ca.crt"), &pull));
    assert_eq!(other.ok(&["verify"]), "");
    let without = ["pull", "--tries", "1", &name];
    refused(&call(&other, &host, Some("right-ca.crt"), &without), &["wants credentials", "log in"]);
    // What is called insecure is not verified, as containers-registries.conf(5) has it.
    fs::write(
        other.path("registries.conf"),
        format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n"),
    )
    .unwrap();
    fine(&call(&other, &host, None, &pull));
}

/// A token server that knows one user and gives tokens that docker-registry believes.
struct TokenServer {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

/// base64 for addresses, as RFC 7515 wants it.
fn url64(path: &Path) -> String {
    let text = tool("openssl", &["base64", "-A", "-in", path.to_str().unwrap()]);
    text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_")
}

impl TokenServer {
    fn start(lane: &Lane) -> TokenServer {
        let (key, cert) = (lane.path("token.key"), lane.path("token.crt"));
        let words = ["req", "-x509", "-days", "2", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens"];
        let out = ["-keyout", key.to_str().unwrap(), "-out", cert.to_str().unwrap()];
        tool("openssl", &[&words[..], &out].concat());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (dir, log) = (lane.path(""), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
                log.lock().unwrap().push(head.clone());
                // base64 of user:secret.
                let known =
                    head.to_lowercase().contains("authorization: basic") && head.contains("dXNlcjpzZWNyZXQ=");
                let path = head.split(' ').nth(1).unwrap_or_default().replace("%3A", ":").replace("%2C", ",");
                let path = path.replace("%2F", "/");
                let scope =
                    path.split(['?', '&']).find_map(|pair| pair.strip_prefix("scope=")).unwrap_or_default();
                let (status, body) = match known {
                    true => ("200 OK", format!(r#"{{"token":"{}","expires_in":60}}"#, token(&dir, scope))),
                    false => (
                        "401 Unauthorized",
                        r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#.into(),
                    ),
                };
                let _ = write!(
                    reader.get_mut(),
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        TokenServer { address, seen }
    }

    fn config(&self, lane: &Lane) -> String {
        format!(
            "auth: {{token: {{realm: \"http://{}/token\", service: registry, issuer: tests, rootcertbundle: {}}}}}\n",
            self.address,
            lane.text("token.crt")
        )
    }
}

/// A JSON Web Token for `repository:NAME:ACTIONS`, signed with the key in `dir`.
fn token(dir: &Path, scope: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut parts = scope.split(':');
    let (kind, name, actions) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let actions: Vec<&str> = actions.split(',').collect();
    let pem = fs::read_to_string(dir.join("token.crt")).unwrap();
    let cert: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let part = |value: serde_json::Value| {
        let path = dir.join("part");
        fs::write(&path, value.to_string()).unwrap();
        url64(&path)
    };
    let head = part(serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [cert]}));
    let claims = part(serde_json::json!({
        "iss": "tests", "sub": "user", "aud": "registry", "exp": now + 60, "nbf": now - 60, "iat": now, "jti": "1",
        "access": [{"type": kind, "name": name, "actions": actions}]
    }));
    let text = format!("{head}.{claims}");
    let (plain, signed) = (dir.join("plain"), dir.join("signed"));
    fs::write(&plain, &text).unwrap();
    let key = dir.join("token.key");
    tool(
        "openssl",
        &[
            "dgst",
            "-sha256",
            "-sign",
            key.to_str().unwrap(),
            "-out",
            signed.to_str().unwrap(),
            plain.to_str().unwrap(),
        ],
    );
    format!("{text}.{}", url64(&signed))
}

#[test]
fn a_token_is_bought_with_the_password() {
    let lane = Lane::new();
    lane.image("app:1");
    let tokens = TokenServer::start(&lane);
    let config = tokens.config(&lane);
    let (_registry, host) = behind_tls(&lane, &config);
    let ca = Some("right-ca.crt");
    let name = format!("{host}/team/app:1");
    let auth = lane.text("auth.json");
    let give = |value: &str| {
        fs::write(&auth, format!(r#"{{"auths":{{"{host}/team":{{"auth":"{value}"}}}}}}"#)).unwrap();
    };
    give("dXNlcjp3cm9uZw==");
    let push = ["push", "--tries", "1", "--authfile", &auth, "app:1", &name];
    refused(&call(&lane, &host, ca, &push), &["401", "who are you", "log in"]);
    give("dXNlcjpzZWNyZXQ=");
    fine(&call(&lane, &host, ca, &push));
    let other = Lane::new();
    fs::copy(lane.path("right-ca.crt"), other.path("right-ca.crt")).unwrap();
    fine(&call(&other, &host, ca, &["pull", "--authfile", &auth, &name]));
    assert_eq!(other.ok(&["verify"]), "");
    let seen = tokens.seen.lock().unwrap();
    let scope = |actions: &str| format!("scope=repository%3Ateam%2Fapp%3A{actions}");
    assert!(
        seen.iter().any(|head| head.contains(&scope("pull%2Cpush")) || head.contains("team/app:pull,push")),
        "{seen:?}"
    );
    assert!(seen.last().unwrap().contains("service=registry"), "{seen:?}");
}
