#!/usr/bin/env python3
"""A RuntimeClass of virtual machines: a pod is one, with all its containers in it."""

# takes: 90

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, "/locule/tests/vm/lib")
import cri as lib  # noqa: E402
import tap  # noqa: E402
from stream import STDIN, STDOUT, Stream, check_shell  # noqa: E402

MIB = 1024 * 1024
POD, CONTAINER, NODE = 0, 1, 2
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def together(cri):
    """An init container, a main one and a sidecar, as the kubelet makes them."""
    limits = {"memory_limit_in_bytes": 256 * MIB, "cpu_quota": 150000, "cpu_period": 100000}
    ports = [{"protocol": "TCP", "container_port": 8000, "host_port": 18001}]
    pod = cri.machine("machine", linux={"resources": limits}, port_mappings=ports)
    tap.ok("the sandbox is ready", cri.pod_is_ready(pod[0]))
    address = cri.PodSandboxStatus(pod_sandbox_id=pod[0]).status.network.ip
    volume = lib.WORK / "volume"
    volume.mkdir()
    mounts = [{"container_path": "/volume", "host_path": str(volume)}]
    # As the kubelet has it unless a pod shares its processes.
    own = {"security_context": {"namespace_options": {"pid": CONTAINER}}}
    shared = {"mounts": mounts, "linux": own}

    first = cri.start(pod, "first", "sh", "-c", "echo prepared >/volume/file; exit 3", **shared)
    tap.ok("an init container ends", tap.eventually(lambda: cri.state(first) == "EXITED"))
    tap.same("with its exit code", cri.status(first).exit_code, 3)
    tap.same("the host sees what it wrote", (volume / "file").read_text(), "prepared\n")
    cri.RemoveContainer(container_id=first)

    main = cri.start(
        pod, "main", "sh", "-c",
        "trap 'exit 5' TERM; echo out; echo err >&2; while :; do echo answer | nc -l -p 8000 & wait $!; done",
        envs=[{"key": "WHO", "value": "me"}],
        linux={**own, "resources": {"memory_limit_in_bytes": 64 * MIB, "cpu_quota": 50000, "cpu_period": 100000}},
        mounts=mounts,
    )  # fmt: skip
    side = cri.start(pod, "side", "sleep", "1000", **shared)
    tap.same("two containers run", (cri.state(main), cri.state(side)), ("RUNNING", "RUNNING"))
    both = [cri.exec(one, "cat", BOOT_ID)[1] for one in (main, side)]
    tap.ok("in one machine, which is not the host", both[0] == both[1] != Path(BOOT_ID).read_text(), both)
    tap.same("whose processors follow the pod's limits", cri.exec(main, "nproc")[1], "2\n")
    total = int(cri.exec(main, "cat", "/proc/meminfo")[1].split()[1])
    tap.ok("and whose memory too", 200 * 1024 < total < 450 * 1024, total)
    tap.same("exec has output, error and code", cri.exec(main, "sh", "-c", "echo $WHO; echo no >&2; exit 9"), (9, "me\n", "no\n"))
    inside = cri.exec(main, "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max")[1]
    tap.same("limits hold inside", inside, f"{64 * MIB}\n50000 100000\n")
    log = Path(pod[1]["log_directory"]) / "main.log"
    tap.ok("the log has both streams", tap.eventually(
        lambda: sorted(line.split(" ", 1)[1] for line in log.read_text().splitlines()) == ["stderr F err", "stdout F out"]),
        log.read_text())  # fmt: skip
    tap.like("they have the pod's address", cri.exec(side, "ip", "-o", "addr", "show", "eth0")[1], f"inet {address}/")
    tap.like("and its name", cri.exec(side, "hostname")[1], "^machine\n$")
    tap.ok("the pod's port answers", tap.eventually(lambda: lib.answers((address, 8000))))
    tap.ok("and the host's that leads to it", tap.eventually(lambda: lib.answers(("10.0.2.15", 18001)), 30))
    tap.ok("and the sidecar by the loopback", tap.eventually(lambda: cri.exec(side, "nc", "127.0.0.1", "8000")[1] == "answer\n"))
    tap.same("one does not see the other's processes", cri.exec(side, "sh", "-c", "ps -o args | grep -c '[n]c -l'")[1], "0\n")
    cri.exec(main, "sh", "-c", "echo word >/dev/shm/both; echo more >>/volume/file")
    tap.same("shared memory is the pod's", cri.exec(side, "cat", "/dev/shm/both")[1], "word\n")
    tap.same("a volume of both is one", cri.exec(side, "cat", "/volume/file")[1], "prepared\nmore\n")
    return pod, main, side


