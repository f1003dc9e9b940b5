//! Kinds beside bridges: routed, macvlan, ipvlan, an interface of the host.

use crate::lab::{HOST, HOST6, Lab, OUTSIDE, PATIENCE, SILENCE, Space, cannot_reach, reaches};

#[test]
fn routed_containers_have_addresses_of_the_outside() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create --kind routed --parent up0 --subnet 192.0.2.64/28 --subnet 2001:db8::40/124 routed");
    let one = lab.container("routed", "one", "");
    let two = lab.container("routed", "two", "");
    assert_eq!(one.ip, "192.0.2.65");
    // The outside has no route: the host answers for the containers on its network.
    reaches(&outside, &one.space, &[&one.ip, &one.ip6]);
    reaches(&one.space, &two.space, &[&two.ip, &two.ip6]);
    reaches(&lab.host, &one.space, &[&one.ip, &one.ip6]);
    let service = outside.serve("tcp", 4000);
    assert!(one.space.ask("tcp", OUTSIDE, 4000, PATIENCE).is_some());
    assert_eq!(service.asked_by(), one.ip);
    // No layer 2 in common, and no other sender than oneself.
    let neighbours = one.space.sh("ip neigh");
    assert!(!neighbours.contains(&two.ip), "{neighbours}");
    one.space.sh(&format!("ip addr add {}/32 dev eth0; ip addr add 192.0.2.77/32 dev eth0", two.ip));
    let listener = outside.run(|| std::net::UdpSocket::bind("0.0.0.0:4002").unwrap());
    listener.set_read_timeout(Some(SILENCE)).unwrap();
    one.space.run(|| {
        let socket = std::net::UdpSocket::bind("192.0.2.77:0").unwrap();
        socket.send_to(b"hello", (OUTSIDE, 4002)).unwrap();
    });
    assert!(listener.recv(&mut [0; 64]).is_err(), "a false sender was heard");
    lab.network("set --firewall on routed two");
    cannot_reach(&outside, &[&two.ip]);
    lab.network("disconnect routed one");
    lab.network("disconnect routed two");
    assert_eq!(lab.host.sh("ip neigh show proxy; ip -6 neigh show proxy"), "");
    lab.network("rm routed");
    assert_eq!(lab.remains(), "");
}

#[test]
fn routed_containers_publish_ports() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create --kind routed --subnet 10.9.0.0/24 routed");
    let one = lab.container("routed", "one", "-p 8080:80");
    for (from, to) in [(&outside, HOST), (&lab.host, HOST), (&lab.host, "127.0.0.1"), (&one.space, HOST)] {
        let service = one.space.serve("tcp", 80);
        assert!(from.ask("tcp", to, 8080, PATIENCE).is_some(), "{to}");
        service.asked_by();
    }
}

#[test]
fn macvlan_is_on_the_hosts_network() {
    let (lab, outside) = Lab::with_outside();
    // As most hosts have one.
    lab.host.sh("ip link add eth0 type ifb");
    lab.network("create --kind macvlan --parent up0 --subnet 192.0.2.0/24 --gateway 192.0.2.2 --range 192.0.2.100-192.0.2.110 lan");
    let one = lab.container("lan", "one", "--mac 02:00:00:00:00:07");
    let two = lab.container("lan", "two", "");
    assert_eq!((one.ip.as_str(), two.ip.as_str()), ("192.0.2.100", "192.0.2.101"));
    reaches(&outside, &one.space, &[&one.ip]);
    reaches(&one.space, &two.space, &[&two.ip]);
    let shown = one.space.sh("ip -d -o link show eth0; ip route");
    assert!(shown.contains("macvlan") && shown.contains("02:00:00:00:00:07"), "{shown}");
    assert!(shown.contains("default via 192.0.2.2"), "{shown}");
    let space = Space::new();
    let told = lab.refused(&format!("connect --namespace {} -p 80:80 lan three", space.path()));
    assert!(told.contains("published port") && told.contains("macvlan"), "{told}");
    let told =
        lab.refused(&format!("connect --namespace {} --mac 02:00:00:00:00:07 lan three", space.path()));
    assert!(told.contains("\"one\""), "{told}");
    lab.network("disconnect lan one");
    assert!(!one.space.sh("ip -o link").contains("eth0"));
    drop(two);
    lab.network("gc");
    lab.network("rm lan");
    assert_eq!(lab.remains(), "");
}

#[test]
fn ipvlan_works_or_names_the_missing_module() {
    let (lab, outside) = Lab::with_outside();
    lab.network(
        "create --kind ipvlan --parent up0 --subnet 192.0.2.0/24 --range 192.0.2.100-192.0.2.110 lan",
    );
    let there = lab.host.run(|| {
        let line = "ip link add link up0 name probe0 type ipvlan && ip link del probe0";
        std::process::Command::new("sh")
            .args(["-c", line])
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
    });
    if there.success() {
        let one = lab.container("lan", "one", "");
        reaches(&outside, &one.space, &[&one.ip]);
    } else {
        let space = Space::new();
        let told = lab.refused(&format!("connect --namespace {} lan one", space.path()));
        assert!(told.contains("EOPNOTSUPP") && told.contains("modprobe ipvlan"), "{told}");
        assert_eq!(lab.remains(), "");
    }
}

#[test]
fn an_interface_moves_in_and_back() {
    let lab = Lab::new();
    let far = Space::new();
    lab.host.sh(&format!("ip link add dev7 type veth peer name far7 netns {}", far.path()));
    far.sh("ip addr add 10.9.0.1/24 dev far7; ip link set far7 up");
    lab.network("create --kind device --parent dev7 --subnet 10.9.0.0/24 --gateway 10.9.0.1 wire");
    let one = lab.container("wire", "one", "--interface wan0");
    assert!(!lab.host.sh("ip -o link").contains("dev7"));
    reaches(&one.space, &far, &["10.9.0.1"]);
    let space = Space::new();
    let told = lab.refused(&format!("connect --namespace {} wire two", space.path()));
    assert!(told.contains("dev7") && told.contains("\"one\""), "{told}");
    lab.network("disconnect wire one");
    assert!(lab.host.sh("ip -o link").contains("dev7"));
    assert!(!one.space.sh("ip -o link").contains("wan0"));
    lab.network("rm wire");
    assert_eq!(lab.remains(), "");
}

#[test]
fn a_virtual_interface_ends_with_a_container_that_dies() {
    let lab = Lab::new();
    lab.network("create --kind device --parent dev7 --subnet 10.9.0.0/24 wire");
    for _ in 0..2 {
        lab.host.sh("ip link add dev7 type ifb");
        let one = lab.container("wire", "one", "");
        drop(one);
        // Whether the kernel has ended the namespace by now or not: the claim is free, and nothing waits for it.
        assert!(lab.network("gc").contains("container one"));
        assert!(!lab.host.sh("ip -o link").contains("dev7"));
    }
    lab.network("rm wire");
    assert_eq!(lab.remains(), "");
}

#[test]
fn a_missing_parent_is_named() {
    let lab = Lab::new();
    lab.network("create --kind macvlan --parent gone0 --subnet 10.9.0.0/24 lan");
    let space = Space::new();
    let told = lab.refused(&format!("connect --namespace {} lan one", space.path()));
    assert!(told.contains("gone0"), "{told}");
    assert_eq!(lab.remains(), "");
    assert!(HOST6.contains(':'));
}
