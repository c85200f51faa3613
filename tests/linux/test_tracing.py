# SPDX-License-Identifier: Apache-2.0
"""``guestmem record``: what it writes, what it returns, and that a kill at any moment leaves nothing for long."""

import fcntl
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guestmem.cli import main as cli
from guestmem.linux.trace import text as ftrace
from guestmem.linux.trace.merge import merge
from guestmem.linux.trace.operations import operations
from guestmem.linux.trace.record import OURS, tracefs
from guestmem.linux.trace.replay import replay
from requires import require


@pytest.fixture(autouse=True)
def _one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a killed recording leaves, any other recording removes, also that of another worker."""
    with open(tmp_path_factory.getbasetemp().parent / "tracefs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


GUEST = """
from guestmem.linux.guest import Guest
from guestmem.linux.kvm import Kvm

with Kvm() as kvm, kvm.create_vm() as vm, vm.create_guest_memfd(64 << 12, 3) as file, file.mmap() as mapping:
    with Guest(kvm, vm, 64, memory=file, userspace_addr=mapping.address) as guest:
        guest.store(0, 8)
        mapping.fill(1, 8 << 12, 4 << 12)
        file.allocate(16 << 12, 8 << 12)
        file.punch(0, 4 << 12)
        guest.store(0, 2)
"""


def record(file: Path, *command: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "guestmem", "record", "-o", str(file), "--", *command]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def heed() -> None:
    """Signals end this process, whatever the tests were started with."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def done(run: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = run.communicate(timeout=60)
    return run.returncode, err


def instances() -> set[str]:
    with tracefs() as root:
        return {place.name for place in (root / "instances").iterdir() if OURS.match(place.name)}


def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not come to pass")


def test_a_guest_is_recorded_and_its_recording_is_consistent(tmp_path: Path) -> None:
    require("kvm", "tracefs")
    file = tmp_path / "guest.txt"
    run = record(file, sys.executable, "-c", GUEST)
    assert done(run) == (0, "")
    lines = ftrace.lines(str(file))
    report = replay(lines)
    assert (report.verdict, report.violations) == ("consistent", [])
    assert (report.counts["added"], report.counts["removed"], report.counts["files"]) == (22, 22, 1)
    kinds = [operation.kind for operation in operations("guest", lines).operations]
    assert (kinds.count("guest"), kinds.count("user"), kinds.count("allocate"), kinds.count("punch")) == (10, 4, 8, 1)
    assert f"guestmem-{run.pid}" not in instances()

    pages = [at for at, line in enumerate(lines) if "_page_cache: dev 0:" in line]
    for at in pages:
        assert replay(lines[:at] + lines[at + 1 :]).verdict == "violated"
        assert replay([*lines[:at], lines[at].replace("pfn=0x", "pfn=0xf"), *lines[at + 1 :]]).verdict == "violated"


HOLDER = """
import socket
from guestmem.linux.kvm import Kvm

with socket.socket(socket.AF_UNIX) as here:
    here.bind({path!r})
    here.listen()
    with Kvm() as kvm, kvm.create_vm() as vm, vm.create_guest_memfd(4 << 12, 3) as file:
        file.allocate(0, 4 << 12)
        there, _ = here.accept()
        with there:
            socket.send_fds(there, [b"x"], [file.fileno()])
            there.recv(1)
            file.punch(0, 2 << 12)
            there.send(b"y")
            there.recv(1)
"""
CLIENT = """
import socket
from guestmem.linux.kvm import GuestMemfd

with socket.socket(socket.AF_UNIX) as there:
    there.connect({path!r})
    _, (fd,), _, _ = socket.recv_fds(there, 1, 1)
    with GuestMemfd(fd) as file:
        file.punch(0, 4 << 12)
        file.allocate(0, 4 << 12)
        there.send(b"x")
        there.recv(1)
        file.allocate(0, 4 << 12)
"""


def test_what_others_do_to_a_file_is_recorded(tmp_path: Path) -> None:
    """The file is older than the recording; a process that is not followed punches holes that the command fills again."""
    require("kvm", "tracefs")
    path, file = str(tmp_path / "socket"), tmp_path / "trace.txt"
    with subprocess.Popen([sys.executable, "-c", HOLDER.format(path=path)]):
        until(Path(path).exists)
        assert done(record(file, sys.executable, "-c", CLIENT.format(path=path))) == (0, "")
    report = replay(ftrace.lines(str(file)))
    assert (report.verdict, report.violations) == ("consistent", [])
    assert report.counts["added"] == 6
    assert report.counts["removed"] >= 6


