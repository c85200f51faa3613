# SPDX-License-Identifier: Apache-2.0
"""The world: the root record, with the threads that act in it and the rules that must hold.

::

    class Donate(World):
        geometry = {"pages": 4}

        pages: list[Page] = array("pages")

        @thread
        def host(self) -> None:
            while True:
                self.act()

        @always("what the host can still translate, stage 2 lets it reach")
        def reachable(self) -> bool:
            return all(page.s2h or not page.mapped() for page in self.pages)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar, cast, overload

from guestmem.model.errors import Refused
from guestmem.model.lock import Preempt, SpinLock
from guestmem.model.record import Array, Record, RefType, check_value, evaluate, show

__all__ = ["World", "always", "sometimes", "thread"]

F = TypeVar("F", bound=Callable[..., Any])


class Thread(NamedTuple):
    """One thread of a world: ``function(world)`` or ``function(world, index)``."""

    name: str
    function: Callable[..., None]
    arguments: tuple[int, ...]


@overload
def thread(function: F) -> F: ...
@overload
def thread(function: int | str) -> Callable[[F], F]: ...
def thread(function: Any) -> Any:
    """Mark a method of a world as a thread.  ``@thread("vms")`` runs one for each index, passed as the argument."""
    if callable(function):
        cast(Any, function)._thread = None
        return function

    def decorate(method: F) -> F:
        cast(Any, method)._thread = function
        return method

    return decorate


def always(rule: str) -> Callable[[F], F]:
    """Mark a method as a property of every state; ``rule`` is the sentence printed when it returns False."""

    def decorate(method: F) -> F:
        cast(Any, method)._always = rule
        return method

    return decorate


def sometimes(situation: str) -> Callable[[F], F]:
    """Mark a method as a situation that some state must show, or the check has proved nothing."""

    def decorate(method: F) -> F:
        cast(Any, method)._sometimes = situation
        return method

    return decorate


class World(Record):
    """The root of a model.  ``World(pages=4, bug=True)`` takes sizes of the geometry and initial values of fields.

    Attributes:
        geometry: default sizes; merged over the base classes.
        ladder: sizes and options at which ``guestmem check`` explores it, the cheapest first.  A class that sets a
            geometry and no ladder is explored at its own sizes alone.
        must_show: situations that a check must show, though no code be left that says ``reached``; merged over the base classes.
        threads: the threads, in the order of their declaration.
    """

    _root = True
    geometry: ClassVar[dict[str, int]] = {}
    ladder: ClassVar[list[dict[str, Any]]] = [{}]
    must_show: ClassVar[list[str]] = []
    threads: ClassVar[list[Thread]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "geometry" in vars(cls) and "ladder" not in vars(cls):
            cls.ladder = [{}]

    def __init__(self, **options: Any) -> None:
        sizes: dict[str, int] = {}
        for base in reversed(type(self).__mro__):
            sizes.update(getattr(base, "__dict__", {}).get("geometry", {}))
        for name in list(options):
            if name in sizes:
                sizes[name] = options.pop(name)
        threads: list[Thread] = []
        for function in self.marked("_thread"):
            count = function._thread
            if count is None:
                threads.append(Thread(function.__name__, function, ()))
            else:
                threads.extend(Thread(f"{function.__name__}{i}", function, (i,)) for i in range(evaluate(count, sizes)))
        sizes["threads"] = len(threads)
        super().__init__(sizes)
        object.__setattr__(self, "geometry", sizes)
        object.__setattr__(self, "threads", threads)
        for name, value in options.items():
            field = self.fields().get(name)
            if field is None or field.kind != "scalar":
                known = ", ".join([*sizes, *(f.name for f in self.fields().values() if f.kind == "scalar")])
                raise Refused(type(self).__name__, f"{name!r} is no size or option of it", f"use one of: {known}")
            setattr(self, name, value)
        _count_spin_locks(self)
        self.setup()
        _check_references(self)

    def setup(self) -> None:
        """Wire references and initial values; runs once, in plain Python, after the records exist."""

    def begun(self) -> bool:
        """Whether what every run begins with is done: a trace shows the steps up to there as one."""
        return True

    @classmethod
    def marked(cls, mark: str) -> list[Any]:
        """The methods that carry a mark (``_thread``, ``_always``, ``_sometimes``), bases first; overriding replaces."""
        names: dict[str, None] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                if hasattr(value, mark):
                    names.setdefault(name)
        found = [getattr(cls, name) for name in names]
        return [function for function in found if hasattr(function, mark)]


def to_be_shown(world: World) -> list[str]:
    """The situations that a world names, those of its bases first."""
    bases = reversed(type(world).__mro__)
    return list(dict.fromkeys(text for base in bases for text in vars(base).get("must_show", ())))


def records_of(root: Record) -> Iterator[Record]:
    """Every record of a world, the root first, each before its parts."""
    yield root
    for field in root.fields().values():
        value = getattr(root, field.name)
        if field.kind == "part":
            yield from records_of(value)
        elif field.kind == "array" and field.parts:
            for element in value:
                yield from records_of(element)


def _count_spin_locks(world: World) -> None:
    """Tell all locks of a world, and what else asks, who holds spin locks."""
    records = list(records_of(world))
    counter = next((record for record in records if isinstance(record, Preempt)), None)
    for record in records:
        field = record.fields().get("preempt")
        if field is not None and field.kind == "scalar":
            record.preempt = counter
        if counter is None and isinstance(record, SpinLock):
            raise Refused(str(record), "a spin lock in a world that counts none", "add preempt: Preempt = part() to the world")


def _check_references(world: World) -> None:
    for record in records_of(world):
        for field in record.fields().values():
            if field.kind == "scalar" and isinstance(field.type, RefType) and not field.type.optional:
                check_value(field, getattr(record, field.name), world.geometry, f"{record}.{field.name} after setup")


def snapshot(world: World) -> Mapping[str, str]:
    """Every scalar of the world by its path, as text: what a trace compares before and after a step."""
    values: dict[str, str] = {}
    for record in records_of(world):
        prefix = "" if record is world else f"{record}."
        for field in record.fields().values():
            value = getattr(record, field.name)
            if field.kind == "scalar":
                values[prefix + field.name] = show(value)
            elif isinstance(value, Array) and not field.parts:
                for index, element in enumerate(value):
                    values[f"{prefix}{field.name}[{index}]"] = show(element)
    return values
