//! A user without privileges: its own user namespace, subordinate ids, mounts within.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Output};

use crate::{Lane, tool};

const UID: u32 = 4712;
const FIRST: u32 = 700_000;

/// A lane whose directory belongs to a user of the machine, who has what a login has.
struct User {
    lane: Lane,
    entrance: String,
}

impl User {
    /// With subordinate ids, or without.
    fn new(subordinate: bool) -> User {
        let lane = Lane::new();
        let file = |name: &str, text: String| {
            fs::write(lane.path(name), text).unwrap();
            lane.text(name)
        };
        let subids =
            file("subids", if subordinate { format!("someone:{FIRST}:65536\n") } else { String::new() });
        let passwd = file("passwd", format!("root:x:0:0::/:/bin/sh\nsomeone:x:{UID}:{UID}::/home:/bin/sh\n"));
        let entrance = format!(
            "set -e; mount --bind {subids} /etc/subuid; mount --bind {subids} /etc/subgid; mount --bind {passwd} /etc/passwd; exec \"$@\""
        );
        // Where every user can reach it, as an installed one.
        fs::copy(crate::LOCULE, lane.path("locule")).unwrap();
        for name in ["home", "bundle", "bundle/rootfs"] {
            fs::create_dir(lane.path(name)).unwrap();
            chown(lane.path(name), Some(UID), Some(UID)).unwrap();
        }
        chown(lane.path(""), Some(UID), Some(UID)).unwrap();
        fs::set_permissions(lane.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        User { lane, entrance }
    }

    fn run(&self, words: &[&str]) -> Output {
        let id = UID.to_string();
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &self.entrance, "sh"])
            .args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
            .args(words)
            .current_dir(self.lane.path("bundle"))
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.lane.path("").display()))
            .env("HOME", self.lane.path("home"))
            .env("CONTAINERS_REGISTRIES_CONF", self.lane.path("registries.conf"))
            .output()
            .unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A shell in the user's namespaces, root there.
    #[track_caller]
    fn inside(&self, script: &str) -> String {
        self.ok(&["locule", "image", "unshare", "sh", "-ec", script])
    }

    /// A tarball with files of several owners, a device node and a file with a capability.
    fn tarball(&self) -> String {
        let tree = self.lane.tree("tree");
        chown(tree.join("etc/motd"), Some(7), Some(8)).unwrap();
        tool("mknod", &[tree.join("device").to_str().unwrap(), "c", "1", "3"]);
        fs::copy("/bin/busybox", tree.join("bin/busybox-cap")).unwrap();
        tool("setcap", &["cap_net_bind_service+ep", tree.join("bin/busybox-cap").to_str().unwrap()]);
        let tarball = self.lane.text("tree.tar");
        tool("tar", &["--xattrs", "--xattrs-include=*", "-C", tree.to_str().unwrap(), "-cf", &tarball, "."]);
        tarball
    }

    /// The only unpacked layer.
    fn layer(&self) -> std::path::PathBuf {
        let layers = self.lane.path("home/.local/share/locule/images/layers");
        let mut found = fs::read_dir(layers).unwrap();
        let layer = found.next().unwrap().unwrap().path().join("fs");
        assert!(found.next().is_none());
        layer
    }
}

