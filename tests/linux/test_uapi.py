# SPDX-License-Identifier: Apache-2.0
"""The generated constants and structures are those of the headers they cite, and of this machine's as far as it has them."""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestmem.linux import uapi
from requires import require

TOOL = Path(__file__).parents[2] / "tools" / "generate_uapi.py"
_spec = importlib.util.spec_from_file_location("generate_uapi", TOOL)
assert _spec is not None and _spec.loader is not None
generator = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generator)


def constants() -> Iterator[str]:
    """C that does not compile where a constant differs; one that a header does not have is left out."""
    for names in generator.CONSTANTS.values():
        for name in names.split():
            value = getattr(uapi, name.removeprefix("__"))
            yield f'#ifdef {name}\n_Static_assert((unsigned long long)({name}) == {value}ULL, "{name}");\n#endif'


def structures() -> Iterator[str]:
    """C that does not compile where a structure differs."""
    for struct, text in generator.STRUCTS.items():
        kind = getattr(uapi, struct)
        yield f'_Static_assert(sizeof(struct {struct}) == {ctypes.sizeof(kind)}, "{struct}");'
        for name, _, _ in generator.fields(text):
            field = getattr(kind, name)
            yield f'_Static_assert(__builtin_offsetof(struct {struct}, {name}) == {field.offset}, "{struct}.{name}");'
            yield f'_Static_assert(sizeof(((struct {struct} *)0)->{name}) == {field.size}, "{struct}.{name}");'
    for name, (offset, size) in uapi.KVM_RUN_LAYOUT.items():
        yield f'_Static_assert(__builtin_offsetof(struct kvm_run, {name}) == {offset}, "kvm_run.{name}");'
        yield f'_Static_assert(sizeof(((struct kvm_run *)0)->{name}) == {size}, "kvm_run.{name}");'


def compiles(compiler: list[str], place: Path, *checks: str) -> None:
    source = place / "uapi.c"
    source.write_text("\n".join([*(f"#include <{header}>" for header in generator.HEADERS), *checks, ""]))
    run = subprocess.run([*compiler, "-c", "-o", str(place / "uapi.o"), str(source)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_they_are_those_of_the_headers_they_are_generated_from(tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no ziglang: pip install 'guestmem[cc]'")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl"]
    compiles(compiler, tmp_path, *constants(), *structures())


def test_they_are_those_of_this_machines_headers(tmp_path: Path) -> None:
    require("headers")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    compiles(["gcc"], tmp_path, *constants())


def test_the_file_is_as_it_was_generated() -> None:
    """What the generator writes from the file's own values is the file."""
    text = Path(uapi.__file__).read_text()
    major, minor = text.split("headers of Linux ")[1].split(": ")[0].split(".")
    found = {"version linux": int(major) << 16 | int(minor) << 8}
    for names in generator.CONSTANTS.values():
        found.update({f"constant {name}": getattr(uapi, name.removeprefix("__")) for name in names.split()})
    for struct, fields in generator.STRUCTS.items():
        kind = getattr(uapi, struct)
        found[f"sizeof {struct}"] = ctypes.sizeof(kind)
        found.update({f"size {struct}.{name}": getattr(kind, name).size for name, _, _ in generator.fields(fields)})
    for name, (offset, size) in uapi.KVM_RUN_LAYOUT.items():
        found[f"offset kvm_run.{name}"], found[f"size kvm_run.{name}"] = offset, size
    assert "\n".join(generator.generate(found)) + "\n" == text
