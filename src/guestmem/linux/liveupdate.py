# SPDX-License-Identifier: Apache-2.0
"""Live update: sessions whose files the next kernel gets (include/uapi/linux/liveupdate.h, in v6.19)."""

from __future__ import annotations

import ctypes
import os

from guestmem.linux.calls import Descriptor, ioctl, posix

__all__ = ["DEVICE", "Session", "preserve"]

DEVICE = "/dev/liveupdate"
LIVEUPDATE_IOCTL_CREATE_SESSION, LIVEUPDATE_SESSION_PRESERVE_FD = 0xBA00, 0xBA40
NAME_LENGTH = 64


class create_session(ctypes.Structure):
    """struct liveupdate_ioctl_create_session."""

    fd: int

    _fields_ = [("size", ctypes.c_uint32), ("fd", ctypes.c_int32), ("name", ctypes.c_char * NAME_LENGTH)]


class preserve_fd(ctypes.Structure):
    """struct liveupdate_session_preserve_fd."""

    _fields_ = [("size", ctypes.c_uint32), ("fd", ctypes.c_int32), ("token", ctypes.c_uint64)]


class Session(Descriptor):
    """A session that ends with its descriptor: what it has preserved is not, then.

    Raises :class:`~guestmem.linux.calls.CallError`: ENOENT where there is no live update, EBUSY while somebody has the
    device, EEXIST for a name that is taken.
    """

    def __init__(self, name: str) -> None:
        device = posix(os.open, "open", path=DEVICE, flags=os.O_RDWR | os.O_CLOEXEC)
        try:
            argument = create_session(ctypes.sizeof(create_session), -1, name.encode())
            ioctl(device, "LIVEUPDATE_IOCTL_CREATE_SESSION", LIVEUPDATE_IOCTL_CREATE_SESSION, argument, session=name)
        finally:
            os.close(device)
        super().__init__(argument.fd)

    def preserve(self, fd: int, token: int) -> None:
        """Have the next kernel get a file, by a token.  Raises CallError: ENOENT for one that nobody can preserve."""
        preserve(self.fileno(), fd, token)


def preserve(session: int, fd: int, token: int) -> None:
    """LIVEUPDATE_SESSION_PRESERVE_FD on any descriptor."""
    argument = preserve_fd(ctypes.sizeof(preserve_fd), fd, token)
    ioctl(session, "LIVEUPDATE_SESSION_PRESERVE_FD", LIVEUPDATE_SESSION_PRESERVE_FD, argument, token=token)
