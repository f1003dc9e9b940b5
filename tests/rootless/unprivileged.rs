//! A user without privileges and without a cgroup: each verb, as `spec --rootless` leaves it.

use std::fs;

use serde_json::json;

use crate::lane::{field, mount_at, until};
use crate::user::{UID, User, own};

#[test]
fn run_is_root_inside_and_the_user_outside() {
    let mut user = User::new();
    let out = user.run("id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; hostname; exit 7");
    assert_eq!(out.status, 7, "{out:?}");
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", &UID.to_string(), "1", "deny", "locule"]);
    assert_eq!(fs::read_dir(user.run_directory().join("locule")).unwrap().count(), 0);
}

#[test]
fn state_lies_in_the_run_directory_with_the_sticky_bit() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut user = User::new();
    user.up();
    let root = fs::metadata(user.run_directory().join("locule")).unwrap();
    assert_eq!((root.permissions().mode() & 0o7777, root.uid()), (0o1711, UID));
    assert!(user.run_directory().join("locule").join(user.id()).join("state.json").exists());
}

#[test]
fn mounts_are_those_of_the_document() {
    let mut user = User::new();
    let out = user.run("cat /proc/self/mountinfo");
    let table = out.ok();
    for (target, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup2"),
    ] {
        assert_eq!(mount_at(table, target).kind, kind, "{target}");
    }
    for target in ["/", "/sys", "/proc/sys", "/sys/fs/cgroup"] {
        assert!(mount_at(table, target).has("ro"), "{target}");
    }
    assert!(mount_at(table, "/sys").has("nosuid") && mount_at(table, "/sys").has("nodev"));
}

#[test]
fn devices_are_the_hosts_and_nothing_else() {
    let mut user = User::new();
    let out = user.run(
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T' /dev/$d; done
         head -c 3 /dev/zero | wc -c; echo x >/dev/null; readlink /dev/ptmx; readlink /dev/fd",
    );
    let want = "/dev/null 1:3\n/dev/zero 1:5\n/dev/full 1:7\n/dev/random 1:8\n/dev/urandom 1:9\n/dev/tty 5:0\n\
                3\npts/ptmx\n/proc/self/fd";
    assert_eq!(out.ok(), want);
}

#[test]
fn binds_are_opened_with_the_users_own_rights() {
    use std::os::unix::fs::PermissionsExt;
    let mut user = User::new();
    user.bundle.file("private/file", "mine");
    own(&user.bundle.path("private"));
    fs::set_permissions(user.bundle.path("private"), fs::Permissions::from_mode(0o700)).unwrap();
    user.bundle.mount("/mnt/a", "bind", "private", &["rbind", "ro", "nosuid"]);
    let out = user.run("cat /mnt/a/file; touch /mnt/a/new; grep ' /mnt/a ' /proc/self/mountinfo");
    assert!(out.ok().starts_with("mine") && out.stderr.contains("Read-only"), "{out:?}");
    assert!(mount_at(out.ok().trim_start_matches("mine"), "/mnt/a").has("nosuid"));

    let secret = user.bundle.directory("secret/inner");
    fs::set_permissions(user.bundle.path("secret"), fs::Permissions::from_mode(0o700)).unwrap();
    user.bundle.mount("/mnt/b", "bind", secret.to_str().unwrap(), &["rbind"]);
    let refused = user.run("true");
    refused.refused_with(&["secret/inner on /mnt/b", "permission denied (EACCES)"]);
}

#[test]
fn missing_sources_and_covered_trees_are_refused_and_leave_nothing() {
    let mut user = User::new();
    user.bundle.mount("/mnt", "bind", "/does/not/exist", &["rbind"]);
    user.run("true").refused_with(&["mounting /does/not/exist on /mnt", "ENOENT"]);
    user.bundle.edit(|config| {
        config["mounts"].as_array_mut().unwrap().pop();
    });
    user.bundle.mount("/mnt", "bind", "/sys", &["bind"]);
    user.run("true").refused_with(&["mounting /sys on /mnt", "EINVAL", "use rbind"]);
    assert_eq!(fs::read_dir(user.run_directory().join("locule")).unwrap().count(), 0);
}

#[test]
fn idmapped_mounts_are_refused_in_words() {
    let mut user = User::new();
    user.bundle.mount("/mnt", "bind", "rootfs", &["rbind", "idmap"]);
    user.run("true").refused_with(&["mounting on /mnt", "mapping the mount's ids", "rights of root"]);
}

