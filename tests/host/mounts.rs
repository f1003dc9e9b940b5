//! `mounts`: every option of the specification, propagation, `tmpcopyup`, destinations.
//!
//! Owns what mountinfo and files inside say of them. Idmapped mounts have a module of their own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use crate::lane::{Bundle, MountInfo, host, mount_at};

/// Runs a bundle with a tmpfs `outer` that has a tmpfs `outer/sub` below it, bound on /mnt by
/// `options`; returns both mounts as they are inside.
fn bound(source_options: &str, options: &[&str]) -> (MountInfo, MountInfo) {
    let mut bundle = Bundle::new();
    let outer = bundle.mounted("outer", &["-t", "tmpfs", "-o", source_options, "tmpfs"]);
    fs::create_dir_all(outer.join("sub")).ok();
    bundle.mounted("outer/sub", &["-t", "tmpfs", "-o", source_options, "tmpfs"]);
    let info = bundle.mount("/mnt", "bind", "outer", options).script("cat /proc/self/mountinfo").run();
    (mount_at(info.ok(), "/mnt"), mount_at(info.ok(), "/mnt/sub"))
}

#[test]
fn options_of_a_bind_reach_the_mount_alone() {
    for word in ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"] {
        let (outer, sub) = bound("rw,relatime", &["rbind", word]);
        assert!(outer.has(word) && !sub.has(word), "{word}: {outer:?} {sub:?}");
    }
    let (outer, sub) = bound("rw,relatime", &["rbind", "strictatime"]);
    assert!(!outer.has("relatime") && sub.has("relatime"), "{outer:?} {sub:?}");
    let (outer, sub) = bound("rw,noatime", &["rbind", "relatime"]);
    assert!(outer.has("relatime") && sub.has("noatime"), "{outer:?} {sub:?}");
    let (outer, sub) = bound("rw,noatime", &["rbind", "atime"]);
    assert!(!outer.has("noatime") && sub.has("noatime"), "{outer:?} {sub:?}");
}

#[test]
fn options_of_a_bind_take_away() {
    for (word, source) in [
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("exec", "noexec"),
        ("diratime", "nodiratime"),
        ("symfollow", "nosymfollow"),
    ] {
        let (outer, sub) = bound(source, &["rbind", word]);
        assert!(!outer.has(source) && sub.has(source), "{word}: {outer:?} {sub:?}");
    }
}

#[test]
fn recursive_options_reach_all_mounts() {
    for word in ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"] {
        let (outer, sub) = bound("rw,relatime", &["rbind", &format!("r{word}")]);
        assert!(outer.has(word) && sub.has(word), "r{word}: {outer:?} {sub:?}");
    }
    let (outer, sub) = bound("rw,relatime", &["rbind", "rstrictatime"]);
    assert!(!outer.has("relatime") && !sub.has("relatime"), "{outer:?} {sub:?}");
}

#[test]
fn recursive_options_take_away() {
    for (word, source) in [
        ("rsuid", "nosuid"),
        ("rdev", "nodev"),
        ("rexec", "noexec"),
        ("rdiratime", "nodiratime"),
        ("rsymfollow", "nosymfollow"),
        ("ratime", "noatime"),
        ("rrelatime", "noatime"),
    ] {
        let (outer, sub) = bound(source, &["rbind", word]);
        assert!(!outer.has(source) && !sub.has(source), "{word}: {outer:?} {sub:?}");
    }
}

