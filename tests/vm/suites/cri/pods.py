#!/usr/bin/env python3
"""What pods share with the host and with each other, mapped users, and a sandbox that dies."""

import os
import signal
import sys

sys.path.insert(0, "/locule/tests/vm/lib")
import cri as lib  # noqa: E402
import tap  # noqa: E402

# How CRI names whom a namespace is shared with.
POD, CONTAINER, NODE = 0, 1, 2


def hosts_network(cri):
    options = {"network": NODE, "pid": CONTAINER, "ipc": POD}
    # The kubelet gives no host name then: the namespace is the host's.
    pod = cri.pod("host", hostname="", linux={"security_context": {"namespace_options": options}})
    container = cri.start(pod, "main", "sleep", "1000", linux={"security_context": {"namespace_options": options}})
    pid = cri.pid(container)
    tap.same("a pod on the host's network", lib.namespace(pid, "net"), lib.namespace(1, "net"))
    tap.ok("has its own processes", lib.namespace(pid, "pid") != lib.namespace(1, "pid"))
    tap.same("and the pod's IPC", lib.namespace(pid, "ipc"), lib.namespace(cri.sandbox_pid(pod[0]), "ipc"))
    cri.remove_pod(pod[0])
    tap.same("it leaves nothing", lib.left(pod[0]) + lib.left(container), [])


def one_pid_namespace(cri):
    """Also a port of the host, which the pod's network has to forward."""
    options = {"pid": POD}
    ports = [{"protocol": "TCP", "container_port": 8000, "host_port": 18000}]
    pod = cri.pod("shared", linux={"security_context": {"namespace_options": options}}, port_mappings=ports)
    shared = {"linux": {"security_context": {"namespace_options": options}}}
    one = cri.start(pod, "one", "sh", "-c", "while :; do echo answer | nc -l -p 8000; done", **shared)
    two = cri.start(pod, "two", "sleep", "1000", **shared)
    spaces = {lib.namespace(pid, "pid") for pid in (cri.sandbox_pid(pod[0]), cri.pid(one), cri.pid(two))}
    tap.ok("containers that share processes are in pause's namespace", len(spaces) == 1, spaces)
    seen = cri.exec(two, "ps", "-o", "args")[1]
    tap.ok("one sees the other's", "sleep 1000000" in seen and "nc -l" in seen, seen)

    address = cri.PodSandboxStatus(pod_sandbox_id=pod[0]).status.network.ip
    tap.ok("the pod's port answers", tap.eventually(lambda: lib.answers((address, 8000))))
    tap.ok("and the host's that leads to it", tap.eventually(lambda: lib.answers(("10.0.2.15", 18000)), 20))
    cri.StopContainer(container_id=one, timeout=0)
    tap.same("one ends, the other runs on", (cri.state(one), cri.state(two)), ("EXITED", "RUNNING"))

    pause = cri.sandbox_pid(pod[0])
    os.kill(pause, signal.SIGKILL)
    tap.ok("pause is killed: the pod is not ready", tap.eventually(lambda: not cri.pod_is_ready(pod[0])))
    tap.ok("what lived in its namespace has ended", tap.eventually(lambda: cri.state(two) == "EXITED"))
    cri.remove_pod(pod[0])
    tap.same("removing it leaves nothing", lib.left(pod[0]) + lib.left(one) + lib.left(two), [])
    tap.same("no network either", [name for name in os.listdir("/run/netns") if name.startswith("cni-")], [])


def mapped_users(cri):
    security = {"security_context": {"namespace_options": lib.MAPPED}}
    pod = cri.pod("mapped", linux=security)
    container = lib.mapped_container(cri, pod, security)
    pid = cri.pid(container)
    tap.same("in one user namespace", lib.namespace(pid, "user"), lib.namespace(cri.sandbox_pid(pod[0]), "user"))
    cri.remove_pod(pod[0])
    tap.same("nothing of it is left", lib.left(pod[0]) + lib.left(container), [])


def main():
    cri = lib.connect()
    hosts_network(cri)
    one_pid_namespace(cri)
    mapped_users(cri)
    tap.done()


main()
