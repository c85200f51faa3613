# SPDX-License-Identifier: Apache-2.0
"""Every small program: all sequences of up to some operations of an alphabet, after each of some beginnings.

Suites of this kind found most known defects of file systems with three operations.  No symmetry is used: a program is
left out only where it would be about what its beginning does not have.  After the operations comes a look at all that
can be seen, so a state that is wrong and that no result shows is seen as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from guestmem.contract.fuzz import Fuzzer
from guestmem.contract.interface import PAGE_SIZE, Advice, Host, Unmodelled
from guestmem.contract.program import MISSING, Op, Ref, Step, close, step
from guestmem.contract.results import failed
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux.facts import Facts

__all__ = ["LETTERS", "Everything", "Letter", "Programs"]

P = PAGE_SIZE
ALLOCATE, PUNCH, RW, READ, SHARED, GMEM = 1, 3, 3, 1, 1, 4
A_PAGES, B_PAGES = 4, 2


class Thing(NamedTuple):
    """In arguments: what the beginning made, by its name."""

    name: str


VM, A, B, M, CPU = map(Thing, ("vm", "a", "b", "m", "cpu"))
"""A VM, two of its files, a mapping of the first that is a page longer than the file, and its vCPU."""

FILE_FLAGS = {"shared": 3, "not shared": 1, "not mappable": 0}
"""The beginnings: the flags of file A."""


class Letter(NamedTuple):
    """An operation of the alphabet."""

    name: str
    arguments: tuple[Any, ...]

    def things(self) -> set[str]:
        """What the beginning must have made."""
        return {argument.name for argument in self.arguments if isinstance(argument, Thing)}


def _fallocate(mode: int, file: Thing, *ranges: tuple[int, int]) -> list[Letter]:
    return [Letter("fallocate", (file, mode, offset, length)) for offset, length in ranges]


def _slot(slot: int, gpa: int, pages: int, file: Thing, pgoff: int) -> Letter:
    return Letter("set_user_memory_region2", (VM, slot, GMEM, gpa * P, pages * P, None, file, pgoff * P))


def _delete(slot: int) -> Letter:
    return Letter("set_user_memory_region2", (VM, slot, 0, 0, 0, None, -1, 0))


LETTERS = (
    *_fallocate(ALLOCATE, A, (0, P), (P, 2 * P), (0, A_PAGES * P), (3 * P, 2 * P), (1, P)),
    *_fallocate(PUNCH, A, (0, P), (P, 2 * P), (0, A_PAGES * P), (3 * P, 4 * P), (0, P + 1)),
    *_fallocate(ALLOCATE, B, (0, B_PAGES * P)),
    *_fallocate(PUNCH, B, (0, P)),
    *(Letter("load", (M, page * P)) for page in (0, 1, A_PAGES)),
    *(Letter("store", (M, page * P, 0x10 + page)) for page in (0, 3)),
    Letter("madvise", (M, 0, A_PAGES * P, int(Advice.DONTNEED))),
    Letter("madvise", (M, P, P, int(Advice.REMOVE))),
    Letter("madvise", (M, P, 2 * P, int(Advice.POPULATE_WRITE))),
    Letter("mprotect", (M, 0, P, READ)),
    Letter("mprotect", (M, 0, 2 * P, 0)),
    Letter("munmap", (M, P, P)),
    Letter("munmap", (M,)),
    Letter("mmap", (A, 2 * P, RW, SHARED, P)),
    Letter("process_vm_writev", (M, P, b"\x31")),
    Letter("vmsplice", (M, 0, P)),
    _slot(1, 2, 2, A, 2),
    _slot(1, 4, 2, B, 0),
    _slot(1, 1, 1, B, 0),
    _slot(1, 8, 2, A, 1),
    _slot(1, 8, 2, A, 3),
    _slot(0, 0, 2, A, 0),
    _delete(0),
    _delete(1),
    Letter("set_user_memory_region2", (VM, 2, 0, 4 * P, P, M, -1, 0)),
    *(Letter("guest_load", (CPU, page * P)) for page in (0, 1, 4)),
    *(Letter("guest_store", (CPU, page * P, 0x20 + page)) for page in (0, 2)),
    Letter("close", (A,)),
    Letter("close", (B,)),
    Letter("close", (VM,)),
    Letter("dup", (A,)),
    Letter("in_child", ("close", A)),
    Letter("in_child", ("fallocate", A, PUNCH, 0, 2 * P)),
)
"""The alphabet.  The number of a program depends on the order."""


def beginning(flags: int, facts: Facts) -> dict[str, Letter]:
    """What is made first, by name: a VM, its files, a mapping where there can be one, a slot, a vCPU."""
    made = {
        "vm": Letter("create_vm", ()),
        "a": Letter("create_guest_memfd", (VM, A_PAGES * P, flags)),
        "b": Letter("create_guest_memfd", (VM, B_PAGES * P, max(facts.bindable, default=max(facts.files)))),
    }
    if flags & 1:
        made["m"] = Letter("mmap", (A, (A_PAGES + 1) * P, RW, SHARED, 0))
    if flags in facts.bindable:
        made["slot"] = _slot(0, 0, 2, A, 0)
    return made | {"cpu": Letter("create_vcpu", (VM,))}


def look(things: dict[str, Ref], mappings: Sequence[Ref]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """What is looked at in the end: which pages there are and the guest has, and what everybody sees in them."""
    if "cpu" in things:
        yield "pages_4k", (things["vm"],)
    for file, pages in (("a", A_PAGES), ("b", B_PAGES)):
        for page in range(pages):
            yield "cachestat", (things[file], page * P, P)
    if "cpu" in things:
        for page in range(6):
            yield "guest_load", (things["cpu"], page * P)
    for mapping in mappings:
        for page in range(A_PAGES):
            yield "load", (mapping, page * P)
    for file, pages in (("a", A_PAGES), ("b", B_PAGES)):
        yield "cachestat", (things[file], 0, pages * P)


class Programs:
    """All programs of up to ``longest`` operations, by number: by beginning, then shorter ones first.

    ``without``: operations that the machine does not have.  ``missing`` says which beginnings it does not have.
    """

    def __init__(self, longest: int, facts: Facts, without: Collection[str] = ()) -> None:
        self.longest = longest
        self.missing = {name: f"files with flags {f}" for name, f in FILE_FLAGS.items() if f not in facts.files}
        self.beginnings: list[tuple[dict[str, Letter], list[Letter]]] = []
        for flags in FILE_FLAGS.values():
            if flags in facts.files:
                made = {name: one for name, one in beginning(flags, facts).items() if one.name not in without}
                here = [one for one in LETTERS if one.things() <= made.keys() and one.name not in without]
                self.beginnings.append((made, here))

    def __len__(self) -> int:
        return sum(len(letters) ** length for _, letters in self.beginnings for length in range(1, self.longest + 1))

    def __getitem__(self, number: int) -> tuple[dict[str, Letter], list[Letter]]:
        """The beginning of a program, and its operations.  Raises IndexError past the last."""
        for made, letters in self.beginnings:
            for length in range(1, self.longest + 1):
                many = len(letters) ** length
                if number < many:
                    return made, [letters[number // len(letters) ** n % len(letters)] for n in reversed(range(length))]
                number -= many
        raise IndexError("there are no more programs")


def performed(host: SimulatedHost, made: dict[str, Letter], letters: Sequence[Letter]) -> tuple[list[Op], list[Step]]:
    """A program and its steps on the simulated host, which is empty before and after.

    Raises :class:`Unmodelled` for an operation that the simulated host does not know; what it does not know of the look
    at the end is left out.
    """
    program: list[Op] = []
    steps: list[Step] = []
    results: dict[int, Any] = {}
    things: dict[str, Ref] = {}

    def add(name: str, arguments: tuple[Any, ...]) -> Ref:
        op = Op(len(program), name, tuple(things[a.name] if isinstance(a, Thing) else a for a in arguments))
        done = step(host, op, results)
        program.append(op)
        steps.append(done)
        return Ref(op.number)

    try:
        for name, letter in made.items():
            things[name] = add(*letter)
        mappings = [things["m"]] if "m" in things else []
        for letter in letters:
            added = add(*letter)
            if letter.name == "mmap" and not failed(steps[-1].result):
                mappings.append(added)
        for name, arguments in look(things, mappings):
            try:
                add(name, arguments)
            except Unmodelled:
                continue
    finally:
        close(host, steps)
    return program, steps


class Everything(Fuzzer):
    """Runs every program of up to some operations, from a number on.

    Attributes:
        all: the programs.
    """

    def __init__(self, longest: int, first: int, model: Callable[[], SimulatedHost], kernel: Callable[[], Host]) -> None:
        super().__init__(0, model, kernel, first)
        without = set(self.missing)
        self.all = Programs(longest, self.model.facts, without)
        if not self.unusable and self.all.beginnings:
            self.find_missing(without)
            self.all = Programs(longest, self.model.facts, without)

    def find_missing(self, without: set[str]) -> None:
        """See what of the beginnings and of the alphabet the machine does not have."""
        program, _ = performed(self.model, *max(self.all.beginnings, key=lambda one: len(one[1])))
        for op, done in zip(program, self.on_kernel(program), strict=False):
            if done.result == MISSING:
                self.missing[op.name] = done.rule
                without.add(op.name)

    def make(self) -> tuple[int, list[Op], list[Step]] | None:
        """The next program that the simulated host knows; None after the last."""
        while self.next < len(self.all):
            number = self.next
            self.next += 1
            try:
                return number, *performed(self.model, *self.all[number])
            except Unmodelled as why:
                self.left_out[str(why)] += 1
        return None

    def arguments(self) -> str:
        return f"--all {self.all.longest}"

    def title(self) -> str:
        return f"every program of up to {self.all.longest} operations"

    def report(self, saved: Mapping[int, str]) -> Iterator[str]:
        yield f"programs {self.first} to {self.reached - 1} of {len(self.all)}"
        for name, why in self.all.missing.items():
            yield f"not enumerated: a file that is {name}: KVM makes no {why}"
        for why, times in self.left_out.most_common():
            yield f"left out, {times} programs: the model does not know {why}"
        yield from super().report(saved)
