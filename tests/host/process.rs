//! `process`: arguments, environment, working directory, user, `noNewPrivileges`; the rest of the document.
//!
//! Owns what a program sees of itself. Never looks at capabilities or limits, which have modules.

use std::fs;

use serde_json::json;

use crate::lane::{Bundle, field};

#[test]
fn arguments_and_exit_code() {
    let out = Bundle::new().args(&["sh", "-c", "echo \"$0-$1\"; exit 7", "a b", "c"]).run();
    assert_eq!((out.status, out.stdout.as_str()), (7, "a b-c\n"), "{out:?}");
    assert_eq!(Bundle::new().script("sh -c 'kill -TERM $$'; exit $?").run().status, 143);
    assert_eq!(Bundle::new().without_namespace("pid").script("kill -TERM $$").run().status, 143);
}

#[test]
fn environment() {
    let mut bundle = Bundle::new();
    bundle.set("process.env", json!(["PATH=/bin", "A=1", "B=x=y z", "A=2", "EMPTY="])).args(&["env"]);
    let out = bundle.run();
    let mut lines: Vec<_> = out.ok().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=2", "B=x=y z", "EMPTY=", "HOME=/root", "PATH=/bin"]);
}

#[test]
fn the_program_is_looked_for_in_the_path_of_the_document() {
    let mut bundle = Bundle::new();
    bundle.program("rootfs/var/tools/hello", "#!/bin/sh\necho hello\n");
    bundle.set("process.env", json!(["PATH=/nowhere:/var/tools"])).args(&["hello"]);
    assert_eq!(bundle.run().ok(), "hello");
    let out = bundle.args(&["sh"]).run();
    assert_eq!(out.status, 127, "{out:?}");
    let out = bundle.args(&["/etc/passwd"]).run();
    assert_eq!(out.status, 126, "{out:?}");
}

#[test]
fn home_is_the_users() {
    let mut bundle = Bundle::new();
    bundle.file("rootfs/etc/passwd", "root:x:0:0::/root:/bin/sh\nsue:x:1000:1000::/home/sue:/bin/sh\n");
    bundle.script("echo $HOME");
    assert_eq!(bundle.set("process.user.uid", json!(1000)).run().ok(), "/home/sue");
    assert_eq!(bundle.set("process.user.uid", json!(1234)).run().ok(), "/");
    assert_eq!(bundle.push("process.env", json!("HOME=/set")).run().ok(), "/set");
}

#[test]
fn working_directory() {
    let mut bundle = Bundle::new();
    bundle.script("pwd; touch x");
    assert_eq!(bundle.set("process.cwd", json!("/dev/shm")).run().ok(), "/dev/shm");
    bundle.set("process.cwd", json!("/proc/absent")).run().refused_with(&["/proc/absent", "ENOENT"]);
    bundle.set("process.cwd", json!("tmp")).run().refused_with(&["process.cwd", "absolute"]);
}

/// Kubernetes' `workingDir` and ctr's `--cwd` count on it; a link in the image leads nowhere outside.
#[test]
fn missing_working_directory_is_made() {
    let mut bundle = Bundle::new();
    std::os::unix::fs::symlink("/outside", bundle.rootfs("out")).unwrap();
    bundle.script("pwd; stat -c '%a %u' .");
    bundle.set("root.readonly", json!(true));
    assert_eq!(bundle.set("process.cwd", json!("/made/here")).run().ok(), "/made/here\n755 0");
    assert!(bundle.rootfs("made/here").is_dir());
    assert_eq!(bundle.set("process.cwd", json!("/out/side")).run().ok(), "/outside/side\n755 0");
    assert!(bundle.rootfs("outside/side").is_dir() && !std::path::Path::new("/outside").exists());
}

/// A directory that the user may enter but a runtime without its rights may not, and the other way round.
#[test]
fn working_directory_of_another_user() {
    let mut bundle = Bundle::new();
    let home = bundle.directory("rootfs/var/home");
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    bundle.set("process.user", json!({"uid": 1000, "gid": 1000})).set("process.cwd", json!("/var/home"));
    assert_eq!(bundle.script("pwd").run().ok(), "/var/home");
    // The rights of root as well: the program then is where its user could not have gone.
    std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
    assert_eq!(bundle.script("echo ran").run().ok(), "ran");
}

