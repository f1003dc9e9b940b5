"""For: the measuring of benches/networks, which prepares everything and starts it in a network namespace of its own.
Owns: the bundle of configurations below /mnt, and the report.
Never: polls; a call is timed from its spawn to its end by wait4.
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
home = os.open("/proc/self/ns/net", os.O_RDONLY)


def namespace():
    """A new network namespace, as a descriptor of this process; it ends with it."""
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.setns(home, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    return fd


def path_of(fd):
    return f"/proc/{os.getpid()}/fd/{fd}"


def timed(words, text="", **variables):
    """Runs a program; milliseconds, or an error with what it said."""
    with open("/mnt/in", "w") as file:
        file.write(text)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/mnt/in", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/mnt/out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    environment = {**os.environ, **variables}
    begun = time.perf_counter()
    pid = os.posix_spawn(words[0], words, environment, file_actions=actions)
    _, status, _ = os.wait4(pid, 0)
    took = (time.perf_counter() - begun) * 1e3
    if status:
        with open("/mnt/out") as file:
            raise RuntimeError(f"{words}: {file.read()}")
    return took


class Locule:
    def __init__(self, binary):
        self.binary = binary
        os.environ["LOCULE_NETWORKS"] = "/mnt/networks"
        os.environ["LOCULE_NETWORK_CLAIMS"] = "/mnt/claims"
        timed([binary, "network", "create", "--subnet", "10.50.0.0/20", "bench"])

    def up(self, fd, number, port):
        publish = ["--publish", f"{port}:80"] if port else []
        words = [self.binary, "network", "connect", "--namespace", path_of(fd), *publish, "bench", f"c{number}"]
        return timed(words)

    def down(self, _fd, number, _port):
        return timed([self.binary, "network", "disconnect", "bench", f"c{number}"])


class Netavark:
    """As Podman calls it: addresses are chosen before, which is Podman's part and not measured."""

    def __init__(self, binary, driver, octet):
        self.binary, self.driver, self.octet = binary, driver, octet
        os.makedirs("/mnt/netavark", exist_ok=True)

    def options(self, number, port):
        address = f"10.{self.octet}.{number // 250}.{number % 250 + 2}"
        ports = [{"container_port": 80, "host_port": port, "host_ip": "", "protocol": "tcp", "range": 1}] if port else []
        identity = f"{number:064x}"
        return json.dumps({
            "container_id": identity, "container_name": f"c{number}", "port_mappings": ports,
            "networks": {"bench": {"static_ips": [address], "interface_name": "eth0"}},
            "network_info": {"bench": {
                "name": "bench", "id": "b" * 62 + f"{self.octet}", "driver": "bridge",
                "network_interface": f"nv{self.octet}", "internal": False, "ipv6_enabled": False, "dns_enabled": False,
                "subnets": [{"subnet": f"10.{self.octet}.0.0/20", "gateway": f"10.{self.octet}.0.1"}],
                "ipam_options": {"driver": "host-local"},
            }},
        })

    def call(self, verb, fd, number, port):
        words = [self.binary, "--config", "/mnt/netavark", verb, path_of(fd)]
        return timed(words, self.options(number, port), NETAVARK_FW=self.driver)

    def up(self, fd, number, port):
        return self.call("setup", fd, number, port)

    def down(self, fd, number, port):
        return self.call("teardown", fd, number, port)


