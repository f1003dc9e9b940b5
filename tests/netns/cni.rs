//! Configuration lists of CNI, with Debian's plugins and with one that only writes down what it was told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::lab::{HOST, Lab, PATIENCE, Space, reaches};

fn conflist(lab: &Lab, name: &str, list: &Value) -> String {
    let path = lab.dir.join(name);
    fs::write(&path, list.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Debian's bridge, addresses of a range, published ports and limits; addresses are remembered below the lab.
fn debian(lab: &Lab) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "deb", "plugins": [
            {"type": "bridge", "bridge": "cni7", "isGateway": true, "ipMasq": true, "capabilities": {"ips": true, "mac": true},
             "ipam": {"type": "host-local", "dataDir": lab.dir.join("ipam"),
                      "ranges": [[{"subnet": "10.7.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "tuning"},
        ]
    })
}

#[test]
fn debians_plugins_wire_check_and_unwire() {
    let (lab, outside) = Lab::with_outside();
    let path = conflist(&lab, "deb.conflist", &debian(&lab));
    lab.network(&format!("create --cni {path} deb"));
    let one = lab.container("deb", "one", "");
    let two = lab.container("deb", "two", "--ip 10.7.0.99 --mac 02:00:00:00:00:07");
    assert_eq!((one.ip.as_str(), two.ip.as_str()), ("10.7.0.2", "10.7.0.99"));
    assert!(two.space.sh("ip -o link show eth0").contains("02:00:00:00:00:07"));
    reaches(&one.space, &two.space, &[&two.ip]);
    let service = outside.serve("tcp", 4000);
    assert!(one.space.ask("tcp", crate::lab::OUTSIDE, 4000, PATIENCE).is_some());
    assert_eq!(service.asked_by(), HOST);
    lab.network("check one");
    // Names work across kinds, as addresses are known.
    assert!(fs::read_to_string(&one.hosts).unwrap().contains("10.7.0.99 two"));
    one.space.sh("ip addr flush dev eth0");
    let told = lab.refused("check one");
    assert!(told.contains("eth0"), "{told}");
    lab.network("disconnect deb two");
    // A container that is gone is deleted by its plugins when it is collected.
    drop(one);
    lab.network("gc");
    let kept: Vec<_> = fs::read_dir(lab.dir.join("ipam/deb"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("10."))
        .collect();
    assert!(kept.is_empty(), "{kept:?}");
    lab.network("rm deb");
    assert_eq!(lab.remains(), "");
}

#[test]
fn debians_plugins_take_ports_and_limits() {
    let (lab, outside) = Lab::with_outside();
    let mut list = debian(&lab);
    let plugins = list["plugins"].as_array_mut().unwrap();
    plugins.push(json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}));
    plugins.push(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
    let path = conflist(&lab, "deb.conflist", &list);
    lab.network(&format!("create --cni {path} deb"));
    let one = lab.container("deb", "one", "-p 8080:80 -p 5353:53/udp --down 10mbit --up 20mbit");
    for (protocol, port, inner) in [("tcp", 8080, 80), ("udp", 5353, 53)] {
        let service = one.space.serve(protocol, inner);
        assert!(outside.ask(protocol, HOST, port, PATIENCE).is_some(), "{protocol}");
        service.asked_by();
    }
    lab.network("disconnect deb one");
    assert_eq!(lab.host.sh("iptables-save | grep -c 'dport 8080' || true").trim(), "0");
    // Debian's portmap fails its own CHECK where there are ports and no IPv6.
    let _two = lab.container("deb", "two", "--down 10mbit --up 20mbit");
    let disciplines = lab.host.sh("tc qdisc show");
    assert!(disciplines.contains("rate 10Mbit") && disciplines.contains("rate 20Mbit"), "{disciplines}");
    lab.network("check two");
    lab.network("disconnect deb two");
    let left = lab.host.sh("tc qdisc show");
    assert!(!left.contains("tbf"), "{left}");
    lab.network("rm deb");
    assert_eq!(lab.remains(), "");
}

/// A plugin that writes each call to a file and answers as it should.
const SCRIBE: &str = r#"#!/bin/sh
config=$(cat)
dir=${0%/*}
name=$(printf %s "$config" | sed 's/.*"tag":"\([a-z]*\)".*/\1/')
printf '%s %s %s %s %s\n' "$CNI_COMMAND" "$name" "$CNI_CONTAINERID" "$CNI_IFNAME" "$config" >>"$dir/log"
if [ -e "$dir/fail-$CNI_COMMAND-$name" ]; then echo '{"code": 7, "msg": "no", "details": "not today"}'; exit 1; fi
if [ -e "$dir/kill-$CNI_COMMAND-$name" ]; then rm "$dir/kill-$CNI_COMMAND-$name"; kill -9 $PPID; fi
if [ "$CNI_COMMAND" = ADD ]; then
    echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.6.0.5/24"}], "by": "'$name'"}'
fi
"#;

struct Scribe {
    lab: Lab,
    path: String,
}

impl Scribe {
    fn new(list: &Value) -> Scribe {
        let lab = Lab::new();
        let path = lab.dir.join("plugins");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("scribe"), SCRIBE).unwrap();
        fs::set_permissions(path.join("scribe"), fs::Permissions::from_mode(0o755)).unwrap();
        let file = conflist(&lab, "x.conflist", list);
        lab.network(&format!("create --cni {file} x"));
        Scribe { path: path.to_str().unwrap().to_owned(), lab }
    }

    fn call(&self, line: &str) -> crate::lab::Output {
        let words: Vec<_> = std::iter::once("network").chain(line.split_whitespace()).collect();
        self.lab.call_with(&words, &[("CNI_PATH", &self.path)])
    }

    /// Command, plugin, container and interface of each call so far, and the configuration.
    fn log(&self) -> Vec<(String, Value)> {
        let log = fs::read_to_string(format!("{}/log", self.path)).unwrap_or_default();
        let _ = fs::remove_file(format!("{}/log", self.path));
        log.lines()
            .map(|line| {
                let (head, config) = line.split_at(line.find('{').unwrap());
                (head.trim_end().to_owned(), serde_json::from_str(config).unwrap())
            })
            .collect()
    }

    fn heads(&self) -> Vec<String> {
        self.log().into_iter().map(|(head, _)| head).collect()
    }
}

fn two_plugins(version: &str) -> Value {
    json!({"cniVersion": version, "name": "net", "plugins": [
        {"type": "scribe", "tag": "first", "capabilities": {"portMappings": true}},
        {"type": "scribe", "tag": "second", "capabilities": {"bandwidth": true}},
    ]})
}

#[test]
fn plugins_are_told_what_the_specification_says() {
    let scribe = Scribe::new(&two_plugins("1.1.0"));
    let space = Space::new();
    let options = "-p 127.0.0.1:8080:80/udp --down 10mbit --up 20mbit";
    let output = scribe.call(&format!("connect {options} --namespace {} x one", space.path()));
    assert_eq!(output.status, Some(0), "{output:?}");
    let log = scribe.log();
    let heads: Vec<_> = log.iter().map(|(head, _)| head.as_str()).collect();
    assert_eq!(heads, ["STATUS first", "STATUS second", "ADD first one eth0", "ADD second one eth0"]);
    let (first, second) = (&log[2].1, &log[3].1);
    assert_eq!(first["cniVersion"], "1.1.0");
    assert_eq!(first["name"], "net");
    assert_eq!(first.get("capabilities"), None);
    assert_eq!(first.get("prevResult"), None);
    assert_eq!(
        first["runtimeConfig"],
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}]})
    );
    assert_eq!(second["prevResult"]["by"], "first");
    assert_eq!(second["runtimeConfig"]["bandwidth"]["ingressRate"], 10_000_000);
    assert_eq!(second["runtimeConfig"]["bandwidth"]["egressRate"], 20_000_000);
    // Later calls have the last result, and DEL goes backwards.
    let output = scribe.call("gc");
    assert_eq!(output.status, Some(0), "{output:?}");
    let log = scribe.log();
    assert_eq!(log[0].0, "GC first");
    assert_eq!(log[0].1["cni.dev/valid-attachments"], json!([{"containerID": "one", "ifname": "eth0"}]));
    assert_eq!(scribe.call("disconnect x one").status, Some(0));
    let log = scribe.log();
    let heads: Vec<_> = log.iter().map(|(head, _)| head.as_str()).collect();
    assert_eq!(heads, ["DEL second one eth0", "DEL first one eth0"]);
    assert_eq!(log[0].1["prevResult"]["by"], "second");
    assert_eq!(scribe.lab.remains(), "");
}

