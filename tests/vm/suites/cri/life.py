#!/usr/bin/env python3
"""A pod's life as the kubelet drives it: sandbox, container, exec, logs, statistics, limits, the end."""

import sys
from pathlib import Path

sys.path.insert(0, "/locule/tests/vm/lib")
import cri as lib  # noqa: E402
import tap  # noqa: E402

MIB = 1024 * 1024


def life(cri, handler, scope):
    """One pod with one container, from nothing to nothing."""
    pod = cri.pod(f"life-{handler}", handler, linux={"resources": {}})
    tap.ok(f"{handler}: the sandbox is ready", cri.pod_is_ready(pod[0]))
    address = cri.PodSandboxStatus(pod_sandbox_id=pod[0]).status.network.ip
    tap.like(f"{handler}: with an address", address, r"^10\.66\.0\.\d+$")
    container = cri.start(
        pod, "main", "sh", "-c", "trap 'exit 5' TERM; echo out; echo err >&2; while :; do sleep 1; done",
        envs=[{"key": "WHO", "value": "me"}],
        linux={"resources": {"memory_limit_in_bytes": 64 * MIB, "cpu_quota": 50000, "cpu_period": 100000}},
    )  # fmt: skip
    tap.same(f"{handler}: the container runs", cri.state(container), "RUNNING")
    listed = cri.ListContainers(filter={"pod_sandbox_id": pod[0]}).containers
    tap.same(f"{handler}: and is listed", [one.id for one in listed], [container])
    cgroup = lib.cgroup_of(cri.pid(container))
    tap.like(f"{handler}: in its cgroup", str(cgroup), scope)
    tap.same(f"{handler}: with its limits", [(cgroup / name).read_text().strip() for name in ("memory.max", "cpu.max")],
             [str(64 * MIB), "50000 100000"])  # fmt: skip
    tap.same(f"{handler}: exec has output, error and code", cri.exec(container, "sh", "-c", "echo $WHO; echo no >&2; exit 9"),
             (9, "me\n", "no\n"))  # fmt: skip
    log = Path(pod[1]["log_directory"]) / "main.log"
    tap.ok(f"{handler}: the log has both streams", tap.eventually(
        lambda: sorted(line.split(" ", 1)[1] for line in log.read_text().splitlines()) == ["stderr F err", "stdout F out"]),
        log.read_text())  # fmt: skip
    return pod, container, cgroup


def exec_times_out(cri, container):
    cri.refused("exec over its time is told", "DEADLINE_EXCEEDED|timeout", cri.ExecSync,
                container_id=container, cmd=["sleep", "4321"], timeout=1)  # fmt: skip
    tap.ok("and leaves no process", tap.eventually(lambda: not lib.processes("sleep 4321")), lib.processes("sleep 4321"))
    tap.same("nor harm", cri.exec(container, "echo", "alive"), (0, "alive\n", ""))


def logs_rotate(cri, pod):
    """Numbers go to the log while it is renamed under them, as the kubelet rotates."""
    count = "n=0; until [ -e /tmp/enough ]; do n=$((n + 1)); echo $n; usleep 1000; done; echo end; sleep 1000"
    container = cri.start(pod, "talk", "sh", "-c", count)
    log = Path(pod[1]["log_directory"]) / "talk.log"
    older = []
    for turn in range(3):
        tap.ok("a log is written", tap.eventually(lambda: log.stat().st_size > 0))
        older.append(log.with_suffix(f".{turn}"))
        log.rename(older[-1])
        cri.ReopenContainerLog(container_id=container)
    cri.exec(container, "touch", "/tmp/enough")

    def lines():
        return [line.split(" ")[3] for path in [*older, log] for line in path.read_text().splitlines()]

    tap.eventually(lambda: lines()[-1:] == ["end"])
    wanted = [*map(str, range(1, len(lines()))), "end"]
    tap.ok("no line of a log is lost or doubled over rotations", lines() == wanted, lines()[-20:])
    cri.StopContainer(container_id=container, timeout=0)
    tap.same("stop without patience kills", cri.status(container).exit_code, 137)
    cri.RemoveContainer(container_id=container)