#[test]
fn without_a_user_namespace_the_way_out_is_named() {
    let mut user = User::new();
    user.bundle
        .without_namespace("user")
        .set("linux.uidMappings", json!([]))
        .set("linux.gidMappings", json!([]));
    user.run("true").refused_with(&["EPERM", "spec --rootless"]);
}

#[test]
fn life_from_create_to_delete() {
    let mut user = User::new();
    user.bundle
        .script("trap 'echo usr1' USR1; trap 'exit 3' TERM; echo up; while :; do sleep 1000 & wait; done");
    user.create().ok();
    assert_eq!(user.state()["status"], "created");
    assert_eq!(user.bundle.stdout(), "");
    user.locule(&["exec", user.id(), "true"]).refused_with(&["EPERM", "started"]);
    user.locule(&["start", user.id()]).ok();
    until("it is up", || user.bundle.stdout() == "up\n");
    assert_eq!(user.state()["status"], "running");
    let list = user.locule(&["list", "--quiet"]);
    assert_eq!(list.ok(), user.id());
    user.locule(&["kill", user.id(), "USR1"]).ok();
    until("the signal arrived", || user.bundle.stdout() == "up\nusr1\n");
    user.locule(&["delete", user.id()]).refused_with(&["not stopped: running"]);
    user.locule(&["kill", user.id(), "KILL"]).ok();
    user.wait_for("stopped");
    user.locule(&["delete", user.id()]).ok();
    user.locule(&["state", user.id()]).refused_with(&["does not exist"]);
}

#[test]
fn exec_is_inside_all_namespaces() {
    let mut user = User::new();
    user.up();
    let out = user.exec("id -u; for ns in /proc/self/ns/*; do readlink $ns; done; cat /etc/passwd; grep CapEff /proc/self/status");
    assert!(out.ok().starts_with("0\n"), "{out:?}");
    for kind in ["user", "pid", "mnt", "uts", "ipc", "cgroup"] {
        let link = fs::read_link(format!("/proc/{}/ns/{kind}", user.pid())).unwrap();
        assert!(out.ok().contains(link.to_str().unwrap()), "{kind}: {out:?}");
    }
    assert!(out.ok().contains("0000000020000420"), "three capabilities: {out:?}");
    assert_eq!(user.locule(&["exec", user.id(), "sh", "-c", "exit 9"]).status, 9);
    assert_eq!(user.locule(&["exec", user.id(), "nothing"]).status, 255);
}

#[test]
fn exec_with_a_terminal() {
    let mut user = User::new();
    user.up();
    let out = user.locule(&["exec", "--tty", user.id(), "sh", "-c", "tty; test -t 0 && stat -c %u $(tty)"]);
    assert_eq!(out.ok().replace('\r', ""), "/dev/pts/0\n0");
}

#[test]
fn run_with_a_terminal() {
    let mut user = User::new();
    user.bundle.set("process.terminal", json!(true));
    let out = user.run("tty; stat -c %t:%T /dev/console; stty size");
    let text = out.ok().replace('\r', "");
    assert!(text.starts_with("/dev/pts/0\n88:0"), "{text}");
}

#[test]
fn without_a_cgroup_the_pid_namespace_tells_who_belongs_to_it() {
    let mut user = User::new();
    user.up();
    user.exec_detached("trap 'exit 5' USR1; while :; do sleep 1000 & wait; done");
    until("init, exec and two sleeps run", || user.pids().len() == 4);
    assert!(user.pids().contains(&user.pid()));
    let table = user.locule(&["ps", user.id(), "-o", "pid,args", "-A"]);
    assert_eq!(table.ok().lines().count(), 5, "{table:?}");
    user.locule(&["pause", user.id()]).refused_with(&["cannot pause", "no cgroup", "delegated"]);
    user.locule(&["update", "--pids-limit", "9", user.id()]).refused_with(&["no cgroup"]);
    user.locule(&["kill", "--all", user.id(), "KILL"]).ok();
    user.wait_for("stopped");
    user.locule(&["kill", "--all", user.id(), "KILL"]).ok();
    assert!(user.pids().is_empty());
}

#[test]
fn kill_all_reaches_what_init_would_not_pass_on() {
    let mut user = User::new();
    user.bundle.script("sh -c 'trap \"echo got it; exit\" USR1; echo up; while :; do sleep 1000 & wait; done' & trap : USR1; while :; do wait; sleep 1000; done");
    user.create().ok();
    user.locule(&["start", user.id()]).ok();
    until("the child is up", || user.bundle.stdout() == "up\n");
    user.locule(&["kill", "--all", user.id(), "USR1"]).ok();
    until("the child got the signal", || user.bundle.stdout() == "up\ngot it\n");
    assert_eq!(user.state()["status"], "running");
}

