# SPDX-License-Identifier: Apache-2.0
"""The engine without a translated world: each file compiles alone, and together they explore the world that stands in."""

import ctypes
import os
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from guestmem.checker.engine.bindings import COMPLETE, Summary
from guestmem.checker.engine.compile import NoCompiler, compiler

ENGINE = Path(str(resources.files("guestmem.checker.engine")))
FLAGS = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]


def compiled(*arguments: str) -> None:
    """Compile without a warning."""
    try:
        command = compiler()
    except NoCompiler as error:
        pytest.skip(str(error))
    done = subprocess.run([*command, *FLAGS, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("file", [file.name for file in sorted(ENGINE.glob("*.c"))])
def test_each_file_compiles_alone(file: str, words: int) -> None:
    compiled(f"-DWORDS={words}", "-c", "-o", os.devnull, str(ENGINE / file))


@pytest.mark.parametrize("words", [1, 2])
def test_it_explores_the_world_that_stands_in(tmp_path: Path, words: int) -> None:
    whole = tmp_path / "whole.c"
    whole.write_text("".join(f'#include "{ENGINE / name}"\n' for name in ("replay.c", "search.c", "waits.c")))
    compiled(f"-DWORDS={words}", "-shared", "-fPIC", "-o", str(tmp_path / "whole.so"), str(whole))
    library = ctypes.CDLL(str(tmp_path / "whole.so"))
    library.search_new.restype = ctypes.c_void_p
    library.search_new.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int]
    search = ctypes.c_void_p(library.search_new((ctypes.c_uint64 * words)(), 1000, 1 << 24, 1))
    assert library.search_run(search, ctypes.c_uint64(1000)) == COMPLETE
    assert library.search_waits(search) == COMPLETE
    summary = Summary()
    library.search_summary(search, ctypes.byref(summary))
    assert (summary.count, summary.transitions, summary.depth) == (4, 9, 3)
    library.search_free(search)
