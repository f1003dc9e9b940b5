//! Races: names of the image or of a shared volume change while the container is made.
//!
//! Owns the number of containers of each race. Each was run against a build whose guard was taken
//! out; the comments say what was taken out and after how many containers the test failed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use crate::lane::{Bundle, MountInfo, Output, host};
use crate::race::swapping;

/// How long one race goes on at most, on a machine that has other things to do.
const SPELL: Duration = Duration::from_secs(30);

/// Runs `act` until `enough` containers were made, for five times as many attempts at most: those
/// that were refused show little. `act` says whether its container was made.
#[track_caller]
fn containers(enough: u32, mut act: impl FnMut(u32) -> bool) {
    let (mut made, mut attempts) = (0, 0);
    let end = Instant::now() + SPELL;
    while made < enough && attempts < 5 * enough && (attempts < enough / 4 || Instant::now() < end) {
        made += u32::from(act(attempts));
        attempts += 1;
    }
    println!("{made} containers were made in {attempts} attempts");
    assert!(made > attempts / 10, "only {made} of {attempts} containers were made");
}

/// Whether the container was made; a refusal must name one of `words`.
#[track_caller]
fn made(out: &Output, words: &[&str]) -> bool {
    if out.status == 0 {
        return true;
    }
    let told = out.refused();
    assert!(words.iter().any(|word| told.contains(word)), "{told}");
    false
}

/// One that shares this network, which none of these races is about: it is the dearest namespace.
fn bundle() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.without_namespace("network");
    bundle
}

fn mounts(text: &str) -> Vec<MountInfo> {
    text.lines().map(MountInfo::parse).collect()
}

/// A directory outside of the root, and the same path inside.
fn outside(bundle: &Bundle) -> PathBuf {
    let outside = bundle.directory("outside");
    fs::create_dir_all(bundle.rootfs(outside.to_str().unwrap())).unwrap();
    outside
}

/// CVE-2021-30465 and CVE-2024-45310: a mount's destination in a shared volume is exchanged for a
/// link out of the root while a thousand containers start: every mount stays inside, and nothing
/// is made outside.
///
/// With `Root::resolve` looking twice (checked in the root, then opened by the name found) a mount went
/// astray after 135 to 232 containers of each of the four; with `Root::make_dir` by name the first
/// container made directories outside.
#[test]
fn mount_destinations() {
    let owner = bundle();
    let outside = outside(&owner);
    let volume = owner.directory("vol");
    owner.directory("vol/dir");
    symlink(&outside, volume.join("link")).unwrap();
    let bundles = [(); 4].map(|()| {
        let mut bundle = bundle();
        fs::create_dir_all(bundle.rootfs(outside.to_str().unwrap())).unwrap();
        bundle.mount("/vol", "bind", volume.to_str().unwrap(), &["bind"]);
        bundle.mount("/vol/dir/made/deep", "tmpfs", "race-mark", &["size=4k"]);
        bundle.mount("/vol/dir", "tmpfs", "race-mark", &["size=4k"]);
        bundle.args(&["grep", "-c", "race-mark", "/proc/self/mountinfo"]);
        bundle
    });
    let many = |bundle: &Bundle| {
        containers(250, |attempt| {
            let out = bundle.run();
            let left = fs::read_dir(&outside).unwrap().count();
            assert_eq!(left, 0, "made outside of the root by container {attempt}");
            if !made(&out, &["/vol/dir"]) {
                return false;
            }
            assert_eq!(out.ok(), "2", "a mount went astray in container {attempt}");
            true
        });
    };
    swapping(&volume.join("dir"), &volume.join("link"), || {
        // Most of a container's making and deleting is waiting for the kernel.
        std::thread::scope(|scope| bundles.iter().for_each(|bundle| drop(scope.spawn(|| many(bundle)))));
    });
}

/// A device node in a volume is exchanged for a link to a file of the host's: that file's mode and
/// owner stay.
///
/// With the mode set by name, as it was once, this failed within 41 containers.
#[test]
fn device_nodes() {
    let mut bundle = bundle();
    let victim = bundle.file("victim", "secret");
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
    let volume = bundle.directory("vol");
    let node = volume.join("node");
    mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).unwrap();
    let same = bundle.path("same");
    fs::hard_link(&node, &same).unwrap();
    symlink(&victim, volume.join("link")).unwrap();
    bundle.mount("/vol", "bind", "vol", &["bind"]).args(&["true"]);
    bundle.push(
        "linux.devices",
        json!({"path": "/vol/node", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 5, "gid": 6}),
    );
    swapping(&node, &volume.join("link"), || {
        containers(200, |attempt| {
            // As at first, or there is nothing to change.
            fs::set_permissions(&same, fs::Permissions::from_mode(0o400)).unwrap();
            std::os::unix::fs::chown(&same, Some(0), Some(0)).unwrap();
            let made = made(&bundle.run(), &["/vol/node"]);
            let meta = fs::metadata(&victim).unwrap();
            let shown = (meta.mode() & 0o7777, meta.uid(), meta.gid());
            assert_eq!(shown, (0o600, 0, 0), "the host's file is changed by container {attempt}");
            if made {
                let meta = fs::metadata(&same).unwrap();
                assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o666, 5, 6));
            }
            made
        });
    });
}

