# SPDX-License-Identifier: Apache-2.0
"""NUMA policies: mbind(2), get_mempolicy(2), and the nodes of which this process may have memory."""

from __future__ import annotations

import ctypes
import re

from guestmem.linux.calls import syscall

__all__ = ["MPOL_BIND", "allowed", "get_mempolicy", "mbind", "node_of", "shown_policy"]

MPOL_BIND, MPOL_F_NODE, MPOL_F_ADDR = 2, 1, 2  # include/uapi/linux/mempolicy.h
WORDS = 64
"""For as many nodes as any kernel is built for, and more."""


def mbind(address: int, length: int, mode: int, nodes: int, flags: int = 0) -> None:
    """Give a range a policy; ``nodes`` has a bit for each node.  Raises CallError and NoNumber."""
    mask = (ctypes.c_uint64 * WORDS)(nodes)
    syscall("mbind", address=address, length=length, mode=mode, nodes=mask, maxnode=64 * WORDS, flags=flags)


def get_mempolicy(address: int) -> tuple[int, int]:
    """The mode and the nodes of the policy at an address.  Raises CallError and NoNumber."""
    mode, mask = ctypes.c_int(), (ctypes.c_uint64 * WORDS)()
    to = ctypes.byref(mode)
    syscall("get_mempolicy", mode=to, nodes=mask, maxnode=64 * WORDS, address=address, flags=MPOL_F_ADDR)
    return mode.value, sum(word << 64 * index for index, word in enumerate(mask))


def node_of(address: int) -> int:
    """The node of the page at an address, which is faulted in for that.  Raises CallError and NoNumber."""
    node, how = ctypes.c_int(), MPOL_F_NODE | MPOL_F_ADDR
    syscall("get_mempolicy", mode=ctypes.byref(node), nodes=None, maxnode=0, address=address, flags=how)
    return node.value


def allowed() -> tuple[int, ...]:
    """The nodes of which this process may have memory; none where the kernel does not say."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
        said = next((line.split()[1] for line in lines if line.startswith("Mems_allowed_list:")), "")
    nodes: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", said):
        nodes.extend(range(int(first), int(last or first) + 1))
    return tuple(nodes)


def shown_policy(address: int) -> str:
    """The policy that /proc/self/numa_maps shows of the mapping that begins at an address."""
    with open("/proc/self/numa_maps", encoding="utf-8", errors="replace") as lines:
        return next((words[1] for words in map(str.split, lines) if int(words[0], 16) == address), "")
