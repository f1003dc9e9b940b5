#!/usr/bin/env python3
"""Images for the test machine, which has no registry: busybox and nothing else.

Writes archives that containerd, Docker and Podman load; owns the file it is
told to write. Never asks a network and never copies the machine's own files
but the static busybox.
usage: image.py FILE NAME [COMMAND...]
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile

BUSYBOX = "/bin/busybox"
ETC = {"passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n", "group": "root:x:0:\nuser:x:1000:\n"}


def add(tar, name, content=None, mode=0o755, link=None):
    """One entry that is the same whoever writes it and whenever."""
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if link is not None:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    elif content is None:
        entry.type = tarfile.DIRTYPE
    else:
        entry.size = len(content)
    tar.addfile(entry, None if content is None else io.BytesIO(content))


def archive(fill):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        fill(tar)
    return buffer.getvalue()


def layer(tar):
    """A root file system of busybox and its names."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "var"):
        add(tar, name)
    add(tar, "tmp", mode=0o1777)
    with open(BUSYBOX, "rb") as program:
        add(tar, "bin/busybox", program.read())
    for applet in subprocess.run([BUSYBOX, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split():
        if applet != "busybox":
            add(tar, f"bin/{applet}", link="busybox")
    for name, content in ETC.items():
        add(tar, f"etc/{name}", content.encode(), 0o644)


def write(path, name, command=("sh",)):
    """Writes an archive (docker-archive: every engine reads it) that holds NAME."""
    data = archive(layer)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]

    def fill(tar):
        add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
        add(tar, "config.json", json.dumps(config).encode(), 0o644)
        add(tar, "layer.tar", data, 0o644)

    with open(path, "wb") as file:
        file.write(archive(fill))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    write(sys.argv[1], sys.argv[2], sys.argv[3:] or ("sh",))
