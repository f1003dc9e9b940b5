//! A root file system for a machine with a user namespace of its own, by the library, as machines mount it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use locule_images::Store;
use locule_images::rootfs::{Map, Rootfs, umount};
use serde_json::json;

use crate::{Lane, tool};

const FIRST: u32 = 300_000;

/// Runs `words` in a container on `bundle/rootfs`, as `uid` of a namespace whose ids begin at [`FIRST`].
#[track_caller]
fn inside(lane: &Lane, uid: u32, words: &[&str]) -> String {
    let bundle = lane.path("bundle");
    let locule = |words: &[&str]| {
        let mut command = Command::new(crate::LOCULE);
        command.args(["--root", &lane.text("run"), "--cgroup-manager", "disabled"]).args(words);
        command.current_dir(&bundle).stdin(Stdio::null()).output().unwrap()
    };
    let path = bundle.join("config.json");
    let _ = fs::remove_file(&path);
    assert!(locule(&["spec"]).status.success());
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["noNewPrivileges"] = false.into();
    spec["process"]["user"] = json!({"uid": uid, "gid": uid});
    spec["process"]["args"] = json!(words);
    spec["root"]["readonly"] = false.into();
    for set in ["bounding", "effective", "permitted"] {
        let set = spec["process"]["capabilities"][set].as_array_mut().unwrap();
        set.extend(["CAP_CHOWN", "CAP_FOWNER"].map(|name| json!(name)));
    }
    let map = json!([{"containerID": 0, "hostID": FIRST, "size": 65_536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    fs::write(&path, spec.to_string()).unwrap();
    let output = locule(&["run", &format!("images-mapped-{}", std::process::id())]);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

/// What a container's root writes belongs to the map's ids on the disk, and is there after a remount;
/// layers never change, and files' capabilities count for users inside.
#[test]
fn a_machines_root() {
    let lane = Lane::new();
    let tree = lane.tree("tree");
    for dir in ["proc", "sys", "dev", "tmp"] {
        fs::create_dir(tree.join(dir)).unwrap();
    }
    chown(tree.join("etc/motd"), Some(33), Some(34)).unwrap();
    let capable = tree.join("bin/busybox-cap");
    fs::copy("/bin/busybox", &capable).unwrap();
    tool("setcap", &["cap_net_bind_service+ep", capable.to_str().unwrap()]);
    lane.ok(&["import", tree.to_str().unwrap(), "app:1"]);

    let store = Store::open(&lane.path("store")).unwrap();
    let (root, state) = (lane.path("bundle/rootfs"), lane.path("machine"));
    fs::create_dir_all(&root).unwrap();
    let rootfs = Rootfs {
        image: "app:1".into(),
        state: state.clone(),
        map: Some(Map { first: FIRST, count: 65_536 }),
        read_only: false,
        inside: false,
    };
    rootfs.mount(&store, &root).unwrap();
    assert_eq!(owner(&root.join("etc/motd")), (FIRST + 33, FIRST + 34));
    assert_eq!(owner(&root), (FIRST, FIRST));
    let script = "busybox id -u; busybox stat -c %u:%g /etc/motd /bin/busybox; echo mine >/etc/own
        busybox chown 5:6 /etc/own; busybox mkdir /new; busybox chmod 700 /bin/true; busybox rm -r /etc/motd";
    assert_eq!(inside(&lane, 0, &["/bin/sh", "-ec", script]), "0\n33:34\n0:0\n");
    let upper = state.join("upper");
    assert_eq!(owner(&upper.join("etc/own")), (FIRST + 5, FIRST + 6));
    assert_eq!(owner(&upper.join("new")), (FIRST, FIRST));
    assert_eq!(owner(&upper.join("bin/true")), (FIRST, FIRST), "a copy of a layer's file");
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o077, 0, "others reach what the machine wrote");
    assert_eq!(lane.ok(&["verify"]), "", "a layer was written to");

    let capability = ["/bin/busybox-cap", "grep", "CapEff", "/proc/self/status"];
    let expected = "CapEff:\t0000000000000400\n";
    assert_eq!(inside(&lane, 33, &capability), expected, "from the layer");
    fs::set_permissions(root.join("bin/busybox-cap"), fs::Permissions::from_mode(0o711)).unwrap();
    assert!(upper.join("bin/busybox-cap").exists());
    assert_eq!(inside(&lane, 33, &capability), expected, "from the copy above it");

    umount(&store, &root, &state, true).unwrap();
    assert!(!root.join("bin").exists());
    rootfs.mount(&store, &root).unwrap();
    let script = "busybox cat /etc/own; busybox stat -c %u:%g /etc/own /new; busybox ls /etc";
    assert_eq!(inside(&lane, 0, &["/bin/sh", "-ec", script]), "mine\n5:6\n0:0\nown\n");
    assert_eq!(inside(&lane, 33, &capability), expected, "after a remount");

    // What is committed has the image's ids, and a capability that is nobody's namespace's.
    lane.ok(&["commit", "--state", state.to_str().unwrap(), root.to_str().unwrap(), "app:2"]);
    umount(&store, &root, &state, false).unwrap();
    assert!(!state.exists());
    lane.ok(&["mount", "app:2", root.to_str().unwrap()]);
    assert_eq!(owner(&root.join("etc/own")), (5, 6));
    let told = tool("getcap", &["-n", root.join("bin/busybox-cap").to_str().unwrap()]);
    assert!(told.trim_end().ends_with("cap_net_bind_service=ep"), "{told}");
    lane.ok(&["umount", root.to_str().unwrap()]);
}

/// The machine's own system serves a user namespace as well.
#[test]
fn the_host_image_for_a_machine() {
    let lane = Lane::new();
    let root = lane.path("bundle/rootfs");
    fs::create_dir_all(&root).unwrap();
    lane.ok(&["mount", "--map", &format!("{FIRST}:65536"), "host", root.to_str().unwrap()]);
    let script = "id -u; stat -c %u:%g /etc/passwd /usr/bin/env /; echo mine >/usr/own; cat /usr/own; touch /etc/own /var/own";
    assert_eq!(inside(&lane, 0, &["/bin/sh", "-ec", script]), "0\n0:0\n0:0\n0:0\nmine\n");
    assert!(!Path::new("/usr/own").exists());
    assert_eq!(owner(&root.join("usr/own")), (FIRST, FIRST));
    lane.ok(&["umount", root.to_str().unwrap()]);
}
