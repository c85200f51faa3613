# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup for one experiment, below that of this process, version 1 or 2; named so that it can be found again."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from types import TracebackType

from guestmem.contract.interface import PAGE_SIZE, Missing
from guestmem.linux.probe import lines
from guestmem.linux.process import alive

__all__ = ["MemoryCgroup", "remove_stale"]

LATEST = 10.0  # seconds
NAME = re.compile(r"guestmem-(\d+)$")


def parent() -> tuple[Path, str]:
    """The memory cgroup of this process, and the file that limits a child.  Raises :class:`Missing`."""
    mine = {}
    for line in lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        mine.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    if "memory" in mine:
        return Path("/sys/fs/cgroup/memory", mine["memory"]), "memory.limit_in_bytes"
    root = Path("/sys/fs/cgroup", mine.get("", ""))
    if "memory" in " ".join(lines(f"{root}/cgroup.subtree_control")).split():
        return root, "memory.max"
    raise Missing("a memory cgroup: the controller is not enabled below the cgroup of this process")


def remove_stale() -> list[str]:
    """Remove cgroups whose makers are gone; their names."""
    try:
        where, _ = parent()
        left = [child for child in where.iterdir() if (found := NAME.match(child.name)) and not alive(int(found[1]))]
    except (Missing, OSError):
        return []
    return [str(child) for child in left if removed(child)]


def removed(group: Path) -> bool:
    """Remove a cgroup; False if something stays in it."""
    for _ in range(20):
        try:
            group.rmdir()
        except FileNotFoundError:
            return False
        except OSError:
            time.sleep(0.05)  # what was killed is going
        else:
            return True
    return False


class MemoryCgroup:
    """A cgroup that limits the memory of who enters it, in bytes.  Raises :class:`Missing`."""

    def __init__(self, limit: int) -> None:
        where, self.file = parent()
        self.path = where / f"guestmem-{os.getpid()}"
        self.limit = limit
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise Missing(f"a memory cgroup: {where}: {error.strerror} (root)") from error

    def enter(self) -> None:
        """Put this process in, then limit it, so that only what follows counts against the limit."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        (self.path / self.file).write_text(str(self.limit), encoding="ascii")

    def cached(self) -> int:
        """Pages of page cache that are charged to it."""
        said = dict(line.split()[:2] for line in lines(f"{self.path}/memory.stat"))
        return int(said.get("cache") or said["file"]) // PAGE_SIZE

    def settled(self, expected: int) -> int:
        """The same, when it is as expected or does not come to that: counters are put together every two seconds."""
        end = time.monotonic() + LATEST
        while (found := self.cached()) != expected and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def __enter__(self) -> MemoryCgroup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.path.rmdir()
