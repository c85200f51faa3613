# SPDX-License-Identifier: Apache-2.0
"""Random programs over the whole interface, made while they run on the simulated host.

So an operation can be about what is there, and one that the simulated host does not know is left out.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Collection
from typing import Any

from guestmem.contract.interface import GUEST_SLOT, PAGE_SIZE, U64, Advice, Exhausted, Unmodelled
from guestmem.contract.operations import FILE_OPERATIONS, IN_CHILD, OPERATIONS
from guestmem.contract.program import Op, Ref, Step, close, step
from guestmem.contract.results import Result
from guestmem.contract.syscalls.files import MAX_LFS_FILESIZE
from guestmem.contract.syscalls.objects import Gmem, Mapping, Slot, Vcpu, Vm
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux.uapi import MAP_LOCKED

__all__ = ["NEVER", "generate"]

P = PAGE_SIZE
EDGES = (0, 1, P - 1, P + 1, (1 << 31), (1 << 32) - 1, 1 << 32, 1 << 52, 1 << 62, (1 << 63) - P, 1 << 63, U64 - P, U64 - 1)
FILE_SIZES = (P, 2 * P, 3 * P, 4 * P, 8 * P, 16 * P, (1 << 21) + P, 1 << 40, 1 << 62, (1 << 63) - P)
NO_SIZES = (0, 1, P - 1, P + 1, 1 << 63, U64 - P, U64 - 1)
FALLOC_MODES = (0, 2, 4, 5, 7, 8, 9, 0x10, 0x11, 0x20, 0x21, 0x40, 0x41, 0x80, 0x81, 0x100, 1 << 30)
SLOTS = (0, 1, 2, 3, 4, 5, 32763, 32764, 32766, 32767, 65536, 65537, 131072, (1 << 32) - 1)
MAP_FLAGS = (1, 1, 1, 1, 1, 2, 3, 0, 0x4001, 0x8001, 0x2001, 0x40001, 0x80003, 0x80001)
ADDRESSES = ("0x10000", "0x10001", "0xffff888000000000", "0x800000000000", "0x1000000000000")
WEIGHTS = {name: operation.weight for name, operation in OPERATIONS.items() if operation.weight}
QUICK_FILE_OPERATIONS = sorted(name for name, facts in FILE_OPERATIONS.items() if facts.fuzzed)

NEVER = (
    "secret memory, and files that the direct map does not have: each page splits a block of the direct map until the next boot",
    "signals that interrupt a call: when they arrive is a matter of time (the group `limits` has them)",
    "races: what comes of them has no one answer (the group `concurrency` has them)",
    "a guest's access in a VM with a slot whose userspace_addr is other memory than its file's: with shadow paging the guest "
    "gets that (a known deviation)",
    "a mapping that grows past offset 2^63 (a known deviation)",
    "types of VMs but the default one and SW_PROTECTED, linkat and execveat, MAP_FIXED",
)
"""What no program does, and why."""


class Nothing(Exception):
    """There is nothing that an operation could be about."""


class Generator:
    """Makes one program."""

    def __init__(self, host: SimulatedHost, seed: str, without: Collection[str], left_out: Counter[str]) -> None:
        self.host = host
        self.random = random.Random(seed)
        self.program: list[Op] = []
        self.steps: list[Step] = []
        self.results: dict[int, Result] = {}
        self.full = False
        self.without = without
        self.left_out = left_out

    def attempt(self, name: str, *arguments: Any) -> Result | None:
        """Perform an operation and make it part of the program; None if the simulated host does not know it."""
        if name in self.without:
            return None
        op = Op(len(self.program), name, arguments)
        try:
            done = step(self.host, op, self.results)
        except Exhausted as why:
            self.left_out[str(why)] += 1
            self.full = True
            return None
        except Unmodelled as why:
            self.left_out[str(why)] += 1
            return None
        self.program.append(op)
        self.steps.append(done)
        return done.result

    def make(self, length: int) -> None:
        """A program of about a length: a VM and a file, anything, and a look at all that is there."""
        vm = self.attempt("create_vm")
        self.attempt("create_guest_memfd", Ref(0), self.pick(FILE_SIZES), 3)
        assert vm is not None
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for name in self.random.choices(names, weights, k=length):
            with contextlib.suppress(Nothing):
                self.attempt(name, *getattr(self, f"for_{name}")())
            if self.full:
                return
        for number in self.numbers(self.host.task.fds, Gmem):
            self.attempt("cachestat", Ref(number), 0, 0)
        for number in self.numbers(self.host.task.fds, Vm):
            self.attempt("pages_4k", Ref(number))
        for number in self.numbers(self.host.task.maps, Mapping):
            for page in range(3):
                self.attempt("load", Ref(number), page * P + 8 * page)

    # ---- what is there

    def pick(self, among: Any) -> Any:
        """One of several."""
        return self.random.choice(among)

    def rarely(self, odds: int) -> bool:
        """True once in a while."""
        return self.random.randrange(odds) == 0

    def numbers(self, table: dict[int, Any], kind: type) -> list[int]:
        """Operations whose results are handles in a table, of what is of a kind."""
        opens = "mapping" if table is self.host.task.maps else "descriptor"
        return [
            op.number
            for op in self.program
            if OPERATIONS[op.name].opens == opens
            and isinstance(handle := self.results[op.number], int)
            and isinstance(table.get(handle), kind)
        ]

    def one(self, table: dict[int, Any], kind: type, wrong: int = 40) -> Any:
        """A handle of a kind; rarely one of another kind, or that is closed, or nothing."""
        there = self.numbers(table, kind)
        if self.rarely(wrong):
            return Ref(self.random.randrange(len(self.program)))
        if not there:
            raise Nothing
        return Ref(self.pick(there))

    def vm(self) -> Any:
        """A VM."""
        return self.one(self.host.task.fds, Vm)

    def gmem(self) -> Any:
        """A file of guest memory."""
        return self.one(self.host.task.fds, Gmem)

    def mapping(self) -> Any:
        """A mapping."""
        return self.one(self.host.task.maps, Mapping)

    def what(self, ref: Any) -> Any:
        """What a handle stands for on the simulated host."""
        handle = self.results.get(ref.number)
        return self.host.task.maps.get(handle) or self.host.task.fds.get(handle) if isinstance(handle, int) else None

    def edge(self) -> int:
        """A number near an edge, or anything."""
        return self.pick(EDGES) if self.rarely(2) else self.random.getrandbits(self.random.choice((12, 20, 33, 64)))

    def offset(self, size: int = 16 * P) -> int:
        """An offset in a file or near its ends."""
        kind = self.random.randrange(20)
        if kind == 0:
            return self.edge()
        if kind == 1:
            return self.random.randrange(20 * P)
        if kind == 2:
            return (size + self.random.randrange(-2, 3) * P) % U64
        return self.random.randrange(max(1, min(20, size // P + 1))) * P

    def length(self) -> int:
        """A length."""
        kind = self.random.randrange(20)
        if kind == 0:
            return self.edge()
        if kind == 1:
            return self.random.randrange(9 * P)
        return self.random.randrange(1, 9) * P

    def inside(self, ref: Any, length: int, unit: int) -> tuple[int, int]:
        """A place in a mapping, and how much of a length fits there."""
        mapping = self.what(ref)
        size = mapping.spans.end() if isinstance(mapping, Mapping) else P
        offset = self.random.randrange(min(size, 20 * P)) // unit * unit
        return offset, max(0, min(length, size - offset))

    def coherent(self, slot: Slot) -> bool:
        """Whether userspace_addr of a slot is nowhere, or the very memory that the guest has."""
        if not slot.gmem_only or not isinstance(slot.address, int):
            return True
        mapping = self.host.task.maps.get(slot.address)
        if mapping is None or mapping.file is not slot.file or mapping.offset != slot.pgoff * P:
            return False
        return mapping.spans.cover(0, min(mapping.spans.end(), slot.pages * P))

    # ---- arguments

    def for_create_vm(self) -> tuple[Any, ...]:
        return () if self.random.randrange(8) else (self.pick((1, 1, 1, 99, 1 << 20, 1 << 31)),)

    def for_create_guest_memfd(self) -> tuple[Any, ...]:
        size = self.edge() if self.rarely(10) else self.pick(NO_SIZES) if self.rarely(10) else self.pick(FILE_SIZES)
        flags = 1 << self.random.randrange(64) if self.rarely(12) else self.pick((3, 3, 3, 3, 3, 1, 0, 2))
        return self.vm(), size, flags & ~self.host.facts.no_direct_map

    def for_memfd_create(self) -> tuple[Any, ...]:
        return (P,)

    def for_check_extension(self) -> tuple[Any, ...]:
        return self.vm(), self.pick((10, 231, 232, 234, 244))

    def for_dup(self) -> tuple[Any, ...]:
        return (self.vm() if self.rarely(3) else self.gmem(),)

    for_pass_descriptor = for_dup

    def for_close(self) -> tuple[Any, ...]:
        return (self.one(self.host.task.fds, self.pick((Gmem, Gmem, Vm, Vcpu, object))),)

    def for_in_child(self) -> tuple[Any, ...]:
        name = self.pick(IN_CHILD)
        return name, *getattr(self, f"for_{name}")()

    def for_fstat(self) -> tuple[Any, ...]:
        return (self.gmem(),)

    for_descriptor_flags = for_fstat

    def for_same_inode(self) -> tuple[Any, ...]:
        return self.gmem(), self.gmem()

    def for_fallocate(self) -> tuple[Any, ...]:
        ref = self.gmem()
        file = self.what(ref)
        mode = self.pick(FALLOC_MODES) if self.rarely(12) else self.pick((1, 3))
        return ref, mode, self.offset(file.size if isinstance(file, Gmem) else P), self.length()

    def for_cachestat(self) -> tuple[Any, ...]:
        return (self.gmem(), 0, 0) if self.rarely(2) else (self.gmem(), self.offset(), self.length())

    def for_file_operation(self) -> tuple[Any, ...]:
        return self.gmem(), self.pick(QUICK_FILE_OPERATIONS), self.offset()

    def for_mmap(self) -> tuple[Any, ...]:
        ref = self.gmem()
        file = self.what(ref)
        size = file.size if isinstance(file, Gmem) else P
        length = self.edge() if self.rarely(15) else min(size, 16 * P) if self.rarely(2) else self.length()
        prot = self.random.randrange(8) if self.rarely(5) else 3
        offset = 0 if self.rarely(2) else self.offset(size)
        flags = self.pick(MAP_FLAGS)
        if "mlock" in self.without:
            flags &= ~MAP_LOCKED
        return ref, length, prot, flags, offset

    def for_munmap(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return (ref,) if self.rarely(2) else (ref, *self.inside(ref, self.length(), self.pick((P, P, P, 1))))

    def for_mremap(self) -> tuple[Any, ...]:
        ref, length = self.mapping(), self.length() if self.random.randrange(8) else 0
        whole = [n for n in self.numbers(self.host.task.maps, Mapping) if self.what(Ref(n)).whole]
        if whole and not self.rarely(8):
            ref = Ref(self.pick(whole))
        mapping = self.what(ref)
        # A mapping that grows past the largest offset gets pages there, a known deviation.
        if isinstance(mapping, Mapping) and mapping.offset + length > MAX_LFS_FILESIZE:
            raise Nothing
        return ref, length

    def for_userfaultfd_register(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, *self.inside(ref, self.length(), P), self.random.randrange(8)

    def for_mprotect(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, *self.inside(ref, self.length(), self.pick((P, P, P, 1))), self.pick((0, 1, 2, 3, 3, 3, 4, 5))

    def for_madvise(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, *self.inside(ref, self.length(), self.pick((P, P, P, 1))), int(self.pick(list(Advice)))

    def for_mlock(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, *self.inside(ref, self.length(), 1)

    for_munlock = for_mlock

    def for_msync(self) -> tuple[Any, ...]:
        return *self.for_mlock(), self.random.randrange(9)

    def for_load(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, self.inside(ref, 1, self.pick((1, P, P // 2)))[0]

    def for_store(self) -> tuple[Any, ...]:
        return *self.for_load(), self.random.randrange(256)

    def for_set_user_memory_region2(self) -> tuple[Any, ...]:
        vm, ref = self.vm(), self.gmem()
        mine, file = self.what(vm), self.what(ref)
        if isinstance(mine, Vm) and mine.slots and self.rarely(5):
            slot = self.pick([number for number in mine.slots if number != GUEST_SLOT] or [0])
            return vm, slot, self.pick((0, 4)), self.offset(), 0, None, ref, 0
        slot = self.pick(SLOTS) if self.rarely(4) else self.random.randrange(6)
        flags = self.pick((0, 1, 2, 5, 6, 8, 12, 1 << 31)) if self.rarely(10) else self.pick((4, 4, 4, 4, 0))
        gpa = self.random.randrange(40) * P
        if self.rarely(8):
            gpa = self.pick((1 << 29, 1 << 52, U64 - P, U64 - 2 * P, 1, self.edge()))
        size = self.edge() if self.rarely(15) else self.random.randrange(1, 12) * P
        address: Any = None
        if flags & 4 and self.rarely(4):
            address = self.pick(ADDRESSES) if self.rarely(4) else self.mapping()
        return vm, slot, flags, gpa, size, address, ref, self.offset(file.size if isinstance(file, Gmem) else P)

    def for_set_user_memory_region(self) -> tuple[Any, ...]:
        flags = self.pick((0, 0, 0, 1, 2, 4, 8))
        return self.vm(), self.random.randrange(6), flags, self.random.randrange(40) * P, self.random.randrange(4) * P

    def for_create_vcpu(self) -> tuple[Any, ...]:
        return (self.vm(),)

    def for_guest_load(self) -> tuple[Any, ...]:
        ref = self.one(self.host.task.fds, Vcpu)
        vcpu = self.what(ref)
        # KVM with shadow paging takes neighbours from userspace_addr, a known deviation that would be met all the time.
        if isinstance(vcpu, Vcpu) and not all(self.coherent(slot) for slot in vcpu.vm.slots.values()):
            raise Nothing
        slots = [s for s in vcpu.vm.slots.values() if s.gpa < 1 << 30] if isinstance(vcpu, Vcpu) else []
        if not slots or self.rarely(12):
            return ref, self.random.randrange(64) * P + self.random.randrange(P)
        slot = self.pick(slots)
        return ref, slot.gpa + self.random.randrange(min(slot.pages, 16)) * P + self.pick((0, 1, 8, P - 1))

    def for_guest_store(self) -> tuple[Any, ...]:
        return *self.for_guest_load(), self.random.randrange(256)

    def for_vm_memory_attributes(self) -> tuple[Any, ...]:
        flags = 1 << self.random.randrange(64) if self.rarely(12) else 0
        attributes = 1 << self.random.randrange(64) if self.rarely(12) else self.pick((0, 8, 8))
        gpa = self.edge() if self.rarely(12) else self.random.randrange(40) * P
        return self.vm(), gpa, self.length(), attributes, flags

    def for_memory_fault(self) -> tuple[Any, ...]:
        return (self.one(self.host.task.fds, Vcpu),)

    def for_pre_fault(self) -> tuple[Any, ...]:
        gpa = self.edge() if self.rarely(12) else self.random.randrange(40) * P
        return self.one(self.host.task.fds, Vcpu), gpa, self.length(), int(self.rarely(12))

    def for_pages_4k(self) -> tuple[Any, ...]:
        return (self.vm(),)

    def for_process_vm_readv(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, *self.inside(ref, self.pick((1, 8, 8, P, 2 * P, 3 * P + 5)), self.pick((1, P, P - 4)))

    for_proc_mem_read = for_process_vm_readv

    def for_process_vm_writev(self) -> tuple[Any, ...]:
        ref = self.mapping()
        offset, length = self.inside(ref, self.pick((1, 8, 8, 20)), self.pick((1, P, P - 4)))
        return ref, offset, bytes(self.random.randrange(256) for _ in range(length))

    for_read_pipe = for_process_vm_writev

    def for_write_pipe(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, *self.inside(ref, self.pick((0, 1, 8, P)), self.pick((1, P, P - 4)))

    def for_direct_write(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, self.inside(ref, P, P)[0]

    def for_direct_read(self) -> tuple[Any, ...]:
        return *self.for_direct_write(), self.random.randrange(256)

    def for_vmsplice(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, *self.inside(ref, self.pick((1, 8, P, 2 * P + 3)), self.pick((1, P, P - 4)))

    for_io_uring_register = for_vmsplice

    def for_read_spliced(self) -> tuple[Any, ...]:
        spliced = [op.number for op in self.program if op.name == "vmsplice"]
        return (Ref(self.pick(spliced)) if spliced else self.gmem()), self.pick((1, 8, 3 * P))

    def for_futex_wake(self) -> tuple[Any, ...]:
        ref = self.mapping()
        return ref, self.inside(ref, 4, self.pick((4, 4, 1)))[0]


def generate(
    host: SimulatedHost, seed: str, without: Collection[str] = (), left_out: Counter[str] | None = None, length: int = 120
) -> tuple[list[Op], list[Step]]:
    """The program of a seed, without some operations, and its steps on the simulated host, which is left empty.

    ``left_out`` counts, by reason, what was tried and is not in it.
    """
    generator = Generator(host, seed, without, Counter() if left_out is None else left_out)
    try:
        generator.make(length)
    finally:
        close(host, generator.steps)
    return generator.program, generator.steps
