# SPDX-License-Identifier: Apache-2.0
"""What a test needs of the machine: skipped with the reason where it is missing, failed where it was promised.

``GUESTMEM_REQUIRE=kvm,tracefs`` promises: what is named there and missing fails the test instead of skipping it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

KVM_GET_API_VERSION = 0xAE00

__all__ = ["missing", "require"]


def _kvm() -> str | None:
    try:
        with open("/dev/kvm", "r+b", buffering=0) as kvm:
            fcntl.ioctl(kvm, KVM_GET_API_VERSION)
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    return None


def _tracefs() -> str | None:
    if os.geteuid() != 0:
        return "tracefs: not root"
    with open("/proc/filesystems", encoding="ascii") as lines:
        return None if any(line.split()[-1] == "tracefs" for line in lines) else "tracefs: the kernel has none"


def _nobody() -> str | None:
    """Another user who can run what is tested: a checkout below a private directory is none of his business."""
    if os.geteuid() != 0:
        return "nobody: not root"
    argv = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-c", "import guestmem.cli.main"]
    done = subprocess.run(argv, capture_output=True, cwd="/", check=False)
    return None if done.returncode == 0 else "nobody: the checkout is not readable by others"


def _qemu() -> str | None:
    return None if shutil.which("qemu-system-x86_64") else "qemu-system-x86_64: not installed"


def _hatchling() -> str | None:
    return None if importlib.util.find_spec("hatchling") else "hatchling: not installed (pip install '.[test]')"


def _gcc() -> str | None:
    return None if shutil.which("gcc") else "gcc: not installed"


def _headers() -> str | None:
    return None if os.path.exists("/usr/include/linux/kvm.h") else "/usr/include/linux/kvm.h: not installed (linux-libc-dev)"


def _kernel() -> str | None:
    return None if os.environ.get("GUESTMEM_KERNEL") else "a kernel to boot: GUESTMEM_KERNEL names none"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "not root"


NEEDS: dict[str, Callable[[], str | None]] = {
    "gcc": _gcc,
    "hatchling": _hatchling,
    "headers": _headers,
    "kernel": _kernel,
    "kvm": _kvm,
    "nobody": _nobody,
    "qemu": _qemu,
    "root": _root,
    "tracefs": _tracefs,
}


def missing(*needs: str) -> str | None:
    """The first of the needs that this machine does not meet, with the reason; None if it meets all."""
    return next((why for need in needs if (why := NEEDS[need]()) is not None), None)


def require(*needs: str) -> None:
    """Skip the test unless the machine has all of "kvm", "tracefs", ...; fail it where GUESTMEM_REQUIRE names the need."""
    promised = os.environ.get("GUESTMEM_REQUIRE", "").split(",")
    for need in needs:
        why = NEEDS[need]()
        if why is None:
            continue
        if need in promised:
            pytest.fail(f"{why}, and GUESTMEM_REQUIRE names {need}", pytrace=False)
        pytest.skip(f"{why} (GUESTMEM_REQUIRE={need} makes this a failure)")
