#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""in_child: the model says EINVAL (files of guest memory are mapped shared), Linux 6.18.44-fc-v669 says ENOMEM

Prints each operation with the model's result and the kernel's: python3 guestmem-divergence-0-0-3.py
"""

from guestmem.contract.compare import compare


def program(host):
    r0 = host.create_vm()
    r1 = host.create_guest_memfd(r0, 0x1000, 1)
    host.in_child("mmap", r1, 0x80000000, 0, 2, 0)


if __name__ == "__main__":
    raise SystemExit(compare(program))
