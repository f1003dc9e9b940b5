//! `set` of a machine that runs, for what is not in its cgroup: rates of its network, the size of its disk.

use crate::lab::Lab;

#[test]
fn rates_are_changed_live() {
    let lab = Lab::new();
    let name = lab.name("m");
    lab.ok(&["launch", "host", &name, "--", "sleep", "1000"]);
    let rates = || {
        let output = lab.command("tc", &["qdisc", "show"]).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = told.split_whitespace().collect();
        let mut rates: Vec<String> =
            words.windows(2).filter(|pair| pair[0] == "rate").map(|pair| pair[1].to_owned()).collect();
        rates.sort();
        (rates, told)
    };
    assert!(rates().0.is_empty(), "{}", rates().1);
    lab.ok(&["set", &name, "network.eth0.up=5mbit", "network.eth0.down=10mbit"]);
    assert_eq!(rates().0, ["10Mbit", "5Mbit"], "{}", rates().1);
    lab.ok(&["set", "--runtime", &name, "network.eth0.up=7mbit"]);
    assert_eq!(rates().0, ["10Mbit", "7Mbit"], "{}", rates().1);
    assert!(lab.definition(&name).contains("up = \"5mbit\""), "{}", lab.definition(&name));
    // A value that is none changes nothing of what comes with it.
    lab.refused(&["set", &name, "network.eth0.down=1mbit", "network.eth0.up=fast"]);
    assert_eq!(rates().0, ["10Mbit", "7Mbit"], "{}", rates().1);
    lab.ok(&["set", &name, "network.eth0.up=", "network.eth0.down="]);
    assert!(rates().0.is_empty(), "{}", rates().1);
    lab.ok(&["rm", "--force", &name]);
}

#[test]
fn a_disk_grows_while_it_is_used() {
    let lab = Lab::new();
    let name = lab.name("m");
    lab.ok(&["image", "import", lab.tree().to_str().unwrap(), "box:1"]);
    let line = format!(
        "launch --storage disk --disk 200M --network none --stop-timeout 1s box:1 {name} -- sleep 1000"
    );
    lab.ok(&line.split(' ').collect::<Vec<_>>());
    let size = || lab.sh(&name, "df -m /").split_whitespace().rev().nth(4).unwrap().parse::<u64>().unwrap();
    let before = size();
    lab.sh(&name, "echo kept >/root/kept");
    // The kernel asks for CAP_SYS_RESOURCE, which a lane in a container may lack: then nothing changes until the machine
    // is stopped.
    let set = lab.locule(&["set", &name, "disk=400M"]);
    if !set.status.success() {
        let told = String::from_utf8_lossy(&set.stderr);
        assert!(told.contains("stop the machine first"), "{told}");
        assert_eq!(size(), before);
        assert!(lab.definition(&name).contains("\"200M\""), "{}", lab.definition(&name));
        lab.ok(&["stop", &name]);
        lab.ok(&["set", &name, "disk=400M"]);
        lab.ok(&["start", &name]);
    }
    assert!(size() > before + 150, "{before} {}", size());
    assert_eq!(lab.sh(&name, "cat /root/kept"), "kept\n");
    let told = lab.refused(&["set", &name, "disk=300M"]);
    assert!(told.contains("cannot become smaller"), "{told}");
    assert!(lab.definition(&name).contains("\"400M\""), "{}", lab.definition(&name));
    assert!(size() > before + 150);
    lab.ok(&["rm", "--force", &name]);
    lab.assert_gone(&name);
}