#[test]
fn rrw_makes_writable_what_was_not() {
    let mut bundle = Bundle::new();
    let outer = bundle.mounted("outer", &["-t", "tmpfs", "tmpfs"]);
    bundle.mounted("outer/sub", &["-t", "tmpfs", "tmpfs"]);
    for path in [outer.join("sub"), outer] {
        host("mount", &["-o", "remount,bind,ro", path.to_str().unwrap()]);
    }
    let mut try_with = |options: &[&str]| {
        bundle.set("mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
        bundle.mount("/mnt", "bind", "outer", options);
        bundle.script("touch /mnt/a 2>/dev/null; echo $?; touch /mnt/sub/a 2>/dev/null; echo $?").run()
    };
    assert_eq!(try_with(&["rbind"]).ok(), "1\n1");
    assert_eq!(try_with(&["rbind", "rw"]).ok(), "0\n1");
    assert_eq!(try_with(&["rbind", "rrw"]).ok(), "0\n0");
}

#[test]
fn read_only_means_read_only() {
    let mut bundle = Bundle::new();
    bundle.file("data/old", "old");
    let out = bundle
        .mount("/mnt", "bind", "data", &["bind", "ro"])
        .script("cat /mnt/old; touch /mnt/new 2>&1; echo $?")
        .run();
    assert!(out.ok().starts_with("old") && out.ok().contains("Read-only file system"), "{out:?}");
    assert!(!bundle.path("data/new").exists());
}

#[test]
fn later_options_win() {
    let (outer, _) = bound("rw", &["rbind", "ro", "nosuid", "rw"]);
    assert!(outer.has("rw") && outer.has("nosuid"), "{outer:?}");
}

#[test]
fn bind_leaves_what_is_mounted_below_behind() {
    let mut bundle = Bundle::new();
    let outer = bundle.mounted("outer", &["-t", "tmpfs", "tmpfs"]);
    let sub = bundle.mounted("outer/sub", &["-t", "tmpfs", "tmpfs"]);
    fs::write(outer.join("top"), "").unwrap();
    fs::write(sub.join("below"), "").unwrap();
    bundle.mount("/mnt", "bind", "outer", &["bind"]).mount("/tmp", "rbind", "outer", &[]);
    assert_eq!(
        bundle.script("ls /mnt /mnt/sub /tmp/sub").run().ok().replace('\n', " "),
        "/mnt: sub top  /mnt/sub:  /tmp/sub: below"
    );
}

#[test]
fn files_are_bound_and_places_are_made() {
    let mut bundle = Bundle::new();
    bundle.file("hosts", "127.0.0.1 here\n");
    bundle.directory("data");
    bundle
        .set("root.readonly", json!(false))
        .mount("/etc/deep/down/hosts", "none", "hosts", &["bind"])
        .mount("/new/data", "bind", "data", &[]);
    let out = bundle.script("cat /etc/deep/down/hosts; touch /new/data/x; stat -c %F /new/data").run();
    assert_eq!(out.ok(), "127.0.0.1 here\ndirectory");
    assert!(bundle.path("data/x").exists());
}

#[test]
fn superblock_options() {
    for (word, shown) in [
        ("sync", Some("sync")),
        ("dirsync", Some("dirsync")),
        ("lazytime", Some("lazytime")),
        ("async", None),
        ("nolazytime", None),
        ("size=64k", Some("size=64k")),
        ("nr_inodes=7", Some("nr_inodes=7")),
        ("uid=5,gid=6", Some("gid=6")),
    ] {
        let mut bundle = Bundle::new();
        let out = bundle.mount("/mnt", "tmpfs", "tmpfs", &[word]).script("cat /proc/self/mountinfo").run();
        let mount = mount_at(out.ok(), "/mnt");
        match shown {
            Some(shown) => assert!(mount.superblock_has(shown), "{word}: {mount:?}"),
            None => assert!(!mount.superblock_has(word.trim_start_matches("no")), "{word}: {mount:?}"),
        }
    }
}

#[test]
fn options_of_a_new_file_system() {
    for word in ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow", "relatime"] {
        let mut bundle = Bundle::new();
        let out = bundle.mount("/mnt", "tmpfs", "tmpfs", &[word]).script("cat /proc/self/mountinfo").run();
        assert!(mount_at(out.ok(), "/mnt").has(word), "{word}: {out:?}");
        let recursive = format!("r{word}");
        let mut bundle = Bundle::new();
        let out =
            bundle.mount("/mnt", "tmpfs", "tmpfs", &[&recursive]).script("cat /proc/self/mountinfo").run();
        assert!(mount_at(out.ok(), "/mnt").has(word), "{recursive}: {out:?}");
    }
    let mut bundle = Bundle::new();
    let out =
        bundle.mount("/mnt", "tmpfs", "tmpfs", &["strictatime"]).script("cat /proc/self/mountinfo").run();
    assert!(!mount_at(out.ok(), "/mnt").has("relatime"), "{out:?}");
}

