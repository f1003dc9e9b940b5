"""For: tests/netns/guard.rs. Sends frames that a container must not send, or listens for what it must not hear.
Owns nothing. Runs in the namespace of the container, on its eth0.

usage: forge.py send OWN_MAC OWN_IP OWN_IP6 VICTIM_MAC VICTIM_IP VICTIM_IP6
       forge.py hear SECONDS: prints one line for each frame that comes
"""

import socket
import struct
import sys
import time
from ipaddress import ip_address

ETH_ALL = 3
LINK = "eth0"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ip(text):
    return ip_address(text).packed


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def icmp6(source, target, kind, body):
    payload = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = source + target + struct.pack("!I3xB", len(payload), 58)
    payload = payload[:2] + struct.pack("!H", checksum(pseudo + payload)) + payload[4:]
    return struct.pack("!IHBB", 6 << 28, len(payload), 58, 255) + source + target + payload


def link_local(hardware):
    return b"\xfe\x80" + bytes(6) + bytes([hardware[0] ^ 2]) + hardware[1:3] + b"\xff\xfe" + hardware[3:]


def arp(operation, sender, address, target, asked):
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender + address + target + asked


def frames(own, own_ip, own_ip6, victim, victim_ip, victim_ip6):
    """Each an attack: the name, destination, source, protocol, content."""
    all_ones, all_nodes = b"\xff" * 6, mac("33:33:00:00:00:01")
    nodes6, mine = ip("ff02::1"), link_local(own)
    answer = struct.pack("!I", 0x20000000)  # override
    option = b"\x02\x01" + own
    nobody = bytes(16)
    yield "ARP answer for the victim's address", all_ones, own, 0x0806, arp(2, own, victim_ip, all_ones, victim_ip)
    yield "ARP in a frame from the victim", all_ones, victim, 0x0806, arp(1, own, own_ip, bytes(6), victim_ip)
    yield "a frame from the victim to the bridge itself", mac("01:80:c2:00:00:0e"), victim, 0x88CC, bytes(46)
    yield "a BPDU from the victim", mac("01:80:c2:00:00:00"), victim, 38, b"\x42\x42\x03" + bytes(35)
    yield "a search for duplicates from the victim", mac("33:33:ff:00:00:01"), victim, 0x86DD, icmp6(
        nobody, ip("ff02::1:ff00:1"), 135, bytes(4) + own_ip6)
    yield "a report of listeners from the victim", mac("33:33:00:00:00:16"), victim, 0x86DD, icmp6(
        nobody, ip("ff02::16"), 143, bytes(4))
    yield "a neighbour's answer for the victim's address", all_nodes, own, 0x86DD, icmp6(
        mine, nodes6, 136, answer + victim_ip6 + option)
    yield "the same from the own address", all_nodes, own, 0x86DD, icmp6(
        own_ip6, nodes6, 136, answer + victim_ip6 + option)
    yield "the same from the victim's address", all_nodes, own, 0x86DD, icmp6(
        victim_ip6, nodes6, 136, answer + victim_ip6 + option)
    yield "a neighbour's question from the victim's address", all_nodes, own, 0x86DD, icmp6(
        victim_ip6, nodes6, 135, bytes(4) + victim_ip6 + b"\x01\x01" + own)
    yield "a router's announcement", all_nodes, own, 0x86DD, icmp6(
        mine, nodes6, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\x03\x04\x40\xc0" + struct.pack("!II4x", 9000, 9000)
        + ip("2001:db8:bad::"))
    yield "IPv4 from the victim's hardware address", all_ones, victim, 0x0800, bytes.fromhex(
        "4500001c000000004011") + bytes(2) + own_ip + b"\xff" * 4 + bytes(8)
    yield "a protocol that nobody asked for", all_ones, victim, 0x88B5, b"x" * 46


def main():
    channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL if sys.argv[1] == "hear" else 0))
    channel.bind((LINK, ETH_ALL if sys.argv[1] == "hear" else 0))
    if sys.argv[1] == "send":
        own, own_ip, own_ip6, victim, victim_ip, victim_ip6 = sys.argv[2:]
        values = mac(own), ip(own_ip), ip(own_ip6), mac(victim), ip(victim_ip), ip(victim_ip6)
        for name, destination, source, protocol, content in frames(*values):
            channel.send(destination + source + struct.pack("!H", protocol) + content)
            print(name)
    else:
        print("ready", flush=True)
        until = time.monotonic() + float(sys.argv[2])
        while (left := until - time.monotonic()) > 0:
            channel.settimeout(left)
            try:
                frame, (_, protocol, kind, _, _) = channel.recvfrom(65536)
            except TimeoutError:
                break
            if kind != socket.PACKET_OUTGOING:
                print(f"{protocol:04x} to {frame[:6].hex(':')} from {frame[6:12].hex(':')}", frame[14:60].hex(), flush=True)


main()
