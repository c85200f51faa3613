# SPDX-License-Identifier: Apache-2.0
"""A kernel as a package, a directory or an image has it: what QEMU starts, and the modules that the guest needs."""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from guestmem.linux.boot import deb
from guestmem.linux.boot.errors import Cannot

__all__ = ["Kernel", "Module", "find"]

WANTED = (
    *("virtio_pci", "virtio_console", "virtio_blk"),
    # ext4 asks for the checksum by its name in the crypto API, and nobody in the guest answers such requests.
    *("crc32c_generic", "ext4"),
    *("kvm", "kvm_amd", "kvm_intel"),
)
"""The modules that the guest loads, where the kernel does not have them built in."""


class Module(NamedTuple):
    """A module: its name with underscores, the ELF file, the names of those that are loaded before it."""

    name: str
    data: bytes
    needs: tuple[str, ...]


class Kernel(NamedTuple):
    """A kernel.

    Attributes:
        machine: "x86_64" or "aarch64".
        release: as uname -r has it, as far as the image tells.
        image: what QEMU's -kernel takes.
        modules: in the order in which they are loaded.
    """

    machine: str
    release: str
    image: bytes
    modules: tuple[Module, ...]


def find(kernel: Path, replaced: Iterable[Path] = ()) -> Kernel:
    """The kernel of a .deb, of an unpacked package, or of an image beside its modules.

    ``replaced``: .ko files that take the place of the kernel's modules of their names.  Raises :class:`Cannot`.
    """
    images: dict[str, bytes] = {}
    modules: dict[str, Callable[[], Module]] = {}
    for name, read in _files(kernel):
        base = name.rpartition("/")[2]
        if base.startswith(("vmlinuz", "Image")):
            images[name] = read()
        elif ".ko" in base:
            # A kernel has thousands of modules: those that nobody asks for stay packed.
            modules[_name(base)] = functools.partial(_module, base, read)
    if not images:
        raise Cannot(_no_image(kernel))
    if len(images) > 1:
        raise Cannot(f"{kernel}: {len(images)} kernels ({', '.join(sorted(images))}): give one of them")
    for path in replaced:
        modules[_name(path.name)] = functools.partial(_module, path.name, functools.partial(_read, path))
    (image,) = images.values()
    image = _unzipped(kernel, image)
    machine, release = _identified(kernel, image)
    return Kernel(machine, release, image, tuple(_ordered(modules)))


def _files(kernel: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Everything that may be an image or a module: its name, and how to read it."""
    if kernel.is_dir():
        for path in (path for pattern in ("vmlinuz*", "*.ko*", "*.deb") for path in kernel.rglob(pattern)):
            if path.suffix == ".deb":
                yield from _packed(path)
            elif path.is_file():
                yield str(path), functools.partial(_read, path)
    elif kernel.suffix == ".deb":
        for package in _siblings(kernel):
            yield from _packed(package)
    else:
        yield "vmlinuz", functools.partial(_read, kernel)
        _, release = _identified(kernel, _unzipped(kernel, _read(kernel)))
        for path in Path("/lib/modules", release or "-").rglob("*.ko*"):
            yield str(path), functools.partial(_read, path)


def _packed(package: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The same of a package, which is read from its beginning to its end."""
    for entry in deb.files(package, _of_kernel):
        yield entry.name, functools.partial(bytes, entry.data)


def _of_kernel(name: str) -> bool:
    return name.rpartition("/")[2].startswith("vmlinuz") or ".ko" in name


def _siblings(package: Path) -> list[Path]:
    """A package of a kernel, and those beside it that have the rest: since 7.2 Debian has image and modules in two."""
    kind, version = re.match(r"(linux-(?:image|binary|modules)-)?(.*)", package.name).groups()  # type: ignore[union-attr]
    names = (f"linux-{other}-{version}" for other in ("image", "binary", "modules")) if kind else (package.name,)
    return [path for name in names if (path := package.with_name(name)).is_file()] or [package]


def _no_image(kernel: Path) -> str:
    if kernel.suffix == ".deb" and (found := re.match(r"linux-(?:image|modules)-([^_]+)", kernel.name)):
        wanted = f"linux-binary-{found[1]} linux-modules-{found[1]}"
        return f"{kernel}: no kernel in it: put its other packages beside it: apt-get download {wanted}"
    return f"{kernel}: no kernel in it: give an image (vmlinuz), a package of one (.deb), or a directory with either"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Cannot(f"{path}: cannot be read: {error.strerror}") from error


def _unzipped(path: Path, image: bytes) -> bytes:
    """The image inside an EFI zboot image (include/linux/pe.h), which old versions of QEMU do not know."""
    if image[:2] != b"MZ" or image[4:8] != b"zimg":
        return image
    start, size = struct.unpack_from("<II", image, 8)
    packing = image[24:56].partition(b"\0")[0].decode("ascii", "replace")
    if packing != "gzip":
        raise Cannot(f"{path}: a kernel packed with {packing} for EFI: give its Image")
    return gzip.decompress(image[start : start + size])


def _identified(path: Path, image: bytes) -> tuple[str, str]:
    """The machine an image is for, and its release, if it tells."""
    if image[0x202:0x206] == b"HdrS":  # Documentation/arch/x86/boot.rst
        at = struct.unpack_from("<H", image, 0x20E)[0] + 0x200
        return "x86_64", image[at : at + 128].partition(b" ")[0].decode("ascii", "replace")
    if image[0x38:0x3C] == b"ARM\x64":  # Documentation/arch/arm64/booting.rst
        found = re.search(rb"Linux version (\S+) ", image)
        return "aarch64", found[1].decode("ascii", "replace") if found else ""
    if image[:4] == b"\x7fELF":
        raise Cannot(f"{path}: an ELF file: give arch/x86/boot/bzImage or arch/arm64/boot/Image")
    raise Cannot(f"{path}: no kernel for x86-64 or arm64: give a bzImage, an Image, or a package of one (.deb)")


def _name(base: str) -> str:
    return base.partition(".ko")[0].replace("-", "_")


def _module(base: str, read: Callable[[], bytes]) -> Module:
    """A module, unpacked.  What it needs is in its section .modinfo: strings "NAME=VALUE", each ended by a zero byte."""
    data = read()
    if base.endswith(".xz"):
        data = lzma.decompress(data)
    elif base.endswith(".gz"):
        data = gzip.decompress(data)
    elif base.endswith(".bz2"):
        data = bz2.decompress(data)
    elif base.endswith(".zst"):
        raise Cannot(f"{base}: packed with zstd: unpack the modules first (unzstd)")
    found = re.search(rb"\0depends=([^\0]*)\0", data)
    needs = tuple(name.replace("-", "_") for name in found[1].decode("ascii", "replace").split(",") if name) if found else ()
    return Module(_name(base), data, needs)


def _ordered(modules: dict[str, Callable[[], Module]]) -> Iterator[Module]:
    """The wanted modules and what they need, each after what it needs."""
    done: set[str] = set()

    def with_needs(name: str) -> Iterator[Module]:
        if name in done or name not in modules:
            return
        done.add(name)
        module = modules[name]()
        for need in module.needs:
            yield from with_needs(need)
        yield module

    for name in WANTED:
        yield from with_needs(name)
