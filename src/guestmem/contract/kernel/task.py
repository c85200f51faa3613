# SPDX-License-Identifier: Apache-2.0
"""The process that the kernel's host is: its descriptors by handle, and what is kept for them."""

from __future__ import annotations

import fcntl
import os
import socket

from guestmem.contract.results import EBADF, Denied, Result

__all__ = ["Kept", "Task"]


class Kept:
    """What is kept for the descriptors of one open file description, until the last of them is closed."""

    uses = 0

    def let_go(self) -> None:
        """The last descriptor goes."""


class Task:
    """Descriptors by handle."""

    def __init__(self) -> None:
        self.fds: dict[int, tuple[int, Kept]] = {}
        self.next = 0

    def handle(self) -> int:
        """A new handle."""
        self.next += 1
        return self.next - 1

    def opened(self, fd: int, kept: Kept | None = None) -> int:
        """The handle of a new descriptor, of something new or of what others are descriptors of as well."""
        handle = self.handle()
        kept = kept or Kept()
        kept.uses += 1
        self.fds[handle] = fd, kept
        return handle

    def fd(self, handle: Result) -> int:
        """The descriptor, or one that is not open."""
        return self.fds[handle][0] if isinstance(handle, int) and handle in self.fds else -1

    def valid(self, handle: Result) -> tuple[int, Kept]:
        """The descriptor and what is kept for it.  Raises EBADF where there is none."""
        if not isinstance(handle, int) or handle not in self.fds:
            raise Denied(EBADF)
        return self.fds[handle]

    # ---- operations

    def dup(self, fd: Result) -> Result:
        real, kept = self.valid(fd)
        return self.opened(fcntl.fcntl(real, fcntl.F_DUPFD, 0), kept)

    def pass_descriptor(self, fd: Result) -> Result:
        real, kept = self.valid(fd)
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with left, right:
            socket.send_fds(left, [b"x"], [real])
            _, received, _, _ = socket.recv_fds(right, 1, 1)
        return self.opened(received[0], kept)

    def close(self, fd: Result) -> Result:
        real, kept = self.valid(fd)
        assert isinstance(fd, int)
        del self.fds[fd]
        kept.uses -= 1
        if not kept.uses:
            kept.let_go()
        os.close(real)
        return 0
