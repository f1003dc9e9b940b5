/* For: the kernel's own cost of one default container (`runc spec` with a cgroup namespace), from mkdir of its
 *      cgroup to rmdir, with nothing around it: no JSON, no state on disk, no protection of the binary, no logging.
 * Owns: one cgroup, one child. Exits with the workload's status; says which call failed (status 125) otherwise.
 * Never: does less than crun and runc do for that spec: same mounts, devices, masks, rules, limits and capabilities,
 *        as a look from inside shows; `benches/trace floor --each` lists its calls.
 *
 * usage: floor ROOTFS EMPTY_DIR CGROUP_DIR PROGRAM [ARG...]
 *
 * The sequence is as quick as any that was measured (fork instead of CLONE_VM, device rules loaded beside the child,
 * mount(2) instead of fsopen: all within the noise): one clone3 for every namespace but the cgroup one (that one
 * is rooted where its maker stands, so it must come after the move into the cgroup), CLONE_INTO_CGROUP, and
 * CLONE_VM|CLONE_VFORK so that no page table is copied. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define MNT_DETACH 2
#define RESOLVE_NO_MAGICLINKS 2
#define RESOLVE_IN_ROOT 16
#define LEN(a) (sizeof(a) / sizeof *(a))

/* linux/openat2.h and fcntl.h do not agree in every libc. */
struct how {
	uint64_t flags, mode, resolve;
};

static void die(const char *what)
{
	dprintf(2, "floor: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static long ok(long r, const char *what)
{
	if (r < 0)
		die(what);
	return r;
}

static const char *const masked[] = {
	"proc/acpi", "proc/asound", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list",
	"proc/timer_stats", "proc/sched_debug", "sys/firmware", "proc/scsi",
};
static const char *const readonly[] = {
	"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger",
};
static const struct {
	const char *name;
	unsigned major, minor;
} devices[] = {
	{ "null", 1, 3 }, { "zero", 1, 5 }, { "full", 1, 7 }, { "tty", 5, 0 }, { "random", 1, 8 }, { "urandom", 1, 9 },
};
static const struct {
	const char *to, *name;
} links[] = {
	{ "/proc/self/fd", "fd" }, { "/proc/self/fd/0", "stdin" }, { "/proc/self/fd/1", "stdout" },
	{ "/proc/self/fd/2", "stderr" }, { "/proc/kcore", "core" }, { "pts/ptmx", "ptmx" },
};

#define SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

/* The spec's `mounts`, in its order. A target that a mount before it hides is made. */
static const struct {
	const char *type, *source, *target;
	unsigned attrs;
	int make;
	const char *options[5][2];
} mounts[] = {
	{ "proc", "proc", "proc", 0, 0, { { 0 } } },
	{ "tmpfs", "tmpfs", "dev", MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME, 0,
	  { { "mode", "755" }, { "size", "65536k" } } },
	{ "devpts", "devpts", "dev/pts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 1,
	  { { "ptmxmode", "0666" }, { "mode", "0620" }, { "gid", "5" } } },
	{ "tmpfs", "shm", "dev/shm", SAFE, 1, { { "mode", "1777" }, { "size", "65536k" } } },
	{ "mqueue", "mqueue", "dev/mqueue", SAFE, 1, { { 0 } } },
	{ "sysfs", "sysfs", "sys", SAFE | MOUNT_ATTR_RDONLY, 0, { { 0 } } },
	{ "cgroup2", "cgroup", "sys/fs/cgroup", SAFE | MOUNT_ATTR_RDONLY, 0, { { 0 } } },
};

/* Opens a path below the root file system as a runtime must: no way out by a link. -1 when it is not there. */
static int inside(int root, const char *path)
{
	struct how how = { O_PATH | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	return syscall(SYS_openat2, root, path, &how, sizeof how);
}

static int copy_of(int dir, const char *path, unsigned recursive)
{
	return ok(syscall(SYS_open_tree, dir, path,
			  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive | (*path ? 0 : AT_EMPTY_PATH)),
		  "open_tree");
}

static void make_readonly(int tree)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	ok(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr), "mount_setattr");
}

static void attach(int tree, int target)
{
	ok(syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
	   "move_mount");
	close(tree);
	close(target);
}

static void mount_all(int root)
{
	for (size_t i = 0; i < LEN(mounts); i++) {
		int fs = ok(syscall(SYS_fsopen, mounts[i].type, FSOPEN_CLOEXEC), mounts[i].type);
		ok(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", mounts[i].source, 0), "fsconfig source");
		for (size_t o = 0; mounts[i].options[o][0]; o++)
			ok(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, mounts[i].options[o][0],
				   mounts[i].options[o][1], 0), mounts[i].options[o][0]);
		ok(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0), "fsconfig create");
		int tree = ok(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, mounts[i].attrs), "fsmount");
		close(fs);
		if (mounts[i].make)
			ok(mkdirat(root, mounts[i].target, 0755), mounts[i].target);
		attach(tree, ok(inside(root, mounts[i].target), mounts[i].target));
	}
}

