# SPDX-License-Identifier: Apache-2.0
"""Plain Python threads of a world, switched at steps.

Each thread of the world is a thread of Python, of which one runs at a time, from one boundary to the next.  What runs
is the model code as it stands, so a debugger can stop in it; the state of a thread that waits is its Python frames.
"""

from __future__ import annotations

import bdb
import contextlib
import enum
import inspect
import pdb
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

from guestmem.model import control
from guestmem.model.errors import IN_RANGE, NO_NONE, Verdict
from guestmem.model.lock import Mutex
from guestmem.model.world import World

#: What stands between a model's code and the boundary of a step: the words of the language, and locks that ``with`` takes.
WORDS = {control.__file__, contextlib.__file__, __file__}
WITH = {Mutex.__enter__.__code__, Mutex.__exit__.__code__}
#: The largest number of an error, as in the kernel.
MAX_ERRNO = 4095


class Slice(NamedTuple):
    """What a thread does when it is scheduled: the choices it makes, and whether it executes a step.

    A slice that begins at a choice goes on to the step after it, unless that step must wait or something others can
    change was read in between.
    """

    thread: int
    choices: tuple[int, ...] = ()
    stepped: bool = True


class Choice(NamedTuple):
    """A choice made in a slice: what it was about, what was taken, out of how many."""

    label: str
    taken: int
    of: int

    def __str__(self) -> str:
        """The alternative taken, by its name if the label names them all; empty for something that did not happen."""
        alternatives = self.label.split(", ")
        if self.of == 1:
            return ""
        if len(alternatives) == self.of:
            return alternatives[self.taken]
        if self.label.endswith("?"):
            return self.label[:-1] if self.taken else ""
        return f"{self.label or 'choice'} {self.taken}"


class Event(NamedTuple):
    """A slice as it ran: the step's name, where it was called from, and the choices made; without a step, where it chose."""

    step: str
    file: str
    line: int
    function: str
    choices: list[Choice]


class _Stop(BaseException):
    """Unwinds a thread that is no longer needed."""


class _Task:
    def __init__(self, number: int) -> None:
        self.number = number
        self.go = threading.Semaphore(0)
        self.thread: threading.Thread | None = None
        self.finished = False
        self.error: BaseException | None = None


def _verdict(error: BaseException) -> Verdict | None:
    """The rule that an exception of Python says is broken; None: it says nothing of rules."""
    if isinstance(error, Verdict):
        return error
    if isinstance(error, AttributeError) and "'NoneType'" in str(error):
        return Verdict(NO_NONE, str(error)).with_traceback(error.__traceback__)
    if isinstance(error, ZeroDivisionError):
        return Verdict(IN_RANGE, "division by zero").with_traceback(error.__traceback__)
    if isinstance(error, ValueError) and str(error) == "negative shift count":
        return Verdict(IN_RANGE, str(error)).with_traceback(error.__traceback__)
    return None


def _model_frame(frame: FrameType) -> FrameType | None:
    """The first frame, from this one outwards, that runs a model's code; None if a thread of the world is a step itself."""
    at: FrameType | None = frame
    while at is not None and (at.f_code.co_filename in WORDS or at.f_code in WITH):
        at = None if at.f_code is Schedule._run.__code__ else at.f_back
    return at


def _model_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """This frame and those outwards that run a model's code."""
    while frame is not None:
        yield frame
        frame = _model_frame(frame.f_back) if frame.f_back else None


class _Debugger(pdb.Pdb):
    """A debugger that stops at once, in the frame that it is given."""

    def stop_in(self, frame: FrameType) -> None:
        """Talk to the user; then go on as told.  Raises BdbQuit when the user leaves."""
        self.reset()
        at: FrameType | None = frame
        while at is not None:
            at.f_trace = self.trace_dispatch
            self.botframe = at
            at = at.f_back
        self.set_step()
        self.interaction(frame, None)
        if self.quitting:
            raise bdb.BdbQuit
        sys.settrace(self.trace_dispatch)


