#!/usr/bin/env python3
"""Runs the commands of a guide, so that what a newcomer types is what works.

Reads the fenced `sh` blocks of a Markdown file and runs them in order, each
user's in one shell; prints TAP. Owns a scratch folder and these shells. Never
changes what a block says: what cannot run here is marked in the guide itself.
usage: guide.py GUIDE.md (tests/vm/README.md has the marks)
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import image  # noqa: E402

FENCE = re.compile(r"^(\s*)```sh\s*$")
MARK = re.compile(r"<!--\s*(test|no test|test as):\s*(.*?)\s*-->\s*$", re.DOTALL)
# The machine has no sudo; whoever reads a guide has.
PREAMBLE = """set -e
command -v sudo >/dev/null || sudo() { "$@"; }
"""


class Block:
    """One fence: where it stands, what runs, what must be seen."""

    def __init__(self, line, text, marks):
        self.line = line
        self.skip = marks.get("no test")
        self.user = marks.get("test as", "root")
        self.script = marks.get("test", text)
        self.wanted = re.findall(r"^\s*# => (.*?)\s*$", text, re.MULTILINE)
        commands = [row.strip() for row in text.splitlines() if row.strip() and not row.strip().startswith("#")]
        self.name = f"line {line}: {commands[0] if commands else '(empty)'}" + (" ..." if len(commands) > 1 else "")


def marks_before(lines, fence):
    """The comments that stand right before a fence: {mark: text}."""
    found = {}
    text = "\n".join(lines[:fence])
    while match := re.search(r"<!--(?:(?!<!--).)*?-->\s*$", text, re.DOTALL):
        if mark := MARK.fullmatch(match.group(0)):
            found.setdefault(mark[1], mark[2])
        text = text[: match.start()]
    return found


def blocks_of(guide):
    lines = guide.read_text().splitlines()
    blocks, at = [], 0
    while at < len(lines):
        if fence := FENCE.match(lines[at]):
            indent, first = len(fence[1]), at
            at += 1
            while lines[at].strip() != "```":
                at += 1
            body = "\n".join(row[indent:] for row in lines[first + 1 : at])
            blocks.append(Block(first + 1, body + "\n", marks_before(lines, first)))
        at += 1
    return blocks


class Shell:
    """One user's shell: what a block sets, the next one sees."""

    def __init__(self, user, work):
        home = work / user
        home.mkdir()
        command = ["bash", "--noprofile", "--norc"]
        if user != "root":
            subprocess.run(["chown", f"{user}:", str(home)], check=True)
            command = [
                "systemd-run", "--quiet", f"--machine={user}@.host", "--user", "--pipe", "--wait", "--collect",
                f"--working-directory={home}", "-p", "Delegate=yes", f"--setenv=IMAGES={work}", *command,
            ]  # fmt: skip
        self.home = home
        self.process = subprocess.Popen(
            command, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                 "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", "IMAGES": str(work)},
        )  # fmt: skip
        self.tell(PREAMBLE)

    def tell(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def run(self, block):
        """(exit code, output); a code other than 0 ends this shell."""
        script, output = self.home / ".block", self.home / ".output"
        script.write_text(block.script + "\n")
        script.chmod(0o644)
        self.tell(f". {script} </dev/null >{output} 2>&1; echo done\n")
        if self.process.stdout.readline() == "done\n":
            return 0, output.read_text(errors="replace")
        return self.process.wait() or 1, output.read_text(errors="replace") if output.exists() else ""


def missing(output, wanted):
    """The first expectation that does not follow the one before; `...` stands for anything in a line."""
    at = 0
    for text in wanted:
        pattern = ".*".join(re.escape(part) for part in text.split("..."))
        found = re.compile(pattern).search(output, at)
        if not found:
            return text
        at = found.end()
    return None


def run(guide, work):
    """Runs the blocks of one guide; the number of checks."""
    image.write(work / "busybox.tar", "docker.io/library/busybox:latest")
    work.chmod(0o755)
    shells, broken, count = {}, None, 0
    for count, block in enumerate(blocks_of(guide), 1):
        if block.skip:
            print(f"ok {count} - {block.name} # SKIP {block.skip}", flush=True)
            continue
        if broken:
            print(f"not ok {count} - {block.name}\n# not run: {broken} failed", flush=True)
            continue
        shell = shells.get(block.user) or shells.setdefault(block.user, Shell(block.user, work))
        code, output = shell.run(block)
        lacking = missing(output, block.wanted) if code == 0 else None
        if code == 0 and lacking is None:
            print(f"ok {count} - {block.name}", flush=True)
            continue
        # A shell that ended has lost what the next blocks stand on; a text that is missing harms nobody.
        broken = f"line {block.line}" if code else broken
        why = f"exit code {code}" if code else f"it did not say: {lacking}"
        print(f"not ok {count} - {block.name}\n# {why}", flush=True)
        print("".join(f"# {row}\n" for row in output.splitlines()[-20:]), end="", flush=True)
    for shell in shells.values():
        shell.process.stdin.close()
        shell.process.wait()
    return count


def main():
    guide = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="guide-", dir="/var/tmp", ignore_cleanup_errors=True) as work:
        count = run(guide, Path(work))
    print(f"1..{count}")


if __name__ == "__main__":
    main()
