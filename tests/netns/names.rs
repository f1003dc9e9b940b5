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
