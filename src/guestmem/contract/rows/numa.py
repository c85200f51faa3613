# SPDX-License-Identifier: Apache-2.0
"""Memory policies of guest memory (mbind, get_mempolicy) and where pages come to be.

Where a file of guest memory has no policies of its own, those of its mappings are set and decide nothing.
"""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.results import EFAULT, EINVAL, Result
from guestmem.contract.rows import GMEM, KEEP, MMAP, PUNCH, RW, SHARED, bind, expect, gmem, ok, row, shared, table, vm

P = PAGE_SIZE
MBIND = "mm/mempolicy.c, do_mbind()"
SOURCE = f"{citations.POLICY}; {GMEM}"
DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL = range(5)
UNSET = DEFAULT, 0


def nodes(host: Host, count: int) -> list[int]:
    """The first nodes of the machine.  Raises :class:`Missing`."""
    if not host.facts.nodes:
        raise Missing("memory policies (mbind)")
    if len(host.facts.nodes) < count:
        raise Missing("a second NUMA node (x86-64: boot with numa=fake=2)")
    return list(host.facts.nodes[:count])


def bit(host: Host) -> int:
    """The first node as a mask.  Raises :class:`Missing`."""
    return 1 << nodes(host, 1)[0]


@table("a policy is what it was set to", f"{MBIND}; {SOURCE}", {"preferred": PREFERRED, "bind": BIND, "interleave": INTERLEAVE})
def test_policy(host: Host, mode: int) -> None:
    node = bit(host)
    _, fd, mapping = shared(host, 3)
    expect(host.get_mempolicy(mapping, 0), UNSET)
    expect(host.mbind(mapping, P, P, mode, node), 0)
    expect([host.get_mempolicy(mapping, page * P) for page in range(3)], [UNSET, (mode, node), UNSET])
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.mbind(mapping, 0, 3 * P, DEFAULT, 0), 0)
    expect(host.get_mempolicy(mapping, P), UNSET)


@table("a policy without a node is that of who allocates", MBIND, {"local": LOCAL, "preferred": PREFERRED})
def test_policy_local(host: Host, mode: int) -> None:
    bit(host)
    _, _, mapping = shared(host, 1)
    expect(host.mbind(mapping, 0, P, mode, 0), 0)
    expect(host.get_mempolicy(mapping, 0), (LOCAL, 0))


@table(
    "illegal policies are refused, and the one before stays",
    MBIND,
    {
        "bind to nothing": (0, BIND, 0, 0),
        "interleave over nothing": (0, INTERLEAVE, 0, 0),
        "default with a node": (0, DEFAULT, 1, 0),
        "local with a node": (0, LOCAL, 1, 0),
        "no such node": (0, BIND, 1 << 63, 0),
        "no such mode": (0, 100, 1, 0),
        "no such flag": (0, BIND, 1, 8),
        "within a page": (1, BIND, 1, 0),
    },
)
def test_policy_illegal(host: Host, offset: int, mode: int, mask: int, flags: int) -> None:
    node = bit(host)
    _, _, mapping = shared(host, 2)
    ok(host.mbind(mapping, 0, P, BIND, node))
    expect(host.mbind(mapping, offset, P, mode, mask * node if mask == 1 else mask, flags), EINVAL)
    expect(host.get_mempolicy(mapping, 0), (BIND, node))


@row("a policy of nothing is no error and none", MBIND)
def test_policy_of_nothing(host: Host) -> None:
    node = bit(host)
    _, _, mapping = shared(host, 1)
    expect(host.mbind(mapping, 0, 0, BIND, node), 0)
    expect(host.get_mempolicy(mapping, 0), UNSET)


@row("a policy is that of the file's pages, in every mapping of them", SOURCE)
def test_policy_of_file(host: Host) -> None:
    node = bit(host)
    _, fd, mapping = shared(host, 3)
    other = ok(host.mmap(fd, 2 * P, RW, SHARED, P))
    ok(host.mbind(other, P, P, BIND, node))
    bound = (BIND, node) if host.facts.file_policy else UNSET
    expect([host.get_mempolicy(mapping, page * P) for page in range(3)], [UNSET, UNSET, bound])
    expect([host.get_mempolicy(other, page * P) for page in range(2)], [UNSET, (BIND, node)])


@row("a policy of a file stays when the mapping goes", SOURCE)
def test_policy_stays(host: Host) -> None:
    node = bit(host)
    _, fd, mapping = shared(host, 2)
    ok(host.mbind(mapping, 0, P, BIND, node))
    ok(host.munmap(mapping))
    again = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    bound = (BIND, node) if host.facts.file_policy else UNSET
    expect([host.get_mempolicy(again, page * P) for page in range(2)], [bound, UNSET])


