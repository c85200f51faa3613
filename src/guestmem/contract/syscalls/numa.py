# SPDX-License-Identifier: Apache-2.0
"""NUMA policies on the simulated host: of mappings, or of the files behind them, and the nodes where pages came to be."""

from __future__ import annotations

from guestmem.contract.interface import PAGE_SIZE, Unmodelled
from guestmem.contract.results import EFAULT, EINVAL, ENOSYS, Denied, Result
from guestmem.contract.spans import Spans, page_end
from guestmem.contract.syscalls.files import aligned
from guestmem.contract.syscalls.mappings import NOT_FAULTABLE, Mappings
from guestmem.contract.syscalls.objects import MODE_BITS, Gmem, Mapping
from guestmem.contract.syscalls.task import Task

__all__ = ["Numa"]

# include/uapi/linux/mempolicy.h
DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL = range(5)
NO_MODE = 100  # from here on, below the flags of a mode, no kernel has one
FLAGS = 7  # MPOL_MF_VALID


class Numa:
    """System calls on NUMA policies."""

    def __init__(self, task: Task, mappings: Mappings) -> None:
        self.task = task
        self.mappings = mappings

    def mbind(self, mapping: Result, offset: int, length: int, mode: int, nodes: int, flags: int = 0) -> Result:
        """kernel_mbind(), do_mbind()."""
        there = self.mapping(mapping, offset, length)
        if LOCAL < mode < NO_MODE or mode >> MODE_BITS:
            raise Unmodelled("other policies")
        if mode > LOCAL or flags & ~FLAGS or not aligned(offset):
            raise Denied(EINVAL, "mode, flags and start are legal")
        if flags:
            raise Unmodelled("moving pages where a policy wants them")
        if not length:
            return 0
        policy = self.policy(mode, nodes)
        there.whole = False
        policies, first = self.policies(there)
        if isinstance(there.file, Gmem):
            there.file.settle()
        end = first + page_end(offset + length) // PAGE_SIZE
        policies.set(first + offset // PAGE_SIZE, min(end, policies.end()), policy)
        return 0

    def mapping(self, mapping: Result, offset: int, length: int) -> Mapping:
        """A mapping of a kernel that has policies."""
        there = self.task.mapping(mapping, offset, length)
        if not self.task.facts.nodes:
            raise Denied(ENOSYS, "there are policies")
        return there

    def policy(self, mode: int, nodes: int) -> int:
        """mpol_new(), mpol_set_nodemask(): nodes that are not there are not meant."""
        legal = sum(1 << node for node in self.task.facts.nodes)
        if mode in (DEFAULT, LOCAL) and nodes:
            raise Denied(EINVAL, "the policy has no nodes")
        if mode == PREFERRED and not nodes:
            mode = LOCAL
        if mode in (PREFERRED, BIND, INTERLEAVE) and not nodes & legal:
            raise Denied(EINVAL, "the policy has nodes that are there")
        if (mode == PREFERRED and nodes & (nodes - 1)) or nodes & ~legal:
            raise Unmodelled("which of the nodes are meant")
        return mode | nodes << MODE_BITS

    def policies(self, mapping: Mapping) -> tuple[Spans, int]:
        """What has the policies of a mapping, by pages, and at which of these the mapping begins."""
        if self.task.facts.file_policy and isinstance(mapping.file, Gmem):
            return mapping.file.policies, mapping.offset // PAGE_SIZE
        return mapping.policies, 0

    def get_mempolicy(self, mapping: Result, offset: int) -> Result:
        """do_get_mempolicy() with MPOL_F_ADDR."""
        policies, first = self.policies(self.mapping(mapping, offset, 1))
        page = first + offset // PAGE_SIZE
        if page >= policies.end():
            raise Unmodelled("policies of what is past the end of a file")
        policy = policies.at(page)
        return policy % (1 << MODE_BITS), policy >> MODE_BITS

    def node(self, mapping: Result, offset: int) -> Result:
        """lookup_node(), a use of GUP."""
        there = self.mapping(mapping, offset, 1)
        file, facts = there.file, self.task.facts
        if not isinstance(file, Gmem):
            raise Denied(EFAULT, NOT_FAULTABLE)
        self.mappings.populate(there, offset & -PAGE_SIZE, (offset & -PAGE_SIZE) + 1, False, EFAULT)
        file.settle()
        found = file.nodes[(there.offset + offset) // PAGE_SIZE]
        if len(facts.nodes) == 1:
            return facts.nodes[0]
        if found is None:
            raise Unmodelled("on which of several nodes a page is")
        return found
