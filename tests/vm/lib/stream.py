"""The far end of exec, attach and port-forward: several channels over one WebSocket, as kubectl speaks them.

Owns one connection to a runtime's streaming server (RFC 6455; `v4.channel.k8s.io`: each message begins with
the number of its channel). Never speaks SPDY, the other protocol of these servers.
"""

import base64
import json
import os
import socket
import struct
import time
from urllib.parse import urlsplit

import tap

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10


class Stream:
    """An open connection; what came is in `got`, by channel."""

    def __init__(self, url, seconds=120):
        parts = urlsplit(url)
        self.got = {}
        self.ended = False
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=seconds)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Origin: http://{parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        self.reader = self.socket.makefile("rb")
        status = self.reader.readline().decode().strip()
        if " 101 " not in f"{status} ":
            raise ConnectionError(f"{url}: {status}: {self.reader.read(500)!r}")
        while self.reader.readline().strip():
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.close()
        self.socket.close()

    def _frame(self, kind, payload):
        mask = os.urandom(4)
        size = len(payload)
        head = struct.pack("!BB", 0x80 | kind, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x80 | kind, 0xFE, size)
        self.socket.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))

    def send(self, channel, data):
        """One message, of less than 64 KiB."""
        self._frame(_BINARY, bytes([channel]) + data)

    def resize(self, width, height):
        self.send(RESIZE, json.dumps({"Width": width, "Height": height}).encode())

    def _receive(self):
        """Reads one frame; False at the end."""
        head = self.reader.read(2)
        if len(head) < 2:
            return False
        size = head[1] & 0x7F
        if size > 125:
            size = struct.unpack("!H" if size == 126 else "!Q", self.reader.read(2 if size == 126 else 8))[0]
        payload, kind = self.reader.read(size), head[0] & 0x0F
        if kind == _PING:
            self._frame(_PONG, payload)
        elif kind == _CLOSE:
            return False
        elif payload:
            self.got[payload[0]] = self.got.get(payload[0], b"") + payload[1:]
        return True

    def text(self, channel):
        return self.got.get(channel, b"").decode(errors="replace")

    def until(self, channel, words, seconds=120):
        """Reads until `words` came on a channel; False if the other side ends, or is silent, before."""
        end = time.monotonic() + seconds
        while words not in self.text(channel):
            try:
                if time.monotonic() > end or not self._receive():
                    return False
            except TimeoutError:
                return False
        return True

    def rest(self):
        """Reads to the end; what the error channel said of the outcome: (Success or Failure, exit code, message)."""
        while self._receive():
            pass
        outcome = json.loads(self.text(ERROR) or "{}")
        causes = (outcome.get("details") or {}).get("causes") or []
        codes = [int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"]
        return outcome.get("status"), codes[0] if codes else None, outcome.get("message", "")


def check_shell(cri, pod):
    """A container with a terminal, attached to: its size, its end, its exit code."""
    shell = cri.start(pod, "shell", "sh", stdin=True, tty=True)
    with Stream(cri.Attach(container_id=shell, tty=True, stdin=True, stdout=True).url) as stream:
        stream.resize(80, 25)
        stream.send(STDIN, b'until [ "$(stty size)" = "25 80" ]; do usleep 100000; done; echo si"z"ed\n')
        tap.ok("attach to a terminal: its size is the client's", stream.until(STDOUT, "\nsized"), stream.text(STDOUT))
        stream.send(STDIN, b"exit 4\n")
        stream.until(STDOUT, "exit 4\r\n")
    tap.ok("its end is the container's", tap.eventually(lambda: cri.state(shell) == "EXITED"))
    tap.same("with its code", cri.status(shell).exit_code, 4)