/// The words that have no effect of their own on a tmpfs are words all the same, not data.
#[test]
fn every_word_is_accepted() {
    let words = "async atime defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
        nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private \
        ratime rdev rdiratime relatime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime \
        rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow \
        runbindable rw shared silent slave strictatime suid symfollow sync unbindable";
    for word in words.split_whitespace() {
        let mut bundle = Bundle::new();
        bundle.directory("data");
        bundle.mount("/mnt", "tmpfs", "tmpfs", &[word]).mount("/tmp", "bind", "data", &["rbind", word]);
        assert_eq!(bundle.script("echo here").run().ok(), "here", "{word}");
    }
}

#[test]
fn unknown_options_are_the_file_systems() {
    let out = Bundle::new().mount("/mnt", "tmpfs", "tmpfs", &["colour=red"]).run();
    out.refused_with(&["mounting tmpfs on /mnt", "colour"]);
}

#[test]
fn remounts() {
    let mut bundle = Bundle::new();
    bundle
        .mount("/mnt", "tmpfs", "tmpfs", &["size=64k"])
        .mount("/mnt", "tmpfs", "tmpfs", &["remount", "size=128k", "noexec"])
        .mount("/tmp", "tmpfs", "tmpfs", &[])
        .mount("/tmp", "none", "none", &["remount", "bind", "ro", "nosuid"]);
    let out = bundle.script("cat /proc/self/mountinfo").run();
    let (mnt, tmp) = (mount_at(out.ok(), "/mnt"), mount_at(out.ok(), "/tmp"));
    assert!(mnt.superblock_has("size=128k") && mnt.has("noexec"), "{mnt:?}");
    assert!(tmp.has("ro") && tmp.has("nosuid") && tmp.superblock_has("rw"), "{tmp:?}");
}

/// Binds a shared tree with each of the eight words; which tags the mount and the one below it get.
#[test]
fn propagation_words() {
    let tags = |word: &str| {
        let mut bundle = Bundle::new();
        bundle.mounted("outer", &["-t", "tmpfs", "--make-shared", "tmpfs"]);
        bundle.mounted("outer/sub", &["-t", "tmpfs", "--make-shared", "tmpfs"]);
        bundle.mount("/mnt", "bind", "outer", &["rbind", word]);
        let out = bundle.script("cat /proc/self/mountinfo").run();
        (mount_at(out.ok(), "/mnt"), mount_at(out.ok(), "/mnt/sub"))
    };
    for word in ["private", "rprivate", "unbindable", "runbindable", "slave", "rslave", "shared", "rshared"] {
        let (outer, sub) = tags(word);
        let kind = word.strip_prefix('r').unwrap_or(word);
        for (mount, meant) in [(&outer, true), (&sub, word.starts_with('r'))] {
            match kind {
                "shared" => assert_eq!(mount.tagged("shared"), meant, "{word}: {mount:?}"),
                "unbindable" => assert_eq!(mount.tagged("unbindable"), meant, "{word}: {mount:?}"),
                "slave" => assert!(mount.tagged("master") && !mount.tagged("shared"), "{word}: {mount:?}"),
                _ if meant => assert!(mount.tags.is_empty(), "{word}: {mount:?}"),
                // What is not meant keeps its default: it follows the host and cannot reach it.
                _ => assert!(!mount.tagged("shared"), "{word}: {mount:?}"),
            }
        }
    }
}

