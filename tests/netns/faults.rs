//! Kills in the middle, other people's tables, hosts that are full.

use serde_json::Value;

use crate::lab::{HOST, Lab, PATIENCE, Space, reaches};

/// Every point of an attachment, then of a detachment, at which a call can be killed.
const CONNECTING: &[&str] =
    &["claimed", "recorded", "bridge", "pair", "configured", "rules", "pool", "class", "rates", "names"];
const DISCONNECTING: &[&str] = &["removed-link", "removed-rules"];
const OPTIONS: &str = "-p 8080:80 --up 10mbit --down 10mbit --firewall";
/// Limits of both sorts: an own queue one way, a part of the network's rate the other.
const NETWORK: &str = "create --ipv6 --up 100mbit web";

fn killed(lab: &Lab, line: &str, point: &str) {
    let words: Vec<_> = std::iter::once("network").chain(line.split_whitespace()).collect();
    let output = lab.call_with(&words, &[("LOCULE_NETWORK_FAULT", point)]);
    assert_eq!(output.status, None, "{point}: {output:?}");
}

#[test]
fn a_killed_connect_is_finished_by_the_next() {
    for point in CONNECTING {
        let lab = Lab::new();
        lab.network(NETWORK);
        let space = Space::new();
        let connect = format!("connect {OPTIONS} --namespace {} web one", space.path());
        killed(&lab, &connect, point);
        // Whether it was complete is for the next call to find out: the same one, or its opposite.
        let again = lab.call(&[&["network"][..], &connect.split_whitespace().collect::<Vec<_>>()].concat());
        if again.status != Some(0) {
            assert!(again.stderr.contains("is on network web already"), "{point}: {again:?}");
        }
        lab.network("check one");
        let limits = lab.host.sh(
            "tc qdisc show; for d in $(ip -o link | grep -o 'lcu-[0-9a-f]*'); do tc class show dev $d; done",
        );
        assert!(limits.contains("tbf") && limits.contains("ceil 10Mbit"), "{point}: {limits}");
        let service = space.serve("tcp", 80);
        assert!(lab.host.ask("tcp", "127.0.0.1", 8080, PATIENCE).is_some(), "{point}");
        service.asked_by();
        lab.network("disconnect web one");
        lab.network("rm web");
        assert_eq!(lab.remains(), "", "{point}");
    }
}

#[test]
fn after_a_kill_gc_leaves_nothing() {
    for point in CONNECTING.iter().chain(DISCONNECTING) {
        let lab = Lab::new();
        lab.network(NETWORK);
        let space = Space::new();
        let connect = format!("connect {OPTIONS} --namespace {} web one", space.path());
        if DISCONNECTING.contains(point) {
            lab.network(&connect);
            killed(&lab, "disconnect web one", point);
        } else {
            killed(&lab, &connect, point);
        }
        // The container is gone as well, or its namespace is still there: either way nothing remains but a bridge.
        drop(space);
        lab.network("gc");
        lab.network("rm web");
        assert_eq!(lab.remains(), "", "{point}");
    }
}

#[test]
fn others_tables_are_never_touched() {
    let (lab, outside) = Lab::with_outside();
    // As of firewalld and Docker: base chains at the same hooks, sets and chains with names like ours.
    let foreign = "
        table inet firewalld {
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                ct state established,related accept
            }
            chain nat_PRE {
                type nat hook prerouting priority dstnat + 10; policy accept;
            }
        }
        table ip nat {
            chain POSTROUTING {
                type nat hook postrouting priority srcnat; policy accept;
                oifname \"docker0\" counter masquerade
            }
        }
        table inet admin {
            set bridges {
                type ifname
                elements = { \"lb-web\" }
            }
        }
";
    std::fs::write(lab.dir.join("foreign.nft"), foreign).unwrap();
    lab.host.sh(&format!("nft -f {}", lab.dir.join("foreign.nft").display()));
    let others =
        || lab.host.sh("nft list table inet firewalld; nft list table ip nat; nft list table inet admin");
    let before = others();
    lab.network("create web");
    let one = lab.container("web", "one", "-p 8080:80");
    let service = one.space.serve("tcp", 80);
    assert!(outside.ask("tcp", HOST, 8080, PATIENCE).is_some());
    service.asked_by();
    lab.network("gc");
    lab.network("disconnect web one");
    lab.network("rm web");
    assert_eq!(others(), before);
}

