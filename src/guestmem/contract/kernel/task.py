# SPDX-License-Identifier: Apache-2.0
"""The process of the kernel's host: its descriptors by handle, and what belongs to their files."""

from __future__ import annotations

import fcntl
import os
import socket

from guestmem.contract.results import EBADF, Denied, Result

__all__ = ["Open", "Task"]


class Open:
    """An open file description, until its last descriptor is closed."""

    uses = 0

    def let_go(self) -> None:
        """The last descriptor goes."""


class Task:
    """Descriptors by handle."""

    def __init__(self) -> None:
        self.fds: dict[int, tuple[int, Open]] = {}
        self.next = 0

    def handle(self) -> int:
        """A new handle."""
        self.next += 1
        return self.next - 1

    def opened(self, fd: int, file: Open | None = None) -> int:
        """The handle of a new descriptor, of a new file or of one that has other descriptors."""
        handle = self.handle()
        file = file or Open()
        file.uses += 1
        self.fds[handle] = fd, file
        return handle

    def fd(self, handle: Result) -> int:
        """The descriptor, or one that is not open."""
        return self.fds[handle][0] if isinstance(handle, int) and handle in self.fds else -1

    def valid(self, handle: Result) -> tuple[int, Open]:
        """The descriptor and its file.  Raises EBADF where there is none."""
        if not isinstance(handle, int) or handle not in self.fds:
            raise Denied(EBADF)
        return self.fds[handle]

    # ---- operations

    def dup(self, fd: Result) -> Result:
        real, file = self.valid(fd)
        return self.opened(fcntl.fcntl(real, fcntl.F_DUPFD, 0), file)

    def pass_descriptor(self, fd: Result) -> Result:
        real, file = self.valid(fd)
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with left, right:
            socket.send_fds(left, [b"x"], [real])
            _, received, _, _ = socket.recv_fds(right, 1, 1)
        return self.opened(received[0], file)

    def close(self, fd: Result) -> Result:
        real, file = self.valid(fd)
        assert isinstance(fd, int)
        del self.fds[fd]
        file.uses -= 1
        if not file.uses:
            file.let_go()
        os.close(real)
        return 0
