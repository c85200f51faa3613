# SPDX-License-Identifier: Apache-2.0
"""Userfaultfds of the kernel's host."""

from __future__ import annotations

import os

from guestmem.contract.interface import Missing
from guestmem.contract.kernel.mappings import Mappings
from guestmem.contract.kernel.task import Open, Task
from guestmem.contract.results import ENOTTY, Denied, Result
from guestmem.linux.userfaultfd import SIGBUS, Userfaultfd

__all__ = ["Userfaults"]


class OpenUserfaultfd(Open):
    """A userfaultfd with a registered range."""

    def __init__(self, faults: Userfaultfd) -> None:
        self.faults = faults

    def let_go(self) -> None:
        self.faults.close()


class Userfaults:
    """Registering mappings, and resolving their faults."""

    def __init__(self, task: Task, mappings: Mappings) -> None:
        self.task = task
        self.mappings = mappings

    def userfaultfd_register(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        address = self.mappings.at(mapping, offset, length)
        with opened() as faults:
            faults.register(address, length, mode)
        return 0

    def userfaultfd(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        address = self.mappings.at(mapping, offset, length)
        if self.mappings.access.in_children:
            raise Missing("loads and stores of this process: a child does them, and its faults are not told")
        faults = opened(SIGBUS)
        try:
            faults.register(address, length, mode)
        except OSError:
            faults.close()
            raise
        return self.task.opened(os.dup(faults.fileno()), OpenUserfaultfd(faults))

    def faults(self, fd: Result) -> Userfaultfd:
        """The userfaultfd of a descriptor."""
        _, file = self.task.valid(fd)
        if not isinstance(file, OpenUserfaultfd):
            raise Denied(ENOTTY)
        return file.faults

    def uffdio_continue(self, fd: Result, mapping: Result, offset: int, length: int) -> Result:
        self.faults(fd).resume(self.mappings.at(mapping, offset, length), length)
        return 0

    def uffdio_copy(self, fd: Result, mapping: Result, offset: int, length: int, value: int) -> Result:
        self.faults(fd).copy(self.mappings.at(mapping, offset, length), length, value)
        return 0

    def uffdio_zeropage(self, fd: Result, mapping: Result, offset: int, length: int) -> Result:
        self.faults(fd).zeropage(self.mappings.at(mapping, offset, length), length)
        return 0


def opened(features: int = 0) -> Userfaultfd:
    """A userfaultfd.  Raises :class:`Missing`."""
    try:
        return Userfaultfd(features)
    except OSError as error:
        raise Missing(f"userfaultfd: {os.strerror(error.errno or 0)}") from error
