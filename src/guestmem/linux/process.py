# SPDX-License-Identifier: Apache-2.0
"""Processes: children that die with their parent, and who is there.

A :class:`Child` is forked, not executed: it runs a function and speaks through a ``multiprocessing`` connection.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

from guestmem.linux.calls import PAGE_SIZE, die_with_parent

__all__ = ["Child", "Lost", "Worker", "alive", "in_child", "limited", "process_name"]

NEEDED = {
    "descriptors": (resource.RLIMIT_NOFILE, 128, "ulimit -n 128"),
    "bytes in a file": (resource.RLIMIT_FSIZE, 1 << 20, "ulimit -f 1024"),
}
"""What a process that tries the kernel needs of its limits, and what to type where it may not have it."""

T = TypeVar("T")


def limited() -> str:
    """What keeps this process from trying the kernel, or nothing: its pages, or a limit that is too low.

    A soft limit is raised if it may be.
    """
    if PAGE_SIZE != 4096:
        return f"needs pages of 4096 bytes, and this kernel's have {PAGE_SIZE}: boot one that has pages of 4 KiB"
    for what, (number, enough, remedy) in NEEDED.items():
        soft, hard = resource.getrlimit(number)
        if soft == resource.RLIM_INFINITY or soft >= enough:
            continue
        if hard != resource.RLIM_INFINITY and hard < enough:
            return f"needs {enough} {what}, and may have {hard}: {remedy}"
        resource.setrlimit(number, (enough, hard))
    return ""


class Lost(Exception):
    """A child ended without an answer, or gave none in time; the text says how.

    ``signal``: the number of the signal that ended it, or 0.
    """

    def __init__(self, how: str, signal: int = 0) -> None:
        super().__init__(how, signal)
        self.signal = signal

    def __str__(self) -> str:
        return str(self.args[0])


class Child:
    """A child process that runs a function with its end of a connection, and is killed when this process ends.

    What the function raises ends the child silently.

    Attributes:
        connection: our end; reading from it raises EOFError when the child is gone.
        status: how it ended (os.waitstatus_to_exitcode), None while it is not reaped.
    """

    def __init__(self, function: Callable[[Connection], None]) -> None:
        self.connection, theirs = Pipe()
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.connection.close()
                die_with_parent()
                function(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def ended(self) -> bool:
        """Whether it has ended; it is reaped then."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self) -> int:
        """Wait for its end; its status."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def receive(self) -> Any:
        """What it sends.  Raises :class:`Lost` when it ends instead."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            number = max(-self.wait(), 0)
            how = signal.Signals(number).name if number else f"exit {self.status}"
            raise Lost(f"the process was ended by {how}", number) from None

    def close(self) -> None:
        """Kill it if it is still there, and close the connection."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self.connection.close()


def in_child(function: Callable[[], T]) -> T:
    """What a function returns or raises, run in a child.  Raises :class:`Lost` when the child ends without that."""

    def answer(connection: Connection) -> None:
        connection.send(_outcome(function))

    child = Child(answer)
    with contextlib.closing(child):
        result: T = _unpacked(child.receive())
        child.wait()
        return result


def _outcome(function: Callable[..., Any], *arguments: Any) -> tuple[bool, Any]:
    """What a function returned or raised: whether it returned, and what."""
    try:
        return True, function(*arguments)
    except Exception as error:
        return False, error


def _unpacked(outcome: tuple[bool, Any]) -> Any:
    """Return or raise what :func:`_outcome` found."""
    good, value = outcome
    if not good:
        raise value
    return value


class Worker:
    """A child that calls ``prepare()`` once and then ``work(prepared, job)`` for each job.

    What these raise is raised here.  ``timeout``, in seconds, is for one job.
    """

    def __init__(self, prepare: Callable[[], Any], work: Callable[[Any, Any], Any], timeout: float = 60) -> None:
        self.timeout = timeout

        ready = functools.cache(prepare)

        def answer(job: Any) -> Any:
            return work(ready(), job)

        def serve(connection: Connection) -> None:
            # A signal to the group is the parent's to answer; it ends this process when it has.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            while True:
                job = connection.recv()
                connection.send(_outcome(answer, job))

        self.child = Child(serve)

    def start(self, job: Any) -> None:
        """Give the child a job."""
        with contextlib.suppress(BrokenPipeError):  # it is gone: result() says how
            self.child.connection.send(job)

    def result(self, stopped: Callable[[], bool] = lambda: False) -> Any:
        """What the job gave.  Raises what the job raised, and :class:`Lost`, also when the caller is told to stop."""
        end = time.monotonic() + self.timeout
        while not self.child.connection.poll(min(self.timeout, 0.1)):
            if stopped() or time.monotonic() > end:
                self.close()
                raise Lost("told to stop" if stopped() else f"no answer within {self.timeout:g} s")
        return _unpacked(self.child.receive())

    def do(self, job: Any, stopped: Callable[[], bool] = lambda: False) -> Any:
        """Give the child a job and wait for what it gives."""
        self.start(job)
        return self.result(stopped)

    def close(self) -> None:
        """End the child."""
        self.child.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def alive(pid: int) -> bool:
    """Whether a process is there, and not only waiting to be reaped."""
    return process_name(pid) is not None


def process_name(pid: int) -> str | None:
    """The name of a process; None when it is dead, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            name, _, rest = stat.read().partition("(")[2].rpartition(") ")
    except OSError:
        return None
    return None if rest[:1] in "ZX" else name
