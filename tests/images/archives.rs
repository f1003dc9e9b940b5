//! What others write, and what others read of ours.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::{Lane, assert_same_tree, tool};

fn digest(lane: &Lane, name: &str) -> String {
    lane.json(&["inspect", name])["digest"].as_str().unwrap().to_owned()
}

fn id(lane: &Lane, name: &str) -> String {
    lane.json(&["inspect", name])["id"].as_str().unwrap().to_owned()
}

/// An image by umoci, of two layers, one with a whiteout.
fn umoci_layout(lane: &Lane) -> String {
    let layout = lane.text("layout");
    let tree = lane.tree("tree");
    let image = format!("{layout}:made");
    tool("umoci", &["init", "--layout", &layout]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["insert", "--image", &image, tree.join("bin").to_str().unwrap(), "/bin"]);
    tool("umoci", &["insert", "--image", &image, tree.join("etc").to_str().unwrap(), "/etc"]);
    tool("umoci", &["insert", "--image", &image, "--whiteout", "/etc/motd"]);
    layout
}

#[test]
fn what_others_write_is_read() {
    let lane = Lane::new();
    let layout = umoci_layout(&lane);
    let source = format!("oci:{layout}:made");
    let oci = lane.text("oci.tar");
    let docker = lane.text("docker.tar");
    tool("skopeo", &["copy", "-q", &source, &format!("oci-archive:{oci}:example.org/oci:1")]);
    tool("skopeo", &["copy", "-q", &source, &format!("docker-archive:{docker}:example.org/docker:1")]);
    let zstd = lane.text("zstd");
    tool("skopeo", &["copy", "-q", "--dest-compress-format", "zstd", &source, &format!("oci:{zstd}:z")]);

    assert_eq!(lane.ok(&["import", &layout]), "localhost/layout:made\n");
    assert_eq!(lane.ok(&["import", &oci]), "example.org/oci:1\n");
    assert_eq!(lane.ok(&["import", &docker]), "example.org/docker:1\n");
    lane.ok(&["import", &zstd, "zstd:1"]);
    // Its configuration is what an image is known by; the manifest of a Docker archive is made anew.
    let made = id(&lane, "layout:made");
    for name in ["example.org/oci:1", "example.org/docker:1", "zstd:1"] {
        assert_eq!(id(&lane, name), made, "{name}");
    }
    assert_eq!(digest(&lane, "layout:made"), digest(&lane, "example.org/oci:1"));
    // One stack of layers for all of them.
    assert_eq!(lane.contents().iter().filter(|path| path.starts_with("layers/")).count(), 3);
    assert_eq!(lane.ok(&["verify"]), "");
}

#[test]
fn what_we_write_is_read_by_others() {
    let lane = Lane::new();
    lane.image("app:1");
    let digest = digest(&lane, "app:1");
    let archive = lane.text("saved.tar");
    for format in ["docker", "oci"] {
        lane.ok(&["save", "--format", format, "-o", &archive, "app:1"]);
        let copy = lane.text(&format!("copy-{format}"));
        tool("skopeo", &["copy", "-q", &format!("oci-archive:{archive}"), &format!("oci:{copy}:x")]);
        let told = tool("skopeo", &["inspect", "--format", "{{.Digest}}", &format!("oci:{copy}:x")]);
        assert_eq!(told.trim(), digest, "{format}: the digest changed on the way");
        let bundle = lane.text(&format!("bundle-{format}"));
        tool("umoci", &["unpack", "--image", &format!("{copy}:x"), &bundle]);
        assert_same_tree(&lane.path("app-1"), &std::path::Path::new(&bundle).join("rootfs"));
        if format == "docker" {
            let told = tool("skopeo", &["inspect", "--config", &format!("docker-archive:{archive}:app:1")]);
            assert!(told.contains("diff_ids"), "{told}");
        }
        let again = Lane::new();
        again.ok(&["import", &archive]);
        assert_eq!(self::digest(&again, "app:1"), digest);
    }
}

