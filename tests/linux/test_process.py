# SPDX-License-Identifier: Apache-2.0
"""Children: what they give, what is said of one that gives nothing, and that none is left."""

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from guestmem.linux.calls import CallError, libc
from guestmem.linux.process import Child, Lost, Worker, alive, in_child, limited, process_name


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


def under(number: int, limit: tuple[int, int]) -> str:
    """What is said of a limit, in a child."""

    def said() -> str:
        resource.setrlimit(number, limit)
        return limited() or f"soft {resource.getrlimit(number)[0]}"

    return in_child(said)


def test_a_limit_that_is_too_low_is_said_and_a_soft_one_is_raised() -> None:
    assert under(resource.RLIMIT_NOFILE, (40, 40)) == "needs 128 descriptors, and may have 40: ulimit -n 128"
    assert under(resource.RLIMIT_NOFILE, (40, 500)) == "soft 128"
    assert under(resource.RLIMIT_NOFILE, (300, 500)) == "soft 300"
    assert under(resource.RLIMIT_FSIZE, (0, 0)) == "needs 1048576 bytes in a file, and may have 0: ulimit -f 1024"


def test_pages_of_another_size_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guestmem.linux.process.PAGE_SIZE", 1 << 16)
    assert limited() == "needs pages of 4096 bytes, and this kernel's have 65536: boot one that has pages of 4 KiB"