def test_an_instance_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    require("tracefs")
    with tracefs() as root, subprocess.Popen(["sleep", "100"]) as sleeper:
        mine = root / "instances" / "guestmem-mine"
        mine.mkdir()
        try:
            (mine / "set_event_pid").write_text(str(sleeper.pid))
            assert done(record(tmp_path / "trace.txt", "true")) == (0, "")
            assert mine.is_dir()
            assert sleeper.poll() is None
        finally:
            sleeper.kill()
            mine.rmdir()


def test_pages_are_followed_to_the_end_of_a_process_that_closes_nothing(tmp_path: Path) -> None:
    require("kvm", "tracefs")
    file = tmp_path / "guest.txt"
    assert done(record(file, sys.executable, "-c", f"{GUEST}        import os; os._exit(3)"))[0] == 3
    report = replay(ftrace.lines(str(file)))
    assert (report.verdict, report.violations) == ("consistent", [])
    assert (report.counts["added"], report.counts["removed"], report.counts["resident at the end"]) == (22, 22, 0)


def test_what_only_the_trace_of_pages_has_is_merged() -> None:
    head = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 3/3   #P:2\n#\n"
    form = "   vcpu-17   [000] .....  1.{time:06}: {what}\n"
    add = "mm_filemap_add_to_page_cache: dev 0:16 ino {ino} pfn=0x1 ofs=0 order=0"
    gone = "mm_filemap_delete_from_page_cache: dev 0:16 ino 7 pfn=0x1 ofs=0 order=0"
    ours = [
        form.format(time=t, what=what)
        for t, what in ((1, add.format(ino=7)), (2, "tlb_flush: pages:1"), (9, "tlb_flush: pages:2"))
    ]
    end = form.format(time=5, what=gone)
    theirs = form.format(time=3, what=add.format(ino=8))
    merged = merge("".join([head, *ours]), "".join([head, ours[0], theirs, end]))
    assert merged == "".join([head.replace("3/3", "4/4"), *ours[:2], end, ours[2]])
    assert merge(head, head) == head
    assert merge("".join([head, *ours]), "".join([head, ours[0]])) == "".join([head, *ours])


@pytest.mark.parametrize(
    ("command", "status"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL)],
)
def test_the_commands_status_is_ours(command: list[str], status: int, tmp_path: Path) -> None:
    require("tracefs")
    run = record(tmp_path / "trace.txt", *command)
    got, said = done(run)
    assert (got, said) == (status, "")
    assert (tmp_path / "trace.txt").read_text().startswith("# tracer: nop")
    assert f"guestmem-{run.pid}" not in instances()


def test_children_are_followed(tmp_path: Path) -> None:
    require("kvm", "tracefs")
    file = tmp_path / "trace.txt"
    assert done(record(file, "sh", "-c", f"{sys.executable} -c '{GUEST}'; true"))[0] == 0
    assert replay(ftrace.lines(str(file))).counts["added"] == 22


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_command_and_the_trace_is_kept(number: signal.Signals, tmp_path: Path) -> None:
    require("tracefs")
    file = tmp_path / "trace.txt"
    child = tmp_path / "child"
    run = record(file, "sh", "-c", f"sleep 100 & echo $! > {child}; wait")
    until(lambda: child.exists() and child.read_text().endswith("\n"))
    run.send_signal(number)
    assert done(run)[0] == 128 + number
    until(lambda: not Path(f"/proc/{int(child.read_text())}/exe").exists())
    assert file.exists()
    assert f"guestmem-{run.pid}" not in instances()


def test_an_ignored_signal_is_ignored(tmp_path: Path) -> None:
    require("tracefs")
    file = tmp_path / "trace.txt"
    argv = [
        "nohup",
        sys.executable,
        "-m",
        "guestmem",
        "record",
        "-o",
        str(file),
        "--",
        "sh",
        "-c",
        f"touch {tmp_path}/on; sleep 0.3",
    ]
    run = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    until((tmp_path / "on").exists)
    run.send_signal(signal.SIGHUP)
    assert run.wait(60) == 0


