"""Says hello to ADDRESS PORT by tcp or udp and prints the first line of the answer; ends with it.

usage: ask.py tcp|udp ADDRESS PORT
"""

import socket
import sys

# Emulation is slow: an answer may take its time, and a datagram may be lost meanwhile.
PATIENCE = 30

protocol, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as peer:
    peer.settimeout(PATIENCE)
    peer.connect((address, port))
    peer.sendall(b"hello\n")
    print(peer.recv(4096).decode().splitlines()[0])
