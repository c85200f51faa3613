# SPDX-License-Identifier: Apache-2.0
"""What a workload costs under a protection: the library run as ordinary Python, its work counted.

A workload is a list of operations, made up (``boot``) or those of a recorded run of a real kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from guestmem.machine.guest import Gfn
from guestmem.machine.machine import Fault
from guestmem.mm.filemap import Pgoff, user_access
from guestmem.model.control import InTurn, running
from guestmem.scenarios.cast import Cast
from guestmem.scenarios.catalogue import Scenario

__all__ = ["Operation", "Workload", "boot", "price"]

#: Block entries of the direct map are for 2M, as those of a kernel in use mostly are.
BLOCK = 9


class Operation(NamedTuple):
    """One thing done to pages start <= pgoff < end.

    ``kind``: "allocate" by the VMM, "guest" touches, "user" touches through the mapping, "share" and "private" are
    conversions the guest asked for, "punch" a hole.
    """

    kind: str
    start: int
    end: int


class Workload(NamedTuple):
    """Operations (kind, start, end) on a file of ``pages`` pages; ``text`` says where they come from."""

    text: str
    pages: int
    operations: Sequence[tuple[str, int, int]]


def boot(pages: int = 128) -> Workload:
    """A small guest boots: image loaded, memory touched, an I/O buffer shared and taken back, some ballooned away."""
    image, buffer = pages // 4, pages // 16
    operations = [Operation("allocate", 0, image)]
    operations += [Operation("guest", p, p + 1) for p in range(pages)]
    operations.append(Operation("share", image, image + buffer))
    operations += [Operation("user", p, p + 1) for p in range(image, image + buffer)]
    operations.append(Operation("private", image, image + buffer))
    operations += [Operation("guest", p, p + 1) for p in range(image, image + buffer)]
    operations.append(Operation("punch", pages - buffer, pages))
    return Workload(f"built-in boot of a guest with {pages} pages", pages, operations)


def price(scenario: Scenario, protection: object, arch: object, workload: Workload) -> dict[str, int]:
    """What a workload costs, by kind of work; "refused" counts operations that the driver did not allow."""
    pages = workload.pages
    world = scenario.build(protection=protection, arch=arch, pages=pages, frames=pages + 2, block=BLOCK, table=BLOCK)
    assert isinstance(world, Cast)
    folios = world.kernel.folios
    runner = InTurn("frame", lambda frame: folios[frame].free)
    refused = 0
    with running(runner):
        _begin(world, any(kind == "user" for kind, _, _ in workload.operations[:1]))
        for operation in workload.operations:
            refused += _perform(world, operation) != 0
        guest = world.machine.guests[0]
        world.machine.hypervisor.vm_stop(guest)
        refused += world.file.unbind(guest, 0, len(world.file.bound)) != 0
        world.file.release()
    costs = {kind.name.lower(): n for kind, n in runner.costs.items()}
    if refused:
        costs["refused"] = refused
    return dict(sorted(costs.items()))


def _begin(world: Cast, shared: bool) -> None:
    """Create the file, all shared if its VMM uses it first, and start the VM."""
    world.file.create()
    if shared:
        world.file.convert(0, len(world.file.shared), True)
    guest = world.machine.guests[0]
    world.file.bind(guest, 0, len(world.file.bound), Gfn(0))
    guest.running = True


def _perform(world: Cast, operation: tuple[str, int, int]) -> int:
    """Do one operation as the cast would; its errno."""
    kind, start, end = operation
    file, guest, cpu = world.file, world.machine.guests[0], world.machine.cpus[0]
    if kind == "allocate":
        return file.allocate(cpu, start, end)
    if kind == "user":
        if user_access(world.machine, file.mapping, Pgoff(start), write=True) is not Fault.TRANSLATION:
            return 0
        return file.fault(cpu, Pgoff(start))
    if kind == "guest":
        gfn = Gfn(start)
        err = 0
        if not guest.touch(gfn):
            err = file.guest_fault(cpu, guest, gfn)
            guest.exited -= 1
            if err == 0:
                guest.touch(gfn)
        return err
    if kind in ("share", "punch"):
        for page in range(start, end):
            world.give(guest, Gfn(page))
    if kind == "punch":
        return file.punch_hole(start, end)
    err, _ = file.convert(start, end, kind == "share")
    if err == 0 and kind == "private":
        for page in range(start, end):
            guest.gave[page] = False
            world.keep(guest, Gfn(page))
    return err
