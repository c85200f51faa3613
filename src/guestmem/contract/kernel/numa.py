# SPDX-License-Identifier: Apache-2.0
"""Memory policies of mappings, and where pages are, on the kernel's host."""

from __future__ import annotations

import ctypes

from guestmem.contract.kernel.mappings import Mappings
from guestmem.contract.results import Result
from guestmem.linux.calls import syscall
from guestmem.linux.numa import get_mempolicy, mbind

__all__ = ["Numa"]

MPOL_F_NODE, MPOL_F_ADDR = 1, 2  # include/uapi/linux/mempolicy.h


class Numa:
    """System calls on NUMA policies."""

    def __init__(self, mappings: Mappings) -> None:
        self.mappings = mappings

    def mbind(self, mapping: Result, offset: int, length: int, mode: int, nodes: int, flags: int = 0) -> Result:
        mbind(self.mappings.at(mapping, offset, length), length, mode, nodes, flags)
        return 0

    def get_mempolicy(self, mapping: Result, offset: int) -> Result:
        return get_mempolicy(self.mappings.at(mapping, offset, 1))

    def node(self, mapping: Result, offset: int) -> Result:
        node, address = ctypes.c_int(), self.mappings.at(mapping, offset, 1)
        how = MPOL_F_NODE | MPOL_F_ADDR
        syscall("get_mempolicy", mode=ctypes.byref(node), nodes=None, maxnode=0, address=address, flags=how)
        return node.value
