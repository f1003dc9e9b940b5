#!/usr/bin/env python3
"""The machine itself: KVM inside runs a guest. Suites with VM containers stand on it."""

import fcntl
import mmap
import os
import struct

KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_GET_VCPU_MMAP_SIZE, KVM_RUN = 0xAE01, 0xAE41, 0xAE04, 0xAE80
KVM_SET_USER_MEMORY_REGION, KVM_SET_REGS = 0x4020AE46, 0x4090AE82
KVM_GET_SREGS, KVM_SET_SREGS = 0x8138AE83, 0x4138AE84
KVM_EXIT_IO, KVM_EXIT_HLT = 2, 5

# mov al, 42; out 0x10, al; hlt
CODE = bytes([0xB0, 42, 0xE6, 0x10, 0xF4])


def guest():
    """Runs CODE in real mode; what it wrote to port 0x10, and whether it halted."""
    kvm = os.open("/dev/kvm", os.O_RDWR)
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    memory = mmap.mmap(-1, 4096)
    memory.write(CODE)
    import ctypes

    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", 0, 0, 0x1000, 4096, address))
    vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    run = mmap.mmap(vcpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
    sregs = bytearray(312)
    fcntl.ioctl(vcpu, KVM_GET_SREGS, sregs)
    # The code segment comes first: base, limit, selector.
    struct.pack_into("=QIH", sregs, 0, 0, 0xFFFF, 0)
    fcntl.ioctl(vcpu, KVM_SET_SREGS, bytes(sregs))
    # 16 registers, then rip and rflags, whose bit 1 is always set.
    fcntl.ioctl(vcpu, KVM_SET_REGS, struct.pack("=18Q", *[0] * 16, 0x1000, 2))
    written = None
    for _ in range(10):
        fcntl.ioctl(vcpu, KVM_RUN, 0)
        reason = struct.unpack_from("=I", run, 8)[0]
        if reason == KVM_EXIT_IO:
            written = run[struct.unpack_from("=Q", run, 40)[0]]
        elif reason == KVM_EXIT_HLT:
            return written, True
        else:
            break
    return written, False


try:
    outcome = guest()
except OSError as error:
    outcome = error
print("ok 1 - KVM runs a guest" if outcome == (42, True) else f"not ok 1 - KVM runs a guest\n# {outcome}")
print("1..1")