class Cni:
    """The bridge plugin with host-local addresses and masquerading; with a port, portmap behind it."""

    def __init__(self):
        self.results = {}

    def config(self, kind, number, port):
        config = {"cniVersion": "1.0.0", "name": "cnibench", "type": kind}
        if kind == "bridge":
            ranges = [[{"subnet": "10.70.0.0/20"}]]
            ipam = {"type": "host-local", "dataDir": "/mnt/ipam", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
            config.update(bridge="cni70", isGateway=True, ipMasq=True, ipam=ipam)
        else:
            mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
            config.update(snat=True, runtimeConfig={"portMappings": [mapping]})
        if number in self.results:
            config["prevResult"] = self.results[number]
        return json.dumps(config)

    def call(self, command, kind, fd, number, port):
        return timed([f"/usr/lib/cni/{kind}"], self.config(kind, number, port), CNI_COMMAND=command,
                     CNI_CONTAINERID=f"c{number}", CNI_NETNS=path_of(fd), CNI_IFNAME="eth0", CNI_PATH="/usr/lib/cni")

    def up(self, fd, number, port):
        took = self.call("ADD", "bridge", fd, number, port)
        with open("/mnt/out") as file:
            self.results[number] = json.load(file)
        return took + (self.call("ADD", "portmap", fd, number, port) if port else 0)

    def down(self, fd, number, port):
        took = self.call("DEL", "portmap", fd, number, port) if port else 0
        took += self.call("DEL", "bridge", fd, number, port)
        del self.results[number]
        return took


def cell(times):
    return f"{min(times):.2f} / {statistics.median(times):.2f}" if times else "-"


def rules():
    """How many rules locule's own tables have."""
    nft = lambda *words: subprocess.run(["nft", "-a", *words], capture_output=True, text=True, check=True).stdout
    tables = [line.split(" #")[0].split()[1:] for line in nft("list", "tables").splitlines() if "locule" in line]
    lines = [line for table in tables for line in nft("list", "table", *table).splitlines()]
    return sum(1 for line in lines if "# handle" in line and "chain" not in line and "table" not in line)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--top", required=True)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--many", type=int, default=1000)
    arguments.add_argument("--locule")
    arguments.add_argument("--output")
    given = arguments.parse_args()
    target = f"{given.top}/target/{platform.machine()}-unknown-linux-gnu/release/locule"
    binary = os.path.abspath(given.locule or target)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    version = lambda path: subprocess.run([path, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    tools = {"locule": Locule(binary)}
    old = "/usr/lib/podman/netavark"
    tools[f"{version(old)}, iptables"] = Netavark(old, "iptables", 60)
    if os.environ.get("NETAVARK"):
        tools[f"{version(os.environ['NETAVARK'])}, nftables"] = Netavark(os.environ["NETAVARK"], "nftables", 61)
    tools["CNI bridge (+ portmap)"] = Cni()

    times = {(name, what): [] for name in tools for what in ("up", "down", "up -p", "down -p")}
    names = list(tools)
    broken = {}
    # One container of each stays, so that no round makes or removes a bridge.
    kept = []
    for name in list(names):
        try:
            kept.append(namespace())
            tools[name].up(kept[-1], 900, 0)
        except RuntimeError as error:
            broken[name] = str(error)
            names.remove(name)
    for turn in range(given.rounds + 2):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            for port, mark in ((0, ""), (8080, " -p")):
                fd = namespace()
                up = tools[name].up(fd, turn, port)
                down = tools[name].down(fd, turn, port)
                os.close(fd)
                if turn >= 2:
                    times[name, "up" + mark].append(up)
                    times[name, "down" + mark].append(down)

    lines = ["| ms (best / median) | wire | unwire | wire, one port | unwire, one port |", "|---|---|---|---|---|"]
    for name in names:
        row = [cell(times[name, what]) for what in ("up", "down", "up -p", "down -p")]
        lines.append(f"| {name} | {' | '.join(row)} |")
    ours = names[0]
    for name in names[1:]:
        ratios = [min(times[ours, what]) / min(times[name, what]) for what in ("up", "down", "up -p", "down -p")]
        lines.append(f"| locule / {name}, best | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")

    # All on one bridge: does the last one take longer than the first?
    # Beside each other to the end: what grows with the bridge alone, any tool pays.
    rivals = [ours] + [name for name in names if "nftables" in name]
    lines += ["", f"| {given.many} containers on a bridge each, all with a port: wire, best / median | "
              f"{' | '.join(rivals)} | rules of locule | locule / netavark, best |", "|---|" + "---|" * (len(rivals) + 2)]
    steps = sorted({1, 100, given.many} & set(range(1, given.many + 1)))
    spaces = {name: [] for name in rivals}
    took = {name: [] for name in rivals}
    for number in range(1, given.many + 1):
        for name in rivals:
            spaces[name].append(namespace())
            port = (20000 if name == ours else 30000) + number
            took[name].append(tools[name].up(spaces[name][-1], 1000 + number, port))
        if number in steps:
            last = {name: took[name][-20:] if number > 1 else took[name] for name in rivals}
            first = f"{max(1, number - 19)} to {number}" if number > 1 else "1"
            ratio = f"{min(last[ours]) / min(last[rivals[-1]]):.2f}" if len(rivals) > 1 else "-"
            lines.append(f"| {first} | {' | '.join(cell(last[name]) for name in rivals)} | {rules()} | {ratio} |")
    for number in range(1, given.many + 1):
        for name in rivals:
            port = (20000 if name == ours else 30000) + number
            tools[name].down(spaces[name][number - 1], 1000 + number, port)

    load = os.getloadavg()[0]
    head = [f"- {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC; Linux {platform.release()}; load after the run {load:.1f}",
            f"- {given.rounds} interleaved rounds; {version(binary)}", ""]
    for name, error in broken.items():
        head.insert(2, f"- {name} did not run: {error.strip().splitlines()[-1][:200]}")
    text = "\n".join(head + lines) + "\n"
    with open(given.output or f"{given.top}/target/bench/networks.md", "w") as file:
        file.write(text)
    sys.stdout.write(text)


main()
