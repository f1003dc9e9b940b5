#!/usr/bin/env python3
"""What the kubelet is told, and so `kubectl describe` shows, when a container cannot start."""

import sys

sys.path.insert(0, "/locule/tests/vm/lib")
import cri as lib  # noqa: E402
import tap  # noqa: E402

MIB = 1024 * 1024


def refused(cri, pod, name, pattern, *command, **fields):
    """Start fails with the runtime's sentence, the status keeps it, and removal leaves nothing."""
    container = cri.create(pod, "wrong", *command, **fields)
    print("#", cri.refused(f"{name}: start says so", pattern, cri.StartContainer, container_id=container))
    status = cri.status(container)
    tap.same(f"{name}: the status", (cri.state(container), status.reason, status.exit_code), ("EXITED", "StartError", 128))
    tap.like(f"{name}: has the sentence", status.message, pattern)
    cri.RemoveContainer(container_id=container)
    tap.same(f"{name}: nothing is left", lib.left(container), [])


def main():
    cri = lib.connect()
    pod = cri.pod("wrong")
    refused(cri, pod, "a program that is not there", r'nothing.*executable file not found in \$PATH', "nothing")
    refused(cri, pod, "a file that is none", r"/etc/passwd.*permission denied", "/etc/passwd")
    refused(cri, pod, "memory for nothing", "memory" if lib.IS_LOCULE else ".", "true",
            linux={"resources": {"memory_limit_in_bytes": 4096}})  # fmt: skip
    refused(cri, pod, "a file mounted on a folder", r"/etc.*not a directory",
            "true", mounts=[{"container_path": "/etc", "host_path": "/etc/hostname"}])  # fmt: skip
    cri.refused("a device that is not there is refused before", "/dev/nosuch", lambda **fields: cri.create(pod, "device", **fields),
                devices=[{"host_path": "/dev/nosuch", "container_path": "/dev/x", "permissions": "rw"}])  # fmt: skip

    # A working directory and a mount's source that are missing are made: by the runtime, and by containerd.
    container = cri.start(pod, "made", "sleep", "1000", working_dir="/no/where",
                          mounts=[{"container_path": "/data", "host_path": str(lib.WORK / "made")}])  # fmt: skip
    tap.same("a missing working directory is made", cri.exec(container, "pwd")[1], "/no/where\n")
    tap.ok("and a missing source", (lib.WORK / "made").is_dir())
    code, _, error = cri.exec(container, "sh", "-c", "mknod /tmp/kmsg c 1 11 && : </tmp/kmsg")
    tap.ok("a device that is not allowed is not permitted", code != 0 and "not permitted" in error, (code, error))
    print("#", cri.refused("exec of nothing is refused", r'nothing.*executable file not found in \$PATH', cri.ExecSync,
                           container_id=container, cmd=["nothing"]))  # fmt: skip
    cri.remove_pod(pod[0])
    tap.done()


main()
