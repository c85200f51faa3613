# SPDX-License-Identifier: Apache-2.0
"""What a file of a user can override, where each of it is called, and a file that has all of it."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import guestmem
from guestmem import own
from guestmem.model import Record
from guestmem.report import names

__all__ = ["KINDS", "LIKE", "Hook", "base_of", "hooks", "new_file"]

ROOT = Path(guestmem.__file__).parent


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        field: the part of the world that is replaced; the empty string: the world itself is yours.
        bases: what yours derives from, for each host.
        text: what it is for.
    """

    field: str
    bases: dict[str, type[Record]]
    text: str


class Like(NamedTuple):
    """What a host has that yours can be like: the world with the standard cast, the one without, the driver, the hypervisor."""

    cast: type[Record]
    host: type[Record]
    driver: type[Record]
    hypervisor: type[Record]


LIKE = {
    "kvm": Like(own.OnKvm, own.KvmHost, own.KvmDriver, own.Hypervisor),
    "gunyah": Like(own.OnGunyah, own.GunyahHost, own.GunyahDriver, own.Gunyah),
    "pkvm": Like(own.OnPkvm, own.PkvmHost, own.PkvmDriver, own.Pkvm),
    "snp": Like(own.OnSnp, own.SnpHost, own.ConfidentialDriver, own.Confidential),
    "tdx": Like(own.OnTdx, own.TdxHost, own.ConfidentialDriver, own.Confidential),
    "cca": Like(own.OnCca, own.CcaHost, own.ConfidentialDriver, own.Confidential),
}
"""The hosts, by name."""

KINDS = {
    "driver": Kind("driver", {name: like.driver for name, like in LIKE.items()}, "a hypervisor's driver"),
    "hypervisor": Kind("hypervisor", {name: like.hypervisor for name, like in LIKE.items()}, "a hypervisor"),
    "library": Kind("file", dict.fromkeys(LIKE, own.GuestMemfd), "the guest_memfd library"),
    "mm": Kind("kernel", dict.fromkeys(LIKE, own.Kernel), "the host kernel's memory management"),
    "actor": Kind("", {name: like.cast for name, like in LIKE.items()}, "somebody who acts beside the cast"),
    "world": Kind("", {name: like.host for name, like in LIKE.items()}, "a host with a cast of your choice"),
}


SET_UP = {"wire"}
"""What is called while a world is built, in Python that is no model code."""

SIZES = """
    geometry = {"pages": 1, "frames": 2}
    ladder = [{}, {"pages": 2, "frames": 3}]  # what check explores, one after the other
"""

PKVM = """
    def setup(self) -> None:
        self.asks = True
        super().setup()
"""
"""Guests that take pages back without an answer break a rule whatever the host does."""


class Hook(NamedTuple):
    """A method that can be overridden.

    Attributes:
        owner: the class that has it.
        name: its own.
        signature: its parameters and its result, as in its source.
        text: what it is for, and what its errors mean.
        mark: the decorator that an override repeats; the empty string: none.
        parameters: their names, without ``self``.
        returns: it has a result.
        called: where, as ``file:line``.
    """

    owner: str
    name: str
    signature: str
    text: str
    mark: str
    parameters: list[str]
    returns: bool
    called: list[str]

    def override(self) -> Iterator[str]:
        """The lines of an override that changes nothing."""
        if self.mark:
            yield f"    @{self.mark}"
        yield f"    def {self.name}{self.signature}:"
        yield f'        """{self.text}"""'
        yield f"        {'return ' if self.returns else ''}super().{self.name}({', '.join(self.parameters)})"