static void make_devices(int root)
{
	int dev = ok(inside(root, "dev"), "dev");
	for (size_t i = 0; i < LEN(devices); i++)
		ok(mknodat(dev, devices[i].name, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)),
		   devices[i].name);
	for (size_t i = 0; i < LEN(links); i++)
		ok(symlinkat(links[i].to, dev, links[i].name), links[i].name);
	close(dev);
}

/* One read-only copy of each mask is made; the others are copies of the copy and inherit the flag. */
static void hide_paths(int root, const char *empty_dir)
{
	int dir = -1, file = -1;
	for (size_t i = 0; i < LEN(masked); i++) {
		int target = inside(root, masked[i]);
		if (target < 0)
			continue;
		struct stat st;
		ok(fstat(target, &st), masked[i]);
		int *mask = S_ISDIR(st.st_mode) ? &dir : &file;
		if (*mask < 0) {
			*mask = S_ISDIR(st.st_mode) ? copy_of(AT_FDCWD, empty_dir, 0) : copy_of(root, "dev/null", 0);
			make_readonly(*mask);
		}
		attach(copy_of(*mask, "", 0), target);
	}
	for (size_t i = 0; i < LEN(readonly); i++) {
		int target = inside(root, readonly[i]);
		if (target < 0)
			continue;
		int tree = copy_of(target, "", AT_RECURSIVE);
		make_readonly(tree);
		attach(tree, target);
	}
	if (dir >= 0)
		close(dir);
	if (file >= 0)
		close(file);
}

static void drop_capabilities(void)
{
	const uint64_t keep = 1ull << CAP_AUDIT_WRITE | 1ull << CAP_KILL | 1ull << CAP_NET_BIND_SERVICE;
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (!(keep >> cap & 1))
			ok(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "drop capability");
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { keep, keep, 0 }, { 0, 0, 0 } };
	ok(syscall(SYS_capset, &header, data), "capset");
	ok(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear ambient capabilities");
}

