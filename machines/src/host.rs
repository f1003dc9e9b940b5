//! What machines need of a host, looked at without changing anything.
//!
//! Owns the list and the remedies. Nothing else asks it: what is missing is refused where it is needed as well.

use std::fs;
use std::path::Path;

use locule_runtime::cgroup;
use locule_runtime::sys::process::fs_magic;

use crate::Home;

/// `CGROUP2_SUPER_MAGIC` (linux/magic.h).
const CGROUP2: i64 = 0x6367_7270;
/// The kernel from which on overlays take idmapped layers.
const IDMAPPED_OVERLAYS: (u32, u32) = (5, 19);
/// What all machines of a host share: the limit, what is enough for hundreds of them, and what it limits.
const SHARED: &[(&str, u64, &str)] = &[
    ("fs.inotify.max_user_instances", 8192, "inotify in all machines: a systemd has some ten"),
    ("kernel.pid_max", 131_072, "processes of all machines"),
    ("kernel.pty.max", 4096, "terminals of all machines"),
    ("net.ipv4.neigh.default.gc_thresh3", 8192, "neighbours on all networks"),
    ("net.ipv6.neigh.default.gc_thresh3", 8192, "neighbours on all networks"),
];

/// One thing that machines need, or some of them want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// Whether no machine runs without it.
    pub needed: bool,
    /// What to do about its absence; none if it is there.
    pub remedy: Option<String>,
}

/// Looks at the host.
pub fn look(home: &Home) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut add = |needed: bool, what: &str, there: bool, remedy: &str| {
        let remedy = (!there).then(|| remedy.to_owned());
        all.push(Finding { what: what.to_owned(), needed, remedy });
    };
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let there = |path: &str| Path::new(path).exists();
    add(true, "rights of root", nix::unistd::geteuid().is_root(), "run machines as root");
    let release = text("/proc/sys/kernel/osrelease");
    add(
        true,
        &format!("kernel {}", release.trim()),
        version(&release).is_some_and(|own| own >= IDMAPPED_OVERLAYS),
        "5.19 is the least, for root file systems with ids of their own",
    );
    let spaces = text("/proc/sys/user/max_user_namespaces").trim().parse().unwrap_or(0u64);
    add(
        true,
        "user namespaces",
        there("/proc/self/ns/user") && spaces > 0,
        "allow them: sysctl user.max_user_namespaces=65536",
    );
    let mount = Path::new(cgroup::MOUNT);
    let unified = fs::File::open(mount).is_ok_and(|dir| fs_magic(&dir).is_ok_and(|magic| magic == CGROUP2));
    add(
        true,
        "cgroup v2 on /sys/fs/cgroup",
        unified,
        "boot with systemd.unified_cgroup_hierarchy=1, or mount it: mount -t cgroup2 none /sys/fs/cgroup",
    );
    let held = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    let lacking: Vec<&str> = ["cpu", "cpuset", "io", "memory", "pids"]
        .into_iter()
        .filter(|name| !held.split_ascii_whitespace().any(|own| own == *name))
        .collect();
    add(
        false,
        "controllers for limits",
        unified && lacking.is_empty(),
        &format!("there is no {}: boot without cgroup v1, which holds them", lacking.join(", ")),
    );
    let systems = text("/proc/filesystems");
    let has = |name: &str| systems.lines().any(|line| line.split_ascii_whitespace().last() == Some(name));
    add(
        true,
        "overlay file systems",
        has("overlay") || there("/sys/module/overlay"),
        "load the module: modprobe overlay",
    );
    add(
        true,
        "system call filters",
        there("/proc/sys/kernel/seccomp"),
        "use a kernel with CONFIG_SECCOMP_FILTER",
    );
    add(
        false,
        "time namespaces (uptime of the machine's own)",
        there("/proc/self/ns/time"),
        "use a kernel with CONFIG_TIME_NS",
    );
    add(
        false,
        "nf_tables (networks with NAT, published ports)",
        there("/sys/module/nf_tables") || there("/proc/sys/net/netfilter"),
        "load the module: modprobe nf_tables",
    );
    add(false, "pressure of the machine's own in /proc/pressure", there("/proc/pressure"), "boot with psi=1");
    add(
        false,
        "loop devices (storage of the kind disk)",
        there("/dev/loop-control"),
        "load the module: modprobe loop",
    );
    add(false, "tunnels in machines with nesting", there("/dev/net/tun"), "load the module: modprobe tun");
    add(false, "FUSE in machines with nesting", there("/dev/fuse"), "load the module: modprobe fuse");
    add(
        false,
        "mkfs.ext4 (storage of the kind disk)",
        ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"].into_iter().any(there),
        "install e2fsprogs",
    );
    add(
        false,
        "systemd (start with the host)",
        there("/run/systemd/system"),
        "let your init run: locule boot, and locule shutdown",
    );
    let data = home.data();
    let place = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let writable = nix::sys::statvfs::statvfs(place)
        .is_ok_and(|stat| !stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    add(
        true,
        &format!("room for machines in {}", data.display()),
        writable,
        "its file system is read-only: name another directory with --data",
    );
    all.extend(shared(Path::new("/proc/sys")));
    all
}

/// Looks at the limits below `sys`; some are those of the host's own network namespace only.
fn shared(sys: &Path) -> impl Iterator<Item = Finding> {
    SHARED.iter().filter_map(move |(name, enough, of)| {
        let now: u64 = fs::read_to_string(sys.join(name.replace('.', "/"))).ok()?.trim().parse().ok()?;
        Some(Finding {
            what: format!("{name} for hundreds of machines ({of})"),
            needed: false,
            remedy: (now < *enough).then(|| format!("it is {now}: sysctl {name}={enough}")),
        })
    })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_two_numbers() {
        assert_eq!(version("6.12.48+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(version("5.19-rc1"), Some((5, 19)));
        assert_eq!(version("x"), None);
    }

    #[test]
    fn a_low_limit_is_told_with_its_remedy() {
        let sys = tempfile::tempdir().unwrap();
        for (name, now) in [("fs/inotify/max_user_instances", "128\n"), ("kernel/pid_max", "4194304\n")] {
            let path = sys.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, now).unwrap();
        }
        let remedies: Vec<_> = shared(sys.path()).map(|finding| finding.remedy).collect();
        let raise = "it is 128: sysctl fs.inotify.max_user_instances=8192".to_owned();
        assert_eq!(remedies, [Some(raise), None]);
    }

    /// What the package sets is enough.
    #[test]
    fn the_package_sets_what_is_enough() {
        let set: Vec<(&str, u64)> = include_str!("../../units/locule.sysctl")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once(" = ").unwrap())
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        for (name, enough, _) in SHARED {
            let own = set.iter().find(|(own, _)| own == name);
            assert!(own.is_none_or(|(_, value)| value >= enough), "{name}");
        }
        assert!(set.iter().any(|(name, _)| *name == "fs.inotify.max_user_instances"));
    }

    #[test]
    fn what_is_there_needs_no_remedy() {
        let found = look(&Home::new(Path::new("/tmp"), Path::new("/tmp")));
        assert!(found.iter().any(|finding| finding.remedy.is_none()));
        assert!(found.iter().all(|finding| finding.remedy.as_deref() != Some("")));
    }
}
