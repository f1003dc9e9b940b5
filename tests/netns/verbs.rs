//! The verbs: what they print, what they refuse, and a container of the runtime.

use serde_json::Value;

use crate::lab::{Lab, Space, reaches};

#[test]
fn lists_and_shows() {
    let lab = Lab::new();
    assert_eq!(lab.network("ls --format json").trim(), "[]");
    assert_eq!(lab.network("create --subnet 10.9.0.0/24 --label team=a web"), "web\n");
    let one = lab.container("web", "one", "-p 8080:80 --alias www");
    let list: Value = serde_json::from_str(&lab.network("ls --format json")).unwrap();
    assert_eq!(list[0]["name"], "web");
    assert_eq!(list[0]["kind"], "bridge");
    assert_eq!(list[0]["containers"][0], "one");
    assert!(lab.network("ls").contains("web"));
    assert_eq!(lab.network("ls --quiet"), "web\n");
    let shown = lab.show("web");
    assert_eq!(shown["network"]["labels"]["team"], "a");
    assert_eq!(shown["containers"][0]["container"], "one");
    assert_eq!(shown["containers"][0]["alive"], true);
    assert_eq!(shown["containers"][0]["interface"]["addresses"][0], "10.9.0.2/24");
    let table = lab.network("show web");
    assert!(table.contains("8080:80/tcp") && table.contains(&one.ip), "{table}");
}

#[test]
fn refusals_name_what_is_wrong() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 web");
    for (line, words) in [
        ("create web", &["\"web\"", "exists"][..]),
        ("create --subnet 10.9.0.128/25 x", &["10.9.0.128/25", "10.9.0.0/24", "\"web\""]),
        ("create --subnet 10.8.0.1/24 x", &["10.8.0.0/24"]),
        ("create --subnet 10.8.0.0/24 --gateway 10.7.0.1 x", &["10.7.0.1"]),
        ("create --bridge lb-web --subnet 10.8.0.0/24 x", &["lb-web", "\"web\""]),
        ("create --kind macvlan x", &["--parent"]),
        ("create --kind token x", &["token"]),
        ("create ../x", &["../x"]),
        ("rm nothing", &["\"nothing\""]),
        ("show nothing", &["\"nothing\""]),
        ("disconnect web nobody", &["\"nobody\"", "\"web\""]),
        ("set --up 1mbit web nobody", &["\"nobody\"", "web"]),
        ("set web nobody", &["nothing to change"]),
        ("connect web nobody", &["nobody"]),
        ("frob", &["network frob"]),
    ] {
        let told = lab.refused(line);
        assert!(words.iter().all(|word| told.contains(word)), "{line}: {told}");
    }
    let space = Space::new();
    let _one = lab.container("web", "one", "");
    for (options, words) in [
        ("--ip 10.9.0.2", &["10.9.0.2", "\"one\""][..]),
        ("--ip 10.9.0.1", &["10.9.0.1", "gateway"]),
        ("--ip 10.9.0.255", &["10.9.0.255"]),
        ("--ip 10.8.0.2", &["10.8.0.2", "10.9.0.0/24"]),
        ("--ip x", &["\"x\""]),
        ("--mac 01:00:00:00:00:00", &["01:00:00:00:00:00"]),
        ("--publish 80", &["\"80\""]),
        ("--publish [fd00::1]:80:80", &["fd00::1", "family"]),
        ("--interface a/b", &["a/b"]),
        ("--up 5", &["\"5\""]),
    ] {
        let told = lab.refused(&format!("connect --namespace {} {options} web two", space.path()));
        assert!(words.iter().all(|word| told.contains(word)), "{options}: {told}");
    }
    let told = lab.refused("rm web");
    assert!(told.contains("\"one\""), "{told}");
    // Nothing of all that was left behind.
    lab.network("disconnect --all one");
    lab.network("rm web");
    assert_eq!(lab.remains(), "");
}

#[test]
fn an_end_without_disconnecting_is_noticed() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/30 tiny");
    let one = lab.container("tiny", "one", "-p 8080:80");
    assert_eq!(one.ip, "10.9.0.2");
    let space = Space::new();
    let told = lab.refused(&format!("connect --namespace {} tiny two", space.path()));
    assert!(told.contains("10.9.0.0/30") && told.contains("every address"), "{told}");
    drop(one);
    // The next container gets both address and port of the one that is gone.
    let two = lab.container("tiny", "two", "-p 8080:80");
    assert_eq!(two.ip, "10.9.0.2");
    drop(two);
    let told: Value = serde_json::from_str(&lab.network("gc --format json")).unwrap();
    assert!(told["containers"].as_array().unwrap().contains(&"two".into()), "{told}");
    lab.network("rm tiny");
    assert_eq!(lab.remains(), "");
}

#[test]
fn an_address_is_not_given_again_at_once() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/24 web");
    assert_eq!(lab.container("web", "one", "").ip, "10.9.0.2");
    lab.network("disconnect web one");
    assert_eq!(lab.container("web", "two", "").ip, "10.9.0.3");
}

#[test]
fn none_is_loopback_alone() {
    let lab = Lab::new();
    let space = Space::new();
    lab.connect(&space, "none", "one", "");
    reaches(&space, &space, &["127.0.0.1"]);
    assert_eq!(space.sh("ip -o link show | wc -l").trim(), "1");
}
