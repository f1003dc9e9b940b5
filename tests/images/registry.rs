//! Debian's docker-registry on loopback: pull, push, credentials, platforms.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::{DockerRegistry, Lane, tool};

#[test]
fn a_push_comes_back_as_it_was() {
    let lane = Lane::new();
    let registry = DockerRegistry::start(&lane, "");
    lane.image("app:1");
    let name = format!("{}/team/app:1", registry.host);
    lane.ok(&["push", "-q", "app:1", &name]);
    let digest = lane.json(&["inspect", "app:1"])["digest"].as_str().unwrap().to_owned();
    let told = tool(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{name}")],
    );
    assert_eq!(told.trim(), digest);
    let other = Lane::new();
    assert_eq!(other.ok(&["pull", &name]), format!("{name}\n"));
    assert_eq!(other.json(&["inspect", &name])["digest"], digest.as_str());
    let pinned = format!("{}/team/app@{digest}", registry.host);
    assert_eq!(other.ok(&["pull", &pinned]), format!("{pinned}\n"));
    // Nothing is sent twice.
    lane.ok(&["push", "app:1", &name]);
    other.refused(&["pull", &format!("{}/team/none:1", registry.host)], &["refuses with 404", "manifest"]);
    assert_eq!(other.ok(&["verify"]), "");
}

#[test]
fn what_skopeo_pushed_is_pulled() {
    let lane = Lane::new();
    let registry = DockerRegistry::start(&lane, "");
    let layout = lane.text("layout");
    let tree = lane.tree("tree");
    let image = format!("{layout}:x");
    tool("umoci", &["init", "--layout", &layout]);
    tool("umoci", &["new", "--image", &image]);
    for dir in ["bin", "etc"] {
        tool("umoci", &["insert", "--image", &image, tree.join(dir).to_str().unwrap(), &format!("/{dir}")]);
    }
    for (name, format) in [("oci", "oci"), ("docker", "v2s2")] {
        let there = format!("{}/{name}:1", registry.host);
        tool(
            "skopeo",
            &[
                "copy",
                "-q",
                "--dest-tls-verify=false",
                "--format",
                format,
                &format!("oci:{image}"),
                &format!("docker://{there}"),
            ],
        );
        lane.ok(&["pull", &there]);
        let kind =
            lane.json(&["inspect", &there])["manifest"]["mediaType"].as_str().unwrap_or_default().to_owned();
        assert!(format == "oci" || kind.contains("docker"), "{kind}");
    }
    assert_eq!(lane.ok(&["verify"]), "");
    // The layers are the same, whatever the manifest looks like.
    assert_eq!(lane.contents().iter().filter(|path| path.starts_with("layers/")).count(), 2);
}

#[test]
fn credentials_come_from_files_and_helpers() {
    let lane = Lane::new();
    lane.image("app:1");
    let htpasswd = lane.text("htpasswd");
    // bcrypt of "secret", as htpasswd -B writes it.
    fs::write(&htpasswd, "user:$2b$05$ZS8uRtJaMCicXzuB4XjhROe5adT0A/mXudO4ZOXySen.ykLDNk8KC\n").unwrap();
    let registry =
        DockerRegistry::start(&lane, &format!("auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}\n"));
    let name = format!("{}/app:1", registry.host);
    let refused = lane.refused(&["push", "app:1", &name], &["wants credentials", "log in"]);
    assert!(!refused.contains("secret"));
    let auth = lane.path("auth.json");
    // base64 of user:secret and of user:wrong.
    for (value, works) in [("dXNlcjpzZWNyZXQ=", true), ("dXNlcjp3cm9uZw==", false)] {
        fs::write(&auth, format!(r#"{{"auths":{{"{}":{{"auth":"{value}"}}}}}}"#, registry.host)).unwrap();
        let words = ["push", "--authfile", auth.to_str().unwrap(), "app:1", &name];
        if works {
            lane.ok(&words);
        } else {
            lane.refused(&words, &["401"]);
        }
    }
    let bin = lane.path("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    fs::write(&helper, format!("#!/bin/sh\nread host\n[ \"$host\" = {} ] && echo '{{\"Username\":\"user\",\"Secret\":\"secret\"}}'\n", registry.host)).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&auth, format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.host)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Lane::command(&Lane::new(), &["pull", "--authfile", auth.to_str().unwrap(), &name])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
