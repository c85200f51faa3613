# SPDX-License-Identifier: Apache-2.0
"""Packages of Debian, deb(5): an ar(5) archive that has a tar archive of files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from guestmem.linux.boot.errors import Cannot
from guestmem.linux.boot.initramfs import LINK, Entry

__all__ = ["files"]

MAGIC = b"!<arch>\n"
HEADER = 60


def files(path: Path, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Files and links of a package whose names, without a leading slash, are wanted.  Raises :class:`Cannot`."""
    with path.open("rb") as package:
        if package.read(len(MAGIC)) != MAGIC:
            raise Cannot(f"{path}: no package of Debian: give a .deb")
        while header := package.read(HEADER):
            name, size = header[:16].decode("ascii", "replace").strip(" /"), header[48:58].strip()
            if len(header) < HEADER or not size.isdigit():
                raise Cannot(f"{path}: the package is not whole: fetch it again")
            if name.startswith("data.tar"):
                yield from _unpacked(path, name, package.read(int(size)), wanted)
                return
            package.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise Cannot(f"{path}: the package has no files: fetch it again")


def _unpacked(path: Path, name: str, data: bytes, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    if name.endswith(".zst"):
        data = _zstandard(path, data)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                inside = member.name.removeprefix("./").lstrip("/")
                if member.isdir() or not wanted(inside):
                    continue
                if member.issym():
                    yield Entry(inside, member.linkname.encode(), LINK)
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    yield Entry(inside, stream.read(), member.mode & 0o777, int(member.mtime))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Cannot(f"{path}: the package is not whole ({error}): fetch it again") from error


def _zstandard(path: Path, data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise Cannot(f"{path}: packed with zstd: pip install zstandard") from None
    unpacked: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return unpacked
