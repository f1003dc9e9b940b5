//! Snapshots: what they share, what they keep, what a kill or a full disk leaves.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use locule_machines::definition::{Disk, FILE};
use locule_machines::storage::{Hold, Progress, Silent};

use crate::bed::{Bed, IMAGE, MAP, disk, names, overlay};
use crate::{taken, tool};

fn machine<'a>(bed: &'a Bed, name: &str, disk: &Disk) -> locule_machines::storage::Storage<'a> {
    fs::write(bed.machine(name).join(FILE), "image = \"app:1\"\n").unwrap();
    let storage = bed.storage(name, disk);
    storage.create(IMAGE, Some(MAP)).unwrap();
    storage
}

/// A machine that stands still and goes on by its cgroup.
struct Cgroup {
    dir: PathBuf,
    child: Option<Child>,
}

impl Cgroup {
    fn new() -> Cgroup {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = PathBuf::from(format!("/sys/fs/cgroup/storage-{}-{next}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Cgroup { dir, child: None }
    }

    /// Has `script` run in it.
    fn run(&mut self, script: &str) {
        let child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        fs::write(self.dir.join("cgroup.procs"), child.id().to_string()).unwrap();
        self.child = Some(child);
    }

    fn is_frozen(&self) -> bool {
        fs::read_to_string(self.dir.join("cgroup.events")).unwrap().contains("frozen 1")
    }
}

impl Hold for Cgroup {
    fn hold(&self) -> locule_machines::Result<()> {
        fs::write(self.dir.join("cgroup.freeze"), "1").unwrap();
        while !self.is_frozen() {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn release(&self) {
        fs::write(self.dir.join("cgroup.freeze"), "0").unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("cgroup.kill"), "1");
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
        while fs::remove_dir(&self.dir).is_err() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_snapshot_shares_data_and_never_changes() {
    for (host, kind, shares) in [
        ("xfs", disk(128), true),
        ("btrfs", disk(128), true),
        ("ext4", disk(128), false),
        ("xfs", overlay(), true),
        ("btrfs", overlay(), true),
        ("ext4", overlay(), false),
    ] {
        let bed = Bed::new(host);
        let storage = machine(&bed, "web1", &kind);
        {
            let root = bed.mount("web1", &kind);
            root.inside(
                "echo before > /etc/own; echo before > /etc/motd; rm /etc/user; mkdir /srv; ln /etc/own /srv/own; \
                 busybox chown 5:6 /srv; busybox yes | busybox head -c 20000000 > /big; busybox truncate -s 50M /sparse",
            );
            storage.unmount(&root.place).unwrap();
        }
        let usage = |path: &Path| tool("df", &["--output=used", path.to_str().unwrap()]);
        tool("sync", &["-f", bed.data().to_str().unwrap()]);
        let before: u64 = usage(&bed.data()).lines().last().unwrap().trim().parse().unwrap();
        let made = storage.snapshot("first", "before the change", None, &mut Silent).unwrap();
        assert_eq!((made.shared, made.running), (shares, false), "{host} {kind:?}");
        let after: u64 = usage(&bed.data()).lines().last().unwrap().trim().parse().unwrap();
        if shares {
            assert!(after - before < 4096, "{host}: {} KiB for a shared copy", after - before);
        }
        let root = bed.mount("web1", &kind);
        // Written in place, removed, made anew: the snapshot sees none of it.
        root.inside(
            "echo AFTER >> /etc/own; echo x > /etc/user; rm /big; busybox chown 7:8 /srv; rm -r /srv; echo y > /new",
        );
        storage.unmount(&root.place).unwrap();
        let listed = storage.snapshots().unwrap();
        assert_eq!(listed.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["first"]);
        assert_eq!(listed[0].description, "before the change");
        storage.restore("first", &mut Silent).unwrap();
        let root = bed.mount("web1", &kind);
        let told = root.inside(
            "busybox cat /etc/own /etc/motd; test ! -e /etc/user; test ! -e /new; busybox stat -c %u:%g /srv; \
             busybox stat -c %h /srv/own; busybox wc -c < /big; busybox stat -c %s /sparse",
        );
        assert_eq!(told, "before\nbefore\n5:6\n2\n20000000\n52428800\n", "{host} {kind:?}");
        if kind == overlay() {
            assert!(taken(&root.path("sparse")) < 1 << 20);
        }
        storage.unmount(&root.place).unwrap();
        let mut left = names(&bed.machine("web1"));
        left.retain(|name| name != FILE);
        assert_eq!(left, ["root", "snapshots"]);
        storage.remove_snapshot("first").unwrap();
        assert!(storage.snapshots().unwrap().is_empty());
        storage.remove().unwrap();
        assert_eq!(names(&bed.data().join("images/pins")), [""; 0]);
    }
}

#[test]
fn a_running_machine_stands_still_meanwhile() {
    for kind in [disk(128), overlay()] {
        let bed = Bed::new("xfs");
        let storage = machine(&bed, "web1", &kind);
        let root = bed.mount("web1", &kind);
        let mut cgroup = Cgroup::new();
        // Two files that are always changed one after the other.
        let script = "cd ROOT; i=0; while :; do i=$((i+1)); echo $i > a; echo $i > b; done"
            .replace("ROOT", root.place.to_str().unwrap());
        let inside = format!(
            "exec nsenter --user=/proc/{}/fd/%d --setuid 0 --setgid 0 sh -c '{script}'",
            std::process::id()
        );
        let userns = locule_images::sys::userns::mapped(MAP.first, MAP.count).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&userns).to_string();
        cgroup.run(&inside.replace("%d", &fd));
        while !root.path("b").exists() {
            std::thread::yield_now();
        }
        let made = storage.snapshot("live", "", Some(&cgroup), &mut Silent).unwrap();
        assert!(made.running && made.shared);
        assert!(
            !cgroup.is_frozen()
                || !fs::read_to_string(cgroup.dir.join("cgroup.freeze")).unwrap().contains('1')
        );
        // It goes on.
        let now = fs::read_to_string(root.path("a")).unwrap();
        while fs::read_to_string(root.path("a")).unwrap() == now {
            std::thread::yield_now();
        }
        drop(cgroup);
        storage.unmount(&root.place).unwrap();
        if kind != overlay() {
            let saved = storage.snapshot_root("live").unwrap().join("disk.img");
            // Closed properly, as after an unmount.
            tool("e2fsck", &["-fn", saved.to_str().unwrap()]);
        }
        storage.restore("live", &mut Silent).unwrap();
        let root = bed.mount("web1", &kind);
        let read =
            |name: &str| fs::read_to_string(root.path(name)).unwrap().trim().parse::<i64>().unwrap_or(0);
        // The shell empties a file before it writes.
        let (a, b) = (read("a"), read("b"));
        assert!(a == b || a == b + 1 || a == 0 || b == 0, "{a} {b}");
    }
}

#[test]
fn what_was_refused_is_told() {
    let bed = Bed::new("ext4");
    let storage = machine(&bed, "db", &disk(64));
    storage.snapshot("one", "", None, &mut Silent).unwrap();
    let refused = storage.snapshot("one", "", None, &mut Silent).unwrap_err().to_string();
    assert!(refused.contains("there is a snapshot \"one\"") && refused.contains("snapshot rm"), "{refused}");
    assert!(storage.restore("two", &mut Silent).unwrap_err().to_string().contains("no snapshot \"two\""));
    let root = bed.mount("db", &disk(64));
    let refused = storage.restore("one", &mut Silent).unwrap_err().to_string();
    assert!(refused.contains("mounted") && refused.contains("stop the machine"), "{refused}");
    storage.unmount(&root.place).unwrap();
}

#[test]
fn a_full_disk_leaves_the_machine_as_it_was() {
    for kind in [disk(64), overlay()] {
        let bed = Bed::sized("ext4", 192 << 20);
        let storage = machine(&bed, "web1", &kind);
        {
            let root = bed.mount("web1", &kind);
            root.inside("busybox yes | busybox head -c 12000000 > /big; echo old > /etc/own");
            storage.unmount(&root.place).unwrap();
        }
        storage.snapshot("small", "", None, &mut Silent).unwrap();
        {
            let root = bed.mount("web1", &kind);
            root.inside("echo new > /etc/own");
            storage.unmount(&root.place).unwrap();
        }
        let filler = bed.data().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 65536]).is_ok() {}
        drop(file);
        for attempt in
            [storage.snapshot("more", "", None, &mut Silent).map(drop), storage.restore("small", &mut Silent)]
        {
            let told = attempt.unwrap_err().to_string();
            assert!(told.contains("ENOSPC") && told.contains("nothing was changed"), "{told}");
        }
        fs::remove_file(&filler).unwrap();
        let mut left = names(&bed.machine("web1"));
        left.retain(|name| name != FILE);
        assert_eq!(left, ["root", "snapshots"]);
        assert_eq!(names(&bed.machine("web1").join("snapshots")), ["small"]);
        let root = bed.mount("web1", &kind);
        assert_eq!(root.inside("busybox cat /etc/own; busybox wc -c < /big"), "new\n12000000\n");
        storage.unmount(&root.place).unwrap();
        storage.restore("small", &mut Silent).unwrap();
        let root = bed.mount("web1", &kind);
        assert_eq!(root.inside("busybox cat /etc/own"), "old\n");
    }
}

/// Kills its own process when so many bytes were copied.
struct Deadly(u64);

impl Progress for Deadly {
    fn bytes(&mut self, more: u64) {
        self.0 = self.0.saturating_sub(more);
        if self.0 == 0 {
            nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

/// Not a test by itself: what another process of this program does until it is killed.
#[test]
#[ignore = "run by killed_while_it_saves"]
fn save_and_die() {
    let Ok(data) = std::env::var("SAVE_DATA") else { return };
    let images = locule_images::Store::open(&Path::new(&data).join("images")).unwrap();
    let kind: Disk = if std::env::var("SAVE_KIND").unwrap() == "disk" { disk(64) } else { overlay() };
    let dir = Path::new(&data).join("machines/web1");
    let storage = locule_machines::storage::Storage::open(&dir, &kind, &images).unwrap();
    let cgroup = std::mem::ManuallyDrop::new(Cgroup {
        dir: std::env::var("SAVE_CGROUP").unwrap().into(),
        child: None,
    });
    let mut deadly = Deadly(std::env::var("SAVE_BYTES").unwrap().parse().unwrap());
    match std::env::var("SAVE_ACT").unwrap().as_str() {
        "snapshot" => drop(storage.snapshot("cut", "", Some(&*cgroup), &mut deadly).unwrap()),
        _ => storage.restore("good", &mut deadly).unwrap(),
    }
}

#[test]
fn killed_while_it_saves() {
    // ext4 shares nothing, so that there is a middle to be killed in.
    for (word, kind) in [("disk", disk(64)), ("overlay", overlay())] {
        let bed = Bed::new("ext4");
        let storage = machine(&bed, "web1", &kind);
        {
            let root = bed.mount("web1", &kind);
            root.inside("busybox yes | busybox head -c 8000000 > /big; echo good > /etc/own");
            storage.unmount(&root.place).unwrap();
        }
        storage.snapshot("good", "", None, &mut Silent).unwrap();
        let killed = |act: &str, cgroup: &Cgroup| {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "snapshots::save_and_die", "--test-threads=1"])
                .env("SAVE_DATA", bed.data())
                .env("SAVE_KIND", word)
                .env("SAVE_CGROUP", &cgroup.dir)
                .env("SAVE_BYTES", "5000000")
                .env("SAVE_ACT", act)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert_eq!(status.signal(), Some(9), "{word} {act}: {status}");
        };
        // A snapshot of what runs: it goes on, with its file system.
        let root = bed.mount("web1", &kind);
        root.inside("echo now > /etc/own");
        let mut cgroup = Cgroup::new();
        cgroup.run("exec sleep 1000");
        killed("snapshot", &cgroup);
        root.inside("echo written > /etc/own; busybox sync");
        while cgroup.is_frozen() {
            std::thread::yield_now();
        }
        storage.unmount(&root.place).unwrap();
        assert_eq!(storage.snapshots().unwrap().len(), 1);
        assert!(names(&bed.machine("web1").join("snapshots")).len() > 1, "nothing was left to be removed");
        storage.clear_rests().unwrap();
        assert_eq!(names(&bed.machine("web1").join("snapshots")), ["good"]);
        // A restore: as before, and the next one does it.
        killed("restore", &cgroup);
        let root = bed.mount("web1", &kind);
        assert_eq!(root.inside("busybox cat /etc/own"), "written\n");
        storage.unmount(&root.place).unwrap();
        storage.restore("good", &mut Silent).unwrap();
        let root = bed.mount("web1", &kind);
        assert_eq!(root.inside("busybox cat /etc/own"), "good\n");
        let mut left = names(&bed.machine("web1"));
        left.retain(|name| name != FILE);
        assert_eq!(left, ["root", "snapshots"]);
    }
}
