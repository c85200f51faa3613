# SPDX-License-Identifier: Apache-2.0
"""What an operation of the contract gives: a value, and a failure is a value as well.

Two hosts are compared by ``==``, and so are lists and tuples of results.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "EACCES",
    "EAGAIN",
    "EBADF",
    "EBUSY",
    "EEXIST",
    "EFAULT",
    "EFBIG",
    "EINTR",
    "EINVAL",
    "EIO",
    "EMFILE",
    "ENODEV",
    "ENOENT",
    "ENOMEM",
    "ENOSYS",
    "ENOTDIR",
    "ENOTTY",
    "ENXIO",
    "EOPNOTSUPP",
    "EOVERFLOW",
    "EPERM",
    "ESPIPE",
    "EXDEV",
    "MMIO",
    "NO_FAULT",
    "Denied",
    "Errno",
    "Failure",
    "Other",
    "Result",
    "Signal",
    "Stat",
    "brief",
    "failed",
]


class Failure(ABC):
    """An operation failed; its repr is what a message shows."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What failures are counted by: the name, without the place."""


@dataclass(frozen=True, repr=False)
class Errno(Failure):
    """A system call failed with this number; ``offset``: in bytes, what stood in the way, where the call says that."""

    code: int
    offset: int | None = None

    @property
    def kind(self) -> str:
        """The kernel's name of it."""
        return "EOPNOTSUPP" if self.code == errno.EOPNOTSUPP else errno.errorcode.get(self.code, f"errno {self.code}")

    def __repr__(self) -> str:
        return self.kind if self.offset is None else f"{self.kind} {self.offset:+#x}"


@dataclass(frozen=True, repr=False)
class Signal(Failure):
    """A signal answered; ``offset``: of the access, in bytes from the start of its mapping."""

    name: str
    offset: int | None = None

    @property
    def kind(self) -> str:
        """The name of the signal."""
        return self.name

    def __repr__(self) -> str:
        return self.name if self.offset is None else f"{self.name} {self.offset:+#x}"


@dataclass(frozen=True, repr=False)
class Other(Failure):
    """Anything else that is no success; ``why`` says what."""

    why: str

    @property
    def kind(self) -> str:
        """The same."""
        return self.why

    def __repr__(self) -> str:
        return self.why


EACCES, EAGAIN, EBADF, EBUSY = map(Errno, (errno.EACCES, errno.EAGAIN, errno.EBADF, errno.EBUSY))
EEXIST, EFAULT, EFBIG, EINTR = map(Errno, (errno.EEXIST, errno.EFAULT, errno.EFBIG, errno.EINTR))
EINVAL, EIO, ENODEV, ENOMEM = map(Errno, (errno.EINVAL, errno.EIO, errno.ENODEV, errno.ENOMEM))
EMFILE, ENOENT = Errno(errno.EMFILE), Errno(errno.ENOENT)
ENOTDIR, ENOTTY, ENXIO, EOPNOTSUPP = map(Errno, (errno.ENOTDIR, errno.ENOTTY, errno.ENXIO, errno.EOPNOTSUPP))
ENOSYS, EOVERFLOW, EPERM, ESPIPE, EXDEV = map(Errno, (errno.ENOSYS, errno.EOVERFLOW, errno.EPERM, errno.ESPIPE, errno.EXDEV))
NO_FAULT = Other("no memory fault")
"""The last exit of a vCPU was for something else."""
MMIO = Other("MMIO")
"""A guest's access to where no memory is."""


class Stat(NamedTuple):
    """What fstat says that does not depend on the machine: bytes, st_mode, bytes per block, blocks."""

    size: int
    mode: int
    blksize: int
    blocks: int


Result = int | bytes | tuple[int | Failure, ...] | Failure


class Denied(Exception):
    """An operation ends in a failure; ``rule`` says in a sentence why, or nothing."""

    def __init__(self, failure: Failure, rule: str = "") -> None:
        super().__init__(failure, rule)
        self.failure = failure
        self.rule = rule


def failed(result: object) -> bool:
    """Whether an operation ended in a failure."""
    return isinstance(result, Failure)


def brief(result: object) -> str:
    """A result as a message shows it: long bytes only in part."""
    if isinstance(result, bytes) and len(result) > 24:
        return f"{result[:16]!r}... ({len(result)} bytes)"
    return repr(result)
