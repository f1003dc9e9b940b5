#!/usr/bin/env python3
"""Types into a command that has a terminal, as a user does, and waits for what it shows.

Runs one command on a pseudoterminal of its own and follows a script of steps,
one word each; owns that command and nothing else. Never waits for time, only
for output or the end, and gives up after some minutes without either.
usage: terminal.py 'STEP...' COMMAND...
steps: wait:TEXT (until TEXT was shown), type:TEXT (\\r \\x10 ... as in Python), size:ROWSxCOLUMNS. After the last one
the command must end. Exits with its code; says on standard error what was shown if a step fails.
"""

import fcntl
import os
import pty
import select
import shlex
import struct
import sys
import termios
import time

PATIENCE = 150


def resize(fd, rows_columns):
    rows, columns = map(int, rows_columns.split("x"))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """The command and what it has shown since the last step that waited."""

    def __init__(self, command):
        self.shown = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            resize(0, "24x80")
            os.execvp(command[0], command)

    def read(self):
        """More output; nothing at the end."""
        if not select.select([self.fd], [], [], PATIENCE)[0]:
            sys.exit(f"nothing was shown for {PATIENCE} s; before: {self.shown!r}")
        try:
            data = os.read(self.fd, 4096)
        except OSError:  # EIO: nobody holds the other end any more
            return b""
        self.shown += data
        return data

    def wait(self, text):
        wanted = text.encode()
        while wanted not in self.shown:
            if not self.read():
                sys.exit(f"it ended without showing {text!r}: {self.shown!r}")
        self.shown = self.shown[self.shown.index(wanted) + len(wanted) :]

    def type(self, text):
        """Key by key, each when the last one was read: Podman knows its detach keys only so."""
        for key in text.encode().decode("unicode_escape").encode("latin-1"):
            os.write(self.fd, bytes([key]))
            # The kernel hands a key over in a work of its own: until then none seems to be there.
            if key < 0x20:
                time.sleep(0.3)
            while self.unread():
                time.sleep(0.02)

    def unread(self):
        end = os.open(os.ptsname(self.fd), os.O_RDWR | os.O_NOCTTY)
        try:
            return struct.unpack("i", fcntl.ioctl(end, termios.FIONREAD, b"1234"))[0]
        finally:
            os.close(end)

    def size(self, text):
        resize(self.fd, text)

    def end(self):
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def main():
    terminal = Terminal(sys.argv[2:])
    for step in shlex.split(sys.argv[1]):
        name, _, text = step.partition(":")
        getattr(terminal, name)(text)
    sys.exit(terminal.end())


main()
