//! Senders under addresses that are not theirs.

use crate::lab::{Lab, PATIENCE, SILENCE, cannot_reach, reaches};

#[test]
fn false_addresses_are_not_heard() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 --subnet fd00:9::/64 web");
    let one = lab.container("web", "one", "");
    let two = lab.container("web", "two", "");
    reaches(&one.space, &two.space, &[&two.ip, &two.ip6]);
    // IPv4 and IPv6 addresses of nobody.
    one.space.sh("ip addr add 10.9.0.77/24 dev eth0; ip addr add fd00:9::77/64 dev eth0 nodad");
    for (from, to) in [("10.9.0.77:0", &two.ip), ("[fd00:9::77]:0", &two.ip6)] {
        let listener = two.space.run(|| std::net::UdpSocket::bind("[::]:4002").unwrap());
        listener.set_read_timeout(Some(SILENCE)).unwrap();
        let to: std::net::SocketAddr =
            format!("{}:4002", if to.contains(':') { format!("[{to}]") } else { to.clone() })
                .parse()
                .unwrap();
        let from = from.to_owned();
        one.space.run(move || {
            let socket = std::net::UdpSocket::bind(from).unwrap();
            socket.send_to(b"hello", to).unwrap();
        });
        assert!(listener.recv(&mut [0; 64]).is_err(), "a false sender was heard");
        // What it says under its own name is heard.
        let service = one.space.serve("tcp", 4000);
        let own = if to.is_ipv4() { &one.ip } else { &one.ip6 };
        assert!(two.space.ask("tcp", own, 4000, PATIENCE).is_some());
        service.asked_by();
    }
    // Nobody learns that the address is here.
    cannot_reach(&two.space, &["10.9.0.77", "fd00:9::77"]);
    // A hardware address that is not the container's.
    one.space.sh("ip link set eth0 address 02:00:00:00:00:99");
    cannot_reach(&one.space, &[&two.ip, &two.ip6]);
}

#[test]
fn an_address_cannot_be_taken_over_by_arp() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 web");
    let one = lab.container("web", "one", "");
    let two = lab.container("web", "two", "");
    let evil = lab.container("web", "evil", "");
    evil.space.sh(&format!("ip addr add {}/24 dev eth0; ip addr add 10.9.0.1/24 dev eth0", two.ip));
    // Announcements, as arping -A sends them.
    evil.space.sh(&format!(
        "busybox arping -A -c 2 -I eth0 {} >/dev/null || true; busybox arping -U -c 2 -I eth0 10.9.0.1 >/dev/null || true",
        two.ip
    ));
    reaches(&one.space, &two.space, &[&two.ip]);
    reaches(&one.space, &lab.host, &["10.9.0.1"]);
}

#[test]
fn without_a_guard_all_is_heard() {
    let lab = Lab::new();
    lab.network("create --no-guard --subnet 10.9.0.0/24 web");
    let one = lab.container("web", "one", "");
    let two = lab.container("web", "two", "");
    one.space.sh("ip addr add 10.9.0.77/24 dev eth0");
    let service = one.space.serve("tcp", 4000);
    assert!(two.space.ask("tcp", "10.9.0.77", 4000, PATIENCE).is_some());
    service.asked_by();
}

#[test]
fn a_firewall_leaves_published_ports_and_the_way_out() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create --subnet 10.9.0.0/24 web");
    let one = lab.container("web", "one", "--firewall -p 8080:4000 -p 8080:4000/udp");
    let two = lab.container("web", "two", "");
    cannot_reach(&two.space, &[&one.ip]);
    cannot_reach(&one.space, &[&two.ip]);
    reaches(&one.space, &outside, &[crate::lab::OUTSIDE]);
    for from in [&outside, &two.space, &lab.host] {
        let service = one.space.serve("tcp", 4000);
        assert!(from.ask("tcp", crate::lab::HOST, 8080, PATIENCE).is_some());
        service.asked_by();
    }
    lab.network("set --firewall off web one");
    reaches(&two.space, &one.space, &[&one.ip]);
    lab.network("set --firewall on web one");
    cannot_reach(&two.space, &[&one.ip]);
}
