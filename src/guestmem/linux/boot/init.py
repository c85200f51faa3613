# SPDX-License-Identifier: Apache-2.0
"""The first process of the guest: it mounts, loads modules, runs the command, says how that ended, and powers off."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from guestmem.linux import calls

__all__ = ["COMMAND", "MODULES", "PORTS", "SCRATCH", "main"]

COMMAND, MODULES, SCRATCH, WORK = "/command.json", "/modules", "/scratch", "/work"
PORTS = ("guestmem.out", "guestmem.err", "guestmem.status", "guestmem.files")
"""Names of the virtio ports: what the command writes to its two streams, its status, a tar archive of files it leaves."""

POWER_OFF = 0x4321FEDC  # include/uapi/linux/reboot.h, LINUX_REBOOT_CMD_POWER_OFF
CGROUPS = "/sys/fs/cgroup"
MOUNTS = (
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("tmpfs", "/run", "tmpfs"),
    ("devpts", "/dev/pts", "devpts"),
    ("tmpfs", "/dev/shm", "tmpfs"),
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
    ("cgroup2", CGROUPS, "cgroup2"),
)


def main() -> None:
    """Be process 1."""
    try:
        for source, target, kind in MOUNTS:
            mount(source, target, kind)
        os.makedirs(WORK, exist_ok=True)
        with contextlib.suppress(OSError):  # a kernel without memory cgroups
            Path(CGROUPS, "cgroup.subtree_control").write_text("+memory")
        notes = list(load_modules())
        out, err, status, files = (port(name) for name in PORTS)
        for note in notes:
            os.write(err, f"guestmem boot: {note}\n".encode())
        disk = mount("/dev/vda", SCRATCH, "ext4")
        if disk:
            os.write(err, f"guestmem boot: the scratch disk: {disk}\n".encode())
        before = set(os.listdir(WORK))
        code = run(out, err)
        with os.fdopen(files, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
            for name in sorted(set(os.listdir(WORK)) - before):
                archive.add(f"{WORK}/{name}", name)
        os.write(status, str(code).encode())
    except BaseException as error:
        print(f"guestmem boot: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os.sync()
    calls.libc("reboot", how=POWER_OFF)


def mount(source: str, target: str, kind: str) -> str:
    """Mount a file system; why it cannot be, or nothing."""
    os.makedirs(target, exist_ok=True)
    try:
        calls.libc("mount", source=source.encode(), target=target.encode(), kind=kind.encode(), flags=0, data=None)
    except calls.CallError as error:
        return error.strerror or str(error)
    return ""


def load_modules() -> list[str]:
    """Load the modules, with the parameters that the kernel's command line has for them; what failed."""
    failed = []
    line = Path("/proc/cmdline").read_text().split()
    for path in sorted(Path(MODULES).glob("*.ko")):
        name = path.stem.partition("-")[2]
        given = (word.partition(".") for word in line)
        parameters = " ".join(rest for prefix, _, rest in given if prefix.replace("-", "_") == name and rest)
        try:
            with path.open("rb") as module:
                calls.syscall("finit_module", fd=module.fileno(), parameters=parameters.encode(), flags=0)
        except calls.CallError as error:
            # The modules of processors that this is not say so.
            if error.errno not in (errno.EOPNOTSUPP, errno.ENODEV):
                failed.append(f"module {name}: {error.strerror}")
    return failed


def port(name: str) -> int:
    """A descriptor of a virtio port by its name."""
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").read_text().strip() == name:
            return os.open(f"/dev/{port.name}", os.O_WRONLY)
    raise FileNotFoundError(f"there is no port {name}")


def run(out: int, err: int) -> int:
    """Run the command; its status, 128 and more for a signal, as a shell has it."""
    command = json.loads(Path(COMMAND).read_text())
    directory = SCRATCH if os.path.ismount(SCRATCH) else "/tmp"
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "TMPDIR": directory,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=WORK,
            env=environment,
            check=False,
        )
    except OSError as error:
        has = "the guest has python3, guestmem and what --add names"
        os.write(err, f"guestmem boot: {command[0]}: {error.strerror}: {has}\n".encode())
        return 127
    return done.returncode if done.returncode >= 0 else 128 - done.returncode
