# SPDX-License-Identifier: Apache-2.0
"""Children: what they give, what is said of one that gives nothing, and that none is left."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from guestmem.linux.calls import CallError, libc
from guestmem.linux.process import Child, Lost, Worker, alive, in_child, process_name


def test_a_child_gives_what_a_function_returns_or_raises() -> None:
    assert in_child(lambda: [os.getppid(), "two"]) == [os.getpid(), "two"]
    with pytest.raises(CallError, match="EBADF") as caught:
        in_child(lambda: libc("fsync", fd=-1))
    assert caught.value.arguments == {"fd": -1}
    with pytest.raises(CallError, match=re.escape("pread(fd=-1, buffer=..., count=1, offset=0): EBADF")):
        in_child(lambda: libc("pread", fd=-1, buffer=ctypes.byref(ctypes.c_char()), count=1, offset=0))


ENDINGS: dict[str, tuple[Callable[[], Any], str, int]] = {
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "the process was ended by SIGKILL", signal.SIGKILL),
    "left": (lambda: os._exit(3), "the process was ended by exit 3", 0),
    "what cannot be sent": (lambda: iter(lambda: 0, 1), "the process was ended by exit 0", 0),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_child_that_gives_nothing_is_lost_and_it_is_said_how(name: str) -> None:
    ends, how, number = ENDINGS[name]
    with pytest.raises(Lost) as lost:
        in_child(ends)
    assert (str(lost.value), lost.value.signal) == (how, number)


def test_what_a_child_is_killed_before_it_reads_does_not_break_us() -> None:
    with Worker(lambda: None, lambda _, job: job) as worker:
        os.kill(worker.child.pid, signal.SIGSTOP)
        worker.start(1)
        os.kill(worker.child.pid, signal.SIGKILL)
        with pytest.raises(Lost, match="the process was ended by SIGKILL"):
            worker.result()
        with pytest.raises(Lost, match="the process was ended by SIGKILL"):
            worker.do(2)


def test_a_worker_prepares_once_and_works_on() -> None:
    def work(numbers: list[int], job: int) -> list[int]:
        numbers.append(1 // job)
        return [os.getpid(), *numbers]

    with Worker(list, work) as worker:
        first = worker.do(1)
        with pytest.raises(ZeroDivisionError):
            worker.do(0)
        assert worker.do(1) == [*first, 1]
        assert first == [worker.child.pid, 1]
    assert not alive(worker.child.pid)


def test_a_worker_that_takes_too_long_or_is_told_to_stop_is_ended() -> None:
    for timeout, stopped, how in ((0.2, False, "no answer within 0.2 s"), (60, True, "told to stop")):
        worker = Worker(lambda: None, lambda _, job: time.sleep(job), timeout)
        with pytest.raises(Lost, match=how):
            worker.do(100, lambda stopped=stopped: stopped)  # type: ignore[misc]
        assert not alive(worker.child.pid)


ORPHAN = """
from guestmem.linux.process import Child
child = Child(lambda connection: connection.recv())
print(child.pid, flush=True)
input()
"""


def test_a_child_dies_with_its_parent() -> None:
    argv = [sys.executable, "-c", ORPHAN]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    for _ in range(500):
        if not alive(pid):
            break
        time.sleep(0.01)
    assert process_name(pid) is None


def test_closing_a_child_ends_it_and_says_how_it_ended() -> None:
    child = Child(lambda connection: connection.recv())
    assert not child.ended()
    child.close()
    child.close()
    assert (child.ended(), child.status) == (True, -signal.SIGKILL)
