# SPDX-License-Identifier: Apache-2.0
"""An initramfs: a cpio archive in the format "newc" (Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

__all__ = ["LINK", "Entry", "write"]


LINK = stat.S_IFLNK | 0o777
"""The mode of a symbolic link, whose bytes are where it leads."""


class Entry(NamedTuple):
    """A file, by its name without a leading slash: bytes, mode (permissions, or :data:`LINK`), time of change."""

    name: str
    data: bytes
    mode: int = 0o644
    mtime: int = 0


def write(entries: Iterable[Entry], stream: BinaryIO) -> None:
    """Write an archive; the directories are made, and of two files of one name the later one is there."""
    files = {entry.name: entry for entry in entries}
    directories = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    made = (Entry(name, b"", stat.S_IFDIR | 0o755) for name in sorted(directories - files.keys()))
    for number, entry in enumerate((*made, *files.values(), Entry("TRAILER!!!", b"")), 1):
        _member(stream, number, entry)


def _member(stream: BinaryIO, number: int, entry: Entry) -> None:
    mode = entry.mode if stat.S_IFMT(entry.mode) else stat.S_IFREG | entry.mode
    name = entry.name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, the device's numbers and those of a device file, length of the name, sum
    fields = (number, mode, 0, 0, 1, entry.mtime, len(entry.data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    for part in (header, entry.data):
        stream.write(part)
        stream.write(bytes(-len(part) % 4))