#[test]
fn limits_without_a_cgroup_are_refused() {
    let mut user = User::new();
    user.bundle.set("linux.resources.pids.limit", json!(10));
    user.run("true").refused_with(&["cgroup", "Delegate=yes"]);
    // Device rules are no limit that a user could be given, and engines always send them.
    user.bundle.set("linux.resources", json!({"devices": [{"allow": false, "access": "rwm"}]}));
    assert_eq!(user.run("echo ran").ok(), "ran");
}

#[test]
fn a_cgroup_of_the_same_name_is_anothers() {
    let mut user = User::new();
    // What root has there, empty at first.
    let cgroup = user.bundle.cgroup();
    fs::create_dir(&cgroup).unwrap();
    user.up();
    fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    assert_eq!(user.state()["status"], "running", "not its own cgroup");
    user.locule(&["delete", "--force", user.id()]).ok();
    fs::write(cgroup.join("cgroup.freeze"), "0").unwrap();

    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(cgroup.join("cgroup.procs"), other.id().to_string()).unwrap();
    user.up();
    user.locule(&["delete", "--force", user.id()]).ok();
    assert!(other.try_wait().unwrap().is_none(), "the other's process lives on");
    other.kill().unwrap();
    other.wait().unwrap();
    until("the cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
}

#[test]
fn without_a_run_directory_the_way_out_is_named() {
    let user = User::new();
    let mut call = user.command(&["run", user.id()]);
    crate::lane::complete(call.env_remove("XDG_RUNTIME_DIR")).refused_with(&[
        "/run/locule",
        "EACCES",
        "XDG_RUNTIME_DIR",
    ]);
}

#[test]
fn scores_and_limits_of_a_user() {
    let mut user = User::new();
    user.bundle.set("process.oomScoreAdj", json!(321));
    user.bundle.set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]));
    user.up();
    let own = |out: &str| out.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let text = user.exec("cat /proc/1/oom_score_adj /proc/self/oom_score_adj; ulimit -n; ulimit -Hn");
    assert_eq!(own(text.ok()), ["321", "321", "100", "200"]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", user.pid())).unwrap();
    assert!(
        limits
            .lines()
            .any(|line| line.starts_with("Max open files") && line.contains("100") && line.contains("200"))
    );
}

#[test]
fn ranges_come_from_newuidmap() {
    let mut user = User::new();
    let subids = user.bundle.file("subids", format!("{UID}:300000:65536\n"));
    user.bundle.set("linux.uidMappings", json!([
        {"containerID": 0, "hostID": UID, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 65_536}
    ]));
    let maps = user.bundle.config()["linux"]["uidMappings"].clone();
    user.bundle.set("linux.gidMappings", maps);
    user.bundle.set("process.user", json!({"uid": 33, "gid": 34, "additionalGids": [35]}));
    // newuidmap looks into /etc and asks for the user's name: both for this call alone.
    let passwd =
        user.bundle.file("passwd", format!("root:x:0:0::/:/bin/sh\nnobody:x:{UID}:{UID}::/:/bin/sh\n"));
    let script = format!(
        "set -e; for f in subuid subgid; do mount --bind {0} /etc/$f; done; mount --bind {1} /etc/passwd; exec \"$@\"",
        subids.display(),
        passwd.display()
    );
    let mut user =
        user.entered(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    let out = user.run("id -u; id -G; cat /proc/self/uid_map");
    let words: Vec<&str> = out.ok().split_whitespace().collect();
    assert_eq!(words, ["33", "34", "35", "0", &UID.to_string(), "1", "1", "300000", "65536"]);
}

#[test]
fn ranges_that_are_not_ones_own_are_refused() {
    let mut user = User::new();
    user.bundle.set("linux.uidMappings", json!([{"containerID": 0, "hostID": 500_000, "size": 10}]));
    user.run("true").refused_with(&["newuidmap", "/etc/subuid"]);
    assert_eq!(fs::read_dir(user.run_directory().join("locule")).unwrap().count(), 0);
}

#[test]
fn clocks_can_be_offset_by_a_user() {
    let mut user = User::new();
    user.bundle.namespace(json!({"type": "time"}));
    user.bundle.set("linux.timeOffsets", json!({"boottime": {"secs": 1_000_000_000}}));
    user.up();
    let uptime = user.exec("cut -d. -f1 /proc/uptime");
    assert!(uptime.ok().parse::<u64>().unwrap() > 1_000_000_000, "{uptime:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", user.pid())).unwrap();
    assert!(field(&status, "Uid").starts_with(&UID.to_string()));
}

