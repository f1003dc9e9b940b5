//! Registries that misbehave: a clear sentence, and a store as it was before.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};

use crate::server::{Faults, Server};
use crate::{Lane, tool};

/// Two lanes: what is served, and who pulls.
struct Pair {
    source: Lane,
    lane: Lane,
}

impl Pair {
    fn new() -> Pair {
        let source = Lane::new();
        source.image("app:1");
        Pair { source, lane: Lane::new() }
    }

    fn serve(&self, faults: Faults) -> Server {
        let inspected = self.source.json(&["inspect", "app:1"]);
        let digest = inspected["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        Server::start(&self.source.path("store"), digest, faults)
    }

    /// Pulls, which must fail with these words and leave nothing.
    #[track_caller]
    fn fails(&self, faults: Faults, parts: &[&str]) {
        let server = self.serve(faults);
        let before = self.lane.contents();
        let name = format!("{}/app:1", server.host);
        self.lane.refused(&["pull", "--tries", "2", "--timeout", "1", &name], parts);
        let images: Vec<String> =
            self.lane.contents().into_iter().filter(|path| !path.starts_with("blobs/")).collect();
        let before: Vec<String> = before.into_iter().filter(|path| !path.starts_with("blobs/")).collect();
        assert_eq!(images, before, "something has a name that was not verified");
        assert_eq!(self.lane.ok(&["verify"]), "");
        self.lane.ok(&["prune"]);
    }

    /// Pulls, which must succeed all the same.
    #[track_caller]
    fn succeeds(&self, faults: Faults) -> Server {
        let server = self.serve(faults);
        self.lane.ok(&["pull", &format!("{}/app:1", server.host)]);
        assert_eq!(self.lane.ok(&["verify"]), "");
        server
    }
}

#[test]
fn a_cut_download_is_resumed() {
    let pair = Pair::new();
    let server = pair.succeeds(Faults { cut: Some((300_000, 3)), ..Faults::default() });
    let ranges: Vec<_> =
        server.asked("/blobs/").iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=300000-", "bytes=600000-", "bytes=900000-"]);
}

#[test]
fn a_registry_without_ranges_begins_again() {
    Pair::new().succeeds(Faults { cut: Some((300_000, 2)), no_ranges: true, ..Faults::default() });
}

#[test]
fn the_next_pull_goes_on_where_the_last_one_ended() {
    let pair = Pair::new();
    let bad = pair.serve(Faults { cut: Some((500_000, 100)), ..Faults::default() });
    let name = format!("{}/app:1", bad.host);
    pair.lane
        .refused(&["pull", "--tries", "1", &name], &["cut the connection after 500000 of", "pull again"]);
    let good = pair.serve(Faults::default());
    pair.lane.ok(&["pull", &format!("{}/app:1", good.host)]);
    let ranges: Vec<_> =
        good.asked("/blobs/").iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=500000-"]);
    assert_eq!(pair.lane.ok(&["verify"]), "");
}

#[test]
fn a_silent_registry_is_given_up() {
    Pair::new()
        .fails(Faults { stall: Some(100_000), ..Faults::default() }, &["cut the connection", "timeout"]);
}

#[test]
fn tokens_are_renewed_in_the_middle() {
    let pair = Pair::new();
    let server = pair.succeeds(Faults { token_uses: Some(1), ..Faults::default() });
    assert!(server.asked("/token").len() >= 3, "{:?}", server.asked("/token"));
    assert!(server.asked("/token")[0].path.contains("scope=repository"));
}

#[test]
fn a_token_that_is_never_good_enough_is_a_refusal() {
    Pair::new().fails(Faults { token_uses: Some(0), ..Faults::default() }, &["refuses with 401", "log in"]);
}

#[test]
fn too_many_requests_are_waited_for() {
    let pair = Pair::new();
    pair.succeeds(Faults { too_many: 2, ..Faults::default() });
    pair.fails(Faults { too_many: 1000, ..Faults::default() }, &["refuses with 429", "try again later"]);
    let pair = Pair::new();
    let begun = std::time::Instant::now();
    pair.succeeds(Faults { too_many: 1, retry_after: 2, ..Faults::default() });
    assert!(begun.elapsed().as_secs() >= 2, "it did not wait as long as it was told to");
}

/// What a manifest may say to do harm: each is a refusal in one line, and nothing gets a name.
#[test]
fn hostile_manifests_are_refused() {
    let pair = Pair::new();
    let digest = pair.source.json(&["inspect", "app:1"])["digest"].as_str().unwrap().to_owned();
    let hex = "0".repeat(64);
    let image = |config: &str, layers: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[{layers}]}}"#
        )
    };
    let part = |digest: &str, size: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{size}}}"#
        )
    };
    let good = part(&digest, "2");
    let cases = [
        ("no JSON", "<html>".to_owned()),
        ("nothing", String::new()),
        ("deep", "[".repeat(100_000)),
        ("a number", "7".to_owned()),
        ("a negative size", image(&part(&digest, "-1"), "")),
        ("a size beyond numbers", image(&part(&digest, "18446744073709551616"), "")),
        ("a size that fills any memory", image(&part(&digest, "18446744073709551615"), "")),
        ("a path as digest", image(&part("sha256:../../../etc/passwd", "1"), "")),
        ("a digest in capitals", image(&part(&format!("sha256:{}", "A".repeat(64)), "1"), "")),
        ("an unknown algorithm", image(&part(&format!("md5:{hex}"), "1"), "")),
        ("a short digest", image(&part("sha256:00", "1"), "")),
        ("a layer that is nowhere", image(&good, &part(&format!("sha256:{hex}"), "10"))),
        ("an index of itself", format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, part(&digest, "1"))),
        ("both", format!(r#"{{"schemaVersion":2,"config":{good},"layers":[],"manifests":[]}}"#)),
        ("schema 1", r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned()),
        ("larger than any", " ".repeat(5 << 20)),
    ];
    for (what, manifest) in cases {
        let server = pair.serve(Faults { manifest: Some(manifest.into_bytes()), ..Faults::default() });
        let name = format!("{}/app:1", server.host);
        let told = pair.lane.refused(&["pull", "--tries", "1", &name], &["pulling", &name]);
        assert!(told.len() < 1000, "{what}: {told}");
        let named = pair.lane.contents().into_iter().any(|path| !path.starts_with("blobs/"));
        assert!(!named, "{what}: something has a name");
    }
    assert_eq!(pair.lane.ok(&["verify"]), "");
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let pair = Pair::new();
    let storage = pair.serve(Faults::default());
    let server = pair.succeeds(Faults {
        redirect: Some(storage.host.clone()),
        token_uses: Some(100),
        ..Faults::default()
    });
    assert!(server.asked("/blobs/").iter().any(|seen| seen.headers.contains_key("authorization")));
    let followed = storage.asked("/blobs/");
    assert!(!followed.is_empty());
    assert!(followed.iter().all(|seen| !seen.headers.contains_key("authorization")), "{followed:?}");
    Pair::new().fails(Faults { redirect: Some("127.0.0.1:1".into()), ..Faults::default() }, &["refused"]);
}

