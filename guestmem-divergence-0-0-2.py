#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mremap: the model says 0, Linux 6.18.44-fc-v669 says ENOMEM

Prints each operation with the model's result and the kernel's: python3 guestmem-divergence-0-0-2.py
"""

from guestmem.contract.compare import compare


def program(host):
    r0 = host.create_vm()
    r1 = host.create_guest_memfd(r0, 0x1000, 1)
    r2 = host.mmap(r1, 1, 0, 1, 0)
    host.mremap(r2, 0x39EF6000)


if __name__ == "__main__":
    raise SystemExit(compare(program))
