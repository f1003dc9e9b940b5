//! Idmapped mounts: `idmap`, `ridmap` and maps of a mount's own.
//!
//! Owns the owners that files seem to have through a mount.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use serde_json::{Value, json};

use crate::lane::Bundle;

/// A bundle whose directory `data` has a file of uid 5 and gid 6, and a mount below it with one too.
fn bundle() -> Bundle {
    let mut bundle = Bundle::new();
    let data = bundle.mounted("data", &["-t", "tmpfs", "tmpfs"]);
    let sub = bundle.mounted("data/sub", &["-t", "tmpfs", "tmpfs"]);
    for dir in [data, sub] {
        fs::write(dir.join("file"), "").unwrap();
        chown(dir.join("file"), Some(5), Some(6)).unwrap();
    }
    bundle.script("cd /mnt; stat -c '%u %g' file sub/file");
    bundle
}

fn map(size: u32) -> Value {
    json!([{"containerID": 0, "hostID": 100_000, "size": size}])
}

fn with_user_namespace(bundle: &mut Bundle) -> &mut Bundle {
    bundle
        .namespace(json!({"type": "user"}))
        .set("linux.uidMappings", map(65_536))
        .set("linux.gidMappings", map(65_536))
}

#[test]
fn by_the_containers_maps() {
    for (options, meant) in [
        (&["rbind"][..], "65534 65534\n65534 65534"),
        (&["rbind", "idmap"], "5 6\n65534 65534"),
        (&["rbind", "ridmap"], "5 6\n5 6"),
    ] {
        let mut bundle = bundle();
        with_user_namespace(&mut bundle).mount("/mnt", "bind", "data", options);
        assert_eq!(bundle.run().ok(), meant, "{options:?}");
    }
}

