# SPDX-License-Identifier: Apache-2.0
"""QEMU: a machine for a kernel, what the command in it writes, and how it ended."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import selectors
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from guestmem.linux.boot import initramfs, userland
from guestmem.linux.boot.errors import Cannot
from guestmem.linux.boot.init import COMMAND, MODULES, PORTS
from guestmem.linux.boot.initramfs import Entry
from guestmem.linux.boot.package import Kernel

__all__ = ["Ended", "Machine", "boot"]

DISK = 64 << 20
LAST_WORDS = 12  # lines of the console that an error shows
WRONG = re.compile(r"BUG:|Oops|Kernel panic|Unable to handle|Internal error|unhandled|general protection")

# By uname -m: the program, its package in Debian, options of the machine, and the console's name in Linux.
SYSTEMS = {
    "x86_64": ("qemu-system-x86_64", "qemu-system-x86", ["-machine", "q35"], "ttyS0"),
    "aarch64": ("qemu-system-aarch64", "qemu-system-arm", ["-machine", "virt,virtualization=on,gic-version=3"], "ttyAMA0"),
}
# With emulation: every feature, but the slow pointer authentication of arm64.
EMULATED = {"x86_64": "max", "aarch64": "max,pauth-impdef=on"}


class Machine(NamedTuple):
    """What the guest is like: bytes of memory, CPUs, QEMU's accelerator and CPU model or None, words for the kernel."""

    memory: int = 2 << 30
    cpus: int = 2
    accel: str | None = None
    cpu: str | None = None
    append: str = ""
    seconds: float = 1800.0


class Ended(NamedTuple):
    """How it ended: the command's status, or None and why there is none, with the last lines of the console."""

    status: int | None
    why: str = ""
    console: tuple[str, ...] = ()


def nested() -> bool:
    """Whether a guest of this machine's KVM can have guests of its own."""
    parameters = Path("/sys/module").glob("kvm_*/parameters/nested")
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and any(path.read_text().strip() in "Y1" for path in parameters)


def accelerator(machine: str, wanted: str | None) -> str:
    """kvm where its guests can have guests, tcg elsewhere, unless one is wanted.  Raises :class:`Cannot`."""
    if wanted == "kvm" and machine != platform.machine():
        raise Cannot(f"--accel kvm: this is {platform.machine()}, and the kernel is for {machine}: use --accel tcg")
    if wanted == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Cannot("--accel kvm: /dev/kvm cannot be opened: use --accel tcg, or give this user access to it")
    if wanted == "kvm" and not nested():
        print("guestmem: guests of this KVM have none: modprobe kvm_intel nested=1 (or kvm_amd), or --accel tcg", file=sys.stderr)
    if wanted is None:
        return "kvm" if machine == platform.machine() and nested() else "tcg"
    return wanted


