"""Images that suites need and the VM, which has no network, cannot fetch: OCI archives, made on the host and kept.

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


def needed(path):
    """The names in a test file's line `# needs:`."""
    found = re.search(r"^# needs: (.+)$", path.read_text(), re.MULTILINE)
    return found[1].split() if found else []


def place(name, cache):
    """Where the archive is kept: another recipe is another file."""
    return cache / f"{name}-{hashlib.sha256(repr(RECIPES[name]).encode()).hexdigest()[:16]}.tar"


def is_there(name, cache):
    """Whether it is made already."""
    return place(name, cache).exists()


def archive(name, cache, program, mirror):
    """The archive called `name`, from the cache or made now by `program`; `mirror()` names Debian's."""
    recipe, final = RECIPES[name], place(name, cache)
    if final.exists():
        return final
    cache.mkdir(parents=True, exist_ok=True)
    for stale in cache.glob(f"{name}-*.tar"):
        stale.unlink()
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
