"""Debian packages that the machine's image has not, for benches and by hand: fetched by the host's apt, which has a network, as
the machine would, and installed in it by dpkg."""

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def fetched(packages, installed, mirror, cache):
    """A tar archive (bytes) of `packages` and of what they need beyond `installed`, the machine's /var/lib/dpkg/status (bytes).

    None where nothing is missing. Lists and packages are kept below `cache`, as apt's own are."""
    cache = cache / "packages"
    for name in ("lists/partial", "archives/partial"):
        (cache / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        status, sources = Path(work) / "status", Path(work) / "sources"
        status.write_bytes(installed)
        sources.write_text(f"deb [signed-by={KEYRING}] {mirror} {SUITE} main\n")
        options = {
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Dir::Cache": cache,
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": cache / "lists",
            "Dir::State::status": status,
            "Dir::State::extended_states": Path(work) / "extended_states",
        }
        apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
        subprocess.run([*apt, "update"], stdout=subprocess.DEVNULL, check=True)
        install = ["install", "--yes", *packages]
        subprocess.run([*apt, "--download-only", *install], stdout=subprocess.DEVNULL, check=True)
        said = subprocess.run([*apt, "--simulate", *install], stdout=subprocess.PIPE, text=True, check=True)
        wanted = {
            (words[1], words[2].strip("("))
            for words in map(str.split, said.stdout.splitlines())
            if words[0] == "Inst"
        }
    if not wanted:
        return None
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, version in sorted(wanted):
            (path,) = (cache / "archives").glob(f"{name}_{version.replace(':', '%3a')}_*.deb")
            tar.add(path, arcname=path.name, recursive=False)
    return archive.getvalue()
