"""The measuring part of `benches/density`: a host of its own directories, filled with idle machines."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOCULE = os.environ["LOCULE_BIN"]
COUNT = int(sys.argv[1])
TICKS = os.sysconf("SC_CLK_TCK")
# Ends when asked to: a first process without a handler would have to be killed after a while.
IDLE = "trap 'exit 0' TERM; sleep infinity & wait"
# Where this host's cgroup v2 has the controller.
LIMITS = ["--memory", "64M"] if "memory" in Path("/sys/fs/cgroup/cgroup.controllers").read_text().split() else []


def call(*words, **options):
    return subprocess.run(
        [LOCULE, "--root", RUN, "--data", DATA, *words], check=True, stdin=subprocess.DEVNULL, text=True, **options
    )


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def keepers():
    """Our own processes: of each machine its keeper, and the keeper's children but the machine's init."""
    found = []
    for path in Path(RUN, ".machines").glob("*/keeper.json"):
        facts = json.loads(path.read_text())
        pid = facts["keeper"]["pid"]
        found += [pid, *(child for child in children(pid) if child != facts["init"])]
    return found


def memory(pids):
    """KiB of anonymous memory, and of all memory with shared pages divided among their users."""
    anonymous = whole = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            words = line.split()
            if words[0] == "Pss_Anon:":
                anonymous += int(words[1])
            elif words[0] == "Pss:":
                whole += int(words[1])
    return anonymous, whole


def ticks(pids):
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total


def available():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


def listing(*words):
    times = []
    for _ in range(20):
        began = time.monotonic()
        call("ls", *words, stdout=subprocess.DEVNULL)
        times.append((time.monotonic() - began) * 1000)
    return f"{min(times):.0f} / {statistics.median(times):.0f}"


def timed(what):
    began = time.monotonic()
    what()
    return time.monotonic() - began


def launch(first, last, *words):
    for number in range(first, last):
        call("launch", "--network", "none", *LIMITS, *words, "host", f"d{number}", "--", "sh", "-c", IDLE,
             stdout=subprocess.DEVNULL)  # fmt: skip


def report(what, value):
    """Told at once as well: a run takes minutes."""
    rows.append((what, value))
    print(f"{what}: {value}", flush=True)


place = tempfile.mkdtemp(prefix="locule-density-", dir=os.environ.get("TMPDIR", "/var/tmp"))
DATA, RUN = f"{place}/data", f"{place}/run"
rows = []
try:
    before = available()
    seconds = timed(lambda: launch(0, COUNT, "--boot"))
    report("`launch`, one after the other", f"{seconds / COUNT * 1000:.0f} ms each, {COUNT / seconds:.0f} a second")
    pids = keepers()
    anonymous, whole = memory(pids)
    report("memory of our own for each machine (anonymous / with its part of what is shared)",
           f"{anonymous / COUNT:.0f} / {whole / COUNT:.0f} KiB in {len(pids) / COUNT:.0f} processes")  # fmt: skip
    report("memory of the host for each machine, with its own process, mounts, namespaces and cgroup",
           f"{(before - available()) / COUNT:.0f} KiB")  # fmt: skip
    time.sleep(5)
    used, period = ticks(pids), 30
    time.sleep(period)
    used = (ticks(pids) - used) / TICKS
    report(f"CPU of all keepers in {period} s", f"{used:.2f} s ({used / period * 100:.2f} % of one processor)")
    report(f"`ls`, {COUNT} running (best / median)", f"{listing()} ms")
    seconds = timed(lambda: call("shutdown", stdout=subprocess.DEVNULL))
    report("`shutdown` of all", f"{seconds:.1f} s, {COUNT / seconds:.0f} a second")
    seconds = timed(lambda: call("boot", stdout=subprocess.DEVNULL))
    report("`boot` of all", f"{seconds:.1f} s, {COUNT / seconds:.0f} a second")
    launch(COUNT, 2 * COUNT, "--no-start")
    report(f"`ls`, {COUNT} running and {COUNT} not (best / median)", f"{listing()} ms")
    report("the same as JSON", f"{listing('--format', 'json')} ms")
finally:
    names = [directory.name for directory in Path(DATA, "machines").iterdir()]
    subprocess.run([LOCULE, "--root", RUN, "--data", DATA, "rm", "--force", *names],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)  # fmt: skip
    shutil.rmtree(place, ignore_errors=True)

text = f"| {COUNT} idle machines | |\n|---|---|\n" + "".join(f"| {what} | {value} |\n" for what, value in rows)
out = Path("target/bench/density.md")
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(text)
print(text + f"load average {' '.join(Path('/proc/loadavg').read_text().split()[:3])}")
