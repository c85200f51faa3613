# SPDX-License-Identifier: Apache-2.0
"""Sessions of live update on the simulated host: kernel/liveupdate, and the handler for files of guest memory."""

from __future__ import annotations

from guestmem.contract.interface import Unmodelled
from guestmem.contract.results import EBUSY, EEXIST, ENOENT, ENOTTY, EOPNOTSUPP, Denied, Errno, Result
from guestmem.contract.syscalls.objects import Gmem, Session
from guestmem.contract.syscalls.task import NOT_ITS_IOCTL, Task
from guestmem.linux.uapi import GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP

__all__ = ["LiveUpdates"]

PRESERVED_FLAGS = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED


class LiveUpdates:
    """Preserving files for the next kernel, which never comes."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def liveupdate_session(self) -> Result:
        if not self.task.facts.preserves:
            raise Unmodelled("live update where guest memory is not preserved")
        return self.task.opened(Session())

    def preserve(self, session: Result, fd: Result, token: int) -> Result:
        """luo_preserve_file(), kvm_gmem_luo_can_preserve(), kvm_gmem_luo_preserve()."""
        by = self.task.of_kind(session, Session, ENOTTY, NOT_ITS_IOCTL)
        if token in by.files:
            raise Denied(EEXIST, "a session has a token once")
        file = self.task.file(fd)
        if not isinstance(file, Gmem):
            raise Unmodelled("preserving what is no guest memory")
        if file.vm.protected or not file.flags & GUEST_MEMFD_FLAG_INIT_SHARED:
            raise Denied(ENOENT, "only what is shared for good can be preserved")
        if file.file.preserved:
            raise Denied(EBUSY, "a file is in one session, once")
        if file.flags & ~PRESERVED_FLAGS:
            raise Denied(EOPNOTSUPP, "the next kernel is told of MMAP and INIT_SHARED")
        err = file.preserve()
        if err:
            raise Denied(Errno(-err), "the library allows it")
        file.uses += 1
        by.files[token] = file
        return 0
