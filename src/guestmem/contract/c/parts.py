# SPDX-License-Identifier: Apache-2.0
"""The C code that reports are made of, of which a report has what its program uses.

A part is a paragraph of the files beside this one: it begins in the first column after an empty line.  Numbers and
structures of the kernel's interface, and what the guest is made of, are taken from where Python has them.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from guestmem.contract.kernel import mappings, pins, rings
from guestmem.linux import calls, guest, kvm, uapi, userfaultfd

__all__ = ["assembled", "defined"]

X86, OTHER = "#ifdef __x86_64__", "#ifndef __x86_64__"
FILES = {
    "base.c": "",
    "mappings.c": "",
    "vms.c": "",
    "users.c": "",
    "guest.c": X86,
    "no_guest.c": OTHER,
    "files.c": "",
}
"""In the order in which they need each other, with the condition under which they are compiled."""

COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', re.S)
WORD = re.compile(r"\b[A-Za-z_]\w*")
CTYPES = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}


class Part(NamedTuple):
    """Some C code: the names that it defines, those that it uses, and when it is compiled."""

    text: str
    defines: frozenset[str]
    uses: frozenset[str]
    condition: str


def part(text: str, condition: str = "") -> Part:
    """A paragraph."""
    code = COMMENT_OR_STRING.sub(" ", text)
    return Part(text, frozenset(_defines(code)), frozenset(WORD.findall(code)), condition)


def _defines(code: str) -> Iterator[str]:
    if found := re.match(r"\s*(?:#define (?=\w)|struct (?=\w+ \{))(\w+)", code):
        yield found[1]
    elif found := re.match(r"\s*enum\s*(\w*) {(.*?)}", code, re.S):
        yield from (found[1], *WORD.findall(found[2]))
    elif found := re.search(r"(\w+)(?:\(|\[|;| =)", code):
        yield found[1]


@functools.cache
def parts() -> tuple[Part, ...]:
    """All of them."""
    return tuple(
        part(text.strip("\n"), condition)
        for name, condition in FILES.items()
        for text in re.split(r"\n\n(?=\S)", Path(__file__).with_name(name).read_text(encoding="ascii"))
    )


@functools.cache
def defined() -> frozenset[str]:
    """The names that there are."""
    return frozenset(name for one in parts() for name in one.defines)


@functools.cache
def numbers() -> dict[str, str]:
    """Numbers by the names that C has for them."""
    kvms = {**vars(uapi), **vars(kvm)}
    found: dict[str, str | int] = {n: value for n, value in kvms.items() if n.startswith("KVM_") and isinstance(value, int)}
    found |= {f"NR_{name}": number for name, number in calls.EVERYWHERE.items()}
    found |= {
        name: getattr(module, name)
        for module, names in (
            (mappings, ("CAP_IPC_LOCK",)),
            (userfaultfd, ("UFFD_API", "UFFD_USER_MODE_ONLY", "UFFDIO_API", "UFFDIO_REGISTER")),
            (pins, ("FUTEX_WAKE",)),
            (rings, ("IORING_REGISTER_BUFFERS", "IORING_UNREGISTER_BUFFERS")),
        )
        for name in names
    }
    words = "SYSTEM_SLOT", "SYSTEM_GPA", "SYSTEM_SIZE", "LOW", "LOWS", "PROGRAM", "DOORBELL", "PML4", "CR0"
    found |= {f"GUEST_{name}": getattr(guest, name) for name in (*words, "STORE_AT", "LOAD_AT")}
    found |= {"GUEST_CR4": guest.CR4_PAE, "GUEST_EFER": guest.EFER_LMA_LME, "GUEST_RFLAGS": 2 | guest.IOPL_3}
    for name, (offset, size) in uapi.KVM_RUN_LAYOUT.items():
        found[f"RUN_{name.replace('.', '_').upper()}"] = f"{offset}, {size}"
    return {name: value if isinstance(value, str) else f"{value:#x}UL" for name, value in found.items()}


def generated(name: str) -> Part | None:
    """A number, a structure or the guest's code by its name."""
    if (value := numbers().get(name)) is not None:
        return part(f"#define {name} {value}")
    structure = getattr(uapi, name, None) or getattr(kvm, name, None)
    if isinstance(structure, type) and issubclass(structure, ctypes.Structure):
        return part(f"struct {name} {{\n" + "".join(f"\t{line};\n" for line in _fields(structure)) + "};")
    return part(f"static const {text};") if (text := _of_guest(name)) is not None else None


