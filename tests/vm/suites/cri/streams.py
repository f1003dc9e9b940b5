#!/usr/bin/env python3
"""kubectl exec, attach and port-forward: containerd's streaming server over the runtime's exec and terminals."""

import struct
import sys

sys.path.insert(0, "/locule/tests/vm/lib")
import cri as lib  # noqa: E402
import tap  # noqa: E402
from stream import STDERR, STDIN, STDOUT, Stream, check_shell  # noqa: E402


def exec_streams(cri, container):
    def exec_in(*command, **streams):
        url = cri.Exec(container_id=container, cmd=list(command), **{"stdout": True, **streams}).url
        return Stream(url)

    with exec_in("sh", "-c", "read line; echo got $line; echo no >&2; exit 7", stdin=True, stderr=True) as stream:
        stream.send(STDIN, b"hello\n")
        outcome = stream.rest()
        tap.same("exec: input reaches the program, and its output comes back", stream.text(STDOUT), "got hello\n")
        tap.same("standard error apart", stream.text(STDERR), "no\n")
        tap.same("and the exit code", outcome[:2], ("Failure", 7))
    with exec_in("true", stderr=True) as stream:
        tap.same("exec: success", stream.rest()[:2], ("Success", None))
    with exec_in("nosuch", stderr=True) as stream:
        outcome = stream.rest()
        tap.same("exec of nothing fails", outcome[0], "Failure")
        tap.like("with the reason", outcome[2], r"executable file not found in \$PATH")
    with exec_in("head", "-c", "300000", "/dev/zero", stderr=True) as stream:
        tap.same("exec: much output is whole", (stream.rest()[0], len(stream.got[STDOUT])), ("Success", 300000))

    with exec_in("sh", tty=True, stdin=True) as stream:
        stream.resize(100, 40)
        stream.send(STDIN, b'until [ "$(stty size)" = "40 100" ]; do usleep 100000; done; echo si"z"ed\n')
        tap.ok("exec with a terminal: its size is the client's", stream.until(STDOUT, "\nsized"), stream.text(STDOUT))
        stream.resize(90, 30)
        stream.send(STDIN, b'until [ "$(stty size)" = "30 90" ]; do usleep 100000; done; echo resi"z"ed\n')
        tap.ok("and follows it", stream.until(STDOUT, "\nresized"), stream.text(STDOUT))
        stream.send(STDIN, b'echo be"g"in; sleep 4322\n')
        stream.until(STDOUT, "\nbegin")
        tap.ok("a program is in the foreground", tap.eventually(lambda: lib.processes("sleep 4322")))
        stream.send(STDIN, b"\x03")
        tap.ok("Ctrl-C ends it", tap.eventually(lambda: not lib.processes("sleep 4322")))
        stream.send(STDIN, b"exit 3\n")
        tap.same("the shell's exit code", stream.rest()[:2], ("Failure", 3))


def attach_streams(cri, pod):
    talk = "while read line; do echo heard $line; echo heard >&2; done; sleep 1000"
    container = cri.start(pod, "listener", "sh", "-c", talk, stdin=True)
    wanted = {"stdin": True, "stdout": True, "stderr": True}
    for turn in (b"one", b"two"):
        with Stream(cri.Attach(container_id=container, **wanted).url) as stream:
            stream.send(STDIN, turn + b"\n")
            tap.ok(f"attach, {turn.decode()}: the container hears and answers",
                   stream.until(STDOUT, f"heard {turn.decode()}\n"), stream.got)  # fmt: skip
            tap.ok("on both streams", stream.until(STDERR, "heard\n"), stream.got)
    tap.same("a client that leaves ends nothing", cri.state(container), "RUNNING")

    check_shell(cri, pod)


def port_forward(cri, pod):
    serve = "echo through >/tmp/page; exec httpd -f -p 127.0.0.1:7000 -h /tmp"
    container = cri.start(pod, "server", "sh", "-c", serve)
    tap.ok("a server answers in the pod", tap.eventually(
        lambda: cri.exec(container, "wget", "-q", "-O-", "http://127.0.0.1:7000/page")[:2] == (0, "through\n")))  # fmt: skip
    # Each port has two channels, for data and for errors; both begin with its number.
    data, errors = 0, 1
    with Stream(cri.PortForward(pod_sandbox_id=pod[0], port=[7000]).url) as stream:
        stream.send(data, b"GET /page HTTP/1.0\r\n\r\n")
        tap.ok("port-forward: a port of the pod answers", stream.until(data, "\nthrough\n"), stream.got)
        tap.same("in the channel of that port", stream.got[data][:2], struct.pack("<H", 7000))
    with Stream(cri.PortForward(pod_sandbox_id=pod[0], port=[7001]).url) as stream:
        tap.ok("where nobody listens, the client is told", stream.until(errors, "refused"), stream.got)


def main():
    cri = lib.connect()
    pod = cri.pod("streams")
    container = cri.start(pod, "main", "sleep", "100000")
    exec_streams(cri, container)
    attach_streams(cri, pod)
    port_forward(cri, pod)
    cri.remove_pod(pod[0])
    tap.same("nothing is left of the pod", lib.left(pod[0]), [])
    tap.done()


main()