/// No word, and nothing that is mounted inside appears outside.
#[test]
fn mounts_inside_do_not_reach_the_host() {
    let mut bundle = Bundle::new();
    let outer = bundle.mounted("outer", &["-t", "tmpfs", "--make-shared", "tmpfs"]);
    fs::create_dir(outer.join("a")).unwrap();
    for word in ["rw", "slave", "private", "rslave", "rprivate", "shared", "rshared"] {
        let sub = bundle.mounted("outer/sub", &["-t", "tmpfs", "--make-shared", "tmpfs"]);
        fs::create_dir_all(sub.join("b")).unwrap();
        bundle.set("mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
        bundle.mount("/mnt", "bind", "outer", &["rbind", word]).capable(&["CAP_SYS_ADMIN"]);
        let script =
            "mount -t tmpfs none /mnt/a && mount -t tmpfs none /mnt/sub/b && touch /mnt/a/x /mnt/sub/b/x";
        bundle.script(script).run().ok();
        assert!(!outer.join("a/x").exists() && !sub.join("b/x").exists(), "{word}");
        host("umount", &[sub.to_str().unwrap()]);
    }
}

/// What the host mounts later under a bound directory that it shares is seen inside.
#[test]
fn a_slave_follows_the_host() {
    let mut bundle = Bundle::new();
    bundle.mounted("outer", &["-t", "tmpfs", "--make-shared", "tmpfs"]);
    bundle.directory("outer/late");
    bundle.mount("/mnt", "bind", "outer", &["rbind", "rslave"]).mount(
        "/tmp",
        "bind",
        "outer",
        &["rbind", "rprivate"],
    );
    bundle.up();
    let late = bundle.mounted("outer/late", &["-t", "tmpfs", "tmpfs"]);
    fs::write(late.join("news"), "").unwrap();
    assert_eq!(bundle.exec("ls /mnt/late; ls /tmp/late").ok(), "news");
}

#[test]
fn copy_up() {
    let mut bundle = Bundle::new();
    let dir = bundle.directory("rootfs/var/data");
    bundle.file("rootfs/var/data/file", "text");
    bundle.program("rootfs/var/data/sub/tool", "x");
    symlink("file", dir.join("link")).unwrap();
    std::os::unix::fs::chown(dir.join("file"), Some(7), Some(8)).unwrap();
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o604)).unwrap();
    bundle.mount("/var/data", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid"]);
    let out = bundle
        .script(
            "cd /var/data; cat link; echo; stat -c '%n %a %u %g' file sub/tool; readlink link; echo new > file; \
             grep ' /var/data ' /proc/self/mountinfo | grep -c tmpfs",
        )
        .run();
    assert_eq!(out.ok(), "text\nfile 604 7 8\nsub/tool 755 0 0\nfile\n1");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text", "the image is as it was");
}

#[test]
fn copy_up_then_read_only() {
    let mut bundle = Bundle::new();
    bundle.file("rootfs/var/data/file", "text");
    bundle.mount("/var/data", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
    let out = bundle.script("cat /var/data/file; touch /var/data/new 2>/dev/null || echo ' sealed'").run();
    assert_eq!(out.ok(), "text sealed");
}

#[test]
fn a_tmpfs_looks_like_the_directory_below() {
    let mut bundle = Bundle::new();
    fs::set_permissions(bundle.directory("rootfs/var/lock"), fs::Permissions::from_mode(0o1751)).unwrap();
    bundle.mount("/var/lock", "tmpfs", "tmpfs", &[]).mount("/tmp", "tmpfs", "tmpfs", &["mode=700"]);
    assert_eq!(bundle.script("stat -c %a /var/lock /tmp").run().ok(), "1751\n700");
}

/// config.md, mounts: a relative destination is taken from the root.
#[test]
fn relative_destination() {
    let mut bundle = Bundle::new();
    bundle.file("data/x", "");
    bundle.mount("mnt", "bind", "data", &["rbind"]);
    assert_eq!(bundle.script("ls /mnt").run().ok(), "x");
}

#[test]
fn destinations_stay_inside() {
    let mut bundle = Bundle::new();
    bundle.file("data/x", "");
    let outside = bundle.directory("outside");
    symlink(&outside, bundle.rootfs("trap")).unwrap();
    fs::create_dir_all(bundle.rootfs(outside.to_str().unwrap())).unwrap();
    bundle.set("root.readonly", json!(false)).mount("/trap/place", "bind", "data", &["rbind"]).mount(
        "/../../up",
        "bind",
        "data",
        &["rbind"],
    );
    assert_eq!(bundle.script("ls /up /trap/place").run().ok(), "/trap/place:\nx\n\n/up:\nx");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0, "the link led out of the root");
}

#[test]
fn mounts_come_in_order() {
    let mut bundle = Bundle::new();
    bundle.file("data/x", "");
    bundle.mount("/mnt", "tmpfs", "tmpfs", &[]).mount("/mnt/in", "bind", "data", &["bind"]);
    assert_eq!(bundle.script("ls /mnt /mnt/in").run().ok(), "/mnt:\nin\n\n/mnt/in:\nx");
}

#[test]
fn kinds_of_the_default_document() {
    let out = Bundle::new().script("cat /proc/self/mountinfo").run();
    for (target, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup2"),
    ] {
        assert_eq!(mount_at(out.ok(), target).kind, kind, "{target}");
    }
    assert!(mount_at(out.ok(), "/sys/fs/cgroup").has("ro"), "{out:?}");
}

