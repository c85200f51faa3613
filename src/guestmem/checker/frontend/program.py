# SPDX-License-Identifier: Apache-2.0
"""All that a world can run, as typed trees."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterable
from dataclasses import dataclass, field

from guestmem.checker.frontend import signature
from guestmem.checker.frontend.callees import Callees
from guestmem.checker.frontend.classes import is_own, refuse_lost_overrides
from guestmem.checker.frontend.does import Does
from guestmem.checker.frontend.expressions import Expressions, Scope
from guestmem.checker.frontend.flow import check_flow
from guestmem.checker.frontend.source import Function, function_of
from guestmem.checker.frontend.statements import Statements
from guestmem.checker.frontend.tree import Expr, Routine
from guestmem.checker.pools import Pools
from guestmem.model.errors import Refused
from guestmem.model.record import BoolType, Record
from guestmem.model.world import World, records_of

#: Who can go on in a state is a word of bits.
MOST_THREADS = 64


@dataclass(frozen=True)
class Thread:
    """A thread: its routine, called with the world and with these numbers."""

    name: str
    routine: Routine
    arguments: tuple[int, ...]


@dataclass
class Program:
    """The routines of a world.

    Attributes:
        always, sometimes: the properties of states, each with what it says.
        routines: all that were read, in the order in which they were met.
        notes: what is wrong in methods of the user's that nothing calls.
    """

    threads: list[Thread] = field(default_factory=list)
    always: list[tuple[str, Routine]] = field(default_factory=list)
    sometimes: list[tuple[str, Routine]] = field(default_factory=list)
    routines: list[Routine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(pools: Pools) -> Program:
    """The threads and properties of a world, and what they call.  Raises :class:`Refused`."""
    world = pools.world
    cls = type(world)
    refuse_lost_overrides(cls)
    if not world.threads:
        raise Refused(cls.__qualname__, "a world without threads", "mark a method with @thread")
    if len(world.threads) > MOST_THREADS:
        raise Refused(cls.__qualname__, f"a world of {len(world.threads)} threads", f"use at most {MOST_THREADS}")
    reader, does = Reader(pools), Does()
    program = Program()
    for thread in world.threads:
        function = function_of(thread.function)
        routine = reader.routine(function, cls)
        if len(function.parameters) != 1 + len(thread.arguments):
            function.refuse(function.node, f"a thread with {len(function.parameters)} parameters", "use (self) or (self, i)")
        does.refuse_waits_outside_steps(routine)
        program.threads.append(Thread(thread.name, routine, thread.arguments))
    program.always = [(f._always, reader.routine(function_of(f), cls)) for f in world.marked("_always")]
    program.sometimes = [(f._sometimes, reader.routine(function_of(f), cls)) for f in world.marked("_sometimes")]
    for routine in [*reader.callees.guards, *(routine for _, routine in program.always + program.sometimes)]:
        refuse_unless_property(routine, does)
    program.routines = list(reader.routines.values())
    for routine in program.routines:
        does.refuse_late_waits(routine)
    program.notes = list(uncalled(world, reader))
    return program


class Reader:
    """Reads functions, each once for a class of ``self``."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self.routines: dict[tuple[Function, type[Record] | None], Routine] = {}
        self.callees = Callees(pools, self.routine, self.default)
        self._pending: list[Function] = []

    def routine(self, function: Function, receiver: type[Record] | None) -> Routine:
        """A function, with all that it calls."""
        key = function, receiver
        if key not in self.routines:
            if function in self._pending:
                function.refuse(function.node, f"{function.name} calls itself", "write a loop")
            check_flow(function)
            self._pending.append(function)
            try:
                self.routines[key] = self._read(function, receiver)
            finally:
                self._pending.pop()
        return self.routines[key]

    def _read(self, function: Function, receiver: type[Record] | None) -> Routine:
        routine = Routine(function, receiver, signature.parameters(function, receiver), signature.results(function))
        scope = Scope(function, receiver, dict(routine.parameters))
        routine.body = Statements(routine, Expressions(scope, self.pools, self.callees)).all(function.node.body)
        return routine

    def default(self, function: Function, node: ast.expr) -> Expr:
        """A default argument, as it is where the function is defined."""
        return Expressions(Scope(function, None), self.pools, self.callees).value(node)


def refuse_unless_property(routine: Routine, does: Does) -> None:
    """Refuse what is no function of the state alone, or no condition."""
    function, done = routine.function, does.all(routine)
    if done.writes or done.waits or done.chooses:
        function.refuse(function.node, "a property that changes the world, waits or chooses", "return a condition")
    if [type(result) for result in routine.results] != [BoolType]:
        function.refuse(function.node, "a property that gives no boolean", "annotate it -> bool, and return a condition")


def uncalled(world: World, reader: Reader) -> Iterable[str]:
    """What is wrong in methods that nothing calls, of classes that are not this package's own."""
    called = {function for function, _ in reader.routines}
    notes: dict[str, None] = {}
    for cls in dict.fromkeys(type(record) for record in records_of(world)):
        plain = cls.setup.__code__.co_names if issubclass(cls, World) else ()  # setup() and what it calls is plain Python
        for base in cls.__mro__:
            if is_own(base.__module__):
                continue
            for name, value in vars(base).items():
                method = value.fget if isinstance(value, property) else value
                if not isinstance(method, types.FunctionType) or name in ("setup", *plain) or name.startswith("__"):
                    continue
                if getattr(cls, name) is not value:  # overridden
                    continue
                try:
                    function = function_of(method)
                    if function not in called:
                        reader.routine(function, cls)
                except Refused as error:
                    notes[f"{error.where}: {error.what}, in {name}, which nothing calls: {error.instead}"] = None
    return notes
