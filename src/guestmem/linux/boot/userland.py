# SPDX-License-Identifier: Apache-2.0
"""What runs in the guest besides the kernel: Python with its standard library, guestmem, files of the user's."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import guestmem
from guestmem.linux.boot import deb
from guestmem.linux.boot.errors import Cannot
from guestmem.linux.boot.init import WORK
from guestmem.linux.boot.initramfs import LINK, Entry

__all__ = ["entries"]

PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "zlib1g", "libexpat1"),
    *("libssl3", "libffi8", "liblzma5", "libbz2-1.0"),
)
"""Debian 12's, of which a Python consists that can run guestmem."""

DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
LIBRARY = "usr/lib/guestmem"
PACKED = {"site-packages", "dist-packages"}
UNUSED = PACKED | {"test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data", "turtledemo"}

INIT = """\
#!/usr/bin/python3
import sys
sys.path.insert(0, "/{library}")
from guestmem.linux.boot.init import main
main()
"""
GUESTMEM = """\
#!/usr/bin/python3
import sys
sys.path.insert(0, "/{library}")
from guestmem.cli.main import main
sys.exit(main())
"""


def entries(machine: str, python: Path | None, added: Iterable[Path]) -> Iterator[Entry]:
    """The files of a guest of a machine.

    ``python``: a directory with packages of Debian for the machine, or with a root file system that has Python; None
    for this Python, if it is for the same machine.  ``added``: files for the command's directory.  Raises :class:`Cannot`.
    """
    if python is not None:
        yield from _packaged(machine, python)
    elif machine == platform.machine():
        yield from _own_python()
    else:
        arch = DEBIAN[machine]
        names = " ".join(f"{name}:{arch}" for name in PACKAGES)
        raise Cannot(
            f"a Python for {machine} is missing: dpkg --add-architecture {arch}, apt-get update, and in an empty directory "
            f"apt-get download {names}; then give the directory with --python"
        )
    for path in sorted(Path(guestmem.__file__).parent.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            inside = path.relative_to(Path(guestmem.__file__).parent)
            yield Entry(f"{LIBRARY}/guestmem/{inside}", path.read_bytes(), mtime=int(path.stat().st_mtime))
    yield Entry("init", INIT.format(library=LIBRARY).encode(), 0o755)
    yield Entry("usr/bin/guestmem", GUESTMEM.format(library=LIBRARY).encode(), 0o755)
    for path in added:
        try:
            yield Entry(f"{WORK[1:]}/{path.name}", path.read_bytes(), path.stat().st_mode & 0o777)
        except OSError as error:
            raise Cannot(f"{path}: cannot be read: {error.strerror}: --add takes files") from error


def _own_python() -> Iterator[Entry]:
    """This Python: the program, its library, and the shared objects that these need."""
    executable = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    library = Path(sysconfig.get_path("stdlib"))
    objects = {executable, *library.rglob("lib-dynload/*.so")}
    yield from _file(executable)
    yield Entry("usr/bin/python3", str(executable).encode(), LINK)
    for path in sorted(library.rglob("*")):
        if path.is_file() and not UNUSED & set(path.relative_to(library).parts):
            yield from _file(path)
    for path in sorted(_needed(objects)):
        yield from _file(path)


def _file(path: Path) -> Iterator[Entry]:
    """A file where it is, with the links on the way to it resolved."""
    status = path.stat()
    yield Entry(str(path).lstrip("/"), path.read_bytes(), status.st_mode & 0o777, int(status.st_mtime))


def _needed(objects: Iterable[Path]) -> set[Path]:
    """The shared objects that some need, as ldd finds them."""
    argv = ["ldd", *map(str, objects)]
    try:
        said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise Cannot(f"ldd: {error.strerror}: install it (libc-bin), or give a Python with --python") from error
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", said)}


def _packaged(machine: str, directory: Path) -> Iterator[Entry]:
    """Python as packages of Debian, or a root file system, has it."""
    packages = sorted(directory.glob("*.deb"))
    found: list[Entry] = []
    for package in packages:
        found += deb.files(package, lambda name: not name.startswith(("usr/share/", "etc/")))
    if not packages:
        for path in sorted(directory.rglob("*")):
            name = str(path.relative_to(directory))
            if path.is_symlink():
                found.append(Entry(name, str(path.readlink()).encode(), LINK))
            elif path.is_file():
                found.append(Entry(name, path.read_bytes(), path.stat().st_mode & 0o777, int(path.stat().st_mtime)))
    pythons = sorted(entry.name for entry in found if re.fullmatch(r"(usr/)?bin/python3(\.\d+)?", entry.name))
    if not pythons:
        raise Cannot(f"{directory}: no Python in it: give packages of Debian ({' '.join(PACKAGES)}) for {DEBIAN[machine]}")
    yield from found
    if "usr/bin/python3" not in pythons:
        yield Entry("usr/bin/python3", f"/{pythons[-1]}".encode(), LINK)
