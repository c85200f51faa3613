#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mmap: the model says 2, Linux 6.18.44-fc-v669 says ENOMEM

Prints each operation with the model's result and the kernel's: python3 guestmem-divergence-0-0-0.py
"""

from guestmem.contract.compare import compare


def program(host):
    r0 = host.create_vm()
    r1 = host.create_guest_memfd(r0, 0x1000, 1)
    host.mmap(r1, 0x1619F0000, 0, 1, 0)


if __name__ == "__main__":
    raise SystemExit(compare(program))