#[test]
fn what_is_made_through_it_is_mapped_back() {
    let mut bundle = bundle();
    with_user_namespace(&mut bundle).mount("/mnt", "bind", "data", &["rbind", "idmap"]);
    fs::set_permissions(bundle.path("data"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    bundle.set("process.user", json!({"uid": 7, "gid": 8})).script("touch /mnt/new").run().ok();
    let meta = bundle.path("data/new").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (7, 8));
}

#[test]
fn by_maps_of_the_mount() {
    let maps = (
        json!([{"containerID": 0, "hostID": 1000, "size": 10}]),
        json!([{"containerID": 0, "hostID": 2000, "size": 10}]),
    );
    for (options, meant) in [
        (&["rbind"][..], "1005 2006\n5 6"),
        (&["rbind", "idmap"], "1005 2006\n5 6"),
        (&["rbind", "ridmap"], "1005 2006\n1005 2006"),
    ] {
        let mut bundle = bundle();
        let mount = json!({"destination": "/mnt", "type": "bind", "source": "data", "options": options,
            "uidMappings": maps.0, "gidMappings": maps.1});
        assert_eq!(bundle.push("mounts", mount).run().ok(), meant, "{options:?}");
    }
}

/// Maps of the mount hold beside a user namespace whose ids are others.
#[test]
fn by_maps_of_the_mount_in_a_user_namespace() {
    let mut bundle = bundle();
    let own = json!([{"containerID": 5, "hostID": 100_020, "size": 2}]);
    let mount = json!({"destination": "/mnt", "type": "bind", "source": "data", "options": ["bind"],
        "uidMappings": own, "gidMappings": own});
    with_user_namespace(&mut bundle).push("mounts", mount).script("stat -c '%u %g' /mnt/file");
    assert_eq!(bundle.run().ok(), "20 21");
}

#[test]
fn wrong_maps_are_refused() {
    let mount = |extra: Value| {
        let mut mount = json!({"destination": "/mnt", "type": "bind", "source": "data", "options": ["bind"]});
        mount.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        mount
    };
    for (mount, words) in [
        (mount(json!({"uidMappings": map(5)})), &["mounts[7]", "both"][..]),
        (mount(json!({"options": ["bind", "idmap"]})), &["mounts[7]", "user namespace"]),
        (
            mount(json!({"type": "tmpfs", "options": [], "uidMappings": map(5), "gidMappings": map(5)})),
            &["bind mounts"],
        ),
        (mount(json!({"uidMappings": map(0), "gidMappings": map(5)})), &["mounts[7]", "size 0"]),
    ] {
        let mut bundle = bundle();
        bundle.push("mounts", mount).run().refused_with(words);
        bundle.assert_gone();
    }
}

#[test]
fn by_the_maps_of_a_joined_user_namespace() {
    let mut owner = Bundle::new();
    with_user_namespace(&mut owner).up();
    let mut bundle = bundle();
    bundle.namespace(json!({"type": "user", "path": format!("/proc/{}/ns/user", owner.pid())}));
    bundle.mount("/mnt", "bind", "data", &["rbind", "idmap"]);
    assert_eq!(bundle.run().ok(), "5 6\n65534 65534");
}

#[test]
fn a_place_in_the_root_by_maps_of_the_mount() {
    let mut bundle = bundle();
    bundle.mount("/opt", "bind", "data", &["rbind"]);
    let inside = bundle.path("rootfs/opt").display().to_string();
    bundle.push(
        "mounts",
        json!({"destination": "/mnt", "type": "bind", "source": inside, "options": ["rbind"],
            "uidMappings": map(10), "gidMappings": map(10)}),
    );
    assert_eq!(bundle.run().ok(), "100005 100006\n5 6");
}

/// Nobody inside may map ids of the host's file systems: the creator does it.
#[test]
fn a_place_in_the_root_in_a_user_namespace() {
    for (options, meant) in [
        (&["rbind"][..], "65534 65534\n65534 65534"),
        (&["rbind", "idmap"], "5 6\n65534 65534"),
        (&["rbind", "ridmap"], "5 6\n5 6"),
    ] {
        let mut bundle = bundle();
        let inside = bundle.directory("rootfs/opt").display().to_string();
        with_user_namespace(&mut bundle).mount("/opt", "bind", "data", &["rbind"]);
        bundle.mount("/mnt", "bind", &inside, options);
        assert_eq!(bundle.run().ok(), meant, "{options:?}");
    }
    let mut bundle = bundle();
    let own = json!([{"containerID": 5, "hostID": 100_020, "size": 2}]);
    let mount = json!({"destination": "/mnt", "type": "bind", "source": bundle.directory("rootfs/opt"),
        "options": ["bind"], "uidMappings": own, "gidMappings": own});
    with_user_namespace(&mut bundle).mount("/opt", "bind", "data", &["rbind"]);
    bundle.push("mounts", mount).script("stat -c '%u %g' /mnt/file");
    assert_eq!(bundle.run().ok(), "20 21");
}

/// As Podman passes on what it is told behind a volume's `idmap=`, after crun.
#[test]
fn by_maps_in_the_option() {
    let mut plain = bundle();
    plain.mount("/mnt", "bind", "data", &["rbind", "idmap=uids=0-1000-10;gids=0-2000-3#5-2005-5"]);
    assert_eq!(plain.run().ok(), "1005 2006\n5 6");
    let mut below = bundle();
    below.mount("/mnt", "bind", "data", &["rbind", "ridmap=uids=0-1000-10;gids=0-2000-10"]);
    assert_eq!(below.run().ok(), "1005 2006\n1005 2006");
    let mut relative = bundle();
    with_user_namespace(&mut relative);
    relative.mount("/mnt", "bind", "data", &["rbind", "idmap=uids=@5-20-1;gids=@6-30-1"]);
    assert_eq!(relative.run().ok(), "20 30\n65534 65534");
    let mut wrong = bundle();
    wrong.mount("/mnt", "bind", "data", &["rbind", "idmap=uids=0-1000"]);
    wrong.run().refused_with(&["mounts[7]", "idmap=uids=0-1000", "three numbers"]);
}
