"""Images and kernels that suites need and the VM, which has no network, cannot fetch: made on the host and kept.

A test file names those that it needs in a line `# needs: NAME…`; they are in /var/tmp/images of the machine when it runs.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# name -> words of `locule image build`
RECIPES = {"debian-13": ["--slim", "debian:13"]}
# name -> release of Debian, package: what it and those that it needs have in /boot and /lib/modules
KERNELS = {"kernel-12": ("bookworm", "linux-image-cloud-amd64")}


def needed(path):
    """The names in a test file's line `# needs:`."""
    found = re.search(r"^# needs: (.+)$", path.read_text(), re.MULTILINE)
    return found[1].split() if found else []


def place(name, cache):
    """Where the archive is kept: another recipe is another file."""
    return cache / f"{name}-{hashlib.sha256(repr(RECIPES.get(name) or KERNELS[name]).encode()).hexdigest()[:16]}.tar"


def is_there(name, cache):
    """Whether it is made already."""
    return place(name, cache).exists()


def archive(name, cache, program, mirror):
    """The archive called `name`, from the cache or made now by `program`; `mirror()` names Debian's."""
    final = place(name, cache)
    if final.exists():
        return final
    cache.mkdir(parents=True, exist_ok=True)
    for stale in cache.glob(f"{name}-*.tar"):
        stale.unlink()
    if name in KERNELS:
        return kernel(name, final, mirror())
    recipe = RECIPES[name]
    with tempfile.TemporaryDirectory(dir=cache) as work:
        image = [program, "image"]
        environment = {**os.environ, "LOCULE_IMAGES": f"{work}/store"}
        tag = "localhost/" + name.replace("debian-13", "debian:13", 1)
        with open(f"{final}.log", "w") as log:
            told = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "check": True, "env": environment}
            subprocess.run([*image, "build", "--mirror", mirror(), "--name", tag, *recipe], timeout=1800, **told)
            part = f"{work}/image.tar"
            subprocess.run([*image, "save", "--format", "oci", "--output", part, tag], timeout=600, **told)
        shutil.move(part, final)
    return final


def kernel(name, final, mirror):
    """The archive of a kernel of Debian, whose signature apt checks."""
    release, package = KERNELS[name]
    with tempfile.TemporaryDirectory(dir=final.parent) as work, open(f"{final}.log", "w") as log:
        told = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "check": True, "timeout": 1800}
        root, part = f"{work}/root", f"{work}/kernel.tar"
        subprocess.run(["mmdebstrap", "--variant=extract", f"--include={package}", release, root, mirror], **told)
        subprocess.run(["tar", "-C", root, "-cf", part, "boot", "lib/modules"], **told)
        shutil.move(part, final)
    return final
