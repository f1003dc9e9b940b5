#!/usr/bin/env python3
"""`ctr run -t` and `ctr tasks exec -t`, as somebody at a terminal uses them."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, "/locule/tests/vm/lib")
import image  # noqa: E402
import tap  # noqa: E402

RUNTIME = shutil.which(os.environ.get("RUNTIME", "locule"))
IMAGE = "docker.io/library/busybox:latest"
PROMPT = "here# "


class Session:
    """A program on a terminal of its own, and what it has written."""

    def __init__(self, *command):
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)

    def type(self, text):
        os.write(self.fd, text.encode())

    def sees(self, text, seconds=90):
        """Waits for a text that was not waited for before."""
        until = time.monotonic() + seconds
        os.set_blocking(self.fd, False)
        while text not in self.seen:
            if time.monotonic() > until:
                return False
            try:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:
                return text in self.seen
        self.seen = self.seen.split(text, 1)[1]
        return True

    def resize(self, rows, columns):
        termios.tcsetwinsize(self.fd, (rows, columns))
        os.kill(self.pid, signal.SIGWINCH)

    def ends(self):
        """Its exit code."""
        while self.sees("\0"):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def expect(name, session, text):
    tap.ok(name, session.sees(text), f"wanted {text!r}, saw {session.seen!r}")


def ctr(*words):
    return subprocess.run(["ctr", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


def prepare():
    subprocess.run(["systemctl", "start", "containerd"], check=True)
    if IMAGE not in ctr("images", "list", "-q"):
        with tempfile.NamedTemporaryFile() as file:
            image.write(file.name, IMAGE)
            ctr("images", "import", file.name)


def check():
    one = Session("ctr", "run", "-t", "--rm", "--runc-binary", RUNTIME, "--env", f"PS1={PROMPT}", IMAGE, "test-tty", "sh")
    expect("a prompt", one, PROMPT)
    one.type("tty; echo $((6 * 7))\n")
    expect("a terminal of the container", one, "/dev/pts/0")
    expect("what is typed is run", one, "42")
    one.resize(33, 101)
    # ctr passes the new size on when it gets to it.
    for _ in range(50):
        one.type("stty size\n")
        if resized := one.sees("33 101", 2):
            break
    tap.ok("the window's size", resized, one.seen)
    one.type("echo sle''eps; sleep 1000; echo a''wake\n")
    expect("a program in the foreground", one, "sleeps")
    one.type("\x03")
    expect("Ctrl-C ends it, not the shell", one, PROMPT)

    two = Session("ctr", "tasks", "exec", "-t", "--exec-id", "two", "test-tty", "sh", "-c", "tty; cat")
    expect("a second session has its own terminal", two, "/dev/pts/1")
    one.type("echo fi''rst\n")
    expect("the first is usable beside it", one, "first")
    two.type("second\n\x04")
    expect("and the second beside the first", two, "second")
    tap.same("the second ends", two.ends(), 0)
    one.type("echo st''ill; exit 7\n")
    expect("the first goes on", one, "still")
    tap.same("and gives its exit code", one.ends(), 7)
    tap.ok("nothing is left", "test-tty" not in ctr("containers", "list", "-q"))


prepare()
try:
    check()
finally:
    for word in (("tasks", "delete", "--force"), ("containers", "delete")):
        ctr(*word, "test-tty")
tap.done()