#[test]
fn user_and_groups() {
    let mut bundle = Bundle::new();
    bundle.set("process.user", json!({"uid": 1000, "gid": 100, "additionalGids": [5, 1_000_000, 7]}));
    let out = bundle.script("cat /proc/self/status").run();
    assert_eq!(field(out.ok(), "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(out.ok(), "Gid"), "100\t100\t100\t100");
    assert_eq!(field(out.ok(), "Groups"), "5 7 1000000");
}

/// The groups of the caller never come along.
#[test]
fn no_groups_unless_listed() {
    let out = Bundle::new().script("cat /proc/self/status").run();
    assert_eq!(field(out.ok(), "Groups"), "");
}

#[test]
fn umask() {
    let mut bundle = Bundle::new();
    bundle.script("umask; touch /dev/shm/x; stat -c %a /dev/shm/x");
    assert_eq!(bundle.run().ok(), "0022\n644", "the default");
    assert_eq!(bundle.set("process.user.umask", json!(0o077)).run().ok(), "0077\n600");
    assert_eq!(bundle.set("process.user.umask", json!(0)).run().ok(), "0000\n666");
    bundle.set("process.user.umask", json!(1000)).run().refused_with(&["process.user.umask"]);
}

#[test]
fn no_new_privileges() {
    for meant in [true, false] {
        let mut bundle = Bundle::new();
        let out = bundle.set("process.noNewPrivileges", json!(meant)).script("cat /proc/self/status").run();
        assert_eq!(field(out.ok(), "NoNewPrivs"), if meant { "1" } else { "0" });
    }
}

#[test]
fn only_the_standard_descriptors() {
    // ls has one of its own open on the directory.
    let out = Bundle::new().args(&["ls", "/proc/self/fd"]).run();
    assert_eq!(out.ok().replace('\n', " "), "0 1 2 3");
}

#[test]
fn signals_are_at_their_defaults() {
    let out = Bundle::new().args(&["cat", "/proc/self/status"]).run();
    for set in ["SigBlk", "SigIgn"] {
        assert_eq!(field(out.ok(), set), "0000000000000000", "{set}");
    }
}

/// config.md, extensibility: what is not known is ignored.
#[test]
fn unknown_properties_are_ignored() {
    let mut bundle = Bundle::new();
    bundle
        .set("unheardOf", json!({"a": [1]}))
        .set("process.unheardOf", json!(1))
        .set("linux.unheardOf", json!(null))
        .set("linux.resources.unheardOf", json!({"limit": 1}))
        .set("root.unheardOf", json!(true))
        .edit(|config| config["mounts"][0]["unheardOf"] = json!("x"));
    assert_eq!(bundle.script("echo here").run().ok(), "here");
}

/// Engines written in Go put null where there is nothing.
#[test]
fn null_is_absent() {
    let mut bundle = Bundle::new();
    for property in [
        "annotations",
        "domainname",
        "hooks",
        "linux.uidMappings",
        "linux.gidMappings",
        "linux.devices",
        "linux.sysctl",
        "linux.seccomp",
        "linux.rootfsPropagation",
        "linux.maskedPaths",
        "linux.readonlyPaths",
        "linux.mountLabel",
        "linux.intelRdt",
        "linux.memoryPolicy",
        "linux.personality",
        "linux.timeOffsets",
        "linux.netDevices",
        "linux.cgroupsPath",
        "linux.resources",
        "process.rlimits",
        "process.capabilities",
        "process.env",
        "process.consoleSize",
        "process.user.additionalGids",
        "process.user.umask",
        "process.oomScoreAdj",
        "process.scheduler",
        "process.ioPriority",
        "process.execCPUAffinity",
        "process.apparmorProfile",
        "process.selinuxLabel",
    ] {
        bundle.set(property, json!(null));
    }
    for mount in 0..7 {
        bundle.edit(|config| {
            for property in ["uidMappings", "gidMappings"] {
                config["mounts"][mount][property] = json!(null);
            }
        });
    }
    bundle.edit(|config| config["mounts"][0]["options"] = json!(null));
    assert_eq!(bundle.args(&["/bin/echo", "here"]).run().ok(), "here");
}

#[test]
fn annotations_are_in_the_state() {
    let mut bundle = Bundle::new();
    bundle.set("annotations", json!({"org.example.key": "value", "empty": ""})).script("true");
    bundle.create();
    let state = bundle.state();
    assert_eq!(state["annotations"], json!({"org.example.key": "value", "empty": ""}));
    assert_eq!(state["ociVersion"], bundle.config()["ociVersion"]);
    assert_eq!(state["bundle"], json!(bundle.path("")).as_str().unwrap().trim_end_matches('/'));
    assert_eq!((state["status"].as_str(), state["id"].as_str()), (Some("created"), Some(bundle.id())));
}

#[test]
fn versions_of_the_document() {
    let mut bundle = Bundle::new();
    bundle.script("echo here");
    for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.0"] {
        assert_eq!(bundle.set("ociVersion", json!(version)).run().ok(), "here", "{version}");
    }
    for version in ["", "2.0.0", "0.9.0", "one"] {
        bundle.set("ociVersion", json!(version)).run().refused_with(&["ociVersion"]);
    }
}

/// What is set by config.json alone holds for `exec` too, where the specification means all processes.
#[test]
fn exec_takes_after_the_document() {
    let mut bundle = Bundle::new();
    bundle
        .set("process.user.additionalGids", json!([9]))
        .set("process.cwd", json!("/etc"))
        .push("process.env", json!("A=1"));
    bundle.up();
    let out = bundle.exec("pwd; echo $A; cat /proc/self/status");
    assert!(out.ok().starts_with("/etc\n1\n"), "{out:?}");
    assert_eq!(field(out.ok(), "NoNewPrivs"), "1");
    assert_eq!(field(out.ok(), "CapBnd"), "0000000020000420");
    assert_eq!(bundle.exec("exit 9").status, 9);
}

#[test]
fn a_program_of_another_user_with_the_right_to_read_all() {
    let mut bundle = Bundle::new();
    let program = bundle.program("rootfs/own", "#!/bin/sh\necho ran\n");
    fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    bundle.args(&["/own"]).set("process.user", json!({"uid": 1000, "gid": 100}));
    assert_eq!(bundle.run().status, 126);
    bundle.capable(&["CAP_DAC_OVERRIDE"]);
    for set in ["inheritable", "ambient"] {
        bundle.set(&format!("process.capabilities.{set}"), json!(["CAP_DAC_OVERRIDE"]));
    }
    assert_eq!(bundle.run().ok(), "ran");
}
