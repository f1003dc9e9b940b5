//! The flags of launch: each reaches the definition, and from there the machine.

use std::fs;

use crate::lab::Lab;

#[test]
fn flags_reach_the_machine() {
    let lab = Lab::new();
    let name = lab.name("m");
    let shared = lab.own().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "from the host\n").unwrap();
    let env = lab.own().join("env");
    fs::write(&env, "# a remark\nA=file\nB=file\n").unwrap();
    let volume = format!("{}:/srv:ro", shared.display());
    lab.ok(&[
        "launch",
        "--env-file",
        env.to_str().unwrap(),
        "-e",
        "A=flag",
        "-e",
        "HOME_OF_NOBODY",
        "-u",
        "daemon",
        "-w",
        "/tmp",
        "--hostname",
        "other",
        "-v",
        &volume,
        "--tmpfs",
        "/cache:size=1m",
        "--ulimit",
        "nofile=100:200",
        "-l",
        "team=a",
        "--description",
        "a test",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "lan",
        "--restart",
        "on-failure:3",
        "--read-only",
        "host",
        &name,
        "--",
        "sleep",
        "1000",
    ]);
    let inside =
        lab.sh(&name, "echo $A $B $(id -un) $(pwd) $(hostname) $(cat /srv/file); ulimit -n; ulimit -Hn");
    assert_eq!(inside, "flag file daemon /tmp other from the host\n100\n200\n");
    let output =
        lab.locule(&["exec", &name, "--", "sh", "-c", "echo > /srv/x || echo > /usr/x || echo > /root/x"]);
    assert!(!output.status.success());
    assert_eq!(
        lab.sh(&name, "stat -f -c %T /cache; cat /etc/resolv.conf").trim(),
        "tmpfs\nsearch lan\nnameserver 192.0.2.53"
    );
    let definition = lab.definition(&name);
    for line in
        ["image = \"host\"", "hostname = \"other\"", "policy = \"on-failure\"", "max = 3", "team = \"a\""]
    {
        assert!(definition.contains(line), "{line} is not in {definition}");
    }
    // What nobody said does not stand there.
    assert!(!definition.contains("privileged") && !definition.contains("weight"), "{definition}");
}

#[test]
fn names_come_from_the_image() {
    let lab = Lab::new();
    assert_eq!(lab.ok(&["launch", "--no-start", "host"]).trim(), "host1");
    assert_eq!(lab.ok(&["launch", "--no-start", "host"]).trim(), "host2");
    lab.ok(&["rm", "host1"]);
    assert_eq!(lab.ok(&["launch", "--no-start", "host"]).trim(), "host1");
    assert_eq!(lab.status("host1").as_deref(), Some("stopped"));
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let name = lab.name("m");
    for (flags, word) in [
        (&["--isolation", "vm"][..], "isolation"),
        (&["--vsock"], "vsock"),
        (&["--cap-add", "fly"], "fly"),
        (&["--memory", "much"], "much"),
        (&["--cpus", "0"], "--cpus"),
        (&["-v", "data:/srv"], "--volume data:/srv"),
        (&["-v", "/no/such:/srv"], "/no/such"),
        (&["--device", "/etc/passwd"], "/etc/passwd"),
        (&["--restart", "sometimes"], "sometimes"),
        (&["--ip", "10.0.0.300"], "10.0.0.300"),
        (&["--network", "nowhere"], "nowhere"),
        (&["-p", "http"], "http"),
        (&["--ulimit", "nofile=many"], "many"),
        (&["--stop-signal", "SIGNONE"], "SIGNONE"),
        (&["-u", "nobody-there"], "nobody-there"),
        (&["--health-retries", "3"], "--health-cmd"),
    ] {
        let all = [&["launch"], flags, &["host", &name, "--", "sleep", "1000"]].concat();
        let said = lab.refused(&all);
        assert!(said.contains(word), "{flags:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        lab.assert_gone(&name);
    }
    assert!(lab.refused(&["launch", "no-such-image", &name]).contains("no-such-image"));
    assert!(lab.refused(&["launch", "host", "Not_A_Name"]).contains("Not_A_Name"));
    lab.assert_gone(&name);
}
