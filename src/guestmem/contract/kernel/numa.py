# SPDX-License-Identifier: Apache-2.0
"""Memory policies of mappings, and where pages are, on the kernel's host."""

from __future__ import annotations

from guestmem.contract.kernel.mappings import Mappings
from guestmem.contract.results import Result
from guestmem.linux.numa import get_mempolicy, mbind, node_of

__all__ = ["Numa"]


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
        return node_of(self.mappings.at(mapping, offset, 1))