#[test]
fn a_pod_of_a_user_shares_namespaces_by_path() {
    let mut first = User::new();
    first.bundle.namespace(json!({"type": "network"}));
    first.bundle.set("hostname", json!("pod"));
    first.up();
    let pid = first.pid();
    let mut second = User::new();
    for (kind, name) in [("user", "user"), ("network", "net"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts")]
    {
        second.bundle.namespace(json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")}));
    }
    second.bundle.set("linux.uidMappings", json!([])).set("linux.gidMappings", json!([]));
    second.bundle.set("process.oomScoreAdj", json!(77));
    second.bundle.edit(|config| {
        config.as_object_mut().unwrap().remove("hostname");
    });
    let out = second.run("id -u; hostname; test $$ -ne 1 && ps | grep -c 'sleep 1000'; cat /proc/self/oom_score_adj; readlink /proc/self/ns/net");
    let net = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let words: Vec<&str> = out.ok().split_whitespace().collect();
    assert_eq!(&words[..2], ["0", "pod"]);
    assert_eq!(&words[3..], ["77", net.to_str().unwrap()]);
    second.up();
    assert_eq!(second.exec("hostname").ok(), "pod");
    second.locule(&["kill", second.id(), "KILL"]).ok();
    second.wait_for("stopped");
    assert_eq!(first.state()["status"], "running");
}

#[test]
fn namespaces_of_others_stay_closed() {
    let mut user = User::new();
    user.bundle.namespace(json!({"type": "network", "path": "/proc/1/ns/net"}));
    user.run("true").refused_with(&["/proc/1/ns/net", "EACCES"]);
}

#[test]
fn root_of_a_user_namespace_is_a_user_too() {
    let mut user = User::new().through(&["unshare", "--user", "--map-root-user"]);
    user.bundle.set("linux.uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    user.bundle.set("linux.gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    assert_eq!(user.run("id -u; echo x > /dev/null && echo ok").ok(), "0\nok");
    assert!(user.run_directory().join("locule").exists(), "its run directory holds");
}

#[test]
fn root_of_a_user_namespace_needs_no_further_one() {
    let mut user = User::new().through(&["unshare", "--user", "--map-root-user"]);
    user.bundle
        .without_namespace("user")
        .set("linux.uidMappings", json!([]))
        .set("linux.gidMappings", json!([]));
    assert_eq!(user.run("id -u; echo x > /dev/null && echo ok").ok(), "0\nok");
}

#[test]
fn a_user_and_mount_namespace_as_engines_make_them() {
    let mut user = User::new().through(&["unshare", "--user", "--map-root-user", "--mount"]);
    user.bundle
        .without_namespace("user")
        .set("linux.uidMappings", json!([]))
        .set("linux.gidMappings", json!([]));
    assert_eq!(user.run("id -u; echo x > /dev/null && echo ok").ok(), "0\nok");
}

#[test]
fn exec_and_kill_from_the_user_namespace_that_made_the_container() {
    let mut user = User::new().through(&["unshare", "--user", "--map-root-user", "--mount"]);
    user.bundle.script("trap exit TERM; while :; do sleep 1000 & wait; done");
    user.bundle.set("linux.uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    user.bundle.set("linux.gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    // Writes the document.
    user.command(&[]);
    let script = "l=$1 id=$2; $l create $id >/dev/null </dev/null && $l exec $id id -u && $l start $id && \
                  $l exec -t $id tty && $l ps --format json $id && $l kill --all $id KILL; $l delete --force $id; $l list -q";
    let mut call = user.program("sh");
    call.args(["-c", script, "sh"]).arg(crate::user::locule()).arg(user.id());
    let out = crate::lane::complete(&mut call);
    let lines: Vec<&str> = out.ok().lines().map(str::trim_end).collect();
    assert_eq!(lines[..2], ["0", "/dev/pts/0"], "{out:?}");
    let pids: Vec<i32> = serde_json::from_str(lines[2]).unwrap();
    assert!(!pids.is_empty() && lines.len() == 3, "{out:?}");
}
