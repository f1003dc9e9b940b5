//! Containers of the runtime on networks: from `create` over `network connect` to `start`.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::lab::{Lab, SILENCE, until};

/// A bundle whose container runs `line` with busybox's shell.
fn bundle(lab: &Lab, name: &str, line: &str, hosts: &str) -> String {
    let dir = lab.dir.join(name);
    let bin = dir.join("rootfs/bin");
    for sub in ["bin", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(dir.join("rootfs").join(sub)).unwrap();
    }
    fs::write(dir.join("rootfs/etc/hosts"), "").unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs::exists(path).unwrap());
    fs::copy(busybox.unwrap(), bin.join("busybox")).unwrap();
    symlink("busybox", bin.join("sh")).unwrap();
    let dir = dir.to_str().unwrap().to_owned();
    assert_eq!(lab.call(&["spec", "--bundle", &dir]).status, Some(0));
    let path = format!("{dir}/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", line]);
    let bind =
        json!({"destination": "/etc/hosts", "type": "bind", "source": hosts, "options": ["bind", "ro"]});
    config["mounts"].as_array_mut().unwrap().push(bind);
    fs::write(&path, config.to_string()).unwrap();
    dir
}

#[test]
fn a_container_is_connected_before_it_starts() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 web");
    let hosts = lab.show("web")["hosts"].as_str().unwrap().to_owned();
    let root = lab.dir.join("state").to_str().unwrap().to_owned();
    let call = |words: &[&str]| {
        let output = lab.call(&[&["--root", &root, "--cgroup-manager", "disabled"], words].concat());
        assert_eq!(output.status, Some(0), "{words:?}: {output:?}");
        output.stdout
    };
    // It tells what it finds by name to whoever asks, again and again.
    let line = "while :; do busybox grep -w two /etc/hosts | busybox nc -l -p 80; done";
    call(&["create", "--bundle", &bundle(&lab, "one", line, &hosts), "one"]);
    assert_eq!(call(&["network", "connect", "--publish", "8080:80", "web", "one"]), "eth0 10.9.0.2/24\n");
    call(&["start", "one"]);
    let two = lab.container("web", "two", "");
    let seen =
        until(|| lab.host.ask("tcp", "127.0.0.1", 8080, SILENCE).filter(|answer| answer.contains(&two.ip)));
    assert!(seen.is_some(), "the container never told its neighbour's address");
    assert_eq!(lab.show("web")["containers"][0]["container"], "one");
    // It may go first; its claims go when somebody looks.
    call(&["delete", "--force", "one"]);
    let told: Value = serde_json::from_str(&lab.network("gc --format json")).unwrap();
    assert_eq!(told["containers"], json!(["one"]), "{told}");
    let told = lab.refused("connect web one");
    assert!(told.contains("one"), "{told}");
}
