"""Images and kernels that suites need and the VM, which has no network, cannot fetch: made on the host and kept.

A test file names those that it needs in a line `# needs: NAME…`; they are in /var/tmp/images of the machine when it runs.
An archive is made anew when its recipe changes or the program that makes it: the sources of that part of it, as every
build of the whole has other bytes.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

# name -> words of `locule image build`
RECIPES = {
    "debian-13": ["--slim", "debian:13"],
    # sysvinit and OpenRC's own init, and OpenRC's services for both.
    "debian-13-inits": ["--minimal", "--slim", "--include", "sysvinit-core,openrc,cron,procps", "debian:13"],
}
# name -> release of Debian, package: what it and those that it needs have in /boot and /lib/modules
KERNELS = {"kernel-12": ("bookworm", "linux-image-cloud-amd64")}
TREE = Path(__file__).resolve().parents[3]
# What decides how a recipe becomes an archive.
BUILDERS = ["images/src", "src/commands/image"]
# Other checkouts use archives of their own: those go that nobody has used for so long.
KEPT = 14 * 24 * 3600


def needed(path):
    """The names in a test file's line `# needs:`."""
    found = re.search(r"^# needs: (.+)$", path.read_text(), re.MULTILINE)
    return found[1].split() if found else []


def builder():
    """The digest of the program that makes archives."""
    total = hashlib.sha256()
    for path in sorted(path for folder in BUILDERS for path in (TREE / folder).rglob("*.rs")):
        total.update(f"{path.relative_to(TREE)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


def place(name, cache):
    """Where the archive is kept: another recipe is another file, and another program as well."""
    made_of = (RECIPES[name], builder()) if name in RECIPES else KERNELS[name]
    return cache / f"{name}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.tar"


def is_there(name, cache):
    """Whether it is made already."""
    return place(name, cache).exists()


def archive(name, cache, program, mirror):
    """The archive called `name`, from the cache or made now by `program`; `mirror()` names Debian's."""
    final = place(name, cache)
    if final.exists():
        os.utime(final)
        return final
    cache.mkdir(parents=True, exist_ok=True)
    for stale in cache.glob("*.tar"):
        if stale.stat().st_mtime < time.time() - KEPT:
            stale.unlink()
            Path(f"{stale}.log").unlink(missing_ok=True)
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
