//! Published ports: from the host, from outside, from neighbours and from the container itself.

use crate::lab::{HOST, HOST6, Lab, PATIENCE, Space};

/// Asks at `address:port` from `from`; `to` must be who answers.
#[track_caller]
fn leads(from: &Space, address: &str, port: u16, to: &Space, inner: u16) {
    for protocol in ["tcp", "udp"] {
        let service = to.serve(protocol, inner);
        let answer = from.ask(protocol, address, port, PATIENCE);
        assert!(answer.is_some(), "{protocol} {address}:{port}");
        service.asked_by();
    }
}

const BOTH: &str = "-p 8080:80 -p 8080:80/udp";

#[test]
fn from_everywhere() {
    let (lab, outside) = Lab::with_outside();
    all_ways(&lab, &outside);
}

#[test]
fn from_everywhere_where_br_netfilter_is_at_work() {
    let (lab, outside) = Lab::with_outside();
    // As Docker and Kubernetes have it; without the module there is nothing to test.
    let switch =
        "for f in /proc/sys/net/bridge/bridge-nf-call-ip*; do if [ -e $f ]; then echo 1 >$f; fi; done";
    lab.host.sh(switch);
    all_ways(&lab, &outside);
}

fn all_ways(lab: &Lab, outside: &Space) {
    lab.network("create --ipv6 web");
    lab.network("create --ipv6 other");
    let one = lab.container("web", "one", BOTH);
    let two = lab.container("web", "two", "");
    let far = lab.container("other", "far", "");
    // From outside, and from the host itself.
    leads(outside, HOST, 8080, &one.space, 80);
    leads(outside, HOST6, 8080, &one.space, 80);
    leads(&lab.host, HOST, 8080, &one.space, 80);
    leads(&lab.host, "127.0.0.1", 8080, &one.space, 80);
    leads(&lab.host, HOST6, 8080, &one.space, 80);
    // From the neighbour, from the container itself, from another network.
    leads(&two.space, HOST, 8080, &one.space, 80);
    leads(&two.space, HOST6, 8080, &one.space, 80);
    leads(&one.space, HOST, 8080, &one.space, 80);
    leads(&one.space, HOST6, 8080, &one.space, 80);
    leads(&far.space, HOST, 8080, &one.space, 80);
    // The container is told who asks.
    let service = one.space.serve("tcp", 80);
    assert!(outside.ask("tcp", HOST, 8080, PATIENCE).is_some());
    assert_eq!(service.asked_by(), crate::lab::OUTSIDE);
    lab.network("disconnect web one");
    assert_eq!(outside.run(move || refused(HOST, 8080)), Some(std::io::ErrorKind::ConnectionRefused));
}

fn refused(address: &str, port: u16) -> Option<std::io::ErrorKind> {
    let at: std::net::IpAddr = address.parse().unwrap();
    std::net::TcpStream::connect_timeout(&(at, port).into(), PATIENCE).err().map(|err| err.kind())
}

#[test]
fn ranges_and_single_addresses() {
    let (lab, outside) = Lab::with_outside();
    lab.host.sh("ip addr add 192.0.2.7/24 dev up0");
    lab.network("create web");
    let one = lab.container("web", "one", "-p 192.0.2.7:9000-9002:80-82 -p 192.0.2.7:9000-9002:80-82/udp");
    let two = lab.container("web", "two", "-p 192.0.2.1:9000:80 -p 192.0.2.1:9000:80/udp");
    for offset in 0..3 {
        leads(&outside, "192.0.2.7", 9000 + offset, &one.space, 80 + offset);
    }
    leads(&outside, "192.0.2.1", 9000, &two.space, 80);
    assert_eq!(outside.run(|| refused("192.0.2.1", 9001)), Some(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn a_thousand_ports_are_a_thousand_elements_and_no_rule() {
    let lab = Lab::new();
    lab.network("create web");
    let zero = lab.container("web", "zero", "");
    let rules = || lab.host.sh("nft -a list ruleset | grep -c handle").trim().parse::<u32>().unwrap();
    let elements = || {
        lab.host.sh("nft list map inet locule published4any | grep -o 'tcp \\.' | wc -l").trim().to_owned()
    };
    let before = rules();
    let one = lab.container("web", "one", "-p 20000-20999:30000-30999");
    assert_eq!(elements(), "1000");
    assert_eq!(rules(), before);
    let service = one.space.serve("tcp", 30777);
    assert!(lab.host.ask("tcp", "127.0.0.1", 20777, PATIENCE).is_some());
    service.asked_by();
    lab.network("disconnect web one");
    assert_eq!(elements(), "0");
    drop(zero);
}

#[test]
fn who_has_a_port_is_told() {
    let lab = Lab::new();
    lab.network("create web");
    let _one = lab.container("web", "one", "-p 8080:80");
    let other = Space::new();
    for publish in ["8080:81", "127.0.0.1:8080:80", "8000-8100:8000-8100", "0.0.0.0:8080:80"] {
        let told = lab.refused(&format!("connect -p {publish} --namespace {} web two", other.path()));
        assert!(told.contains("8080/tcp") && told.contains("\"one\""), "{told}");
    }
    // The other protocol is free.
    lab.network(&format!("connect -p 8080:80/udp --namespace {} web two", other.path()));
    lab.network("disconnect web two");
    // A process of the host has a port.
    let listener = lab.host.run(|| std::net::TcpListener::bind("0.0.0.0:9090").unwrap());
    let told = lab.refused(&format!("connect -p 9090:80 --namespace {} web two", other.path()));
    assert!(told.contains("9090/tcp") && told.contains("process"), "{told}");
    drop(listener);
    let before = lab.claims().join("ports").read_dir().unwrap().count();
    assert_eq!(before, 1, "a refusal left a claim");
    lab.network(&format!("connect -p 9090:80 --namespace {} web two", other.path()));
    assert_eq!(lab.claims().join("ports").read_dir().unwrap().count(), before + 1);
}

#[test]
fn loopback_of_the_host_is_out_of_containers_reach() {
    let lab = Lab::new();
    lab.network("create web");
    let one = lab.container("web", "one", "");
    let _service = lab.host.start(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:7777").unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::sleep(crate::lab::SILENCE * 3);
        assert!(listener.accept().is_err(), "a container reached the host's loopback");
    });
    // The container sends to 127.0.0.1 through its gateway, as only an attacker does (CVE-2020-8558).
    one.space.sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
         ip route del local 127.0.0.0/8 table local || true
         ip route del local 127.0.0.1 table local || true
         ip addr del 127.0.0.1/8 dev lo
         ip route add 127.0.0.1/32 via $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')");
    assert!(one.space.ask("tcp", "127.0.0.1", 7777, crate::lab::SILENCE).is_none());
    _service.join().unwrap();
}
