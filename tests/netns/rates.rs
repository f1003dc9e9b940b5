//! Limits and counters.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::lab::{Lab, Space, until};

const SENT: u64 = 3_000_000;

/// Sends so many bytes; returns how many bits a second arrived.
fn speed(from: &Space, to: &Space, address: &str) -> f64 {
    let listener = to.run(|| TcpListener::bind("[::]:5001").unwrap());
    let address = address.to_owned();
    let sender = from.start(move || {
        let mut stream = TcpStream::connect((address.as_str(), 5001)).unwrap();
        let block = vec![0; 1 << 16];
        let mut left = SENT as usize;
        while left > 0 {
            left -= stream.write(&block[..left.min(block.len())]).unwrap();
        }
    });
    let (mut stream, _) = listener.accept().unwrap();
    let begun = Instant::now();
    let count = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    sender.join().unwrap();
    assert_eq!(count, SENT);
    count as f64 * 8.0 / seconds
}

#[test]
fn each_way_is_limited_and_changed_live() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 web");
    let one = lab.container("web", "one", "--down 10mbit --up 20mbit");
    // A bucket lets some go at once and a loaded machine makes all slower: only the ceiling is certain.
    assert!(speed(&lab.host, &one.space, &one.ip) < 14e6);
    let up = speed(&one.space, &lab.host, "10.9.0.1");
    assert!(up < 28e6, "{up}");
    lab.network("set --up 5mbit web one");
    let slower = speed(&one.space, &lab.host, "10.9.0.1");
    assert!(slower < 7.5e6, "{slower}");
    let disciplines = lab.host.sh(&format!("tc qdisc show dev {}", one.end));
    assert!(disciplines.contains("tbf") && disciplines.contains("rate 10Mbit"), "{disciplines}");
    lab.network("set --up none --down none web one");
    let disciplines = lab.host.sh("tc qdisc show; ip -o link");
    assert!(!disciplines.contains("tbf") && !disciplines.contains("ifb"), "{disciplines}");
    // A limit that is on at the end goes with the container.
    lab.network("set --up 5mbit web one");
    lab.network("disconnect web one");
    lab.network("rm web");
    assert_eq!(lab.remains(), "");
}

#[test]
fn bytes_are_counted_by_class() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create --subnet 10.9.0.0/24 web");
    std::fs::write(lab.dir.join("networks/.classes.json"), r#"{"10.0.0.0/8": 1, "192.0.2.0/24": 2}"#)
        .unwrap();
    let one = lab.container("web", "one", "");
    speed(&one.space, &outside, crate::lab::OUTSIDE);
    speed(&lab.host, &one.space, &one.ip);
    let shown = lab.show("web");
    let traffic = shown["containers"][0]["traffic"].as_array().unwrap().clone();
    let of = |class: u64, way: &str| {
        traffic.iter().find(|entry| entry["class"] == class).map_or(0, |entry| entry[way].as_u64().unwrap())
    };
    assert!(of(2, "sent") > SENT && of(2, "received") < SENT / 4, "{traffic:?}");
    assert!(of(1, "received") > SENT && of(1, "sent") < SENT / 4, "{traffic:?}");
    assert!(of(0, "sent") < 10_000, "{traffic:?}");
}