def _of_guest(name: str) -> str | None:
    """What the guest in Python is made of: its code, its segments and its page tables."""
    code = {"guest_store_code": guest.STORE, "guest_load_code": guest.LOAD}.get(name)
    if code is not None:
        return f"unsigned char {name}[] = {{ {', '.join(f'0x{byte:02x}' for byte in code)} }}"
    segment = {"guest_code_segment": guest.CODE_SEGMENT, "guest_data_segment": guest.DATA_SEGMENT}.get(name)
    if segment is not None:
        fields = ((field, getattr(segment, field)) for field, *_ in segment._fields_)
        return f"struct kvm_segment {name} = {{ {', '.join(f'.{field} = {value:#x}' for field, value in fields if value)} }}"
    if name == "guest_tables":
        rows = [
            f"\t{{ {page}, {', '.join(map(hex, run))} }}," for page, entries in guest.TABLES.items() for run in _runs(entries)
        ]
        return "\n".join(["uint64_t guest_tables[][5] = {	/* page, entry, how many, the first, the step */", *rows, "}"])
    return None


def _runs(numbers: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """Numbers as runs with equal steps: where it starts, how many, the first, the step."""
    at = 0
    while at < len(numbers):
        step = numbers[at + 1] - numbers[at] if at + 1 < len(numbers) else 0
        count = 1
        while at + count < len(numbers) and numbers[at + count] - numbers[at + count - 1] == step:
            count += 1
        yield at, count, numbers[at], step
        at += count


def _fields(structure: type[ctypes.Structure]) -> Iterator[str]:
    for name, kind, *_ in structure._fields_:
        of: Any = kind
        if issubclass(of, ctypes.Structure):
            yield f"struct {of.__name__} {name}"
        elif issubclass(of, ctypes.Array):
            yield f"{CTYPES[ctypes.sizeof(of._type_)]} {name}[{of._length_}]"
        else:
            unsigned = CTYPES[ctypes.sizeof(of)]
            yield f"{unsigned if of(-1).value > 0 else unsigned.removeprefix('u')} {name}"


def needed(body: str, condition: str) -> tuple[set[Part], set[Part]]:
    """What some code needs under a condition, and what that needs: parts, and what is generated."""
    chosen: set[Part] = set()
    made: set[Part] = set()
    waiting = set(part(body).uses)
    known: set[str] = set()
    while waiting:
        name = waiting.pop()
        known.add(name)
        found = [one for one in parts() if name in one.defines and one.condition in ("", condition)]
        chosen.update(found)
        if not found and (one := generated(name)) is not None:
            found = [one]
            made.add(one)
        waiting |= {word for one in found for word in one.uses} - known
    return chosen, made


def assembled(body: str) -> str:
    """A C file that has some code at its end, and before it what that needs."""
    (x86, x86_made), (other, other_made) = needed(body, X86), needed(body, OTHER)

    def under(one: Part) -> str:
        return "" if one in (x86 | x86_made) & (other | other_made) else X86 if one in x86 | x86_made else OTHER

    made = sorted(x86_made | other_made, key=lambda one: (under(one), one.text))
    includes, *rest = parts()
    texts = [includes.text, *guarded(((under(one), one.text) for one in made if one.text.startswith("#define")), "\n")]
    structures = {name: one for one in made if one.text.startswith("struct") for name in one.defines}
    texts += guarded((under(one), one.text) for one in sorted(_in_order(structures), key=under))
    texts += guarded((under(one), one.text) for one in made if one.text.startswith("static"))
    texts += guarded((under(one), text) for one, text in _with_headings(rest, x86 | other))
    return "\n\n".join([*texts, body])


def guarded(those: Iterable[tuple[str, str]], between: str = "\n\n") -> Iterator[str]:
    """Code with its condition, those with the same condition together."""
    for condition, group in groupby(those, key=lambda one: one[0]):
        text = between.join(text for _, text in group)
        yield f"{condition}\n{text}\n#endif" if condition else text


def _is_heading(text: str) -> bool:
    return not COMMENT_OR_STRING.sub("", text).strip()


def _with_headings(those: Iterable[Part], chosen: set[Part]) -> Iterator[tuple[Part, str]]:
    """The chosen ones and their text, after a remark by itself that is about them."""
    heading = ""
    for one in those:
        if _is_heading(one.text):
            heading = f"{one.text}\n\n"
        elif one in chosen:
            yield one, heading + one.text
            heading = ""


def _in_order(structures: dict[str, Part]) -> Iterator[Part]:
    """Structures, those that others have in them first."""
    done: set[str] = set()

    def place(name: str) -> Iterator[Part]:
        if name not in done:
            done.add(name)
            for inner in sorted(structures[name].uses & structures.keys() - {name}):
                yield from place(inner)
            yield structures[name]

    for name in sorted(structures):
        yield from place(name)
