# SPDX-License-Identifier: Apache-2.0
"""Secret memory: two threads of a process use it, others on the host read what they can."""

from __future__ import annotations

from errno import EBADF, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP

from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content
from guestmem.machine.machine import Hypervisor
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.mm.secretmem import Secretmem
from guestmem.model import always, choose, part, reached, require, thread
from guestmem.rules import CAUSE, DONE_OR_NOTHING, GIVEN_CLEAN, WITHIN_FILE
from guestmem.scenarios.cast import Kcore, PlainRead
from guestmem.scenarios.host import Host
from guestmem.scenarios.hypervisors import KvmHost

__all__ = ["SecretMemory", "SizedSecret", "Unsplittable"]


class SecretMemory(PlainRead, Kcore, Host):
    """A process with a file of secret memory, which two of its threads fault in and one of them closes.

    Attributes:
        clears_first: see ``Secretmem``.
    """

    geometry = {"pages": 1, "frames": 3}

    hypervisor: Hypervisor = part()
    file: Secretmem = part()
    clears_first: bool = False

    def host(self) -> Hypervisor:
        return self.hypervisor

    def setup(self) -> None:
        super().setup()
        self.file.kernel = self.kernel
        self.file.clears_first = self.clears_first
        for frame in self.machine.frames:
            frame.content = Content.HOST  # of those who had it before

    @always(GIVEN_CLEAN)
    def given_clean(self) -> bool:
        """No process finds in a new page what others left there."""
        return not any(
            entry.live and entry.folio is not None and entry.folio.frame.content is Content.HOST
            for entry in self.file.mapping.user
        )

    @always(WITHIN_FILE)
    def within_file(self) -> bool:
        return self.file.mapping.within_size()

    def mapped(self, folio: Folio) -> bool:
        return any(entry.folio is folio for entry in self.file.mapping.user)

    def at_work(self) -> bool:
        return super().at_work() or self.file.mapping.invalidate_lock.busy()

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if any(slot is self.kernel.folios[pfn] for slot in self.file.mapping.slots) else 0)

    def secret_files(self) -> int:
        return 1 if self.file.open else 0

    @thread
    def owner(self) -> None:
        """Open the file, use it, close it."""
        cpu = self.machine.cpus[0]
        while True:
            if not self.file.open:
                self.file.create(self.size())
            else:
                self.operate(cpu)

    def size(self) -> int:
        """How many pages the file has before others use it."""
        return len(self.file.mapping.slots)

    def operate(self, cpu: Cpu) -> None:
        """Use the file, or close it."""
        if choose(2, "use, close") == 0:
            self.use(cpu)
        else:
            self.file.release(cpu)

    @thread
    def user(self) -> None:
        """Use the file."""
        while True:
            self.use(self.machine.cpus[1])

    def use(self, cpu: Cpu) -> None:
        """Write to a page, having faulted it in where it is not there."""
        pgoff = Pgoff(choose(len(self.file.mapping.slots), "pgoff"))
        if not self.file.write(pgoff):
            err = self.file.fault(cpu, pgoff)
            refused = self.machine.refused()
            require(err == 0 or err == -EBADF or refused or (err == -EFAULT and self.beyond(pgoff)), CAUSE)
            if err == -EFAULT:
                self.ended()
            require(err != 0 or self.file.mapping.user[pgoff].live, DONE_OR_NOTHING)

    def beyond(self, pgoff: Pgoff) -> bool:
        """Whether the fault that has just ended was for a page beyond the end of the file; the last step was to drop the lock."""
        return pgoff >= self.file.mapping.i_size

    def ended(self) -> None:
        """A page beyond the end of the file was asked for."""


class SizedSecret(SecretMemory):
    """A process that sets the size of its file while another thread uses it, and tries to set another."""

    geometry = {"pages": 2}
    must_show = ["a fault beyond the end is refused", "a second size is refused"]

    def size(self) -> int:
        return 0

    def ended(self) -> None:
        reached("a fault beyond the end is refused")

    def operate(self, cpu: Cpu) -> None:
        if choose(2, "set the size, use or close") == 0:
            self.resize(cpu, 1 + choose(len(self.file.mapping.slots), "further pages of the size"))
        else:
            super().operate(cpu)

    def resize(self, cpu: Cpu, size: int) -> None:
        """Set the size: the first time it is taken, later it is not."""
        before = self.file.mapping.i_size
        err = self.file.setattr(cpu, size)
        require(err == (0 if before == 0 else -EINVAL), CAUSE)
        require(self.file.mapping.i_size == (size if err == 0 else before), DONE_OR_NOTHING)
        if err:
            reached("a second size is refused")


class Unsplittable(KvmHost):
    """A direct map of block entries that cannot be split: nothing that needs pages out of it can be had."""

    geometry = {"pages": 1, "frames": 2}
    must_show = ["secret memory cannot be had"]

    secret: Secretmem = part()

    def setup(self) -> None:
        super().setup()
        self.secret.kernel = self.kernel

    def secret_files(self) -> int:
        return 1 if self.secret.open else 0

    @thread
    def owner(self) -> None:
        """Open a file of secret memory, and one of guest memory."""
        while True:
            require(self.secret.create(1) == -ENOSYS and not self.secret.open, CAUSE)
            reached("secret memory cannot be had")
            err = self.file.create()
            require(err == (-EOPNOTSUPP if self.file.unmaps() else 0), CAUSE)
            require(self.file.open == (err == 0), DONE_OR_NOTHING)
            if err == 0:
                self.file.release()
