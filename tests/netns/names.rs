//! Names: hosts and resolv.conf.

use std::fs;

use crate::lab::{Lab, Space};

#[test]
fn neighbours_know_each_other_by_name() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 --subnet fd00:9::/64 web");
    let one = lab.container("web", "one", "--alias www --alias one");
    let text = || fs::read_to_string(&one.hosts).unwrap();
    // What is bound by its inode must stay the same file.
    let bound = fs::File::open(&one.hosts).unwrap();
    assert!(text().starts_with("127.0.0.1 localhost\n"));
    assert!(text().contains("10.9.0.2 one www #") && text().contains("fd00:9::2 one www #"), "{}", text());
    let two = lab.container("web", "two", "");
    assert_eq!(two.hosts, one.hosts);
    assert!(text().contains("10.9.0.3 two #"), "{}", text());
    lab.network("disconnect web two");
    assert!(!text().contains("two") && text().contains("one www"), "{}", text());
    let seen = std::io::read_to_string(&bound).unwrap();
    assert_eq!(seen, text());
    drop(one);
    lab.network("gc");
    let text = fs::read_to_string(&two.hosts).unwrap();
    assert!(!text.contains("one") && text.contains("localhost"), "{text}");
}

#[test]
fn name_servers_are_the_networks_own() {
    let lab = Lab::new();
    lab.network("create --dns 192.0.2.53 --dns 2001:db8::53 --search a.test --search b.test web");
    let (got, _) = lab.connect(&Space::new(), "web", "one", "");
    let text = fs::read_to_string(got["resolv"].as_str().unwrap()).unwrap();
    let expected = "search a.test b.test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n";
    let without_options: String =
        text.split_inclusive('\n').filter(|line| !line.starts_with("options")).collect();
    assert_eq!(without_options, expected);
}

/// What the container's resolv.conf is on a host with these two files.
fn inherited(lab: &Lab, name: &str, own: &str, behind: &str) -> String {
    let [own_file, behind_file] = [("own", own), ("behind", behind)].map(|(file, text)| {
        let path = lab.dir.join(file);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    });
    let space = Space::new();
    // In a mount namespace of the call's own.
    let text = lab.host.sh(&format!(
        "unshare --mount sh -ec '
             [ ! -L /etc/resolv.conf ] || {{ mount -t tmpfs none /etc; touch /etc/resolv.conf; }}
             mount --bind {own_file} /etc/resolv.conf
             mount -t tmpfs none /run; mkdir -p /run/systemd/resolve; cp {behind_file} /run/systemd/resolve/resolv.conf
             export LOCULE_NETWORKS={0}/networks LOCULE_NETWORK_CLAIMS={1}
             exec {2} network connect --format json --namespace {3} web {name}'",
        lab.dir.display(),
        lab.claims().display(),
        crate::lab::LOCULE,
        space.path(),
    ));
    let got: serde_json::Value = serde_json::from_str(&text).unwrap();
    fs::read_to_string(got["resolv"].as_str().unwrap()).unwrap()
}

#[test]
fn the_hosts_resolver_is_inherited_from_behind_a_stub() {
    let lab = Lab::new();
    lab.network("create web");
    let behind = "nameserver 192.0.2.7\nnameserver fe80::1%eth0\nsearch lan.test\n";
    // Not systemd-resolved: the host's own, but what only the host reaches.
    let text = inherited(&lab, "one", "search a.test\nnameserver 192.0.2.1\nnameserver 127.0.0.1\n", behind);
    assert_eq!(text, "search a.test\nnameserver 192.0.2.1\n");
    // Its stub.
    let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
    assert_eq!(inherited(&lab, "two", stub, behind), "search lan.test\nnameserver 192.0.2.7\n");
}