#[test]
fn a_flushed_ruleset_comes_back() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create web");
    let one = lab.container("web", "one", "-p 8080:80 -p 9000-9999:9000-9999");
    lab.host.sh("nft flush ruleset");
    let told = lab.refused("check one");
    assert!(told.contains("network gc"), "{told}");
    let told: Value = serde_json::from_str(&lab.network("gc --format json")).unwrap();
    assert!(told["restored"].as_u64().unwrap() > 1000, "{told}");
    lab.network("check one");
    let service = one.space.serve("tcp", 80);
    assert!(outside.ask("tcp", HOST, 8080, PATIENCE).is_some());
    service.asked_by();
    // Single elements as well, and what does not belong there goes.
    lab.host.sh(
        "nft delete element inet locule bridges { lb-web }; nft add element inet locule bridges { foreign0 }",
    );
    let told: Value = serde_json::from_str(&lab.network("gc --format json")).unwrap();
    assert_eq!((told["elements"].as_u64(), told["restored"].as_u64()), (Some(1), Some(1)), "{told}");
    // A new container after a flush brings the old one's back, too.
    lab.host.sh("nft flush ruleset");
    let _two = lab.container("web", "two", "");
    lab.network("check one");
}

#[test]
fn subnets_of_the_host_are_not_taken() {
    let (lab, _outside) = Lab::with_outside();
    lab.network("create --subnet 192.0.2.0/25 web");
    let space = Space::new();
    let told = lab.refused(&format!("connect --namespace {} web one", space.path()));
    assert!(told.contains("192.0.2.0/25") && told.contains("up0"), "{told}");
    assert_eq!(lab.remains(), "");
    // Nor is one chosen that is in use.
    lab.host.sh("ip addr add 10.130.0.9/16 dev up0");
    lab.network("create auto");
    assert_eq!(lab.show("auto")["network"]["subnets"][0]["subnet"], "10.131.0.0/24");
}

#[test]
fn another_interface_of_the_name_is_not_taken() {
    let lab = Lab::new();
    lab.host.sh("ip link add lb-web type veth peer name other0");
    lab.network("create web");
    let space = Space::new();
    let told = lab.refused(&format!("connect --namespace {} web one", space.path()));
    assert!(told.contains("lb-web") && told.contains("no bridge"), "{told}");
    assert!(lab.host.sh("ip -o link").contains("lb-web@other0"));
    lab.network("rm web");
    assert!(lab.host.sh("ip -o link").contains("lb-web@other0"));
    // Nor an interface of the container.
    lab.network("create web");
    lab.host.sh("ip link del lb-web");
    space.sh("ip link add eth0 type veth peer name eth9");
    let told = lab.refused(&format!("connect --namespace {} web one", space.path()));
    assert!(told.contains("eth0") && told.contains("EEXIST"), "{told}");
    lab.network("rm web");
    assert_eq!(lab.remains(), "");
}

/// As when a package is purged and installed again.
#[test]
fn the_bridge_of_a_network_whose_definition_is_gone() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 web");
    let one = lab.container("web", "one", "");
    std::fs::remove_dir_all(lab.dir.join("networks")).unwrap();
    // It is not taken away from who is on it.
    lab.network("create --subnet 10.9.1.0/24 web");
    assert!(lab.host.sh("ip -o -4 addr show dev lb-web").contains("10.9.0.1/24"));
    reaches(&lab.host, &one.space, &[&one.ip]);
    drop(one);
    lab.network("disconnect web one");
    std::fs::remove_dir_all(lab.dir.join("networks")).unwrap();
    lab.network("create --subnet 10.9.1.0/24 web");
    let two = lab.container("web", "two", "");
    let addresses = lab.host.sh("ip -o -4 addr show dev lb-web");
    assert!(addresses.contains("10.9.1.1/24") && !addresses.contains("10.9.0.1"), "{addresses}");
    reaches(&lab.host, &two.space, &[&two.ip]);
}