#[test]
fn content_that_is_not_what_was_announced_is_refused() {
    let pair = Pair::new();
    pair.fails(Faults { flip: true, ..Faults::default() }, &["layer"]);
    pair.fails(Faults { longer: true, ..Faults::default() }, &["longer than"]);
    pair.fails(
        Faults { cut: Some((10_000, 1000)), no_ranges: true, ..Faults::default() },
        &["again and again"],
    );
    pair.fails(Faults { broken: true, ..Faults::default() }, &["refuses with 500"]);
    let server = pair.serve(Faults { wrong_manifest: true, ..Faults::default() });
    let digest = pair.source.json(&["inspect", "app:1"])["digest"].as_str().unwrap().to_owned();
    pair.lane.refused(&["pull", &format!("{}/app@{digest}", server.host)], &["gave the manifest", &digest]);
}

#[test]
fn a_full_disk_is_told_and_nothing_stays() {
    let pair = Pair::new();
    let server = pair.serve(Faults::default());
    fs::create_dir(pair.lane.path("store")).unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=2m", "tmpfs", &pair.lane.text("store")]);
    let told = pair.lane.refused(&["pull", &format!("{}/app:1", server.host)], &["ENOSPC", "make room"]);
    assert!(told.contains("pulling"), "{told}");
    assert!(
        pair.lane.contents().iter().all(|path| !path.starts_with("refs/") && !path.starts_with("layers/"))
    );
    let used = fs::read_dir(pair.lane.path("store/partial"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum::<u64>();
    assert_eq!(used, 0, "a full disk is not kept full");
    // The same from a file: the sentence, no image, and room for what fits.
    let archive = pair.source.text("app.tar");
    pair.source.ok(&["save", "-o", &archive, "app:1"]);
    pair.lane.ok(&["prune"]);
    pair.lane.refused(&["import", &archive], &["importing", "ENOSPC", "make room"]);
    assert_eq!(pair.lane.contents(), [""; 0]);
    assert_eq!(fs::read_dir(pair.lane.path("store/tmp")).unwrap().count(), 0);
    let small = pair.source.path("small");
    fs::create_dir(&small).unwrap();
    fs::write(small.join("file"), "1").unwrap();
    pair.lane.ok(&["import", small.to_str().unwrap(), "small:1"]);
    tool("umount", &[&pair.lane.text("store")]);
}

/// Unpacking fills the disk while the download goes on: what came of that is not kept either.
#[test]
fn a_disk_that_unpacking_fills_keeps_no_download() {
    let pair = Pair::new();
    let barrier = Arc::new(Barrier::new(2));
    // Cut, so that the download ends with its file there, and after what makes unpacking fail.
    let hold = Some(barrier.clone());
    let server = pair.serve(Faults { hold, cut: Some((500_000, 1)), ..Faults::default() });
    fs::create_dir(pair.lane.path("store")).unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=64m,nr_inodes=200", "tmpfs", &pair.lane.text("store")]);
    let name = format!("{}/app:1", server.host);
    let child = pair.lane.command(&["pull", "--tries", "1", &name]).stderr(Stdio::piped()).spawn().unwrap();
    let unpacks = || fs::read_dir(pair.lane.path("store/tmp")).is_ok_and(|found| found.count() > 0);
    // The configuration's request, and the layer's: none is made once unpacking has failed.
    crate::eventually("unpacking", || unpacks() && server.asked("/blobs/").len() == 2);
    // No room for another file, and all of it for what is downloaded: unpacking is what fails.
    let filled = (0..).find(|i| fs::create_dir(pair.lane.path(&format!("store/filler-{i}"))).is_err());
    assert!(filled.is_some());
    barrier.wait();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("ENOSPC"), "{told}");
    let kept: u64 = fs::read_dir(pair.lane.path("store/partial"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    tool("umount", &[&pair.lane.text("store")]);
    assert_eq!(kept, 0, "a full disk is not kept full");
}

#[test]
fn many_pulls_of_one_image_are_one() {
    let pair = Pair::new();
    let server = pair.serve(Faults::default());
    let name = format!("{}/app:1", server.host);
    let children: Vec<_> =
        (0..6).map(|_| pair.lane.command(&["pull", "-q", &name]).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let layers = server.asked("/blobs/");
    assert_eq!(layers.len(), 2, "content was fetched more than once: {layers:?}");
    assert_eq!(pair.lane.ok(&["verify"]), "");
}

#[test]
fn a_killed_pull_leaves_no_image() {
    let pair = Pair::new();
    let server = pair.serve(Faults { stall: Some(500_000), ..Faults::default() });
    let name = format!("{}/app:1", server.host);
    let mut child = pair.lane.command(&["pull", "-q", &name]).spawn().unwrap();
    crate::eventually("the download", || {
        fs::read_dir(pair.lane.path("store/partial")).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.metadata().is_ok_and(|meta| meta.len() >= 400_000))
        })
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(pair.lane.contents().iter().all(|path| path.starts_with("blobs/")), "{:?}", pair.lane.contents());
    assert_eq!(pair.lane.ok(&["verify"]), "");
    let good = pair.serve(Faults::default());
    pair.lane.ok(&["pull", &format!("{}/app:1", good.host)]);
    assert!(good.asked("/blobs/").iter().any(|seen| seen.headers.contains_key("range")));
    pair.lane.ok(&["prune"]);
    assert_eq!(fs::read_dir(pair.lane.path("store/tmp")).unwrap().count(), 0);
}

#[test]
fn mirrors_policies_and_blocks_are_heeded() {
    let pair = Pair::new();
    let server = pair.serve(Faults::default());
    fs::write(
        pair.lane.path("registries.conf"),
        format!(
            "[[registry]]\nprefix = \"far.example\"\nlocation = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1/dead\"\n\
             [[registry.mirror]]\nlocation = \"{}/hub\"\n[[registry]]\nprefix = \"bad.example\"\nblocked = true\n",
            server.host
        ),
    )
    .unwrap();
    pair.lane.ok(&["pull", "--tries", "1", "far.example/app:1"]);
    assert!(server.asked("/v2/hub/app/manifests/1").len() == 1);
    pair.lane.refused(&["pull", "bad.example/app:1"], &["blocked by registries.conf"]);
    fs::write(pair.lane.path("policy.json"), r#"{"default":[{"type":"reject"}]}"#).unwrap();
    let policy = pair.lane.text("policy.json");
    pair.lane.refused(&["pull", "--policy", &policy, "far.example/app:1"], &["the policy rejects"]);
}

/// A name that resolves in the lane's own hosts file needs no name server.
#[test]
fn the_host_image_needs_no_network() {
    let lane = Lane::new();
    assert_eq!(lane.ok(&["ls", "--quiet"]), "host\n");
    lane.refused(&["pull", "host"], &["built in"]);
    let output = Command::new("unshare")
        .args(["--net", env!("CARGO_BIN_EXE_locule"), "image", "pull", "--tries", "1", "nowhere.example/x"])
        .env("LOCULE_IMAGES", lane.path("store"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("asking nowhere.example"), "{output:?}");
}