/// CVE-2025-31133: /dev/null of the image is exchanged for a link while masks are made of it.
///
/// With the image's /dev/null as the mask, unverified, this failed within 9 containers.
#[test]
fn masks() {
    let mut bundle = bundle();
    bundle.file("rootfs/secret", "secret");
    bundle.file("rootfs/bait", "bait");
    let outside = outside(&bundle);
    bundle.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    });
    let dev = bundle.rootfs("dev");
    for sub in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(sub)).unwrap();
    }
    mknod(&dev.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    symlink("/bait", dev.join("link")).unwrap();
    bundle.push("linux.maskedPaths", json!("/secret"));
    bundle.script("cat /secret; (echo broken > /secret) 2>/dev/null; true");
    swapping(&dev.join("null"), &dev.join("link"), || {
        containers(100, |attempt| {
            let out = bundle.run();
            let made = made(&out, &["/dev/null"]);
            assert_eq!(out.stdout, "", "container {attempt} sees through its mask");
            assert_eq!(fs::read_to_string(bundle.rootfs("bait")).unwrap(), "bait");
            made
        });
    });
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

/// GHSA-3q8j-pf29-vwv8 and CVE-2025-31133: a read-only and a masked path that change places with
/// another directory: what is covered is read-only, what is masked is empty, never half of it.
///
/// With the path looked up again to make it read-only, this failed within 13 containers.
#[test]
fn restricted_paths() {
    let mut bundle = bundle();
    // In directories of their own, so that the two do not wait for each other.
    for dir in ["a/ro", "a/ro-other", "b/masked", "b/masked-other"] {
        bundle.file(&format!("vol/{dir}/secret"), "secret");
    }
    let volume = bundle.path("vol");
    bundle.mount("/vol", "bind", "vol", &["bind", "rw"]);
    bundle.push("linux.readonlyPaths", json!("/vol/a/ro")).push("linux.maskedPaths", json!("/vol/b/masked"));
    bundle.args(&["cat", "/proc/self/mountinfo"]);
    swapping(&volume.join("a/ro"), &volume.join("a/ro-other"), || {
        swapping(&volume.join("b/masked"), &volume.join("b/masked-other"), || {
            containers(200, |attempt| {
                let out = bundle.run();
                let all = mounts(out.ok());
                let below: Vec<&MountInfo> =
                    all.iter().filter(|mount| mount.target.starts_with("/vol/")).collect();
                let (masks, rest): (Vec<&MountInfo>, Vec<&MountInfo>) =
                    below.into_iter().partition(|mount| mount.target.starts_with("/vol/b/"));
                assert_eq!((masks.len(), rest.len()), (1, 1), "container {attempt}: {masks:?} {rest:?}");
                assert!(masks[0].has("ro") && rest[0].has("ro"), "container {attempt}: {masks:?} {rest:?}");
                assert!(masks[0].root == "/" && masks[0].superblock_has("nr_inodes=1"), "{masks:?}");
                true
            });
        });
    });
}

/// The container's own list of mounts, where /proc may be at either of two places.
const MOUNTINFO: &str = "n=0; while [ $n -lt 500 ]; do n=$((n+1))
    cat /proc/self/mountinfo 2>/dev/null && exit
    cat /aside/self/mountinfo 2>/dev/null && exit
    done; exit 9";

/// CVE-2019-19921, CVE-2023-27561 as a race: who shares the root exchanges /proc, before or after it
/// is mounted on, for a directory or a link: wherever procfs ends up, it is masked and read-only
/// where the document wants it, or there is no container.
///
/// With masks looked up by name from the root, as they were once, this failed within 201 attempts.
#[test]
fn proc_moves_aside() {
    for link in [false, true] {
        let mut bundle = bundle();
        bundle.script(MOUNTINFO);
        // The list is written line by line, while the names go on changing.
        let below = |text: &str| {
            let within =
                |mount: &&MountInfo| ["/proc/", "/aside/"].iter().any(|at| mount.target.starts_with(at));
            mounts(text).iter().filter(within).count()
        };
        let usual = below(bundle.run().ok());
        assert!(usual > 3);
        let aside = bundle.rootfs("aside");
        if link {
            symlink("/tmp", &aside).unwrap();
        } else {
            fs::create_dir(&aside).unwrap();
        }
        swapping(&bundle.rootfs("proc"), &aside, || {
            containers(100, |attempt| {
                let out = bundle.run();
                if out.status == 9 || !made(&out, &["/proc"]) {
                    return false;
                }
                assert_eq!(below(&out.stdout), usual, "container {attempt}: {}", out.stdout);
                true
            });
        });
    }
}

/// CVE-2025-52881, CVE-2019-16884, CVE-2025-62596: /proc is exchanged for a directory of false files
/// while the runtime writes there: they get nothing, and what was asked for holds.
///
/// With /proc opened by its name this failed with the first container.
#[test]
fn writes_to_proc() {
    let mut bundle = Bundle::new();
    let fake = [
        "sys/net/ipv4/ip_forward",
        "self/oom_score_adj",
        "1/oom_score_adj",
        "thread-self/oom_score_adj",
        "self/attr/exec",
        "thread-self/attr/exec",
    ]
    .map(|path| bundle.file(&format!("rootfs/fake/{path}"), ""));
    bundle.set("linux.maskedPaths", json!([])).set("linux.readonlyPaths", json!([]));
    bundle.set("linux.sysctl", json!({"net.ipv4.ip_forward": "1"}));
    bundle.set("process.oomScoreAdj", json!(777)).set("root.readonly", json!(false)).args(&["true"]);
    swapping(&bundle.rootfs("proc"), &bundle.rootfs("fake"), || {
        containers(100, |attempt| {
            let out = bundle.try_create(&[]);
            let made = made(&out, &["/proc"]);
            if made {
                let pid = bundle.pid();
                assert_eq!(bundle.proc("oom_score_adj"), "777\n", "container {attempt}");
                let net = format!("--net=/proc/{pid}/ns/net");
                assert_eq!(host("nsenter", &[&net, "cat", "/proc/sys/net/ipv4/ip_forward"]), "1");
                bundle.locule(&["delete", "--force", bundle.id()]).ok();
            }
            for path in ["rootfs/fake", "rootfs/proc"] {
                for file in &fake {
                    let inner = file.strip_prefix(bundle.path("rootfs/fake")).unwrap();
                    let text = fs::read(bundle.path(path).join(inner)).unwrap_or_default();
                    assert_eq!(text, b"", "container {attempt}: written to {}", inner.display());
                }
            }
            made
        });
    });
}

/// CVE-2025-52565: the directory of terminals is exchanged for one with a link in the terminal's
/// place: what is mounted on /dev/console is a terminal.
///
/// With /dev/pts/0 looked up by name, the link's target was the console within 62 attempts.
#[test]
fn terminals() {
    let mut bundle = bundle();
    let bait = bundle.file("bait", "bait");
    bundle.file("rootfs/bait", "bait");
    bundle.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    });
    let dev = bundle.rootfs("dev");
    for sub in ["pts", "fake", "shm", "mqueue"] {
        fs::create_dir(dev.join(sub)).unwrap();
    }
    fs::write(dev.join("fake/ptmx"), "").unwrap();
    symlink("/bait", dev.join("fake/0")).unwrap();
    bundle.set("process.terminal", json!(true));
    bundle.script("cat /proc/self/mountinfo; echo broken > /dev/console");
    swapping(&dev.join("pts"), &dev.join("fake"), || {
        containers(100, |attempt| {
            let out = bundle.run();
            assert_eq!(fs::read_to_string(&bait).unwrap(), "bait");
            assert_eq!(fs::read_to_string(bundle.rootfs("bait")).unwrap(), "bait", "container {attempt}");
            if !made(&out, &["terminal", "/dev/pts"]) {
                return false;
            }
            let all = out.stdout.replace('\r', "");
            let console = all
                .lines()
                .filter(|line| line.contains(" - "))
                .map(MountInfo::parse)
                .find(|m| m.target == "/dev/console");
            assert_eq!(console.unwrap().kind, "devpts", "container {attempt}");
            true
        });
    });
}

/// CVE-2024-45310 with files: a bind mount's file is made where it belongs, or nowhere.
///
/// With `Root::make_dir` by name this failed within 3 containers.
#[test]
fn mount_files() {
    let mut bundle = bundle();
    let outside = outside(&bundle);
    let volume = bundle.directory("vol");
    bundle.directory("vol/dir");
    symlink(&outside, volume.join("link")).unwrap();
    bundle.file("source", "source");
    bundle.mount("/vol", "bind", "vol", &["bind"]);
    bundle.mount("/vol/dir/a/b/file", "bind", "source", &["bind"]).args(&["true"]);
    let inside = bundle.rootfs(outside.to_str().unwrap());
    swapping(&volume.join("dir"), &volume.join("link"), || {
        containers(100, |attempt| {
            let made = made(&bundle.run(), &["/vol/dir"]);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "made outside by container {attempt}");
            // Missing again for the next one.
            for place in [&volume.join("dir"), &volume.join("link"), &inside] {
                let _ = fs::remove_dir_all(Path::new(place).join("a"));
            }
            made
        });
    });
}
