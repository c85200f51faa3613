# SPDX-License-Identifier: Apache-2.0
"""Loads and stores that may be answered by a signal, without losing the process.

On x86-64 they are two instructions at known places and a handler, in machine code, that continues behind them; it
notes the signal and the address.  Elsewhere, or where memory cannot be made executable, a child does the access.
"""

from __future__ import annotations

import ctypes
import platform
import signal
import struct
from typing import NamedTuple

from guestmem.linux import calls, uapi
from guestmem.linux.process import Lost, in_child

__all__ = ["Access", "Fault"]


class Fault(NamedTuple):
    """A signal: its number, si_code and si_addr (0, 0 if they cannot be known)."""

    signal: int
    code: int
    address: int


SIGBUS, SIGSEGV = int(signal.SIGBUS), int(signal.SIGSEGV)
SA_SIGINFO = 4

# Offsets in the ucontext_t of x86-64: RAX and RIP; in siginfo_t: si_code and si_addr.
LOAD = bytes.fromhex("0fb607 c3")  # movzx eax, byte [rdi]; ret
STORE = bytes.fromhex("408837 31c0 c3")  # mov [rdi], sil; xor eax, eax; ret
LOAD_AT, STORE_AT, RETURN_AT, NEITHER_AT, HANDLER_AT, NOTE_AT = 0x00, 0x10, 0x20, 0x30, 0x40, 0x800


def machine_code(base: int) -> bytes:
    """The page: load, store, handler."""

    def absolute(at: int) -> bytes:
        return b"\x48\xb9" + struct.pack("<Q", base + at)  # mov rcx, imm64

    compare = bytes.fromhex("4839c8")  # cmp rax, rcx
    resume = bytes.fromhex("48898aa8000000")  # mov [rdx + RIP], rcx

    note = (
        bytes.fromhex("f7df 4863c7 48898290000000 488b4610")
        + absolute(NOTE_AT)
        + bytes.fromhex("488901 8b4608 894108 c3")  # mov [rcx], rax; mov eax, [rsi + si_code]; mov [rcx + 8], eax; ret
    )
    ours = absolute(RETURN_AT) + resume + note
    neither = absolute(NEITHER_AT) + resume + b"\xc3"
    is_store = absolute(STORE_AT) + compare + bytes([0x74, len(neither)])  # je ours
    is_load = absolute(LOAD_AT) + compare + bytes([0x74, len(is_store) + len(neither)])
    handler = bytes.fromhex("488b82a8000000") + is_load + is_store + neither + ours  # mov rax, [rdx + RIP]
    page = bytearray(HANDLER_AT) + handler
    page[LOAD_AT : LOAD_AT + len(LOAD)] = LOAD
    page[STORE_AT : STORE_AT + len(STORE)] = STORE
    page[RETURN_AT : RETURN_AT + 1] = b"\xc3"
    page[NEITHER_AT : NEITHER_AT + 2] = b"\x0f\x0b"  # ud2: a fault of somebody else is fatal
    return bytes(page)


class Access:
    """Loads and stores of single bytes, by address.

    It handles SIGBUS and SIGSEGV of its process, so it needs a process of its own.
    """

    def __init__(self, in_children: bool = False) -> None:
        self.in_children = in_children or platform.machine() != "x86_64"
        if self.in_children:
            return
        try:
            page = calls.mmap(0, calls.PAGE_SIZE, 7, uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS)
        except OSError:
            self.in_children = True
            return
        code = machine_code(page)
        ctypes.memmove(page, code, len(code))
        self._note = page + NOTE_AT
        self._load = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_uint64)(page + LOAD_AT)
        self._store = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_uint64, ctypes.c_uint64)(page + STORE_AT)
        for number in (SIGBUS, SIGSEGV):
            calls.sigaction(number, page + HANDLER_AT, SA_SIGINFO)

    def load(self, address: int) -> int | Fault:
        """The byte at an address."""
        if self.in_children:
            return self._in_child(address, None)
        return self._result(self._load(address))

    def store(self, address: int, value: int) -> int | Fault:
        """Store a byte; 0."""
        if self.in_children:
            return self._in_child(address, value)
        return self._result(self._store(address, value))

    def _result(self, result: int) -> int | Fault:
        if result >= 0:
            return result
        note = ctypes.string_at(self._note, 12)
        return Fault(-result, int.from_bytes(note[8:], "little"), int.from_bytes(note[:8], "little"))

    def _in_child(self, address: int, value: int | None) -> int | Fault:
        def access() -> int:
            for number in (SIGBUS, SIGSEGV):
                signal.signal(number, signal.SIG_DFL)
            byte = ctypes.c_uint8.from_address(address)
            if value is None:
                return byte.value
            byte.value = value
            return 0

        try:
            return in_child(access)
        except Lost as lost:
            return Fault(lost.signal, 0, address)
