# SPDX-License-Identifier: Apache-2.0
"""The simulated host as a whole, with what needs all of it: children, limits, races."""

from __future__ import annotations

import errno
import itertools
from errno import EINVAL, EIO
from typing import Any

from guestmem.contract.host import PAGE_SIZE, Denied, Result, Unmodelled, failed
from guestmem.contract.simulated.files import NO_SUCH_OPERATION
from guestmem.contract.simulated.objects import Gmem, Vcpu, Vm
from guestmem.contract.simulated.race import race
from guestmem.contract.simulated.slots import Slots
from guestmem.linux.uapi import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE

__all__ = ["SimulatedHost"]

VM_IOCTLS = {
    "create_guest_memfd",
    "check_extension",
    "set_user_memory_region2",
    "set_user_memory_region",
    "create_vcpu",
    "pages_4k",
}
SOME_PAGES = 3  # that a signal lets through
OTHER_PROCESS = "a VM is used by the process that made it"


class SimulatedHost(Slots):
    """The contract's user-space interface on the model."""

    def in_child(self, operation: str, *arguments: Any) -> Result:
        if operation == "set_user_memory_region2":
            self.address(arguments[5], arguments[4])
        if operation in VM_IOCTLS and isinstance(self.file(arguments[0]), (Vm, Vcpu)):
            raise Denied(EIO, OTHER_PROCESS)
        if operation in ("guest_load", "guest_store", "race_punch"):
            raise Unmodelled("a child that runs its parent's guest")
        fds, maps, handles = dict(self.fds), dict(self.maps), self.next
        for file in itertools.chain(fds.values(), (mapping.file for mapping in maps.values())):
            file.uses += 1
        self.maps = {handle: mapping.copy() for handle, mapping in maps.items()}
        try:
            result: Result = getattr(self, operation)(*arguments)
        finally:
            rule = self.rule
            ended = self.finish()
            self.fds, self.maps, self.next, self.rule = fds, maps, handles, rule
        return ended if failed(ended) else result

    def fallocate_signalled(self, fd: Result, length: int) -> Result:
        gmem = self.of_kind(fd, Gmem, EINVAL, NO_SUCH_OPERATION)
        self.serial.signal_after = SOME_PAGES
        try:
            result: Result = self.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length)
        finally:
            self.serial.signal_after = None
        code = getattr(errno, result) if isinstance(result, str) else 0
        return code, int(0 < gmem.resident(0, length // PAGE_SIZE) < length // PAGE_SIZE)

    def allocate_limited(self, limit: int, length: int) -> Result:
        """Whoever goes over the limit is sent SIGKILL (mem_cgroup_out_of_memory), and dies when it leaves the kernel."""
        pages = length // PAGE_SIZE
        child = SimulatedHost(files=1, vms=1, pages=pages, frames=pages + 1)
        child.serial.signal_after = limit // PAGE_SIZE
        fd = child.create_guest_memfd(child.create_vm(), length, 0)
        return "SIGKILL" if child.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length) == "EINTR" else 0

    def race_punch(self, vcpu: Result, fd: Result, mapping: Result, pages: int) -> Result:
        self.mapping(mapping, 0, pages * PAGE_SIZE)
        gmem = self.of_kind(fd, Gmem, EINVAL, NO_SUCH_OPERATION)
        places = [gmem.at(pgoff) for pgoff in range(pages)]
        wrong = race(self.world, self.serial, gmem, places, isinstance(vcpu, int))
        self.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, pages * PAGE_SIZE)
        left = self.cachestat(fd, 0, pages * PAGE_SIZE)
        assert isinstance(left, int)
        return len(wrong), left
