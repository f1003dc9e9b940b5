//! What a machine is like from inside: its ids, its rights, its networks.

use crate::lab::{Lab, until};

#[test]
fn root_inside_is_nobody_outside() {
    let lab = Lab::new();
    let name = lab.name("m");
    lab.ok(&["launch", "host", &name, "--", "sleep", "1000"]);
    let first = lab.first_id(&name);
    assert!(first >= 524_288);
    let map = lab.sh(&name, "cat /proc/self/uid_map /proc/self/gid_map");
    let words: Vec<&str> = map.split_ascii_whitespace().collect();
    let first = first.to_string();
    assert_eq!(words, ["0", &first, "65536", "0", &first, "65536"]);
    // The image's files are root's inside, and so is what is written.
    assert_eq!(
        lab.sh(&name, "touch /root/x; stat -c %u:%g /usr/bin/env /root/x /etc/passwd").trim(),
        "0:0\n0:0\n0:0"
    );
}

#[test]
fn a_program_has_what_engines_give() {
    let lab = Lab::new();
    let name = lab.name("m");
    lab.ok(&["launch", "host", &name, "--", "sleep", "1000"]);
    let status = lab.sh(&name, "grep -E '^(CapEff|CapBnd|Seccomp):' /proc/1/status | tr -d '\\t'");
    assert_eq!(status.trim(), "CapEff:00000000a80425fb\nCapBnd:00000000a80425fb\nSeccomp:2");
    for refused in [
        "mount -t tmpfs x /mnt",
        "unshare --user true",
        "unshare --mount true",
        "chroot / mount -t proc x /mnt",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "mknod /dev/sda b 8 0",
        "mkdir /sys/fs/cgroup/x",
        "hostname other",
        "dmesg",
    ] {
        let output = lab.locule(&["exec", &name, "--", "sh", "-c", refused]);
        assert!(!output.status.success(), "{refused}");
    }
    assert_eq!(lab.sh(&name, "wc -c < /proc/timer_list; ls /sys/firmware | wc -l").trim(), "0\n0");
    // Its clock began with it.
    let uptime: f64 = lab.sh(&name, "cut -d. -f1 /proc/uptime").trim().parse().unwrap();
    assert!(uptime < 3600.0, "{uptime}");
    lab.sh(&name, "test -c /dev/null && test -L /dev/fd && echo x > /dev/null && echo > /dev/shm/x && test \"$container\" = locule");
}

#[test]
fn rights_are_granted_one_by_one() {
    let lab = Lab::new();
    let name = lab.name("m");
    lab.ok(&["launch", "--cap-drop", "ALL", "--cap-add", "net_raw", "host", &name, "--", "sleep", "1000"]);
    assert_eq!(lab.sh(&name, "grep CapEff /proc/1/status | cut -f2").trim(), "0000000000002000");
    let nesting = lab.name("n");
    lab.ok(&["launch", "--nesting", "host", &nesting, "--", "sleep", "1000"]);
    // A procfs of its own, in namespaces of its own, in the machine's user namespace and in another below it.
    lab.sh(&nesting, "unshare --mount --pid --fork --mount-proc sh -c 'test $$ = 1'");
    lab.sh(&nesting, "unshare --user --map-root-user --mount --pid --fork --mount-proc sh -c 'test $$ = 1'");
    let privileged = lab.name("p");
    lab.ok(&["launch", "--privileged", "host", &privileged, "--", "sleep", "1000"]);
    assert!(lab.sh(&privileged, "cat /proc/self/uid_map").contains("4294967295"));
    assert_eq!(lab.sh(&privileged, "grep '^Seccomp:' /proc/1/status | cut -f2").trim(), "0");
}

#[test]
fn networks_are_as_the_definition_says() {
    let lab = Lab::new();
    let (one, two, none) = (lab.name("one"), lab.name("two"), lab.name("none"));
    lab.ok(&["launch", "-p", "8080:80", "host", &one, "--", "python3", "-m", "http.server", "80"]);
    let address = lab
        .sh(&one, "ip -4 -o addr show dev eth0 | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1")
        .trim()
        .to_owned();
    // The same port is taken; what wanted it is not there.
    let said = lab.refused(&["launch", "-p", "8080:80", "host", &two, "--", "sleep", "1000"]);
    assert!(said.contains("8080"), "{said}");
    lab.assert_gone(&two);
    lab.ok(&["launch", "--network", "none", "host", &none, "--", "sleep", "1000"]);
    assert_eq!(lab.sh(&none, "ls /sys/class/net").trim(), "lo");
    assert!(lab.sh(&none, "cat /etc/hosts").contains("localhost"));
    // The host reaches it, and it keeps its address.
    let reach = format!("exec 3<>/dev/tcp/{address}/80");
    until("its server", || {
        let output = lab.command("bash", &["-c", &reach]).output().unwrap();
        output.status.success().then_some(())
    });
    lab.ok(&["stop", "--kill", &one]);
    lab.ok(&["launch", "-p", "8080:80", "host", &two, "--", "sleep", "1000"]);
    lab.ok(&["rm", "--force", &two]);
    lab.ok(&["start", &one]);
    assert!(lab.sh(&one, "ip -4 -o addr show dev eth0").contains(&address));
    let fixed = lab.name("fixed");
    let said = lab.refused(&["launch", "--ip", &address, "host", &fixed, "--", "sleep", "1000"]);
    assert!(said.contains(&address), "{said}");
    lab.assert_gone(&fixed);
}