#[test]
fn standard_input_and_output_are_files_like_others() {
    let lane = Lane::new();
    lane.image("app:1");
    let saved = lane.run(&["save", "app:1"]).stdout;
    let other = Lane::new();
    for compress in [None, Some("gzip"), Some("zstd")] {
        let bytes = match compress {
            None => saved.clone(),
            Some(program) => {
                let archive = other.path("plain.tar");
                fs::write(&archive, &saved).unwrap();
                std::process::Command::new(program).arg("-c").arg(&archive).output().unwrap().stdout
            }
        };
        let mut child =
            other.command(&["import", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "docker.io/library/app:1\n", "{compress:?}");
    }
}

#[test]
fn a_tarball_is_a_root_file_system() {
    let lane = Lane::new();
    let tree = lane.tree("tree");
    let tarball = lane.text("template.tar.gz");
    tool("tar", &["-C", tree.to_str().unwrap(), "-czf", &tarball, "."]);
    assert_eq!(lane.ok(&["import", &tarball]), "localhost/template:latest\n");
    let layers = lane.path("store/layers");
    let layer = fs::read_dir(layers).unwrap().next().unwrap().unwrap().path().join("fs");
    assert_same_tree(&tree, &layer);
}

/// What has an init boots; a link that leads out of the tree is none, whatever the host has there.
#[test]
fn a_tree_with_an_init_boots() {
    let lane = Lane::new();
    let command = |name: &str| lane.json(&["inspect", name])["config"]["config"]["Cmd"][0].clone();
    let tree = lane.tree("tree");
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, tree.join(name)).unwrap();
    lane.ok(&["import", tree.to_str().unwrap(), "plain:1"]);
    assert_eq!(command("plain:1"), "/bin/sh");
    fs::create_dir_all(tree.join("usr/sbin")).unwrap();
    link("/usr/sbin", "sbin");
    link("/bin/sleep", "usr/sbin/init");
    lane.ok(&["import", tree.to_str().unwrap(), "dangling:1"]);
    assert_eq!(command("dangling:1"), "/bin/sh");
    fs::remove_file(tree.join("usr/sbin/init")).unwrap();
    link("/bin/busybox", "usr/sbin/init");
    lane.ok(&["import", tree.to_str().unwrap(), "system:1"]);
    assert_eq!(command("system:1"), "/sbin/init");
    let tarball = lane.text("system.tar");
    tool("tar", &["-C", tree.to_str().unwrap(), "-cf", &tarball, "."]);
    lane.ok(&["import", &tarball, "packed:1"]);
    assert_eq!(command("packed:1"), "/sbin/init");
}

#[test]
fn damaged_and_hostile_archives_leave_the_store_as_it_was() {
    let lane = Lane::new();
    lane.image("keep:1");
    lane.image("app:1");
    let archive = lane.path("app.tar");
    lane.ok(&["save", "-o", archive.to_str().unwrap(), "app:1"]);
    let bytes = fs::read(&archive).unwrap();
    lane.ok(&["rm", "app:1"]);
    let before = lane.contents();
    let at = |text: &[u8]| bytes.windows(text.len()).position(|part| part == text).unwrap();
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("cut", bytes[..bytes.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("no archive", b"hello world".repeat(100)),
    ];
    // Behind the first header of a blob stands its content.
    let mut flipped = bytes.clone();
    let layer = at(b"\x1f\x8b\x08");
    flipped[layer + 5000] ^= 0x55;
    cases.push(("flipped", flipped));
    let mut lying = bytes.clone();
    let size = at(b"\"size\":") + 7;
    lying[size] = if lying[size] == b'9' { b'8' } else { b'9' };
    cases.push(("lying about a size", lying));
    for (what, bytes) in cases {
        let path = lane.path("bad.tar");
        fs::write(&path, bytes).unwrap();
        lane.refused(&["import", path.to_str().unwrap()], &["importing"]);
        assert_eq!(lane.contents(), before, "{what}");
    }
    assert_eq!(lane.ok(&["verify"]), "");
}