/// Two senders at once, until `enough` bytes arrived in all: what each got through.
fn contest(flows: [(&Space, &Space, &str); 2], enough: u64) -> [u64; 2] {
    let end = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    let mut counts = Vec::new();
    for (number, (from, to, address)) in flows.into_iter().enumerate() {
        let port = 5100 + number as u16;
        let listener = to.run(move || TcpListener::bind(("::", port)).unwrap());
        let (address, sends, receives) = (address.to_owned(), Arc::clone(&end), Arc::clone(&end));
        threads.push(from.start(move || {
            let mut stream = TcpStream::connect((address.as_str(), port)).unwrap();
            // Ends with the receiver, too.
            while !sends.load(Ordering::Relaxed) && stream.write(&[0; 1 << 14]).is_ok() {}
        }));
        let count = Arc::new(AtomicU64::new(0));
        counts.push(Arc::clone(&count));
        threads.push(std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut buffer = [0; 1 << 14];
            while !receives.load(Ordering::Relaxed) {
                count.fetch_add(stream.read(&mut buffer).unwrap() as u64, Ordering::Relaxed);
            }
        }));
    }
    let now = || [0, 1].map(|number: usize| counts[number].load(Ordering::Relaxed));
    // What counts is the time in which both want more than there is.
    let begun = until(|| Some(now()).filter(|got| got.iter().all(|got| *got > 100_000)));
    let begun = begun.expect("one of the two never came through");
    let ended =
        until(|| Some(now()).filter(|got| got.iter().sum::<u64>() > begun.iter().sum::<u64>() + enough));
    let ended = ended.expect("it never was enough");
    end.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    [ended[0] - begun[0], ended[1] - begun[1]]
}

#[test]
fn bytes_of_routed_containers_are_counted_by_class() {
    let (lab, outside) = Lab::with_outside();
    lab.network("create --kind routed --parent up0 --subnet 192.0.2.64/28 --subnet 2001:db8::40/124 routed");
    std::fs::write(lab.dir.join("networks/.classes.json"), r#"{"192.0.2.0/24": 1, "2001:db8::/64": 2}"#)
        .unwrap();
    let one = lab.container("routed", "one", "");
    speed(&one.space, &outside, crate::lab::OUTSIDE);
    speed(&outside, &one.space, &one.ip6);
    let shown = lab.show("routed");
    let traffic = shown["containers"][0]["traffic"].as_array().unwrap().clone();
    let of = |class: u64, way: &str| {
        traffic.iter().find(|entry| entry["class"] == class).map_or(0, |entry| entry[way].as_u64().unwrap())
    };
    assert!(of(1, "sent") > SENT && of(1, "received") < SENT / 4, "{traffic:?}");
    assert!(of(2, "received") > SENT && of(2, "sent") < SENT / 4, "{traffic:?}");
    lab.network("disconnect routed one");
    lab.network("rm routed");
    assert_eq!(lab.remains(), "");
}

#[test]
fn guarantees_decide_when_all_want_more() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 --up 20mbit --down 20mbit web");
    let one = lab.container("web", "one", "--up-min 15mbit --down-min 15mbit");
    let two = lab.container("web", "two", "--up-min 5mbit --down-min 5mbit");
    let up =
        || contest([(&one.space, &lab.host, "10.9.0.1"), (&two.space, &lab.host, "10.9.0.1")], 4_000_000);
    let down = || contest([(&lab.host, &one.space, &one.ip), (&lab.host, &two.space, &two.ip)], 4_000_000);
    // Three to one, and never the other way round.
    for got in [up(), down()] {
        assert!(got[0] > got[1] * 3 / 2 && got[0] < got[1] * 6, "{got:?}");
    }
    lab.network("set --up-min 1mbit web one");
    lab.network("set --up-min 18mbit web two");
    let got = up();
    assert!(got[1] > got[0] * 3, "{got:?}");
    // What nobody else wants is anybody's: the kernel counts what was lent.
    let _rate = speed(&one.space, &lab.host, "10.9.0.1");
    let pool = lab.host.sh("ip -o link | grep -o 'lcu-[0-9a-f]*' | head -n 1");
    let classes = lab.host.sh(&format!("tc -s class show dev {pool}"));
    let least = classes.split("class htb").find(|class| class.contains("rate 1Mbit")).unwrap();
    let lent = least.split("borrowed: ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    assert!(lent.parse::<u64>().unwrap() > 0, "{classes}");
}

#[test]
fn a_network_gets_a_rate_and_loses_it_live() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 web");
    let one = lab.container("web", "one", "--up 5mbit");
    let two = lab.container("web", "two", "");
    let disciplines = || lab.host.sh("tc qdisc show; ip -o link");
    assert!(disciplines().contains("tbf"));
    lab.network("set --up 20mbit web");
    let now = disciplines();
    assert!(now.contains("htb") && !now.contains("tbf") && !now.contains("lci-"), "{now}");
    // The ceiling holds as before, and so does that of all, for one that has none of its own.
    let slow = speed(&one.space, &lab.host, "10.9.0.1");
    assert!(slow < 7.5e6, "{slow}");
    let all = speed(&two.space, &lab.host, "10.9.0.1");
    assert!(all < 28e6, "{all}");
    assert!(lab.network("show web").contains("20mbit for all"));
    lab.network("set --up none web");
    let now = disciplines();
    assert!(!now.contains("htb") && now.contains("tbf") && !now.contains("lcu-"), "{now}");
    let slow = speed(&one.space, &lab.host, "10.9.0.1");
    assert!(slow < 7.5e6, "{slow}");
    lab.network("set --up 20mbit --down 20mbit web");
    lab.network("disconnect web one");
    lab.network("disconnect web two");
    lab.network("rm web");
    assert_eq!(lab.remains(), "");
}

