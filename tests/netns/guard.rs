//! Senders under addresses that are not theirs.

use crate::lab::{Container, Lab, PATIENCE, SILENCE, Space, cannot_reach, reaches};

const FORGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns/forge.py");

fn mac(container: &Container) -> String {
    let shown = container.space.sh("ip -o link show eth0");
    shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned()
}

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

#[test]
fn no_frame_takes_over_a_neighbour() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 --subnet fd00:9::/64 web");
    let one = lab.container("web", "one", "");
    let two = lab.container("web", "two", "");
    let evil = lab.container("web", "evil", "");
    reaches(&one.space, &two.space, &[&two.ip, &two.ip6]);
    let before = one.space.sh("ip -6 route show proto ra");
    let (own, victim) = (mac(&evil), mac(&two));
    let sent = evil
        .space
        .sh(&format!("python3 {FORGE} send {own} {} {} {victim} {} {}", evil.ip, evil.ip6, two.ip, two.ip6));
    assert_eq!(sent.lines().count(), 13, "{sent}");
    // The bridge still knows where the victim is, and that is all it knows of this port.
    let known = lab.host.sh("bridge fdb show br lb-web");
    // The kernel's own entries are permanent.
    let of = |container: &Container| -> Vec<&str> {
        known.lines().filter(|line| line.contains(&container.end) && !line.contains("permanent")).collect()
    };
    assert!(of(&two).len() == 1 && of(&two)[0].starts_with(&victim), "{known}");
    assert!(of(&evil).len() == 1 && of(&evil)[0].starts_with(&own), "{known}");
    // And so do the neighbours.
    let neighbours = one.space.sh(&format!("ip neigh show {}; ip neigh show {}", two.ip, two.ip6));
    assert!(!neighbours.contains(&own) && neighbours.matches(&victim).count() == 2, "{neighbours}");
    assert_eq!(one.space.sh("ip -6 route show proto ra"), before, "a false router was believed");
    reaches(&one.space, &two.space, &[&two.ip, &two.ip6]);
    reaches(&lab.host, &two.space, &[&two.ip, &two.ip6]);
    // The attacker itself is heard as before.
    reaches(&one.space, &evil.space, &[&evil.ip, &evil.ip6]);
}

#[test]
fn the_same_frames_take_over_where_nobody_guards() {
    let lab = Lab::new();
    lab.network("create --no-guard --subnet 10.9.0.0/24 --subnet fd00:9::/64 web");
    let one = lab.container("web", "one", "");
    let two = lab.container("web", "two", "");
    let evil = lab.container("web", "evil", "");
    reaches(&one.space, &two.space, &[&two.ip, &two.ip6]);
    let (own, victim) = (mac(&evil), mac(&two));
    // The victim keeps silent: else the bridge learns at once where it really is.
    two.space.sh("ip link set eth0 down");
    evil.space
        .sh(&format!("python3 {FORGE} send {own} {} {} {victim} {} {}", evil.ip, evil.ip6, two.ip, two.ip6));
    let neighbours = one.space.sh(&format!("ip neigh show {}; ip neigh show {}", two.ip, two.ip6));
    assert!(
        neighbours.contains(&own),
        "no frame came through, so that the guard is not tested: {neighbours}"
    );
    let known = lab.host.sh("bridge fdb show br lb-web");
    let moved = known.lines().any(|line| line.starts_with(&victim) && line.contains(&evil.end));
    assert!(moved, "no frame came through, so that the guard is not tested: {known}");
}

/// What comes to a container's interface for a while, during which `act` is done.
fn heard(space: &Space, seconds: f64, act: impl FnOnce()) -> String {
    let (ready, begun) = std::sync::mpsc::channel();
    let listener = space.start(move || {
        use std::io::BufRead;
        let mut child = std::process::Command::new("python3")
            .args([FORGE, "hear", &seconds.to_string()])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        ready.send(()).unwrap();
        let text = std::io::read_to_string(output).unwrap();
        assert!(child.wait().unwrap().success());
        text
    });
    begun.recv().unwrap();
    act();
    listener.join().unwrap()
}

#[test]
fn neighbours_hear_nothing_that_is_not_for_them() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 --subnet fd00:9::/64 web");
    let one = lab.container("web", "one", "");
    let two = lab.container("web", "two", "");
    reaches(&one.space, &two.space, &[&two.ip, &two.ip6]);
    // A new neighbour and its announcements, and a frame to an address that nobody has.
    let mut three = None;
    let text = heard(&one.space, 2.0, || {
        three = Some(lab.container("web", "three", ""));
        let _ = two.space.sh("ip neigh add 10.9.0.77 lladdr 02:00:00:00:00:99 dev eth0");
        let _ = two
            .space
            .run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", "10.9.0.77:4000"));
    });
    // The bridge itself is new as well, and says so once.
    let bridge = lab.host.sh("ip -o link show lb-web");
    let bridge = bridge.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let of_others: Vec<_> = text.lines().filter(|line| !line.contains(&format!("from {bridge}"))).collect();
    assert!(of_others.is_empty(), "{of_others:?}");
    // What is for all of them comes.
    let text = heard(&one.space, 1.0, || {
        let _ = two
            .space
            .run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", "10.9.0.78:4000"));
    });
    assert!(text.contains("0806 to ff:ff:ff:ff:ff:ff"), "{text}");
}
