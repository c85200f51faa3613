# SPDX-License-Identifier: Apache-2.0
"""Sessions of live update on the kernel's host."""

from __future__ import annotations

import itertools
import os

from guestmem.contract.kernel.task import Task
from guestmem.contract.results import Result
from guestmem.linux.liveupdate import Session, preserve

__all__ = ["LiveUpdates"]


class LiveUpdates:
    """Preserving files for the next kernel, which never comes."""

    numbers = itertools.count()

    def __init__(self, task: Task) -> None:
        self.task = task

    def liveupdate_session(self) -> Result:
        with Session(f"guestmem-{os.getpid()}-{next(self.numbers)}") as session:
            return self.task.opened(os.dup(session.fileno()))

    def preserve(self, session: Result, fd: Result, token: int) -> Result:
        preserve(self.task.fd(session), self.task.fd(fd), token)
        return 0