class Schedule:
    """The threads of a world under control.  Use as a context manager: leaving it ends the threads.

    ``run(slice)`` lets one thread go on and returns what it did, or None if its step must wait.  Raises
    :class:`Verdict` when a rule is broken.  With ``watch``, ``failed`` has the functions that returned an error in the
    slice, kernel style: a negative number, alone or first; ``stack`` the model's functions that the step was called by,
    innermost first, each with its file and line.
    """

    def __init__(self, world: World, watch: bool = False) -> None:
        self.world = world
        self.geometry: Mapping[str, int] = world.geometry
        self.in_step = False
        self.others_run = True
        self.situations: set[str] = set()
        self.costs: Counter[enum.Enum] = Counter()
        self.debug = False
        self.watch = watch
        self.failed: list[tuple[str, int]] = []
        self.stack: list[tuple[str, str, int]] = []
        self._tasks = [_Task(number) for number in range(len(world.threads))]
        self._back = threading.Semaphore(0)
        self._active = self._tasks[0] if self._tasks else _Task(0)
        self._slice = Slice(0, (), False)
        self._chosen = 0
        self._stepped = True
        self._waits = False
        self._stopping = False
        self.event: Event | None = None
        self.choices: list[Choice] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping = True
        for task in self._tasks:
            if task.thread is not None and not task.finished:
                self._active = task
                task.go.release()
                self._back.acquire()
                task.thread.join()

    def _run(self, task: _Task, thread: Any) -> None:
        if self.watch:
            sys.setprofile(self._returning)
        try:
            thread.function(self.world, *thread.arguments)
        except _Stop:
            pass
        except BaseException as error:
            task.error = error
        task.finished = True
        self._back.release()

    def _returning(self, frame: FrameType, event: str, value: Any) -> None:
        code = frame.f_code
        if (
            event != "return"
            or code.co_filename in WORDS
            or code.co_name.startswith("__")
            or code.co_flags & inspect.CO_GENERATOR
        ):
            return
        result = value[0] if isinstance(value, tuple) and value else value
        if isinstance(result, int) and -MAX_ERRNO <= result < 0:
            self.failed.append((code.co_qualname, result))

    def _raise(self, task: _Task) -> None:
        error, task.error = task.error, None
        if error is not None:
            raise _verdict(error) or error

    # ---- for whoever drives the threads

    def started(self, thread: int) -> bool:
        """Whether a thread has run at all: it begins with its first slice."""
        return self._tasks[thread].thread is not None

    def finished(self, thread: int) -> bool:
        """Whether a thread has returned."""
        return self._tasks[thread].finished

    def run(self, slice_: Slice) -> Event | None:
        """Let a thread do one slice."""
        task = self._tasks[slice_.thread]
        self._active, self._slice = task, slice_
        self._chosen, self._stepped, self._waits = 0, False, False
        self.event, self.choices, self.failed, self.stack = None, [], [], []
        with control.running(self):
            if task.thread is None:
                task.thread = threading.Thread(target=self._run, args=(task, self.world.threads[slice_.thread]), daemon=True)
                task.thread.start()
            else:
                task.go.release()
            self._back.acquire()
        self._raise(task)
        if self._waits:
            return None
        return self.event or Event("", "", 0, self.world.threads[slice_.thread].name, self.choices)

    def broken(self) -> list[Verdict]:
        """What the state breaks now: each rule with a property that does not hold, or that breaks one when evaluated."""
        found: dict[str, Verdict] = {}
        with control.running(self):
            self.in_step = True
            for function in self.world.marked("_always"):
                try:
                    if not function(self.world):
                        found.setdefault(function._always, Verdict(function._always))
                except Exception as error:
                    verdict = _verdict(error)
                    if verdict is None:
                        raise
                    found[function._always] = verdict
            self.in_step = False
        return list(found.values())

    def frames(self, thread: int) -> Iterator[FrameType]:
        """The Python frames of a thread that waits, innermost first."""
        task = self._tasks[thread]
        frame = sys._current_frames().get(task.thread.ident or 0) if task.thread and not task.finished else None
        while frame is not None:
            yield frame
            frame = frame.f_back

    # ---- for the words of the language, called in the thread that runs

    def _pause(self) -> None:
        task = self._active
        self._back.release()
        task.go.acquire()
        if self._stopping:
            raise _Stop

    def boundary(self, function: Callable[..., Any]) -> None:
        """Pause before a step, unless the slice is to go on into it."""
        if self._stepped or not self._slice.stepped:
            self._pause()
        self._stepped = True
        self._happens(function)

    def _happens(self, function: Callable[..., Any] | None) -> None:
        """Note the line of the model that calls a step, or chooses; there the debugger stops, if it is to."""
        caller = _model_frame(sys._getframe())
        name = function.__qualname__ if function else ""
        if caller is not None:
            self.event = Event(name, caller.f_code.co_filename, caller.f_lineno, caller.f_code.co_qualname, self.choices)
        elif function is not None:
            code = function.__code__
            self.event = Event(name, code.co_filename, code.co_firstlineno, code.co_qualname, self.choices)
        if self.watch:
            self.stack = [(f.f_code.co_qualname, f.f_code.co_filename, f.f_lineno) for f in _model_frames(caller)]
        if self.debug:
            self.debug = False
            skipped = [control.__name__, __name__, "contextlib"]
            _Debugger(nosigint=True, skip=skipped).stop_in(caller or sys._getframe())

    def blocked(self, function: Callable[..., Any]) -> None:
        """Pause in front of a step that must wait."""
        self._waits = True
        self._pause()
        self._stepped = True

    def choose(self, n: int, label: str) -> int:
        """Take the next choice of the slice; outside a step, pause first where the slice ends."""
        if not self.in_step and (self._stepped or self._chosen == len(self._slice.choices)):
            self._pause()
        taken = self._slice.choices[self._chosen] if self._chosen < len(self._slice.choices) else 0
        self._chosen += 1
        self.choices.append(Choice(label, taken, n))
        if not self.in_step:
            self._happens(None)
        return taken

    def current(self) -> int:
        """The number of the running thread."""
        return self._active.number

    def reached(self, situation: str) -> None:
        """Note a situation."""
        self.situations.add(situation)

    def charge(self, kind: enum.Enum, n: int) -> None:
        """Account for work done."""
        self.costs[kind] += n
