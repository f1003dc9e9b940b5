//! Root makes containers in user namespaces of their own: `0:100000:65536`, and pods of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::json;

use crate::lane::{Bundle, field, mount_at};

const FIRST: u32 = 100_000;
const CAP_SYS_RESOURCE: u32 = 24;

/// A container whose ids are 65536 others outside, and whose root file system is its root's.
pub fn mapped() -> Bundle {
    let mut bundle = Bundle::new();
    let map = json!([{"containerID": 0, "hostID": FIRST, "size": 65_536}]);
    bundle
        .namespace(json!({"type": "user"}))
        .set("linux.uidMappings", map.clone())
        .set("linux.gidMappings", map);
    for dir in ["", "etc", "proc", "sys", "dev", "tmp", "root", "var", "run", "mnt", "bin"] {
        chown(bundle.rootfs(dir), Some(FIRST), Some(FIRST)).unwrap();
    }
    bundle
}

#[test]
fn ids_inside_are_others_outside() {
    let mut bundle = mapped();
    bundle.set("process.user", json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]}));
    bundle.set("root.readonly", json!(false));
    bundle.up();
    let status = bundle.proc("status");
    assert!(field(&status, "Uid").starts_with("100005"), "{status}");
    assert_eq!(field(&status, "Groups"), "100007 100008");
    assert_eq!(bundle.exec("id -u; id -G; touch /tmp/new; stat -c %u /tmp/new /tmp").ok(), "5\n6 7 8\n5\n0");
    let made = fs::metadata(bundle.rootfs("tmp/new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), FIRST + 5);
    assert_eq!(bundle.exec_with(&["--user", "0:0"], &["id", "-u"]).ok(), "0");
}

#[test]
fn the_bundle_may_be_out_of_reach_for_the_mapped_root() {
    let mut bundle = mapped();
    fs::set_permissions(bundle.path(""), fs::Permissions::from_mode(0o700)).unwrap();
    bundle.file("data/file", "content");
    bundle.mount("/mnt", "bind", "data", &["rbind", "ro"]);
    bundle.script("cat /mnt/file; echo; id -u");
    assert_eq!(bundle.run().ok(), "content\n0");
}

#[test]
fn devices_are_bound_and_verified() {
    let mut bundle = mapped();
    bundle.push("linux.devices", json!({"type": "c", "path": "/dev/kmsg", "major": 1, "minor": 11}));
    bundle.script(
        "stat -c %t:%T /dev/null /dev/kmsg; echo x >/dev/null; grep -c ' /dev/null ' /proc/self/mountinfo",
    );
    assert_eq!(bundle.run().ok(), "1:3\n1:b\n1");
    bundle.push("linux.devices", json!({"type": "c", "path": "/dev/zero", "major": 1, "minor": 3}));
    bundle.run().refused_with(&["/dev/zero", "not the device"]);
}

#[test]
fn the_cover_of_masked_files_is_the_hosts_and_cannot_be_changed() {
    let mut bundle = Bundle::new();
    bundle.capable(&["CAP_FOWNER", "CAP_CHOWN"]).set("linux.maskedPaths", json!(["/proc/timer_list"]));
    // Nothing that would change the host's node, were it let through.
    bundle.script("chmod 666 /proc/timer_list; echo x >/proc/timer_list && wc -c </proc/timer_list");
    let out = bundle.run();
    assert_eq!(out.ok(), "0");
    assert!(out.stderr.contains("Read-only file system"), "{out:?}");
}

#[test]
fn fifos_are_made() {
    let mut bundle = mapped();
    bundle.push("linux.devices", json!({"type": "p", "path": "/dev/pipe"}));
    bundle.script("test -p /dev/pipe && stat -c %a /dev/pipe");
    assert_eq!(bundle.run().ok(), "666");
}

#[test]
fn limits_are_set_from_outside() {
    let mut bundle = mapped();
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let now =
        |line: &str| line.strip_prefix("Max open files")?.split_whitespace().nth(1)?.parse::<u64>().ok();
    let now = limits.lines().find_map(now).unwrap();
    // Where this root may, what the mapped root could not give itself.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let capable = u64::from_str_radix(field(&status, "CapEff"), 16).unwrap() & 1 << CAP_SYS_RESOURCE != 0;
    let (hard, score) = if capable { (now + 1, -500) } else { (now - 1, 500) };
    bundle.set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": hard, "hard": hard}]));
    bundle.set("process.oomScoreAdj", json!(score));
    bundle.up();
    let want = format!("{hard}\n{score}");
    assert_eq!(bundle.exec("ulimit -Hn; cat /proc/self/oom_score_adj").ok(), want);
    assert_eq!(
        bundle.exec("tr -s ' ' </proc/1/limits | grep '^Max open files' | cut -d' ' -f5").ok(),
        hard.to_string()
    );
    assert_eq!(bundle.proc("oom_score_adj").trim(), score.to_string());
}

#[test]
fn terminals_belong_to_the_user_inside() {
    let mut bundle = mapped();
    bundle.set("process.terminal", json!(true)).set("process.user", json!({"uid": 5, "gid": 5}));
    bundle.script("tty; stat -c %u $(tty); stat -c %t:%T /dev/console");
    assert_eq!(bundle.run().ok().replace('\r', ""), "/dev/pts/0\n5\n88:0");
    let mut bundle = mapped();
    bundle.up();
    let out = bundle.exec_with(&["--tty"], &["sh", "-c", "tty; stat -c %u $(tty)"]);
    assert_eq!(out.ok().replace('\r', ""), "/dev/pts/0\n0");
}

#[test]
fn idmapped_binds_show_the_files_as_the_containers_own() {
    let mut bundle = mapped();
    bundle.file("data/file", "x");
    bundle.mount("/mnt", "bind", "data", &["rbind", "idmap"]);
    bundle.script("stat -c %u:%g /mnt/file; touch /mnt/new; grep -o idmapped /proc/self/mountinfo");
    assert_eq!(bundle.run().ok(), "0:0\nidmapped");
    let made = fs::metadata(bundle.path("data/new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 0);
}

#[test]
fn clocks_belong_to_the_container() {
    let mut bundle = mapped();
    bundle.namespace(json!({"type": "time"}));
    bundle.set("linux.timeOffsets", json!({"monotonic": {"secs": 5}, "boottime": {"secs": 1_000_000_000}}));
    bundle.up();
    let uptime = bundle.exec("cut -d. -f1 /proc/uptime");
    assert!(uptime.ok().parse::<u64>().unwrap() > 1_000_000_000, "{uptime:?}");
    assert!(bundle.proc("timens_offsets").lines().any(|line| line.contains("1000000000")));
}

#[test]
fn a_pod_shares_namespaces_by_path() {
    let mut first = mapped();
    first.set("hostname", json!("pod")).up();
    let pid = first.pid();
    let mut second = mapped();
    for (kind, name) in [("user", "user"), ("network", "net"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts")]
    {
        second.namespace(json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")}));
    }
    second.set("linux.uidMappings", json!([])).set("linux.gidMappings", json!([]));
    second.set("process.oomScoreAdj", json!(99)).edit(|config| {
        config.as_object_mut().unwrap().remove("hostname");
    });
    second.up();
    for kind in ["user", "net", "pid", "ipc", "uts"] {
        let ns = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(ns(second.pid()), ns(pid), "{kind}");
    }
    assert_eq!(second.exec("id -u; hostname; cat /proc/self/oom_score_adj").ok(), "0\npod\n99");
    let table = second.exec("cat /proc/self/mountinfo");
    assert_eq!(mount_at(table.ok(), "/proc").kind, "proc");
    second.kill("KILL").wait_for("stopped");
    assert_eq!(first.state()["status"], "running", "init of the shared pid namespace lives on");
}

#[test]
fn a_new_user_namespace_beside_a_joined_network() {
    let mut first = Bundle::new();
    first.up();
    let mut second = mapped();
    let path = format!("/proc/{}/ns/net", first.pid());
    second.namespace(json!({"type": "network", "path": path}));
    // sysfs shows a network namespace, over which the mapped root has no rights here.
    second.edit(|config| config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "sysfs"));
    second.edit(|config| config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup"));
    second.set("process.oomScoreAdj", json!(98));
    second.script("readlink /proc/self/ns/net; cat /proc/self/uid_map /proc/self/oom_score_adj");
    let out = second.run();
    let words: Vec<&str> = out.ok().split_whitespace().collect();
    assert_eq!(words, [fs::read_link(path).unwrap().to_str().unwrap(), "0", "100000", "65536", "98"]);
}
