//! What each option of `vzctl set`, and each name of its files, is for a machine: the table, which `docs/openvz.md`
//! prints.

use serde::Serialize;

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has keys of its own.
    Mapped,
    /// Another limit counts it: the memory's, mostly.
    Covered,
    /// There is nothing to do.
    NotNeeded,
    /// The kernel or this version cannot.
    NotPossible,
    /// vzctl does not know it, or not any more.
    Unknown,
    /// Its value was not understood.
    Unread,
}

impl Outcome {
    /// For the report.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Mapped => "mapped",
            Outcome::Covered => "covered",
            Outcome::NotNeeded => "not needed",
            Outcome::NotPossible => "not possible",
            Outcome::Unknown => "unknown",
            Outcome::Unread => "not understood",
        }
    }
}

/// An option of `vzctl set` (or names of several that are alike).
#[derive(Debug, Clone, Copy)]
pub struct Option_ {
    /// Its names without dashes.
    pub option: &'static str,
    /// Its names in the file.
    pub conf: &'static str,
    /// What it is here.
    pub outcome: Outcome,
    /// The keys of `locule set`, or the verb.
    pub here: &'static str,
    /// What differs, or why it cannot be.
    pub note: &'static str,
}

const fn row(
    option: &'static str,
    conf: &'static str,
    outcome: Outcome,
    here: &'static str,
    note: &'static str,
) -> Option_ {
    Option_ { option, conf, outcome, here, note }
}

use Outcome::{Covered, Mapped, NotNeeded, NotPossible};