#[test]
fn what_fails_is_told_and_undone() {
    let scribe = Scribe::new(&two_plugins("1.0.0"));
    let space = Space::new();
    let connect = format!("connect --namespace {} x one", space.path());
    fs::write(format!("{}/fail-ADD-second", scribe.path), "").unwrap();
    let output = scribe.call(&connect);
    assert_eq!(output.status, Some(1));
    assert!(
        output.stderr.contains("no: not today (code 7)") && output.stderr.contains("scribe"),
        "{output:?}"
    );
    assert_eq!(
        scribe.heads(),
        ["ADD first one eth0", "ADD second one eth0", "DEL second one eth0", "DEL first one eth0"]
    );
    assert_eq!(scribe.lab.remains(), "");
    fs::remove_file(format!("{}/fail-ADD-second", scribe.path)).unwrap();
    assert_eq!(scribe.call(&connect).status, Some(0));
    scribe.heads();
    // DEL that failed is done again, by the configuration of ADD although that file has changed.
    fs::write(format!("{}/fail-DEL-first", scribe.path), "").unwrap();
    assert_eq!(scribe.call("disconnect x one").status, Some(1));
    fs::remove_file(format!("{}/fail-DEL-first", scribe.path)).unwrap();
    fs::write(scribe.lab.dir.join("x.conflist"), "{}").unwrap();
    assert_eq!(scribe.call("disconnect x one").status, Some(0));
    assert!(scribe.heads().ends_with(&["DEL second one eth0".into(), "DEL first one eth0".into()]));
    assert_eq!(scribe.lab.remains(), "");
}

