//! Images from packages. Needs what the host lane has not, a distribution's packages: `make test-build`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Lane, tool};

/// A template for machines: an init, nothing of the machine that built it, and it runs.
#[test]
#[ignore = "needs a Debian mirror: make test-build"]
fn a_debian_to_boot() {
    let lane = Lane::new();
    let name = "localhost/debian:13";
    assert_eq!(
        lane.ok(&["build", "--slim", "--include", "openssh-server", "debian:trixie"]),
        format!("{name}\n")
    );
    let bundle = lane.path("bundle");
    let root = bundle.join("rootfs");
    fs::create_dir_all(&root).unwrap();
    let target = root.to_str().unwrap();
    lane.ok(&["mount", "--map", "100000:65536", name, target]);

    for program in
        ["sbin/init", "usr/bin/dbus-daemon", "usr/bin/login", "usr/bin/ip", "usr/bin/ps", "usr/sbin/sshd"]
    {
        assert!(root.join(program).exists(), "{program} is missing");
    }
    assert_eq!(fs::read(root.join("etc/machine-id")).unwrap(), b"");
    for gone in ["etc/hostname", "etc/resolv.conf", "var/lib/systemd/random-seed", "usr/share/man/man1"] {
        assert!(!root.join(gone).exists(), "{gone} was left");
    }
    let find = |words: &[&str]| tool("find", &[&[target], words].concat());
    assert_eq!(find(&["-path", "*/etc/ssh/ssh_host_*"]), "");
    assert_eq!(
        find(&["-path", "*/var/cache/apt/archives/*.deb", "-o", "-path", "*/var/lib/apt/lists/*_*"]),
        ""
    );
    // It knows where its updates come from.
    let sources = fs::read_to_string(root.join("etc/apt/sources.list")).unwrap();
    assert!(sources.lines().any(|line| line.ends_with(" trixie main")), "{sources}");

    let locule = |words: &[&str]| {
        Command::new(crate::LOCULE)
            .args(["--root", &lane.text("run"), "--cgroup-manager", "disabled"])
            .args(words)
            .current_dir(&bundle)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert!(locule(&["spec"]).status.success());
    let path = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["root"]["readonly"] = false.into();
    let map = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "user"}));
    // What sshd's unit does before the first start.
    let script = ". /etc/os-release; echo $ID $VERSION_ID; id -u; ssh-keygen -A >/dev/null && ls /etc/ssh/ssh_host_rsa_key
        getent passwd messagebus >/dev/null && systemctl --version | head -n 1 | cut -d ' ' -f 1,2; dpkg --audit; apt-get check -q=2";
    spec["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
    fs::write(&path, spec.to_string()).unwrap();
    let output = locule(&["run", &format!("images-build-{}", std::process::id())]);
    let seen = String::from_utf8_lossy(&output.stdout);
    assert_eq!(seen, "debian 13\n0\n/etc/ssh/ssh_host_rsa_key\nsystemd 257\n", "{output:?}");
    assert!(Path::new(target).join("etc/ssh/ssh_host_rsa_key").exists());
    lane.ok(&["umount", target]);
    assert!(fs::read_dir(lane.path("store/tmp")).unwrap().next().is_none(), "the build left something");
}

#[test]
fn what_cannot_be_built_is_told() {
    let lane = Lane::new();
    lane.refused(&["build", "debian:4"], &["no recipe for", "debian:13", "ubuntu:24.04"]);
    lane.refused(&["build", "--include", "a;b", "debian:13"], &["no package's name"]);
    // Nothing listens there; the host lane has no network either.
    for recipe in ["debian:13", "debian:bookworm", "ubuntu:24.04", "ubuntu:noble"] {
        let told = lane.refused(
            &["build", "--minimal", "--mirror", "http://127.0.0.1:1/none", recipe],
            &["building", "with mmdebstrap"],
        );
        assert!(told.contains("127.0.0.1") || told.contains("keyring"), "{told}");
    }
    assert_eq!(lane.contents(), [""; 0]);
    assert!(fs::read_dir(lane.path("store/tmp")).unwrap().next().is_none(), "the build left something");
    let output = lane.command(&["build", "debian:13"]).env("PATH", "/nonexistent").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("install mmdebstrap"), "{told}");
}