/// All of them.
pub const OPTIONS: &[Option_] = &[
    row("onboot, autostart", "ONBOOT, AUTOSTART", Mapped, "boot=on|off|last", "auto is last"),
    row(
        "autostart-delay",
        "AUTOSTART_DELAY",
        NotPossible,
        "boot.after, boot.ready",
        "machines wait for each other's readiness, not for a time",
    ),
    row("bootorder", "BOOTORDER", Mapped, "boot.order", "higher starts earlier, as there"),
    row(
        "autostop",
        "AUTOSTOP",
        NotPossible,
        "init.stop-timeout",
        "machines are stopped with the host; nothing is suspended to disk",
    ),
    row("disabled", "DISABLED", Mapped, "disabled", "no --force: disabled=off first"),
    row("stop-timeout", "STOP_TIMEOUT", Mapped, "init.stop-timeout", "90 s without one, there 120"),
    row("name", "NAME", Mapped, "locule rename", "the machine's own name, in lower case"),
    row("description", "DESCRIPTION", Mapped, "description", ""),
    row("hostname", "HOSTNAME", Mapped, "hostname", "no file inside is edited"),
    row(
        "ostemplate, distribution",
        "OSTEMPLATE, DISTRIBUTION",
        Mapped,
        "labels.openvz-template",
        "the image is named at the import; packages are not templates",
    ),
    row("osrelease", "OSRELEASE", NotPossible, "", "the kernel tells its own release"),
    row("vetype", "VE_TYPE", NotNeeded, "", ""),
    row(
        "root, private",
        "VE_ROOT, VE_PRIVATE",
        NotNeeded,
        "--data",
        "a machine is one directory below /var/lib/locule/machines",
    ),
    row(
        "mount_opts, noatime",
        "MOUNT_OPTS, NOATIME",
        NotPossible,
        "",
        "the root file system is mounted with relatime; other mounts take options",
    ),
    row(
        "userpasswd",
        "",
        NotPossible,
        "locule exec NAME chpasswd",
        "run inside; nothing outside edits the machine's files",
    ),
    row(
        "ipadd, ipdel, ip",
        "IP_ADDRESS",
        Mapped,
        "network.NAME.address",
        "on a network of kind routed, which is venet's way; prefix lengths belong to the network",
    ),
    row(
        "ext_ipadd, ext_ipdel",
        "EXT_IP_ADDRESS",
        NotPossible,
        "",
        "every address of an interface is announced",
    ),
    row("netif_add, netif_del, ifname", "NETIF", Mapped, "network.NAME.network", "network.NAME= removes it"),
    row("mac", "", Mapped, "network.NAME.mac", "part of NETIF"),
    row(
        "netif_mac_renew",
        "",
        NotNeeded,
        "network.NAME.mac=",
        "without one a new one is chosen at each start",
    ),
    row("host_ifname, host_mac", "", NotNeeded, "", "the host's end is named by locule"),
    row("gw, gw6", "", NotNeeded, "", "the gateway is the network's"),
    row(
        "dhcp, dhcp6, configure",
        "",
        NotNeeded,
        "",
        "the interface is configured from outside, with addresses that stay",
    ),
    row(
        "network, bridge",
        "",
        Mapped,
        "network.NAME.network",
        "a network of that name is made once by locule network create",
    ),
    row("mac_filter", "", NotNeeded, "", "false senders are refused on every bridge and routed network"),
    row("nettype, vporttype", "", NotPossible, "", "no Open vSwitch; a CNI network can have one"),
    row(
        "default_gateway",
        "VE_DEFAULT_GATEWAY",
        NotPossible,
        "",
        "the first interface has the default route",
    ),
    row("nameserver", "NAMESERVER", Mapped, "dns", "inherit is to leave it out"),
    row("searchdomain", "SEARCHDOMAIN", Mapped, "dns.search", ""),
    row(
        "skip_arpdetect, apply_iponly",
        "SKIP_ARPDETECT, APPLY_IPONLY",
        NotNeeded,
        "",
        "addresses are claimed in files",
    ),
    row(
        "origin_sample, config_customized",
        "ORIGIN_SAMPLE, CONFIG_CUSTOMIZED",
        Mapped,
        "labels.openvz-sample",
        "",
    ),
    row(
        "local_uid, local_gid",
        "LOCAL_UID, LOCAL_GID",
        NotNeeded,
        "",
        "each machine has its own 65536 ids; privileged=on is the way to have none",
    ),
    row(
        "ram, memory, physpages, memsize",
        "PHYSPAGES, MEMSIZE",
        Mapped,
        "memory",
        "the barrier counts for nothing, as there",
    ),
    row(
        "swap, swappages",
        "SWAPPAGES",
        Mapped,
        "swap",
        "real swap of the host; nothing is slowed artificially",
    ),
    row(
        "vm_overcommit",
        "VM_OVERCOMMIT",
        NotPossible,
        "memory.high",
        "the kernel has no limit of address space for a group",
    ),
    row(
        "memguarantee",
        "MEMGUARANTEE",
        Mapped,
        "memory.guarantee",
        "a share becomes bytes when it is imported",
    ),
    row(
        "vmguarpages",
        "VMGUARPAGES",
        Mapped,
        "memory.guarantee",
        "protects memory in use, not allocations to come",
    ),
    row(
        "pagecache-isolation",
        "PAGECACHE_ISOLATION",
        NotPossible,
        "memory.high",
        "the page cache counts to the machine's own memory anyway",
    ),
    row("num-memory-subgroups", "NUMMEMORYSUBGROUPS", Mapped, "cgroup.max", ""),
    row("numproc", "NUMPROC", Mapped, "pids", "threads count, as there"),
    row("avnumproc", "AVNUMPROC", NotNeeded, "", "it was an accounting hint"),
    row(
        "numfile, numflock",
        "NUMFILE, NUMFLOCK",
        NotPossible,
        "ulimit.nofile",
        "the kernel counts them for each process, not for a group; their memory counts",
    ),
    row("numpty", "NUMPTY", Mapped, "pids.ptys", ""),
    row("numsiginfo", "NUMSIGINFO", Mapped, "ulimit.sigpending", "counted in the user namespace"),
    row("lockedpages", "LOCKEDPAGES", Mapped, "ulimit.memlock", "in bytes, counted in the user namespace"),
    row(
        "shmpages",
        "SHMPAGES",
        Mapped,
        "sysctl.kernel.shmall",
        "System V segments; POSIX ones count to memory",
    ),
    row(
        "numiptent, numnetif",
        "NUMIPTENT, NUMNETIF",
        NotPossible,
        "capabilities.drop+=NET_ADMIN",
        "the kernel limits neither; their memory counts",
    ),
    row(
        "privvmpages",
        "PRIVVMPAGES",
        Mapped,
        "memory",
        "only without PHYSPAGES; address space has no limit of a group",
    ),
    row(
        "kmemsize, tcpsndbuf, tcprcvbuf, othersockbuf, dgramrcvbuf, numtcpsock, numothersock, dcachesize, oomguarpages",
        "KMEMSIZE, TCPSNDBUF, TCPRCVBUF, OTHERSOCKBUF, DGRAMRCVBUF, NUMTCPSOCK, NUMOTHERSOCK, DCACHESIZE, OOMGUARPAGES",
        Covered,
        "memory",
        "the kernel's memory and that of sockets count to memory.limit",
    ),
    row(
        "totvmpages, ipcshmpages, anonshpages, rsspages, oomguar, numsock, unixsockbuf, sockrcvbuf, numunixsock, slmmode, slmmemorylimit",
        "TOTVMPAGES, IPCSHMPAGES, ANONSHPAGES, RSSPAGES, OOMGUAR, NUMSOCK, UNIXSOCKBUF, SOCKRCVBUF, NUMUNIXSOCK, SLMMODE, SLMMEMORYLIMIT",
        Covered,
        "memory",
        "leftovers of older kernels",
    ),
    row(
        "meminfo",
        "MEMINFO",
        Mapped,
        "visible",
        "none is visible=off; otherwise the numbers are the machine's own",
    ),
    row(
        "cpuunits, cpuweight",
        "CPUUNITS, CPUWEIGHT",
        Mapped,
        "cpu.weight",
        "a tenth: 1000 is 100, the default",
    ),
    row("cpulimit", "CPULIMIT", Mapped, "cpus", "150 is 1.5; MHz are not possible"),
    row("cpus", "CPUS", Mapped, "cpu.count", "the least used ones are chosen"),
    row("cpumask", "CPUMASK", Mapped, "cpu.set", ""),
    row("nodemask", "NODEMASK", Mapped, "cpu.nodes", ""),
    row(
        "burst_cpulimit, burst_cpu_avg_usage",
        "BURST_CPULIMIT, BURST_CPU_AVG_USAGE",
        NotPossible,
        "cpu.burst",
        "the kernel saves up unused time and knows no average",
    ),
    row("ioprio", "IOPRIO", Mapped, "io.weight", "0 to 7 are 320, 365, 410, 460, 500, 550, 600, 640"),
    row(
        "iolimit",
        "IOLIMIT",
        Mapped,
        "io.bps",
        "reading and writing each, there together; a number below 4096 is MB/s, as vzctl 4 takes it",
    ),
    row("iopslimit", "IOPSLIMIT", Mapped, "io.iops", "reading and writing each, there together"),
    row("diskspace", "DISKSPACE", Mapped, "disk", "the first of two; there is no time of grace"),
    row("diskinodes", "DISKINODES", Mapped, "disk.inodes", "the first of two; overlay only"),
    row("quotatime", "QUOTATIME", NotPossible, "", "limits are hard"),
    row(
        "quotaugidlimit, diskquota, jquota",
        "QUOTAUGIDLIMIT, DISK_QUOTA, JOURNALED_QUOTA",
        NotPossible,
        "",
        "quotas of users inside are not there",
    ),
    row(
        "device-add, device-set, device-del",
        "DISK",
        NotPossible,
        "mount+=",
        "one disk a machine; a directory or a mounted disk of the host can be shown in it",
    ),
    row("autocompact", "AUTOCOMPACT", NotNeeded, "", "overlay needs none"),
    row(
        "bindmount_add, bindmount_del",
        "BINDMOUNT",
        Mapped,
        "mount+=, mount-=",
        "at the next start, as there",
    ),
    row("devnodes", "DEVNODES", Mapped, "device+=", "q (quota calls) is left out"),
    row("devices", "DEVICES", NotPossible, "device+=", "a device is named by its path, not by its numbers"),
    row("pci_add, pci_del", "PCI", NotPossible, "", "needs a machine with a kernel of its own"),
    row(
        "netdev_add, netdev_del",
        "NETDEV",
        NotPossible,
        "locule network create --kind",
        "an interface of the host is given by a network of its own",
    ),
    row(
        "capability",
        "CAPABILITY",
        Mapped,
        "capabilities.add, capabilities.drop",
        "those that OpenVZ's kernel alone had are told of",
    ),
    row(
        "features",
        "FEATURES",
        Mapped,
        "device+=",
        "tun and ppp are devices; tunnels and bridges work in the machine's network; nfs is mounted by the host; the clock is the host's",
    ),
    row("iptables", "IPTABLES", NotNeeded, "", "each machine has netfilter of its own"),
    row(
        "netfilter",
        "NETFILTER",
        Mapped,
        "capabilities.drop+=NET_ADMIN",
        "disabled; every other word leaves it all",
    ),
    row(
        "rate, ratebound",
        "RATE, RATEBOUND",
        Mapped,
        "network.NAME.up, network.NAME.up-rate",
        "with RATEBOUND=yes a ceiling (up), else a guarantee (up-rate); classes are the network's",
    ),
    row("ha_enable, ha_prio", "HA_ENABLE, HA_PRIO", NotNeeded, "", "the cluster's affair"),
    row("offline_management, offline_service", "OFFLINE_MANAGEMENT, OFFLINE_SERVICE", NotNeeded, "", ""),
    row("save", "", NotNeeded, "--runtime for its opposite", "changes are kept unless told otherwise"),
    row("force", "", NotNeeded, "", "nothing is forced: what does not hold is an error"),
    row("setmode", "", NotNeeded, "locule restart", "what needs a new start says so"),
    row(
        "reset_ub",
        "",
        NotPossible,
        "locule set NAME KEY=VALUE",
        "a key is told to the kernel again by setting it to what it is",
    ),
    row(
        "applyconfig, applyconfig_map",
        "",
        Mapped,
        "include+=PROFILE",
        "a profile stays in force and can change later; nothing of the machine's own is in one",
    ),
];