#[test]
fn many_at_once_get_different_addresses() {
    let lab = std::sync::Arc::new(Lab::new());
    lab.network("create --subnet 10.9.0.0/27 web");
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let lab = std::sync::Arc::clone(&lab);
            std::thread::spawn(move || lab.container("web", &format!("c{number}"), ""))
        })
        .collect();
    let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let mut addresses: Vec<_> = all.iter().map(|container| container.ip.clone()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 16);
    reaches(&all[0].space, &all[15].space, &[&all[15].ip]);
}

#[test]
fn a_killed_change_is_finished_by_gc() {
    let lab = Lab::new();
    lab.network("create web");
    let one = lab.container("web", "one", "--up 10mbit");
    let state = || {
        lab.host.sh(
            "tc qdisc show; for d in $(ip -o link | grep -o 'lcu-[0-9a-f]*'); do tc class show dev $d; done",
        )
    };
    for point in ["limited", "pool", "class"] {
        killed(&lab, "set --up 50mbit web", point);
        lab.network("gc");
        let now = state();
        assert!(
            now.contains("ceil 10Mbit") && now.contains("rate 50Mbit") && !now.contains("tbf"),
            "{point}: {now}"
        );
        lab.network("set --up none web");
        assert!(state().contains("tbf") && !state().contains("htb"), "{point}: {}", state());
    }
    drop(one);
    lab.network("gc");
    lab.network("rm web");
    assert_eq!(lab.remains(), "");
}

#[test]
fn a_full_bridge_says_so() {
    let lab = Lab::new();
    lab.network("create web");
    let _one = lab.container("web", "one", "");
    // 1023 ports are the kernel's limit (BR_MAX_PORTS is 1024, and number 0 is none).
    let lines: String =
        (0..1022).map(|number| format!("link add d{number} master lb-web type ifb\n")).collect();
    let batch = lab.dir.join("batch");
    std::fs::write(&batch, lines).unwrap();
    lab.host.sh(&format!("ip -batch {}", batch.display()));
    let space = Space::new();
    let told = lab.refused(&format!("connect --namespace {} web two", space.path()));
    assert!(told.contains("EXFULL") && told.contains("1023"), "{told}");
    lab.host.sh("ip link del d7");
    lab.network(&format!("connect --namespace {} web two", space.path()));
}

#[test]
fn the_first_use_makes_the_default_network_once() {
    let lab = std::sync::Arc::new(Lab::new());
    let threads: Vec<_> = (0..10)
        .map(|number| {
            let lab = std::sync::Arc::clone(&lab);
            std::thread::spawn(move || lab.container("default", &format!("c{number}"), ""))
        })
        .collect();
    let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let subnets = lab.show("default")["network"]["subnets"].as_array().unwrap().clone();
    assert_eq!(subnets.len(), 2, "{subnets:?}");
    assert!(subnets[1]["subnet"].as_str().unwrap().starts_with("fd"), "{subnets:?}");
    assert_eq!(lab.network("ls --quiet"), "default\n");
    reaches(&all[0].space, &all[9].space, &[&all[9].ip, &all[9].ip6]);
    // No other name is made by using it.
    let told = lab.refused(&format!("connect --namespace {} other x", all[0].space.path()));
    assert!(told.contains("\"other\""), "{told}");
}

#[test]
fn a_boot_finds_nothing_to_do_and_forgets_the_one_before() {
    let lab = Lab::new();
    lab.network("create --ipv6 --up 100mbit web");
    lab.network("create --kind routed --subnet 10.9.0.0/24 routed");
    // /run is empty, and so is the kernel: definitions alone are no reason to make anything.
    assert_eq!(lab.network("gc"), "");
    assert_eq!(lab.remains(), "");
    assert!(!lab.host.sh("nft list tables").contains("locule"));
    // A directory of claims that outlives the boot. The process that had the container's pid may even be there.
    let one = lab.container("web", "one", "-p 8080:80 --up-min 1mbit");
    let path = lab.claims().join("containers/one.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["owner"]["boot"] = "another".into();
    std::fs::write(&path, record.to_string()).unwrap();
    let told = lab.network("gc");
    assert!(told.contains("container one"), "{told}");
    lab.network(
        "connect web two --namespace /proc/self/ns/net"
            .replace("/proc/self/ns/net", &one.space.path())
            .as_str(),
    );
    lab.network("disconnect --all two");
    lab.network("rm web");
    lab.network("rm routed");
    assert_eq!(lab.remains(), "");
}