#[test]
fn what_a_kill_left_is_deleted_by_the_plugins() {
    let scribe = Scribe::new(&two_plugins("1.0.0"));
    let space = Space::new();
    fs::write(format!("{}/kill-ADD-second", scribe.path), "").unwrap();
    let output = scribe.call(&format!("connect --namespace {} x one", space.path()));
    assert_eq!(output.status, None, "{output:?}");
    scribe.heads();
    assert_eq!(scribe.call("gc").status, Some(0));
    assert_eq!(scribe.heads(), ["DEL second one eth0", "DEL first one eth0"]);
    assert_eq!(scribe.call("disconnect --all one").status, Some(0));
    assert_eq!(scribe.lab.remains(), "");
}

#[test]
fn what_no_plugin_can_do_is_refused() {
    let scribe = Scribe::new(&two_plugins("1.0.0"));
    let space = Space::new();
    for (option, word) in
        [("--ip 10.6.0.9", "ips"), ("--mac 02:00:00:00:00:01", "mac"), ("--firewall", "cni")]
    {
        let output = scribe.call(&format!("connect {option} --namespace {} x one", space.path()));
        assert!(output.status == Some(1) && output.stderr.contains(word), "{output:?}");
    }
    let output = scribe.lab.refused(&format!("connect --namespace {} x one", space.path()));
    assert!(output.contains("no CNI plugin scribe"), "{output}");
    assert_eq!(scribe.heads(), [] as [String; 0]);
}