def test_what_a_kill_leaves_is_removed_and_named_by_the_next(tmp_path: Path) -> None:
    require("tracefs")
    stays = tmp_path / "stays"
    script = f"sleep 1000 >/dev/null 2>&1 & echo $! > {stays}; wait"
    run = record(tmp_path / "a.txt", "sh", "-c", script)
    until(lambda: stays.exists() and stays.read_text().endswith("\n"))
    sleeper = int(stays.read_text())
    run.kill()
    run.wait()
    run.communicate()
    assert f"guestmem-{run.pid}" in instances()
    assert not (tmp_path / "a.txt").exists()
    status, said = done(record(tmp_path / "b.txt", "true"))
    assert status == 0
    assert f"guestmem: killed process {sleeper} (sleep), left by a recording that was killed" in said
    assert f"guestmem: removed tracefs instance guestmem-{run.pid}, left by an earlier recording" in said
    assert f"guestmem-{run.pid}" not in instances()
    until(lambda: not Path(f"/proc/{sleeper}/exe").exists())


def test_a_kill_at_any_moment_leaves_nothing_that_the_next_does_not_remove(tmp_path: Path) -> None:
    require("tracefs")
    mounts = Path("/proc/mounts").read_text()
    runs = []
    for delay in range(12):
        run = record(tmp_path / "a.txt", "sleep", f"{1000 + delay}")
        time.sleep(0.03 + delay / 50)
        run.kill()
        run.communicate()
        runs.append(run.pid)
    assert done(record(tmp_path / "b.txt", "true"))[0] == 0
    assert not instances() & {f"guestmem-{pid}" for pid in runs}
    assert Path("/proc/mounts").read_text() == mounts
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in left.splitlines() if line in {f"sleep {1000 + delay}" for delay in range(12)}]


def test_a_running_recording_is_left_alone(tmp_path: Path) -> None:
    require("tracefs")
    run = record(tmp_path / "a.txt", "sleep", "100")
    until(lambda: f"guestmem-{run.pid}" in instances())
    assert done(record(tmp_path / "b.txt", "true")) == (0, "")
    assert f"guestmem-{run.pid}" in instances()
    run.terminate()
    assert done(run)[0] == 128 + signal.SIGTERM


def test_recordings_side_by_side_do_not_disturb_each_other(tmp_path: Path) -> None:
    require("tracefs")
    for _ in range(4):
        runs = [record(tmp_path / f"{at}.txt", "true") for at in range(4)]
        assert [done(run) for run in runs] == [(0, "")] * 4


def test_a_full_buffer_is_told_and_gives_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("tracefs")
    file = tmp_path / "trace.txt"
    assert cli.main(["record", "-o", str(file), "--buffer", "8K", "--", sys.executable, "-c", "pass"]) == 0
    assert "events did not fit: record again with a larger --buffer" in capsys.readouterr().err
    assert cli.main(["replay", "--json", str(file)]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "incomplete"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "/nowhere/trace.txt", "--", "true"], "there is no directory /nowhere: make it, or choose another place with -o"),
        (["-o", "/tmp/trace.txt"], "no command to record: write guestmem record -o FILE -- COMMAND"),
        (["-o", "/tmp", "--", "true"], "'/tmp' is a directory: name a file in it with -o"),
        (["-o", "", "--", "true"], "'' is a directory: name a file in it with -o"),
        (["-o", "/proc/x", "--", "true"], "/proc/x: cannot be written: No such file or directory: choose another place with -o"),
        (["--", "true"], "arguments are required: -o"),
        (["-o", "/tmp/trace.txt", "--buffer", "lots", "--", "true"], "'lots' is no size: write 512M or 4G"),
        (["-o", "/tmp/trace.txt", "--buffer", "0", "--", "true"], "'0' is no size of a buffer: write 16M"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["record", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_command_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("tracefs")
    for command, why in (("no-such-command", "No such file or directory"), ("/tmp", "Permission denied"), ("", "execv() arg 2")):
        assert cli.main(["record", "-o", str(tmp_path / "a"), "--", command]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"guestmem: {command!r}: {why}")
        assert said.endswith(": name a program that can be run\n")
        assert list(tmp_path.iterdir()) == []


def test_a_command_takes_its_own_options(tmp_path: Path) -> None:
    require("tracefs")
    assert cli.main(["record", "-o", str(tmp_path / "a"), "sh", "-c", "exit 3"]) == 3


def test_a_buffer_that_cannot_be_had_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("tracefs")
    assert cli.main(["record", "-o", str(tmp_path / "a"), "--buffer", "100T", "true"]) == 3
    assert re.search("cannot record: --buffer .*, twice for each CPU: .*: use a smaller one", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_without_root_it_says_what_to_do(tmp_path: Path) -> None:
    require("nobody")
    argv = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        sys.executable,
        "-m",
        "guestmem",
        "record",
        "-o",
        "/tmp/x",
        "--",
        "true",
    ]
    run = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    assert (run.returncode, run.stderr.count("\n")) == (3, 1)
    assert "run it as root" in run.stderr
