//! Limits and counters.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use crate::lab::{Lab, Space};

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