#[test]
fn promises_that_cannot_be_kept_are_refused() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 web");
    let space = Space::new();
    let connect = |options: &str| format!("connect --namespace {} {options} web one", space.path());
    let told = lab.refused(&connect("--up-min 5mbit"));
    assert!(told.contains("web has none") && told.contains("network set --up RATE web"), "{told}");
    lab.network("set --up 10mbit web");
    let _two = lab.container("web", "two", "--up-min 6mbit");
    let told = lab.refused(&connect("--up-min 5mbit"));
    assert!(told.contains("10mbit") && told.contains("6mbit"), "{told}");
    let told = lab.refused(&connect("--up-min 5mbit --up 4mbit"));
    assert!(told.contains("5mbit") && told.contains("4mbit"), "{told}");
    let told = lab.refused("set --up 5mbit web");
    assert!(told.contains("6mbit") && told.contains("5mbit"), "{told}");
    let told = lab.refused("set --up-min 11mbit web two");
    assert!(told.contains("11mbit"), "{told}");
    let told = lab.refused("set --up-min 1mbit web");
    assert!(told.contains("container"), "{told}");
    // Nothing of it was left, and what was promised to one that is gone is free again.
    lab.network("disconnect web two");
    lab.network(&connect("--up-min 10mbit"));
    lab.network("disconnect web one");
    let told = lab.refused("create --kind macvlan --parent up0 --up 1mbit lan");
    assert!(told.contains("macvlan"), "{told}");
    lab.network("rm web");
    assert_eq!(lab.remains(), "");
}

#[test]
fn gc_finds_classes_of_nobody_and_lost_limits() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 --up 20mbit web");
    let one = lab.container("web", "one", "--up-min 2mbit");
    let two = lab.container("web", "two", "--up 3mbit --down 4mbit");
    let classes = || {
        let text =
            lab.host.sh("for d in $(ip -o link | grep -o 'lcu-[0-9a-f]*'); do tc class show dev $d; done");
        text.lines().filter(|line| line.contains("parent 10c0:1 ")).count()
    };
    assert_eq!(classes(), 2);
    drop(one);
    lab.network("gc");
    assert_eq!(classes(), 1);
    // Somebody else's class, and an admin who cleared everything.
    lab.host.sh(&format!(
        "d=$(ip -o link | grep -o 'lcu-[0-9a-f]*' | head -n 1)
         tc class add dev $d parent 10c0:1 classid 10c0:7 htb rate 1mbit
         tc qdisc del dev {} root; tc qdisc del dev {} clsact",
        two.end, two.end
    ));
    let told: Value = serde_json::from_str(&lab.network("gc --format json")).unwrap();
    assert_eq!((told["elements"].as_u64(), classes()), (Some(1), 1), "{told}");
    let disciplines = lab.host.sh(&format!("tc qdisc show dev {0}; tc filter show dev {0} ingress", two.end));
    assert!(disciplines.contains("rate 4Mbit") && disciplines.contains("mirred"), "{disciplines}");
    let slow = speed(&two.space, &lab.host, "10.9.0.1");
    assert!(slow < 4.5e6, "{slow}");
}
