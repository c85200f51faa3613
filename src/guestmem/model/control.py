# SPDX-License-Identifier: Apache-2.0
"""The words of the model language: steps, choices, guards and verdicts.

Each is an ordinary Python function, so model code runs under a debugger; what it does depends on who runs it:

* nobody in particular (:class:`Alone`): single-threaded, choices are answered from a list or with 0;
* a :class:`~guestmem.model.schedule.Schedule`: threads are switched at steps;
* the checker, which translates the code and never calls these functions.
"""

from __future__ import annotations

import contextlib
import enum
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, Protocol, TypeVar, cast

from guestmem.model.errors import IN_RANGE, NO_DEADLOCK, NO_PANIC, Blocked, Deadlock, Verdict

__all__ = [
    "alone",
    "charge",
    "choose",
    "current",
    "guard",
    "may",
    "panic",
    "reached",
    "require",
    "step",
    "when",
]

F = TypeVar("F", bound=Callable[..., Any])


class Runner(Protocol):
    """Who is running model code at the moment."""

    in_step: bool
    geometry: Mapping[str, int]  # of the world that runs; empty where it is not known
    others_run: bool  # so that locks matter

    def boundary(self, function: Callable[..., Any]) -> None:
        """Called before a step begins, outside any other step: here a thread can be interrupted."""

    def blocked(self, function: Callable[..., Any]) -> None:
        """Called when a step could not happen; returns when it should be tried again."""

    def choose(self, n: int, label: str) -> int:
        """Decide a choice among 0..n-1."""

    def current(self) -> int:
        """The number of the running thread."""

    def reached(self, label: str) -> None:
        """Note that an interesting situation was reached."""

    def charge(self, kind: enum.Enum, n: int) -> None:
        """Account for work done."""


class Alone:
    """Runs model code on its own: one thread, choices answered from ``choices`` and then with 0."""

    def __init__(self, choices: Iterable[int] = (), thread: int = 0) -> None:
        self.in_step = False
        self.geometry: Mapping[str, int] = {}
        self.others_run = False
        self.thread = thread
        self.costs: Counter[enum.Enum] = Counter()
        self.situations: set[str] = set()
        self._choices = iter(choices)

    def boundary(self, function: Callable[..., Any]) -> None:
        pass

    def blocked(self, function: Callable[..., Any]) -> None:
        raise Deadlock(NO_DEADLOCK, f"{function.__qualname__} waits for ever: nobody else runs")

    def choose(self, n: int, label: str) -> int:
        return next(self._choices, 0)

    def current(self) -> int:
        return self.thread

    def reached(self, label: str) -> None:
        self.situations.add(label)

    def charge(self, kind: enum.Enum, n: int) -> None:
        self.costs[kind] += n


class InTurn(Alone):
    """As :class:`Alone`, but of what is chosen by ``label`` it takes the next in turn that ``fits``; Deadlock if none does."""

    def __init__(self, label: str, fits: Callable[[int], bool]) -> None:
        super().__init__()
        self.label = label
        self.fits = fits
        self.last = 0

    def choose(self, n: int, label: str) -> int:
        if label != self.label:
            return super().choose(n, label)
        for _ in range(n):
            if self.fits(self.last):
                return self.last
            self.last = (self.last + 1) % n
        raise Deadlock(NO_DEADLOCK, f"{label}: none is left to choose")


_runner: Runner = Alone()


@contextlib.contextmanager
def running(runner: Runner) -> Iterator[None]:
    """Let ``runner`` decide what the words of the language do in this block."""
    global _runner
    before, _runner = _runner, runner
    try:
        yield
    finally:
        _runner = before


@contextlib.contextmanager
def alone(choices: Iterable[int] = (), thread: int = 0) -> Iterator[Alone]:
    """Run model code single-threaded, answering its choices from ``choices`` and then with 0.

    Yields the runner: its ``costs`` count what was charged, its ``situations`` what was reached.
    """
    runner = Alone(choices, thread)
    with running(runner):
        yield runner


def step(function: F) -> F:
    """Make a function atomic: a thread can be interrupted before it, never inside it.

    Steps called by a step are part of it.  A step that says ``when(False)`` has not happened and waits.
    """

    @functools.wraps(function)
    def atomic(*args: Any, **kwargs: Any) -> Any:
        runner = _runner
        if runner.in_step:
            return function(*args, **kwargs)
        runner.boundary(function)
        while True:
            runner.in_step = True
            try:
                return function(*args, **kwargs)
            except Blocked:
                pass
            finally:
                runner.in_step = False
            runner.blocked(function)

    atomic._step = True  # type: ignore[attr-defined]
    return cast(F, atomic)


class guard:
    """Two methods as a context manager: ``shared = guard("down_read", "up_read")``, then ``with lock.shared:``."""

    def __init__(self, enter: str, leave: str) -> None:
        self.enter = enter
        self.leave = leave

    def __get__(self, lock: Any, owner: Any) -> Any:
        if lock is None:
            return self

        @contextlib.contextmanager
        def held() -> Iterator[None]:
            getattr(lock, self.enter)()
            yield
            getattr(lock, self.leave)()

        return held()


def exported_to(*packages: str) -> Callable[[F], F]:
    """Have code outside these packages refused when it is built, if it calls the function (EXPORT_SYMBOL_FOR_MODULES)."""

    def mark(function: F) -> F:
        cast(Any, function)._exported_to = packages
        return function

    return mark


def choose(n: int, label: str = "") -> int:
    """What the world may decide: any of 0..n-1, where n is at least 1.  The checker tries all.

    ``label`` names the decision in a trace: what is decided ("pgoff"), or each alternative ("allocate, punch, convert").
    """
    if n < 1:
        raise Verdict(IN_RANGE, f"choose({n}): nothing to choose from")
    return _runner.choose(n, label)


def may(what: str) -> bool:
    """Whether something that can happen does: an allocation fails, a hypercall is refused.  The checker tries both."""
    return _runner.choose(2, f"{what}?") == 1


def when(condition: bool) -> None:
    """The step happens only when ``condition`` is true; it must come before the first change the step makes."""
    if not condition:
        raise Blocked


def require(condition: bool, rule: str) -> None:
    """A rule: ``rule`` is the sentence printed when ``condition`` is false."""
    if not condition:
        raise Verdict(rule)


def panic(why: str) -> NoReturn:
    """The host kernel (or the hypervisor) dies here."""
    raise Verdict(NO_PANIC, why)


def reached(situation: str) -> None:
    """Note an interesting situation: a check that never comes here has proved nothing, and fails."""
    _runner.reached(situation)


def charge(kind: enum.Enum, n: int = 1) -> None:
    """Account for ``n`` units of work.  Costs are counted when running, and are no part of a checked state."""
    _runner.charge(kind, n)


def geometry() -> Mapping[str, int]:
    """The sizes of the world that runs; empty where that is not known."""
    return _runner.geometry


def others_run() -> bool:
    """Whether there are other threads, so that locks matter; set-up and plain single-threaded runs need none."""
    return _runner.others_run


def current() -> int:
    """The number of the running thread, 0 <= number < threads."""
    return _runner.current()
