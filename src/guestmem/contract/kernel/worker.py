# SPDX-License-Identifier: Apache-2.0
"""A child process that does jobs one after another, and dies with its parent."""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ["Lost", "Worker"]


class Lost(Exception):
    """The child died, or did not answer in time; the text says how."""


class Worker:
    """A child that calls ``prepare()`` once and then ``work(prepared, job)`` for each job.

    What these raise is raised here.  The child is killed when its parent ends.
    """

    def __init__(self, prepare: Callable[[], Any], work: Callable[[Any, Any], Any], timeout: float = 60) -> None:
        self.timeout = timeout
        jobs, self.jobs = os.pipe()
        self.answers, answers = os.pipe()
        sys.stdout.flush()
        self.child = os.fork()
        if self.child == 0:
            os.close(self.jobs)
            os.close(self.answers)
            serve(jobs, answers, prepare, work)
        os.close(jobs)
        os.close(answers)

    def start(self, job: Any) -> None:
        """Give the child a job."""
        send(self.jobs, job)

    def result(self, stopped: Callable[[], bool] = lambda: False) -> Any:
        """What the job gave.  Raises what the job raised, and :class:`Lost`, also when the caller is told to stop."""
        end = time.monotonic() + self.timeout
        while not select.select([self.answers], [], [], min(self.timeout, 0.1))[0]:
            if stopped() or time.monotonic() > end:
                self.close()
                raise Lost("told to stop" if stopped() else f"no answer within {self.timeout:g} s")
        try:
            good, answer = receive(self.answers)
        except EOFError:
            _, status = os.waitpid(self.child, 0)
            self.child = 0
            how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
            raise Lost(f"the process was ended by {how}") from None
        if not good:
            raise answer
        return answer

    def do(self, job: Any, stopped: Callable[[], bool] = lambda: False) -> Any:
        """Give the child a job and wait for what it gives."""
        self.start(job)
        return self.result(stopped)

    def close(self) -> None:
        """End the child."""
        if self.child:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            self.child = 0
        for fd in (self.jobs, self.answers):
            if fd >= 0:
                os.close(fd)
        self.jobs = self.answers = -1

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def serve(jobs: int, answers: int, prepare: Callable[[], Any], work: Callable[[Any, Any], Any]) -> None:
    """Do jobs until there are no more, and end the process."""
    from guestmem.linux.calls import die_with_parent

    try:
        die_with_parent()
        # A signal to the group is the parent's to answer; it ends this process when it has.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        prepared = None
        while True:
            job = receive(jobs)
            try:
                if prepared is None:
                    prepared = prepare()
                answer = True, work(prepared, job)
            except Exception as error:
                answer = False, error
            send(answers, answer)
    except (EOFError, BrokenPipeError):
        pass
    finally:
        os._exit(0)


def send(fd: int, value: Any) -> None:
    """Write a value with its length before it."""
    data = pickle.dumps(value)
    data = struct.pack("<Q", len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> Any:
    """Read a value.  Raises EOFError."""
    return pickle.loads(exactly(fd, struct.unpack("<Q", exactly(fd, 8))[0]))


def exactly(fd: int, length: int) -> bytes:
    """Read bytes.  Raises EOFError."""
    data = b""
    while len(data) < length:
        more = os.read(fd, length - len(data))
        if not more:
            raise EOFError
        data += more
    return data