#[test]
fn wrong_mounts_are_refused_before_anything_is_made() {
    for (mount, words) in [
        (json!({"destination": "/mnt", "type": "bind", "source": "absent"}), &["absent", "ENOENT"][..]),
        (json!({"destination": "/mnt", "type": "bind"}), &["mounts[7]", "source"]),
        (json!({"destination": "/proc/sys", "type": "tmpfs"}), &["/proc/sys", "inside /proc"]),
        (json!({"destination": "/", "type": "tmpfs"}), &["mounts[7]", "root"]),
        (json!({"destination": "/mnt", "type": "nosuchfs"}), &["nosuchfs", "/mnt"]),
    ] {
        let mut bundle = Bundle::new();
        bundle.push("mounts", mount).run().refused_with(words);
        bundle.assert_gone();
    }
}

/// As with runc, whose engines prepare volumes so: the mounts are made in order, and each sees those before it.
#[test]
fn a_source_made_by_an_earlier_mount() {
    let mut bundle = Bundle::new();
    let source = bundle.path("rootfs/mnt/first");
    bundle.directory("rootfs/mnt/first");
    bundle.mount("/mnt/first", "tmpfs", "tmpfs", &[]);
    bundle.mount("/mnt/second", "none", source.to_str().unwrap(), &["bind"]);
    let out = bundle.script("echo seen > /mnt/first/file; cat /mnt/second/file").run();
    assert_eq!(out.ok(), "seen");
    assert!(!source.join("file").exists(), "the image's own directory stays as it is");
}

/// Read-only, and filled all the same.
#[test]
fn a_read_only_dev() {
    let mut bundle = Bundle::new();
    bundle.edit(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().unwrap().push("ro".into());
            }
        }
    });
    let out =
        bundle.script("test -c /dev/null && test -d /dev/pts && touch /dev/x 2>&1; echo x > /dev/null").run();
    assert!(out.ok().contains("Read-only"), "{out:?}");
}

#[test]
fn a_bind_with_options_has_no_others_of_its_source() {
    let (outer, sub) = bound("nosuid,nodev,noexec,nosymfollow,noatime", &["rbind", "nodev"]);
    assert!(outer.has("nodev") && outer.has("noatime"), "{outer:?}");
    for word in ["nosuid", "noexec", "nosymfollow"] {
        assert!(!outer.has(word) && sub.has(word), "{word}: {outer:?} {sub:?}");
    }
    let (outer, _) = bound("nosuid,noexec", &["rbind", "rprivate"]);
    assert!(outer.has("nosuid") && outer.has("noexec"), "{outer:?}");
    let (outer, _) = bound("noatime", &["rbind", "nodiratime"]);
    assert!(outer.has("relatime") && outer.has("nodiratime"), "{outer:?}");
}

#[test]
fn in_a_user_namespace_a_bind_keeps_what_nobody_named() {
    let mut bundle = Bundle::new();
    bundle.mounted("outer", &["-t", "tmpfs", "-o", "ro,nosuid,noexec,nosymfollow", "tmpfs"]);
    bundle.mapped().mount("/mnt", "bind", "outer", &["bind", "nodev"]);
    let inside = bundle.script("cat /proc/self/mountinfo").run();
    let mount = mount_at(inside.ok(), "/mnt");
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.has(word), "{word}: {mount:?}");
    }
    assert!(!mount.has("nosymfollow"), "{mount:?}");
}

#[test]
fn a_destination_may_begin_with_the_roots_own_path() {
    let mut bundle = Bundle::new();
    bundle.file("data/file", "seen");
    let inside = bundle.path("rootfs/mnt").display().to_string();
    bundle.mount(&inside, "bind", "data", &["bind"]).script("cat /mnt/file");
    assert_eq!(bundle.run().ok(), "seen");
}

#[test]
fn a_file_on_a_directory_is_told_as_that() {
    for (destination, source, words) in [
        ("/etc", "config.json", ["/etc", "not a directory (ENOTDIR)", "the source is a file"]),
        ("/etc/passwd", "rootfs", ["/etc/passwd", "not a directory (ENOTDIR)", "the destination a file"]),
    ] {
        let mut bundle = Bundle::new();
        bundle.mount(destination, "bind", source, &["bind"]).run().refused_with(&words);
        bundle.assert_gone();
    }
}