#[test]
fn a_users_images_keep_their_owners() {
    let user = User::new(true);
    let tarball = user.tarball();
    assert_eq!(user.ok(&["locule", "image", "import", &tarball, "app:1"]), "docker.io/library/app:1\n");
    let owner = |path: &str| {
        let meta = fs::symlink_metadata(user.layer().join(path)).unwrap();
        (meta.uid(), meta.gid())
    };
    assert_eq!(owner("bin/busybox"), (UID, UID), "root of the image is the user");
    assert_eq!(owner("etc/motd"), (FIRST + 6, FIRST + 7), "the others are subordinate ids");
    assert!(!user.layer().join("device").exists(), "a device node, by a user");
    assert_eq!(user.ok(&["locule", "image", "ls", "--quiet"]), "host\ndocker.io/library/app:1\n");
    let told = user.run(&["locule", "image", "mount", "app:1", "rootfs"]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("locule image unshare"), "{told:?}");

    // Mounted and written to, twice; what was written stays, and the layer does not change.
    let seen = user.inside(
        "locule image mount app:1 rootfs; stat -c '%u:%g' rootfs/etc/motd rootfs/bin/busybox
         rm rootfs/bin/sh; ln -s busybox rootfs/bin/sh; mkdir rootfs/own; chown 33:33 rootfs/own
         locule image umount --keep rootfs; ls rootfs
         locule image mount app:1 rootfs; stat -c '%u:%g' rootfs/own; rm -r rootfs/etc; mkdir rootfs/etc
         echo mine >rootfs/etc/motd
         locule image commit rootfs app:2 >/dev/null; locule image umount rootfs
         locule image mount app:2 rootfs; ls rootfs/etc; stat -c '%u:%g' rootfs/own; locule image umount rootfs",
    );
    assert_eq!(seen, "7:8\n0:0\n33:33\nmotd\n33:33\n");
    assert_eq!(fs::read_to_string(user.lane.path("tree/etc/motd")).unwrap(), "tree");
    assert_eq!(user.ok(&["locule", "image", "verify"]), "");
    // What the user saves, root imports: owners are those of the image again.
    user.ok(&["locule", "image", "save", "-o", "two.tar", "app:2"]);
    user.lane.ok(&["import", &user.lane.text("bundle/two.tar")]);
    user.ok(&["locule", "image", "rm", "app:1", "app:2"]);
    user.ok(&["locule", "image", "prune"]);
    let left = fs::read_dir(user.lane.path("home/.local/share/locule/images/layers")).unwrap().count();
    assert_eq!(left, 0, "files of subordinate ids stayed");
}

/// The whole of it: a container of a user on an image of a user, with several ids and a file's capability.
#[test]
fn a_users_container_runs_on_it() {
    let user = User::new(true);
    let tarball = user.tarball();
    user.ok(&["locule", "image", "import", &tarball, "app:1"]);
    let spec = user.lane.path("bundle/config.json");
    user.inside("locule spec");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&spec).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["noNewPrivileges"] = false.into();
    config["process"]["user"] = serde_json::json!({"uid": 33, "gid": 33});
    config["process"]["args"] = serde_json::json!([
        "/bin/busybox",
        "sh",
        "-c",
        "id -u; stat -c %u:%g /etc/motd; /bin/busybox-cap grep CapEff /proc/self/status"
    ]);
    fs::write(&spec, config.to_string()).unwrap();
    let seen = user.inside(
        "locule image mount app:1 rootfs
         locule --root ../run --cgroup-manager disabled run images-user
         locule image umount rootfs",
    );
    assert_eq!(seen, "33\n7:8\nCapEff:\t0000000000000400\n");
}

#[test]
fn without_subordinate_ids_all_belongs_to_the_user() {
    let user = User::new(false);
    let tarball = user.tarball();
    user.ok(&["locule", "image", "import", &tarball, "app:1"]);
    let meta = fs::symlink_metadata(user.layer().join("etc/motd")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (UID, UID));
    let told = user.run(&["locule", "image", "unshare", "true"]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("/etc/subuid"), "{told:?}");
    user.ok(&["locule", "image", "rm", "app:1"]);
}

/// An id beyond the range is a refusal that says what to do, and no layer with another owner.
#[test]
fn an_owner_beyond_the_range_is_refused() {
    let user = User::new(true);
    let tree = user.lane.tree("tree");
    chown(tree.join("etc/motd"), Some(90_000), Some(0)).unwrap();
    let tarball = user.lane.text("tree.tar");
    tool("tar", &["-C", tree.to_str().unwrap(), "-cf", &tarball, "."]);
    let told = user.run(&["locule", "image", "import", &tarball, "app:1"]);
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("90000") && told.contains("more subordinate ids"), "{told}");
    assert_eq!(user.ok(&["locule", "image", "ls", "--quiet"]), "host\n");
}