def statistics(cri, pod, container):
    one = cri.ContainerStats(container_id=container).stats
    tap.above("a container's statistics: CPU", one.cpu.usage_core_nano_seconds.value, 0)
    tap.above("memory", one.memory.working_set_bytes.value, 0)
    tap.ok("no more than its limit", one.memory.working_set_bytes.value < 64 * MIB, one)
    many = cri.ListContainerStats(filter={"pod_sandbox_id": pod[0]}).stats
    tap.same("in the list of all", [each.attributes.id for each in many], [container])
    whole = cri.PodSandboxStats(pod_sandbox_id=pod[0]).stats.linux
    tap.above("the pod's: CPU", whole.cpu.usage_core_nano_seconds.value, 0)
    tap.above("memory", whole.memory.working_set_bytes.value, 0)
    tap.above("processes", whole.process.process_count.value, 0)


def limits_change(cri, pod, container, cgroup):
    def limit(mib):
        cri.UpdateContainerResources(container_id=container, linux={"memory_limit_in_bytes": mib * MIB})

    limit(96)
    tap.same("more memory reaches the cgroup", (cgroup / "memory.max").read_text().strip(), str(96 * MIB))
    tap.same("and the status", cri.status(container).resources.linux.memory_limit_in_bytes, 96 * MIB)
    full = cri.exec(container, "dd", "if=/dev/zero", "of=/dev/shm/full", "bs=1M", "count=40")
    tap.same("40 MiB are in use", full[0], 0)
    if lib.IS_LOCULE:
        text = cri.refused("a limit below that is refused", "memory", cri.UpdateContainerResources,
                           container_id=container, linux={"memory_limit_in_bytes": 16 * MIB})  # fmt: skip
        print(f"# {text}")
        tap.same("the old one holds", (cgroup / "memory.max").read_text().strip(), str(96 * MIB))
    else:
        tap.skip("a limit below that is refused", "runc lets the kernel kill")
    tap.same("the container is alive", cri.state(container), "RUNNING")
    tap.like("nobody was killed", (cgroup / "memory.events").read_text(), r"oom_kill 0\n")
    cri.exec(container, "rm", "/dev/shm/full")


def ends(cri, pod, container):
    cri.StopContainer(container_id=container, timeout=60)
    status = cri.status(container)
    tap.same("stop: the container's own exit code", (status.exit_code, cri.state(container)), (5, "EXITED"))
    cri.StopContainer(container_id=container, timeout=60)
    tap.ok("stopping twice is no error")
    cri.refused("exec in it is refused", "not running|EXITED|state", cri.ExecSync, container_id=container, cmd=["true"])
    cri.RemoveContainer(container_id=container)
    cri.RemoveContainer(container_id=container)
    tap.ok("nor is removing twice")
    tap.same("nothing is left of it", lib.left(container), [])
    cri.StopPodSandbox(pod_sandbox_id=pod[0])
    tap.ok("the sandbox is not ready", not cri.pod_is_ready(pod[0]))
    cri.StopPodSandbox(pod_sandbox_id=pod[0])
    cri.remove_pod(pod[0])
    cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    tap.ok("stopping and removing it twice is no error")
    tap.same("nothing is left of the pod", lib.left(pod[0]), [])


def main():
    cri = lib.connect()
    version = cri.Version(version="v1")
    tap.like("containerd answers", version.runtime_name, "containerd")
    tap.ok("it is ready", tap.eventually(
        lambda: all(one.status for one in cri.Status().status.conditions)), cri.Status().status)  # fmt: skip
    tap.like("and knows the handler", cri.Status(verbose=True).info["config"], '"tested":')
    # locule's own cgroups first: a short life.
    pod, container, _ = life(cri, "tested-fs", "/test/[0-9a-f]{64}$")
    cri.StopContainer(container_id=container, timeout=60)
    tap.same("tested-fs: its exit code", cri.status(container).exit_code, 5)
    cri.remove_pod(pod[0])
    tap.same("tested-fs: nothing is left", lib.left(pod[0]) + lib.left(container), [])

    pod, container, cgroup = life(cri, "tested", r"/test\.slice/cri-containerd-[0-9a-f]{64}\.scope$")
    exec_times_out(cri, container)
    statistics(cri, pod, container)
    limits_change(cri, pod, container, cgroup)
    logs_rotate(cri, pod)
    ends(cri, pod, container)
    tap.done()


main()