@row("files have policies of their own", SOURCE)
def test_policies_of_files(host: Host) -> None:
    node = bit(host)
    _, _, mapping = shared(host, 1)
    _, _, other = shared(host, 1)
    ok(host.mbind(mapping, 0, P, BIND, node))
    expect(host.get_mempolicy(other, 0), UNSET)


@row("pages of which the host sees none have policies as well, and no node that it could ask for", SOURCE)
def test_policy_of_private_pages(host: Host) -> None:
    node = bit(host)
    _, fd = gmem(host, 1, MMAP)
    mapping = ok(host.mmap(fd, P, RW, SHARED, 0))
    ok(host.mbind(mapping, 0, P, BIND, node))
    expect(host.get_mempolicy(mapping, 0), (BIND, node))
    expect(host.node(mapping, 0), EFAULT)
    ok(host.fallocate(fd, KEEP, 0, P))
    expect(host.node(mapping, 0), EFAULT)


@row(
    "who asks for the node of a page gets the page, and none past the end of the file", f"mm/mempolicy.c, lookup_node(); {SOURCE}"
)
def test_node(host: Host) -> None:
    node = nodes(host, 1)[0]
    _, fd = gmem(host, 2, 3)
    mapping = ok(host.mmap(fd, 3 * P, RW, SHARED, 0))
    if len(host.facts.nodes) > 1:
        ok(host.mbind(mapping, 0, 2 * P, BIND, 1 << node))
        if not host.facts.file_policy:
            raise Missing("policies of files, or a machine with one node")
    expect(host.node(mapping, P), node)
    expect(host.cachestat(fd, P, P), 1)
    expect(host.cachestat(fd, 0, 0), 1)
    expect(host.node(mapping, 2 * P), EFAULT)


def bound(host: Host, pages: int) -> tuple[list[int], Result, Result, Result]:
    """Two nodes, a VM, and a file of which each page has the other node than the one before, with a mapping."""
    both = nodes(host, 2)
    if not host.facts.file_policy:
        raise Missing("policies of files")
    owner, fd, mapping = shared(host, pages)
    for page in range(pages):
        ok(host.mbind(mapping, page * P, P, BIND, 1 << both[page % 2]))
    return both, owner, fd, mapping


@table("a page comes from the node of its policy", SOURCE, {"fallocate": "fallocate", "the host": "host", "the guest": "guest"})
def test_placement(host: Host, how: str) -> None:
    both, owner, fd, mapping = bound(host, 4)
    if how == "fallocate":
        ok(host.fallocate(fd, KEEP, 0, 4 * P))
    elif how == "host":
        ok(host.process_vm_writev(mapping, 0, bytes([1]) * 4 * P))
    else:
        ok(bind(host, owner, fd, 0, 0, 4))
        vcpu = ok(host.create_vcpu(owner))
        for page in range(4):
            ok(host.guest_store(vcpu, page * P, 1))
    expect(host.cachestat(fd, 0, 0), 4)
    expect([host.node(mapping, page * P) for page in range(4)], both * 2)


@row("a page stays on its node when its policy changes, and the next one comes from the new one", SOURCE)
def test_placement_stays(host: Host) -> None:
    both, _, fd, mapping = bound(host, 2)
    ok(host.fallocate(fd, KEEP, 0, P))
    ok(host.mbind(mapping, 0, 2 * P, BIND, 1 << both[1]))
    ok(host.fallocate(fd, KEEP, 0, 2 * P))
    expect([host.node(mapping, page * P) for page in range(2)], [both[0], both[1]])
    ok(host.fallocate(fd, PUNCH, 0, 2 * P))
    ok(host.fallocate(fd, KEEP, 0, 2 * P))
    expect([host.node(mapping, page * P) for page in range(2)], [both[1], both[1]])


@row("a policy that is taken away leaves a VM and its slots as they are", SOURCE)
def test_policy_and_slots(host: Host) -> None:
    node = bit(host)
    owner, fd, mapping = shared(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    ok(host.mbind(mapping, 0, 2 * P, BIND, node))
    ok(host.mbind(mapping, 0, P, DEFAULT, 0))
    expect(host.get_mempolicy(mapping, P), (BIND, node))
    other = vm(host)
    expect(bind(host, other, fd, 0, 0, 2), EINVAL)
