# SPDX-License-Identifier: Apache-2.0
"""Buffers of io_urings on the kernel's host."""

from __future__ import annotations

import ctypes
import os

from guestmem.contract.interface import Missing
from guestmem.contract.kernel.mappings import Mappings
from guestmem.contract.kernel.task import Open, Task
from guestmem.contract.results import Result
from guestmem.linux.calls import iovec, syscall

__all__ = ["Rings"]

IORING_REGISTER_BUFFERS, IORING_UNREGISTER_BUFFERS = 0, 1  # include/uapi/linux/io_uring.h


class OpenRing(Open):
    """An io_uring with a buffer; its ring goes back to the others of its process."""

    def __init__(self, ring: int, rings: list[int]) -> None:
        self.ring = ring
        self.rings = rings
        self.process = os.getpid()

    def let_go(self) -> None:
        if os.getpid() == self.process:
            syscall("io_uring_register", fd=self.ring, opcode=IORING_UNREGISTER_BUFFERS, argument=None, count=0)
            self.rings.append(self.ring)


class Rings:
    """io_urings with a buffer each."""

    def __init__(self, task: Task, mappings: Mappings) -> None:
        self.task = task
        self.mappings = mappings
        self.rings: list[int] = []

    def io_uring_register(self, mapping: Result, offset: int, length: int) -> Result:
        vector = iovec(self.mappings.at(mapping, offset, length), length)
        ring = self.rings.pop() if self.rings else self.io_uring()
        try:
            syscall("io_uring_register", fd=ring, opcode=IORING_REGISTER_BUFFERS, argument=vector, count=1)
        except OSError:
            self.rings.append(ring)
            raise
        return self.task.opened(os.dup(ring), OpenRing(ring, self.rings))

    def io_uring(self) -> int:
        """A ring.  It stays open: work after closing one ends system calls of this process with EINTR, without a signal."""
        parameters = ctypes.create_string_buffer(120)
        try:
            return syscall("io_uring_setup", entries=1, parameters=parameters)
        except OSError as error:
            raise Missing(f"io_uring: {os.strerror(error.errno or 0)} (kernel.io_uring_disabled)") from error
