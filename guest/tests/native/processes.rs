//! What a process of the guest's container is like: as the runtime makes it anywhere.

use locule_runtime::isolation::control::{Answer, Ask, Questions};
use serde_json::json;

use crate::lane::{Tree, finish, process};

#[test]
fn exit_codes_arrive() {
    for code in [0, 1, 42, 255] {
        assert_eq!(Tree::sh(&format!("exit {code}")).run().status, code);
    }
}

#[test]
fn a_signal_that_ends_the_workload_is_told() {
    // Process 1 of a namespace is not ended by its own signals, so a child's end stands for it.
    let output = Tree::sh("sh -c 'kill -9 $$'; echo $?").run();
    assert_eq!(output.ok(), "137");
    let tree = Tree::sh("echo up; exec sleep 1000");
    let mut child = tree.spawn();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let executed = tree.exec(&["/bin/sleep", "1000"]).started();
    executed.connection.ask(&Ask::Signal(15), &[]).unwrap();
    assert!(matches!(executed.finish().0, Answer::Killed(15)));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGUSR1)
        .unwrap();
    let killer = tree.exec(&["/bin/sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).started();
    assert!(matches!(killer.finish().0, Answer::Exited(0)));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn signals_reach_a_workload_that_handles_them() {
    let tree = Tree::sh("trap 'echo got; exit 7' TERM; echo up; while :; do sleep 0.1; done");
    let mut child = tree.spawn();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    let output = finish(child);
    assert_eq!((output.status, output.stdout.as_str()), (7, "got\n"));
}

#[test]
fn the_process_has_the_attributes_of_the_document() {
    let mut tree = Tree::sh(
        "id -u; id -G; pwd; echo $COLOUR; hostname; ulimit -n; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; \
         cat /proc/self/oom_score_adj; cat /proc/kcore | wc -c; echo x 2>&1 >/proc/sys/kernel/domainname; umask",
    );
    let process = &mut tree.config["process"];
    process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7], "umask": 0o027});
    process["cwd"] = json!("/tmp");
    process["env"] = json!(["PATH=/bin", "COLOUR=blue"]);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
    process["oomScoreAdj"] = json!(100);
    tree.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}],
    });
    let output = tree.run();
    let lines: Vec<&str> = output.ok().lines().collect();
    assert_eq!(&lines[..6], ["1000", "1000 7", "/tmp", "blue", "inner", "77"], "{output:?}");
    let status = |key: &str| {
        let line = lines.iter().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{output:?}"));
        line.split_ascii_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(status("CapEff:"), "0000000000000000");
    assert_eq!(status("CapBnd:"), "0000000000000421");
    assert_eq!((status("NoNewPrivs:").as_str(), status("Seccomp:").as_str()), ("1", "2"));
    assert_eq!(lines[10], "100");
    assert_eq!(lines[11], "0", "a masked file is empty");
    assert!(
        output.stderr.contains("/proc/sys/kernel/domainname") || lines[12].contains("domainname"),
        "{output:?}"
    );
    assert_eq!(*lines.last().unwrap(), "0027");
}

#[test]
fn a_bind_mount_comes_from_the_hosts_share() {
    let mut tree = Tree::sh("cat /data/word; echo new >/data/made");
    std::fs::create_dir_all(tree.dir.join("mounts/0")).unwrap();
    std::fs::write(tree.dir.join("mounts/0/word"), "shared\n").unwrap();
    tree.config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/data", "type": "bind", "source": "/mounts/0", "options": ["rbind"]}));
    assert_eq!(tree.run().ok(), "shared");
    assert_eq!(std::fs::read_to_string(tree.dir.join("mounts/0/made")).unwrap(), "new\n");
}

#[test]
fn the_guests_own_files_are_not_the_containers() {
    let output =
        Tree::sh("ls /; ls -d /modules /mounts /init 2>&1; cat /proc/1/comm; grep ^0: /proc/self/cgroup")
            .run();
    assert!(output.stdout.contains("No such file"), "{output:?}");
    assert!(output.stdout.ends_with("sh\n0::/\n"), "{output:?}");
}

#[test]
fn processes_and_statistics_are_told() {
    let tree = Tree::sh("sleep 1001 & echo up; read line");
    let mut child = tree.spawn();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let list = loop {
        let Answer::Processes(list) = tree.connect().question(&Ask::Processes).unwrap() else { panic!() };
        // A child of a shell is one, too, until it executes something else.
        if list.iter().any(|member| member.command == "sleep 1001") {
            break list;
        }
    };
    let commands: Vec<&str> = list.iter().map(|member| member.command.as_str()).collect();
    assert_eq!(commands.len(), 2, "{list:?}");
    assert!(commands[0].starts_with("/bin/sh -c") && commands[1] == "sleep 1001", "{list:?}");
    assert_eq!(list[0].pid, 1);
    let Answer::Statistics(stats) = tree.connect().question(&Ask::Statistics).unwrap() else { panic!() };
    assert!(stats.get("cpu").is_some(), "{stats}");
    drop(child.stdin.take());
    assert_eq!(finish(child).status, 1);
}

#[test]
fn an_update_of_what_the_guest_cannot_limit_is_told() {
    let tree = Tree::sh("echo up; read line");
    let mut child = tree.spawn();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let resources = serde_json::from_value(json!({"pids": {"limit": 50}})).unwrap();
    match tree.connect().question(&Ask::Update(Box::new(resources))) {
        Ok(Answer::Done) => {}
        Ok(other) => panic!("{other:?}"),
        // This lane has no such controller; the virtual machine's own kernel has.
        Err(err) => assert!(err.to_string().contains("pids"), "{err}"),
    }
    drop(child);
}

#[test]
fn the_interface_is_what_the_host_says() {
    let mut tree = Tree::sh("ip addr show eth0; ip route; ip neigh; ip addr show lo");
    tree.env = vec![
        (
            "LOCULE_LINK".into(),
            "ip link add name v9 address 02:00:00:00:00:09 type veth peer name p9 && ip link set p9 up"
                .into(),
        ),
        (
            "LOCULE_NETWORK".into(),
            json!({
                "name": "eth0", "mac": "02:00:00:00:00:09", "mtu": 1400,
                "addresses": ["10.9.0.2/24", "fd00:9::2/64"],
                "routes": [
                    {"destination": "10.77.0.0/16"},
                    {"destination": "0.0.0.0/0", "gateway": "10.9.0.1", "metric": 5},
                    {"destination": "::/0", "gateway": "fd00:9::1"},
                ],
                "neighbours": [{"address": "10.9.0.1", "mac": "02:00:00:00:00:01"}],
            })
            .to_string(),
        ),
    ];
    let output = tree.run();
    let text = output.ok();
    for word in [
        "mtu 1400",
        "inet 10.9.0.2/24 brd 10.9.0.255",
        "inet6 fd00:9::2/64",
        "default via 10.9.0.1 dev eth0  metric 5",
        "10.77.0.0/16 dev eth0",
        "02:00:00:00:00:01",
        "inet 127.0.0.1/8",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn an_end_of_the_callers_connection_ends_its_process() {
    let tree = Tree::sh("echo up; read line");
    let mut child = tree.spawn();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let executed = tree.exec_process(process(&["/bin/sleep", "1002"])).started();
    drop(executed);
    // The process list is asked for until it is gone: its end is told to nobody any more.
    while let Answer::Processes(list) = tree.connect().question(&Ask::Processes).unwrap() {
        if !list.iter().any(|member| member.command.contains("sleep 1002")) {
            break;
        }
    }
    drop(child.stdin.take());
    finish(child);
}