@functools.cache
def _calls() -> dict[str, list[str]]:
    """Where the project calls a method of a name."""
    found: dict[str, list[str]] = {}
    for floor in ("mm", "guest_memfd", "hypervisors", "scenarios"):
        for file in sorted((ROOT / floor).glob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    if not (isinstance(node.func.value, ast.Call) and ast.unparse(node.func.value) == "super()"):
                        found.setdefault(node.func.attr, []).append(f"{floor}/{file.name}:{node.lineno}")
    return found


def hooks(cls: type[Record]) -> list[Hook]:
    """The methods of a class that something calls, in the order of their declaration, those of its bases after its own."""
    found: dict[str, Hook] = {}
    for owner in cls.__mro__:
        if not issubclass(owner, Record) or owner.__module__.startswith("guestmem.model"):
            continue
        for name, method in vars(owner).items():
            if name.startswith("_") or name in found or not inspect.isfunction(method) or name not in _calls() or name in SET_UP:
                continue
            if any(hasattr(method, mark) for mark in ("_guards", "_thread", "_always", "_sometimes")):
                continue
            known = inspect.signature(inspect.unwrap(method))
            signature = str(known).replace("'", "")
            text = " ".join((inspect.getdoc(method) or name).partition("\n\n")[0].split())
            mark = "step" if hasattr(method, "_step") else ""
            returns = known.return_annotation != "None"
            found[name] = Hook(owner.__name__, name, signature, text, mark, list(known.parameters)[1:], returns, _calls()[name])
    return list(found.values())


def base_of(kind: str, like: str) -> type[Record]:
    """What a file of a kind derives from on a host.  Raises :class:`~guestmem.model.Refused` for a name that none has."""
    bases = KINDS[names.known(kind, "kind of file", KINDS)].bases
    return bases[names.known(like, "host", bases)]


def _imports(body: str) -> str:
    """The one import that a body needs."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    return f"from guestmem.own import {', '.join(sorted(used & set(own.__all__)))}\n"


ACTOR = '''
    @thread
    def mine(self) -> None:
        """Somebody on another CPU; each round it may read a page that the direct map has."""
        while True:
            frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
            copy_from_kernel_nofault(self.kernel, self.machine.cpus[1], frame)
'''

WORLD = """
    @sometimes("the guest has a page as its own")
    def private_page(self) -> bool:
        return any(entry.private for guest in self.machine.guests for entry in guest.entries)

    @always("a page that the guest has as its own is in the file")
    def in_the_file(self) -> bool:
        return self.at_work() or all(
            not entry.private or self.file.mapping.slots[gfn] is not None
            for guest in self.machine.guests
            for gfn, entry in enumerate(guest.entries)
        )
"""


def new_file(kind: str, like: str, name: str) -> str:
    """A file of a user, which changes nothing as it stands.  ``name``: how it will be called.  Raises :class:`Refused`."""
    base = base_of(kind, like)
    host = LIKE[like].cast.__name__
    head = f'"""My {kind}, to be changed.  Check it: guestmem check {name}"""\n\nfrom __future__ import annotations\n\n'
    field = KINDS[kind].field
    asks = PKVM if like == "pkvm" else ""
    if field:
        mine = "MyKernel" if kind == "mm" else f"My{kind.capitalize()}"
        lines = [f"class {mine}({base.__name__}):", f'    """{KINDS[kind].text[0].upper()}{KINDS[kind].text[1:]}."""', ""]
        for hook in hooks(base):
            lines += [*hook.override(), ""]
        lines += [
            "",
            f"class MyWorld({host}):",
            f'    """The standard cast on {like}."""',
            SIZES,
            f"    {field}: {mine} = part()",
        ]
        body = "\n".join(lines) + "\n"
    elif kind == "actor":
        body = f'class MyWorld({host}):\n    """The standard cast on {like}, and one more."""\n{SIZES}{ACTOR}'
    else:
        bases = f"{base.__name__}, RunningVm, Vcpus, PlainRead"
        body = f'class MyWorld({bases}):\n    """A VM that runs on {like}, and a reader."""\n{SIZES}{WORLD}'
    body += asks
    return f"{head}{_imports(body)}\n\n{body}"
