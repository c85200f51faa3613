# SPDX-License-Identifier: Apache-2.0
"""Compiling generated C: any compiler will do, and what was compiled once is kept.

Shared objects are kept by content under the user's cache directory (``XDG_CACHE_HOME``, else ``~/.cache``).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SHARED = ("-shared", "-fPIC", "-fwrapv", "-w")
FLAGS = ("-O2", "-march=native", *SHARED)
QUICK = ("-O1", *SHARED)  # quick to compile, for what takes a few steps


class NoCompiler(Exception):
    """No C compiler was found, or the one found does not work."""


def cache_directory() -> Path:
    """Where shared objects are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "guestmem"


def compiler() -> list[str]:
    """The command of the C compiler: $CC, cc, gcc, clang, or the PyPI package ziglang."""
    named = os.environ.get("CC")
    for name in [named] if named else ["cc", "gcc", "clang"]:
        path = shutil.which(name)
        if path:
            return [path]
    if named:
        raise NoCompiler(f"the C compiler {named!r} named by CC is not found: unset CC, or name one that exists")
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise NoCompiler("no C compiler: install gcc or clang, or pip install 'guestmem[cc]'")


def cpu() -> str:
    """What -march=native depends on: a cache may be shared by machines that differ in it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def build(command: list[str], source: str, target: Path) -> None:
    """Compile a C text; ``target`` is written whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        text, built = Path(scratch, "model.c"), Path(scratch, "model.so")
        text.write_text(source)
        done = subprocess.run([*command, "-o", str(built), str(text)], capture_output=True, text=True)
        if done.returncode:
            kept = target.with_suffix(".c")
            shutil.copy(text, kept)
            first = (done.stderr.strip().splitlines() or ["it says nothing"])[0]
            raise NoCompiler(f"{command[0]} cannot compile {kept}: {first}")
        built.replace(target)


def load(source: str, flags: Sequence[str] = FLAGS) -> ctypes.CDLL:
    """The compiled form of a C text, compiled now if it never was."""
    command = [*compiler(), *flags]
    stamp = os.stat(shutil.which(command[0]) or command[0])
    identity = [*command, str(stamp.st_size), str(stamp.st_mtime_ns), cpu()]
    key = hashlib.sha256("\0".join([*identity, source]).encode()).hexdigest()[:32]
    directory = cache_directory()
    target = directory / f"{key}.so"
    try:
        if not target.exists():
            directory.mkdir(parents=True, exist_ok=True)
            build(command, source, target)
    except OSError as error:
        raise NoCompiler(f"{error.filename}: {error.strerror}: set XDG_CACHE_HOME to where there is room") from error
    return ctypes.CDLL(str(target))