def streams(cri, pod, container):
    url = cri.Exec(container_id=container, cmd=["sh"], tty=True, stdin=True, stdout=True).url
    with Stream(url) as stream:
        stream.resize(100, 40)
        stream.send(STDIN, b'until [ "$(stty size)" = "40 100" ]; do usleep 100000; done; echo si"z"ed\n')
        tap.ok("exec with a terminal: its size is the client's", stream.until(STDOUT, "\nsized"), stream.text(STDOUT))
        stream.send(STDIN, b"exit 3\n")
        tap.same("the shell's exit code", stream.rest()[:2], ("Failure", 3))
    cri.refused("exec over its time is told", "DEADLINE_EXCEEDED|timeout", cri.ExecSync,
                container_id=container, cmd=["sleep", "4323"], timeout=1)  # fmt: skip
    tap.ok("and leaves no process", tap.eventually(lambda: "4323" not in cri.exec(container, "ps", "-o", "args")[1]))
    check_shell(cri, pod)


def one_after_another(cri, pod, main, side):
    """What happens to one is not the other's affair."""
    cri.UpdateContainerResources(container_id=main, linux={"memory_limit_in_bytes": 96 * MIB})
    tap.same("limits change inside", cri.exec(main, "cat", "/sys/fs/cgroup/memory.max")[1], f"{96 * MIB}\n")
    tap.above("statistics are told", len(cri.ListContainerStats(filter={"pod_sandbox_id": pod[0]}).stats), 1)
    eater = cri.start(pod, "eater", "dd", "if=/dev/zero", "of=/dev/null", "bs=150M", "count=1",
                      linux={"resources": {"memory_limit_in_bytes": 32 * MIB}})  # fmt: skip
    tap.ok("what is over its limit ends", tap.eventually(lambda: cri.state(eater) == "EXITED"))
    tap.same("killed", cri.status(eater).exit_code, 137)
    cri.RemoveContainer(container_id=eater)
    cri.StopContainer(container_id=main, timeout=60)
    tap.same("stop: the container's own exit code", (cri.status(main).exit_code, cri.state(main)), (5, "EXITED"))
    cri.RemoveContainer(container_id=main)
    tap.same("nothing is left of it", lib.left(main), [])
    again = cri.start(pod, "again", "sh", "-c", "echo answer | nc -l -p 8000")
    tap.ok("another takes its place", tap.eventually(lambda: cri.exec(side, "nc", "127.0.0.1", "8000")[1] == "answer\n"))
    tap.ok("and ends", tap.eventually(lambda: cri.state(again) == "EXITED"))
    cri.refused("a program that is not there is told", "no such file|not found", lambda: cri.start(pod, "none", "/none"))
    os.kill(cri.pid(side), signal.SIGKILL)
    tap.ok("killed on the host, one ends", tap.eventually(lambda: cri.state(side) == "EXITED"))
    last = cri.start(pod, "last", "sleep", "1000")
    os.kill(cri.sandbox_pid(pod[0]), signal.SIGKILL)
    tap.ok("the machine is killed: the pod is not ready", tap.eventually(lambda: not cri.pod_is_ready(pod[0])))
    tap.ok("what lived in it has ended", tap.eventually(lambda: cri.state(last) == "EXITED"))
    cri.remove_pod(pod[0])
    gone = [pod[0], main, side, again, eater, last]
    tap.same("removing the pod leaves nothing", [each for one in gone for each in lib.left(one)], [])


def shared_processes_and_mapped_users(cri):
    security = {"security_context": {"namespace_options": {"pid": POD, **lib.MAPPED}}}
    pod = cri.machine("mapped-machine", linux=security)
    container = lib.mapped_container(cri, pod, security)
    tap.like("a pod that shares its processes sees pause", cri.exec(container, "ps", "-o", "args")[1], "sleep 1000000")
    cri.remove_pod(pod[0])
    tap.same("nothing of it is left", lib.left(pod[0]) + lib.left(container), [])


def refused(cri):
    options = {"network": NODE, "pid": CONTAINER, "ipc": POD}
    cri.refused("a pod on the host's network is refused", "cannot share the host's", lambda: cri.machine(
        "host-machine", hostname="", linux={"security_context": {"namespace_options": options}}))  # fmt: skip


def main():
    if not lib.IS_LOCULE:
        tap.skip_all("virtual machines are locule's")
    if not os.path.exists("/dev/kvm"):
        subprocess.run(["modprobe", "kvm_amd"], check=False)
        subprocess.run(["modprobe", "kvm_intel"], check=False)
    if not os.path.exists("/dev/kvm"):
        tap.skip_all("no KVM")
    machines = Path(lib.MACHINES)
    machines.unlink(missing_ok=True)
    machines.symlink_to(Path(lib.RUNTIME).name)
    cri = lib.connect()
    pod, container, side = together(cri)
    streams(cri, pod, side)
    one_after_another(cri, pod, container, side)
    shared_processes_and_mapped_users(cri)
    refused(cri)
    tap.done()


main()
