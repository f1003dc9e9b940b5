//! Bridges: neighbours, the host, the outside, other networks.

use crate::lab::{HOST, HOST6, Lab, OUTSIDE, OUTSIDE6, PATIENCE, Space, cannot_reach, reaches};

#[test]
fn neighbours_and_the_host_reach_each_other() {
    let lab = Lab::new();
    lab.network("create --ipv6 web");
    let one = lab.container("web", "one", "");
    let two = lab.container("web", "two", "");
    reaches(&one.space, &two.space, &[&two.ip, &two.ip6]);
    reaches(&lab.host, &one.space, &[&one.ip, &one.ip6]);
    let gateway = lab.show("web")["network"]["subnets"][0]["gateway"].as_str().unwrap().to_owned();
    reaches(&two.space, &lab.host, &[&gateway]);
    // Loopback of the container itself.
    reaches(&two.space, &two.space, &["127.0.0.1", "::1"]);
}

#[test]
fn the_outside_sees_the_hosts_address_and_reaches_nobody_unasked() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create --ipv6 web");
    let one = lab.container("web", "one", "");
    for (to, seen) in [(OUTSIDE, HOST), (OUTSIDE6, HOST6)] {
        for protocol in ["tcp", "udp"] {
            let service = outside.serve(protocol, 4000);
            assert!(one.space.ask(protocol, to, 4000, PATIENCE).is_some(), "{protocol} {to}");
            assert_eq!(service.asked_by(), seen);
        }
    }
    outside.sh(&format!("ip route add {}/32 via {HOST}; ip route add {}/128 via {HOST6}", one.ip, one.ip6));
    cannot_reach(&outside, &[&one.ip, &one.ip6]);
}

#[test]
fn without_nat_addresses_are_kept_both_ways() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create --no-nat --subnet 10.9.0.0/24 --subnet fd00:9::/64 plain");
    let one = lab.container("plain", "one", "");
    outside.sh(&format!("ip route add 10.9.0.0/24 via {HOST}; ip route add fd00:9::/64 via {HOST6}"));
    for (to, seen) in [(OUTSIDE, &one.ip), (OUTSIDE6, &one.ip6)] {
        let service = outside.serve("tcp", 4000);
        assert!(one.space.ask("tcp", to, 4000, PATIENCE).is_some());
        assert_eq!(&service.asked_by(), seen);
    }
    reaches(&outside, &one.space, &[&one.ip, &one.ip6]);
}

#[test]
fn networks_do_not_reach_each_other() {
    let lab = Lab::new();
    lab.network("create --ipv6 web");
    lab.network("create --ipv6 db");
    let one = lab.container("web", "one", "");
    let two = lab.container("db", "two", "");
    cannot_reach(&one.space, &[&two.ip, &two.ip6]);
    cannot_reach(&two.space, &[&one.ip, &one.ip6]);
    // Each is there for the host.
    reaches(&lab.host, &one.space, &[&one.ip, &one.ip6]);
    reaches(&lab.host, &two.space, &[&two.ip, &two.ip6]);
}

#[test]
fn an_internal_network_has_no_way_out() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create --internal --subnet 10.9.0.0/24 inside");
    let one = lab.container("inside", "one", "");
    let two = lab.container("inside", "two", "");
    reaches(&one.space, &two.space, &[&two.ip]);
    cannot_reach(&one.space, &[OUTSIDE]);
    // Nor does a route of the container's own lead out.
    one.space.sh("ip route add default via 10.9.0.1");
    cannot_reach(&one.space, &[OUTSIDE]);
    outside.sh(&format!("ip route add 10.9.0.0/24 via {HOST}"));
    cannot_reach(&outside, &[&one.ip]);
    assert!(
        lab.refused("connect --publish 80:80 --namespace /proc/self/ns/net inside x").contains("host's own")
    );
    let other = Space::new();
    let told = lab.refused(&format!("connect --publish 80:80 --namespace {} inside x", other.path()));
    assert!(told.contains("internal"), "{told}");
}

#[test]
fn a_container_on_several_networks_routes_by_the_first() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create web");
    lab.network("create --internal db");
    let web = lab.container("web", "web1", "");
    let data = lab.container("db", "db1", "");
    lab.connect(&web.space, "db", "web1", "");
    reaches(&web.space, &data.space, &[&data.ip]);
    reaches(&web.space, &outside, &[OUTSIDE]);
    cannot_reach(&data.space, &[OUTSIDE]);
    let shown = web.space.sh("ip -o link show");
    assert!(shown.contains("eth0") && shown.contains("eth1"), "{shown}");
    lab.network("disconnect db web1");
    assert!(!web.space.sh("ip -o link show").contains("eth1"));
    reaches(&web.space, &outside, &[OUTSIDE]);
}

#[test]
fn definition_decides_addresses_size_and_routes() {
    let lab = Lab::new();
    lab.network(
        "create --subnet 10.9.0.0/24 --gateway 10.9.0.254 --range 10.9.0.100-10.9.0.101 --mtu 1400 \
         --route 10.77.0.0/16=10.9.0.9 office",
    );
    let one = lab.container("office", "one", "--mac 02:00:00:00:00:07 --interface net7");
    assert_eq!(one.ip, "10.9.0.100");
    let shown = one.space.sh("ip -o link show net7; ip route");
    for part in ["mtu 1400", "02:00:00:00:00:07", "default via 10.9.0.254", "10.77.0.0/16 via 10.9.0.9"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(lab.container("office", "two", "").ip, "10.9.0.101");
    // Outside of the range, but asked for.
    let four = lab.container("office", "four", "--ip 10.9.0.4");
    assert_eq!(four.ip, "10.9.0.4");
    reaches(&one.space, &four.space, &["10.9.0.4"]);
}

#[test]
fn forwarding_is_on_where_it_is_needed_and_nowhere_else() {
    let (lab, _outside) = Lab::with_outside();
    lab.host.sh("ip link add other0 type veth peer name other1; ip addr add 198.51.100.1/24 dev other0; ip link set other0 up");
    lab.network("create --ipv6 web");
    let _one = lab.container("web", "one", "");
    let get = |name: &str| lab.host.sh(&format!("cat /proc/sys/net/ipv4/conf/{name}/forwarding"));
    assert_eq!([get("lb-web"), get("up0"), get("other0")], ["1\n", "1\n", "0\n"]);
}