def arguments(kernel: Kernel, machine: Machine, place: Path, ports: Sequence[int]) -> list[str]:
    """The command line of QEMU; ``ports`` are descriptors for the virtio ports.  Raises :class:`Cannot`."""
    program, package, options, console = SYSTEMS[kernel.machine]
    if shutil.which(program) is None:
        raise Cannot(f"{program} is missing: apt-get install {package}")
    accel = accelerator(kernel.machine, machine.accel)
    cpu = machine.cpu or ("host" if accel == "kvm" else EMULATED[kernel.machine])
    # QEMU 7.2 runs x86 guests wrong with a thread for each CPU.
    accel = "tcg,thread=single" if accel == "tcg" else accel
    append = f"console={console} panic=-1 loglevel=4 {machine.append}".rstrip()
    argv = [program, *options, "-accel", accel, "-cpu", cpu, "-smp", str(machine.cpus), "-m", f"{machine.memory >> 20}M"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{place / 'console'}"]
    argv += ["-kernel", str(place / "kernel"), "-initrd", str(place / "initramfs"), "-append", append]
    argv += ["-drive", f"file={place / 'disk'},format=raw,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"]
    argv += ["-device", "virtio-serial-pci"]
    for number, (fd, name) in enumerate(zip(ports, PORTS, strict=True)):
        argv += ["-add-fd", f"fd={fd},set={number}", "-chardev", f"file,id=port{number},path=/dev/fdset/{number},append=on"]
        argv += ["-device", f"virtserialport,chardev=port{number},name={name}"]
    return argv


def prepare(kernel: Kernel, command: Sequence[str], place: Path, python: Path | None, added: Sequence[Path]) -> None:
    """Write the image, the initramfs and the scratch disk.  Raises :class:`Cannot`."""
    (place / "kernel").write_bytes(kernel.image)
    modules = [Entry(f"{MODULES}/{n:02}-{module.name}.ko"[1:], module.data) for n, module in enumerate(kernel.modules)]
    with (place / "initramfs").open("wb") as stream:
        told = Entry(COMMAND[1:], json.dumps(list(command)).encode())
        initramfs.write([*userland.entries(kernel.machine, python, added), *modules, told], stream)
    with (place / "disk").open("wb") as disk:
        disk.truncate(DISK)
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    mke2fs = shutil.which("mke2fs", path=path)
    if mke2fs is None:
        raise Cannot("mke2fs is missing: apt-get install e2fsprogs")
    done = subprocess.run([mke2fs, "-q", "-t", "ext4", str(place / "disk")], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Cannot(f"mke2fs failed: {done.stderr.strip()}")


def boot(
    kernel: Kernel,
    command: Sequence[str],
    machine: Machine,
    python: Path | None = None,
    added: Sequence[Path] = (),
    save: Path | None = None,
) -> Ended:
    """Boot a kernel, run a command in it and write what it writes.

    ``added``: files for the command's directory; ``save``: where those go that it leaves there.  Raises :class:`Cannot`.
    """
    with tempfile.TemporaryDirectory(prefix="guestmem-boot-") as directory:
        place = Path(directory)
        prepare(kernel, command, place, python, added)
        with contextlib.ExitStack() as stack:
            pairs = [os.pipe() for _ in PORTS]
            ours = [stack.enter_context(os.fdopen(reading, "rb", 0)) for reading, _ in pairs]
            theirs = [writing for _, writing in pairs]
            try:
                argv = arguments(kernel, machine, place, theirs)
                qemu = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=theirs
                )
            finally:
                for fd in theirs:
                    os.close(fd)
            said, left = bytearray(), bytearray()
            try:
                sinks = (_written(sys.stdout.buffer), _written(sys.stderr.buffer), said.extend, left.extend)
                in_time = _copied(dict(zip(ours, sinks, strict=True)), time.monotonic() + machine.seconds)
            finally:
                if qemu.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        qemu.wait(5)
                    qemu.kill()
            assert qemu.stderr is not None
            complaint = qemu.stderr.read().decode(errors="replace").strip()
            qemu.wait()
        console = _last_words(place / "console")
        if save is not None and left:
            with tarfile.open(fileobj=io.BytesIO(left)) as archive:
                archive.extractall(save, filter="data")
        if said:
            return Ended(int(said))
        if not in_time:
            return Ended(None, f"no end within {machine.seconds:g} s: give more with --timeout", console)
        if complaint and qemu.returncode:
            return Ended(None, f"QEMU: {complaint.splitlines()[-1]}", console)
        return Ended(None, "the kernel went down before the command ended", console)


def _written(stream: BinaryIO) -> Callable[[bytes], object]:
    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write


def _copied(sinks: dict[BinaryIO, Callable[[bytes], object]], end: float) -> bool:
    """Copy until all streams end; whether that was in time."""
    with selectors.DefaultSelector() as selector:
        for stream, sink in sinks.items():
            selector.register(stream, selectors.EVENT_READ, sink)
        while selector.get_map():
            if time.monotonic() > end:
                return False
            for key, _ in selector.select(1):
                data = os.read(key.fd, 1 << 16)
                if data:
                    key.data(data)
                else:
                    selector.unregister(key.fd)
    return True


def _last_words(path: Path) -> tuple[str, ...]:
    """Of the console: where the kernel says what was wrong, or else its end."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ()
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    wrong = next((number for number, line in enumerate(lines) if WRONG.search(line)), len(lines) - LAST_WORDS)
    return tuple(lines[max(wrong, 0) :][:LAST_WORDS])