static void loopback_up(void)
{
	int s = ok(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	ok(ioctl(s, SIOCSIFFLAGS, &request), "lo up");
	close(s);
}

static void child(const char *rootfs, const char *empty_dir, char **argv)
{
	static char *env[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL,
	};
	ok(setsid(), "setsid");
	ok(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "floor"), "join session keyring");
	ok(unshare(CLONE_NEWCGROUP), "unshare cgroup namespace");
	loopback_up();
	ok(sethostname("runc", 4), "sethostname");

	umask(0);
	ok(syscall(SYS_mount, NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
	int tree = copy_of(AT_FDCWD, rootfs, AT_RECURSIVE);
	ok(syscall(SYS_move_mount, tree, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH), "attach rootfs");
	mount_all(tree);
	make_devices(tree);
	hide_paths(tree, empty_dir);
	make_readonly(tree);

	ok(fchdir(tree), "fchdir");
	ok(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	ok(syscall(SYS_umount2, ".", MNT_DETACH), "unmount old root");
	ok(chdir("/"), "chdir");
	umask(022);

	struct rlimit files = { 1024, 1024 };
	ok(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
	drop_capabilities();
	ok(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	ok(syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC), "close_range");
	execve(argv[0], argv, env);
	die(argv[0]);
}

#define LOAD(reg, field) { BPF_LDX | BPF_MEM | BPF_W, reg, 1, offsetof(struct bpf_cgroup_dev_ctx, field), 0 }
#define JEQ(reg, value, skip) { BPF_JMP | BPF_JEQ | BPF_K, reg, 0, skip, value }
#define MOV(reg, value) { BPF_ALU64 | BPF_MOV | BPF_K, reg, 0, 0, value }
#define EXIT { BPF_JMP | BPF_EXIT, 0, 0, 0, 0 }

/* "deny a *:* rwm" and the rules that every runtime adds for the default devices: mknod of anything; null, zero,
 * full, random, urandom; tty, console, ptmx; the ptys. */
static void attach_device_rules(int cgroup)
{
	struct bpf_insn program[] = {
		LOAD(2, access_type),
		LOAD(3, major),
		LOAD(4, minor),
		{ BPF_ALU64 | BPF_MOV | BPF_X, 5, 2, 0, 0 },
		{ BPF_ALU64 | BPF_RSH | BPF_K, 5, 0, 0, 16 },
		JEQ(5, BPF_DEVCG_ACC_MKNOD, 14),
		{ BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 0xffff },
		{ BPF_JMP | BPF_JNE | BPF_K, 2, 0, 10, BPF_DEVCG_DEV_CHAR },
		JEQ(3, 136, 11),
		JEQ(3, 5, 7),
		{ BPF_JMP | BPF_JNE | BPF_K, 3, 0, 7, 1 },
		JEQ(4, 3, 8),
		JEQ(4, 5, 7),
		JEQ(4, 7, 6),
		JEQ(4, 8, 5),
		JEQ(4, 9, 4),
		{ BPF_JMP | BPF_JA, 0, 0, 1, 0 },
		{ BPF_JMP | BPF_JLE | BPF_K, 4, 0, 2, 2 },
		MOV(0, 0),
		EXIT,
		MOV(0, 1),
		EXIT,
	};
	static const char license[] = "GPL";
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insn_cnt = LEN(program),
		.insns = (uintptr_t)program,
		.license = (uintptr_t)license,
	};
	int fd = ok(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr), "load device rules");
	memset(&attr, 0, sizeof attr);
	attr.target_fd = cgroup;
	attr.attach_bpf_fd = fd;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = BPF_F_ALLOW_MULTI;
	ok(syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr), "attach device rules");
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc < 5) {
		dprintf(2, "usage: floor ROOTFS EMPTY_DIR CGROUP_DIR PROGRAM [ARG...]\n");
		return 125;
	}
	const char *cgroup_dir = argv[3];
	ok(mkdir(cgroup_dir, 0755), cgroup_dir);
	int cgroup = ok(open(cgroup_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), cgroup_dir);
	attach_device_rules(cgroup);

	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_INTO_CGROUP
			| CLONE_VM | CLONE_VFORK,
		.exit_signal = SIGCHLD,
		.cgroup = cgroup,
	};
	/* Not through a libc function: with CLONE_VM the child runs on this very stack and would overwrite the
	 * return address that the parent needs. */
	register long pid __asm__("rax") = SYS_clone3;
	register void *arg1 __asm__("rdi") = &args;
	register long arg2 __asm__("rsi") = sizeof args;
	__asm__ volatile("syscall" : "+r"(pid) : "r"(arg1), "r"(arg2) : "rcx", "r11", "memory");
	long clone_result = pid;
	if (clone_result == 0)
		child(argv[1], argv[2], argv + 4);
	if (clone_result < 0) {
		errno = -clone_result;
		die("clone3");
	}
	int status;
	ok(wait4(clone_result, &status, 0, NULL), "wait4");
	ok(rmdir(cgroup_dir), "rmdir cgroup");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
