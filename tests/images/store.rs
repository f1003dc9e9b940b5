//! The store: names, removal, damage, many at once.

use std::fs;

use crate::Lane;

#[test]
fn names_are_given_and_taken() {
    let lane = Lane::new();
    lane.image("app:1");
    lane.ok(&["tag", "app:1", "registry.example/team/app:2"]);
    lane.refused(&["tag", "app:1", "host"], &["built-in"]);
    let list = lane.json(&["ls", "--format", "json"]);
    let names: Vec<_> =
        list.as_array().unwrap().iter().map(|row| row["reference"].as_str().unwrap()).collect();
    assert_eq!(names, ["host", "docker.io/library/app:1", "registry.example/team/app:2"]);
    let id = list[1]["id"].as_str().unwrap().strip_prefix("sha256:").unwrap()[..12].to_owned();
    assert_eq!(lane.json(&["inspect", &id])["id"], list[1]["id"]);
    lane.ok(&["rm", "app:1"]);
    assert_eq!(lane.ok(&["verify"]), "");
    lane.refused(&["inspect", "app:1"], &["no image app:1", "image pull"]);
    lane.ok(&["rm", "registry.example/team/app:2"]);
    assert_eq!(lane.contents(), [""; 0]);
    lane.refused(&["rm", "host"], &["built in"]);
}

#[test]
fn shared_layers_go_with_their_last_user() {
    let lane = Lane::new();
    lane.image("a:1");
    lane.image("b:1");
    let tree = lane.text("a-1");
    // The same tree twice is one layer.
    lane.ok(&["import", &tree, "c:1"]);
    let layers = || lane.contents().iter().filter(|path| path.starts_with("layers/")).count();
    assert_eq!(layers(), 2);
    lane.ok(&["rm", "a:1"]);
    assert_eq!(layers(), 2);
    lane.ok(&["rm", "c:1", "b:1"]);
    assert_eq!(layers(), 0);
}

#[test]
fn damage_is_found() {
    let lane = Lane::new();
    lane.image("app:1");
    assert_eq!(lane.ok(&["verify"]), "");
    let layer = fs::read_dir(lane.path("store/layers")).unwrap().next().unwrap().unwrap().path();
    fs::write(layer.join("fs/etc/motd"), "changed").unwrap();
    let told = |lane: &Lane| {
        let output = lane.run(&["verify"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(told(&lane).contains("/etc/motd was changed"));
    fs::remove_file(layer.join("fs/etc/motd")).unwrap();
    assert!(told(&lane).contains("/etc/motd is missing"));
    let digest =
        lane.json(&["inspect", "app:1"])["manifest"]["layers"][0]["digest"].as_str().unwrap()[7..].to_owned();
    let blob = lane.path("store/blobs/sha256").join(&digest);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[100] ^= 1;
    fs::write(&blob, bytes).unwrap();
    assert!(told(&lane).contains(&format!("sha256:{digest}: it was damaged")));
    fs::remove_file(&blob).unwrap();
    assert!(told(&lane).contains("is missing"));
}

#[test]
fn many_at_once_do_not_disturb_each_other() {
    let lane = Lane::new();
    let trees: Vec<String> =
        (0..3).map(|i| lane.tree(&format!("t{i}")).to_str().unwrap().to_owned()).collect();
    let children: Vec<_> = (0..9)
        .map(|i| lane.command(&["import", &trees[i % 3], &format!("n{i}:1")]).spawn().unwrap())
        .collect();
    let remover = lane.command(&["prune"]).output().unwrap();
    assert!(
        remover.status.success() || String::from_utf8_lossy(&remover.stderr).contains("in use"),
        "{remover:?}"
    );
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(lane.json(&["ls", "--format", "json"]).as_array().unwrap().len(), 10);
    assert_eq!(lane.contents().iter().filter(|path| path.starts_with("layers/")).count(), 3);
    assert_eq!(lane.ok(&["verify"]), "");
}

/// Whenever an import is killed, what has a name is whole, and the next import succeeds.
#[test]
fn a_killed_import_leaves_a_sound_store() {
    let lane = Lane::new();
    let tree = lane.tree("tree");
    for pause in [0, 5, 20, 50, 100, 200, 400] {
        let mut child = lane.command(&["import", tree.to_str().unwrap(), "app:1"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(lane.ok(&["verify"]), "", "killed after {pause} ms");
    }
    lane.ok(&["import", tree.to_str().unwrap(), "app:1"]);
    lane.ok(&["prune"]);
    assert_eq!(fs::read_dir(lane.path("store/tmp")).unwrap().count(), 0);
    assert_eq!(lane.ok(&["verify"]), "");
}
