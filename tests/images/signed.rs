//! Signatures: cosign's form in a real registry, and policies that demand them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use locule_images::Digest;
use serde_json::{Value, json};

use crate::{DockerRegistry, Lane, tool};

/// A key pair as cosign's: ECDSA on P-256. Gives the paths of both halves.
fn keys(lane: &Lane, name: &str) -> (String, String) {
    let (private, public) = (lane.text(&format!("{name}.key")), lane.text(&format!("{name}.pub")));
    tool("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private]);
    tool("openssl", &["ec", "-in", &private, "-pubout", "-out", &public]);
    (private, public)
}

/// One request without TLS; the status and the value of `location`.
fn http(host: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
    (status, location.unwrap_or_default().trim().to_owned())
}

/// Uploads content; gives its descriptor.
fn upload(host: &str, kind: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes).to_string();
    let (status, location) = http(host, "POST", "/v2/app/blobs/uploads/", "text/plain", b"");
    assert_eq!(status, 202);
    let path = location.split_once(host).map_or(location.as_str(), |(_, path)| path);
    let (status, _) =
        http(host, "PUT", &format!("{path}&digest={digest}"), "application/octet-stream", bytes);
    assert_eq!(status, 201);
    json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
}

/// Puts a signature of `signed` under `name` where those of `digest` are looked for, as cosign does.
fn sign(lane: &Lane, host: &str, digest: &str, signed: &str, name: &str, private: &str) {
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": format!("{host}/{name}")},
            "image": {"docker-manifest-digest": signed},
            "type": "cosign container image signature"
        },
        "optional": {}
    })
    .to_string();
    let (plain, signature) = (lane.text("payload"), lane.text("signature"));
    fs::write(&plain, &payload).unwrap();
    tool("openssl", &["dgst", "-sha256", "-sign", private, "-out", &signature, &plain]);
    let text = tool("openssl", &["base64", "-A", "-in", &signature]);
    let mut layer = upload(host, "application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": text.trim()});
    let diff = layer["digest"].clone();
    let config =
        json!({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff]}});
    let config = upload(host, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}).to_string();
    let path = format!("/v2/app/manifests/{}.sig", digest.replace(':', "-"));
    let (status, _) = http(host, "PUT", &path, kind, manifest.as_bytes());
    assert_eq!(status, 201);
}

/// A policy that accepts what `public` signed, and nothing else.
fn policy(lane: &Lane, host: &str, public: &str) -> String {
    let path = lane.text("policy.json");
    let rule = json!({"type": "sigstoreSigned", "keyPath": public});
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {host: [rule]}}});
    fs::write(&path, policy.to_string()).unwrap();
    path
}

#[test]
fn only_what_the_right_key_signed_is_taken() {
    let source = Lane::new();
    let registry = DockerRegistry::start(&source, "");
    let host = registry.host.as_str();
    source.image("app:1");
    let name = format!("{host}/app:1");
    source.ok(&["push", "-q", "app:1", &name]);
    let digest = source.json(&["inspect", "app:1"])["digest"].as_str().unwrap().to_owned();

    let lane = Lane::new();
    let (right, right_public) = keys(&lane, "right");
    let (wrong, wrong_public) = keys(&lane, "wrong");
    let pull = |public: &str| -> Vec<String> {
        ["pull", "--tries", "1", "--policy", &policy(&lane, host, public), &name].map(str::to_owned).to_vec()
    };
    let refused = |public: &str, why: &str| {
        let words = pull(public);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let told = lane.refused(&words, &["verifying the signatures of", why]);
        assert!(told.contains(&digest), "{told}");
        assert_eq!(lane.contents(), [""; 0], "something of an image that was refused is there");
    };

    refused(&right_public, "there is no signature");
    sign(&lane, host, &digest, &digest, "app:1", &wrong);
    refused(&right_public, "no signature is by a key");
    // Good signatures, of something else.
    let other = Digest::of(b"other").to_string();
    sign(&lane, host, &digest, &other, "app:1", &right);
    refused(&right_public, "of another image");
    sign(&lane, host, &digest, &digest, "app:2", &right);
    refused(&right_public, "for the name");
    sign(&lane, host, &digest, &digest, "app:1", &right);
    refused(&wrong_public, "no signature is by a key");
    let words = pull(&right_public);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(lane.ok(&words), format!("{name}\n"));
    assert_eq!(lane.json(&["inspect", &name])["digest"], digest.as_str());

    // What is more than keys is for skopeo to judge, which knows of no certificates here.
    let demand = |rule: Value| {
        let policy = json!({"default": [rule]});
        fs::write(lane.path("policy.json"), policy.to_string()).unwrap();
        lane.text("policy.json")
    };
    let path = demand(json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/dev/null"}));
    lane.refused(&["pull", "--policy", &path, &name], &["with skopeo", "signature"]);
    // Without the judge, a demand that nobody can check is a refusal.
    let output =
        lane.command(&["pull", "--policy", &path, &name]).env("PATH", "/nonexistent").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("install skopeo"), "{told}");
}
