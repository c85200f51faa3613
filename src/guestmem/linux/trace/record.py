# SPDX-License-Identifier: Apache-2.0
"""Record what a command does to guest memory, with a tracefs instance of our own (Documentation/trace/ftrace.rst).

tracefs is mounted without a mount point (fsmount(2)), so the mount goes with the process.  The instance is locked
(flock(2)) while its run lives: an instance that is not locked was left by a run that was killed, and the next run
removes it, with the processes that it still follows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from guestmem.linux.calls import CallError, Descriptor, syscall
from guestmem.linux.kvm import Kvm
from guestmem.linux.process import Child, Lost, process_name
from guestmem.linux.secretmem import SecretMem
from guestmem.linux.trace.merge import merge
from guestmem.linux.trace.text import ADDED, REMOVED

__all__ = ["EVENTS", "Cannot", "NotStarted", "Recording", "record", "sweep", "tracefs"]

OURS = re.compile(r"guestmem-\d+(-pages)?$")
FILEMAP = (f"filemap/{ADDED}", f"filemap/{REMOVED}")
EVENTS = (
    *FILEMAP,
    "kmem/mm_page_alloc",
    "kmem/mm_page_free",
    "exceptions/page_fault_user",
    "sched/sched_process_exit",
    *(f"syscalls/sys_{way}_{call}" for call in ("fallocate", "ioctl", "munmap", "madvise") for way in ("enter", "exit")),
    "kvmmmu/kvm_mmu_get_page",
    "kvmmmu/kvm_mmu_prepare_zap_page",
    "kvmmmu/kvm_mmu_set_spte",
    "kvmmmu/kvm_mmu_spte_requested",
    "kvmmmu/kvm_tdp_mmu_spte_changed",
    "kvm/kvm_unmap_hva_range",
    "tlb/tlb_flush",
)
"""What is recorded, as far as the kernel has it."""

PRIVATE_PID_NAMESPACE = "in a container with its own process numbers: run it outside, where tracefs knows the processes"
INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
FSCONFIG_CMD_CREATE, CLOEXEC = 6, 1  # include/uapi/linux/mount.h
SI_KERNEL = 0x80  # include/uapi/asm-generic/siginfo.h
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Cannot(RuntimeError):
    """Recording is not possible here; the message says why and what to do."""


class NotStarted(RuntimeError):
    """The command cannot be started; the message says why."""


@contextlib.contextmanager
def tracefs() -> Iterator[Path]:
    """The root of tracefs while the block runs.  Raises :class:`Cannot`."""
    if not _initial_pid_namespace():
        raise Cannot(PRIVATE_PID_NAMESPACE)
    try:
        root = _mount()
    except CallError as error:
        why = error.strerror
    else:
        with root:
            yield Path(f"/proc/self/fd/{root.fileno()}")
        return
    mounted = Path("/sys/kernel/tracing")
    if not os.access(mounted / "instances", os.W_OK):
        raise Cannot(f"tracefs cannot be opened ({why}): run it as root of the initial user namespace")
    yield mounted


def _mount() -> Descriptor:
    """A mount of tracefs that is nowhere.  Raises :class:`~guestmem.linux.calls.CallError`."""
    with Descriptor(syscall("fsopen", name=b"tracefs", flags=CLOEXEC)) as fs:
        syscall("fsconfig", fd=fs.fileno(), command=FSCONFIG_CMD_CREATE, key=None, value=None, aux=0)
        return Descriptor(syscall("fsmount", fd=fs.fileno(), flags=CLOEXEC, attributes=0))


@contextlib.contextmanager
def _lock(directory: Path, block: bool = True) -> Iterator[bool]:
    """Hold the lock of a directory while the block runs; False if somebody else has it."""
    with Descriptor(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def sweep(root: Path) -> list[str]:
    """Remove what killed runs left behind; what it was, a line each.  The caller holds the lock of ``instances``."""
    found = []
    for place in sorted(place for place in (root / "instances").iterdir() if OURS.match(place.name)):
        with _lock(place, block=False) as free:
            if not free:
                continue
            for pid, name in _kill_followed(place):
                found.append(f"killed process {pid} ({name}), left by a recording that was killed")
        if _remove(place, found):
            found.append(f"removed tracefs instance {place.name}, left by an earlier recording")
    return found


def _kill_followed(place: Path) -> Iterator[tuple[int, str]]:
    """Kill the processes that an instance still follows; ftrace drops those that are gone, when they are reaped."""
    for pid in (place / "set_event_pid").read_text().split():
        name = process_name(int(pid))
        if name is None:
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
            yield int(pid), name


def _remove(place: Path, found: list[str]) -> bool:
    """Remove an instance; if somebody has one of its files open it stays, following nobody, for the next run to remove."""
    try:
        (place / "set_event_pid").write_text("")
        place.rmdir()
    except OSError as error:
        found.append(f"tracefs instance {place.name} is not removed: {error.strerror}: the next recording tries again")
        return False
    return True


def _initial_pid_namespace() -> bool:
    return os.stat("/proc/self/ns/pid").st_ino == INITIAL_PID_NAMESPACE


@contextlib.contextmanager
def _instances(root: Path, found: list[str]) -> Iterator[tuple[Path, Path]]:
    """Two tracefs instances that are ours, with nothing on; leftovers are removed first and added to ``found``.

    One follows processes.  The other has the pages of guest memory whoever moves them: a file may be shared with somebody
    who is not followed.
    """
    name = f"guestmem-{os.getpid()}"
    places = root / "instances" / name, root / "instances" / f"{name}-pages"
    with contextlib.ExitStack() as stack:
        with _lock(root / "instances"):
            found += sweep(root)
            for place in places:
                place.mkdir()
                stack.callback(_remove, place, found)
                stack.enter_context(_lock(place))
        try:
            yield places
        finally:
            # Under the lock, so that nobody takes what is no longer locked for something left behind.
            with _lock(root / "instances"):
                stack.close()


def _devices() -> dict[str, int]:
    """The devices of guest_memfd's and memfd_secret's files, as far as they can be made here."""
    found = {}
    with contextlib.suppress(CallError), Kvm() as kvm, kvm.create_vm() as vm, vm.create_guest_memfd(4096) as file:
        found["guest_memfd"] = file.stat().st_dev
    with contextlib.suppress(CallError), SecretMem() as secret:
        found["memfd_secret"] = os.fstat(secret.fileno()).st_dev
    return found


def _open_files(devices: set[int]) -> Iterator[int]:
    """The inodes of files on some devices that somebody has open or mapped: they may have pages already."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(link).startswith(("anon_inode:", "/secretmem")) and (file := link.stat()).st_dev in devices:
                        yield file.st_ino
            for line in (process / "maps").read_text(errors="replace").splitlines():
                major, _, minor = line.split(maxsplit=5)[3].partition(":")
                if os.makedev(int(major, 16), int(minor, 16)) in devices:
                    yield int(line.split(maxsplit=5)[4])


def _prepare(place: Path, pages: Path, pid: int, kilobytes: int) -> list[str]:
    """Follow a process; the events that this kernel does not have."""
    for one in (place, pages):
        (one / "tracing_on").write_text("0")
        (one / "trace_clock").write_text("mono")
        (one / "options" / "overwrite").write_text("0")
        try:
            (one / "buffer_size_kb").write_text(str(kilobytes))
        except OSError as error:
            raise Cannot(f"--buffer {kilobytes}K, twice for each CPU: {error.strerror}: use a smaller one") from error
    (place / "options" / "event-fork").write_text("1")
    (place / "set_event_pid").write_text(str(pid))
    devices = _devices()
    numbers = sorted({os.major(device) << 20 | os.minor(device) for device in devices.values()})
    missing = []
    for event in EVENTS:
        at = place / "events" / event
        if not at.is_dir():
            missing.append(event)
            continue
        if event in FILEMAP and devices:
            for one in (at, pages / "events" / event):
                (one / "filter").write_text(" || ".join(f"s_dev == {number}" for number in numbers))
                (one / "enable").write_text("1")
        (at / "enable").write_text("1")
    for one in (pages, place):
        (one / "tracing_on").write_text("1")
    if devices:
        names = ", ".join(f"{name} on {os.major(device)}:{os.minor(device)}" for name, device in devices.items())
        older = "".join(f" {inode:x}" for inode in sorted(set(_open_files(set(devices.values())))))
        (place / "trace_marker").write_text(f"guestmem record: all of {names}{', but for' * bool(older)}{older}\n")
    return missing


class Recording(NamedTuple):
    """What a recording gave.

    ``status``: the command's exit status, 128 + N if signal N ended it or us.  ``text``: the trace.  ``lost``: events that
    did not fit in the buffer.  ``missing``: events that this kernel does not have.  ``found``: what killed runs had left.
    """

    status: int
    text: str
    lost: int
    missing: list[str]
    found: list[str]


def record(command: Sequence[str], kilobytes: int = 16384) -> Recording:
    """Run a command, record it and its children, and clean up; signals that would end us end them all.

    ``kilobytes`` is the size of each of two buffers for each CPU.  Raises :class:`Cannot`, :class:`NotStarted`.
    """
    # A signal that is ignored stays so for us and for the command: nohup, and shells that start us in the background.
    watched = {signal.SIGCHLD, *(number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN)}
    reaped = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        found: list[str] = []
        with tracefs() as root, _instances(root, found) as (place, pages):
            running = _Command(command, before)
            try:
                missing = _prepare(place, pages, running.child.pid, kilobytes)
                status = running.run(watched)
                if running.told:
                    list(_kill_followed(place))
            finally:
                running.child.close()
                for one in (place, pages):
                    (one / "tracing_on").write_text("0")
            text = (place / "trace").read_text(errors="replace")
            dropped = Counter(_dropped(place)) + Counter(_dropped(pages))
            if not dropped:
                text = merge(text, (pages / "trace").read_text(errors="replace"))
        for cpu, events in dropped.items():
            text += f"CPU:{cpu} [LOST {events} EVENTS]\n"
        return Recording(status, text, dropped.total(), missing, found)
    except OSError as error:
        raise Cannot(f"tracefs does not let us: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, reaped)


def _dropped(place: Path) -> dict[str, int]:
    """Events that a CPU's buffer had no room for, by CPU."""
    found = {}
    for cpu in sorted((place / "per_cpu").iterdir()):
        counts = dict(line.split(": ") for line in (cpu / "stats").read_text().splitlines() if ": " in line)
        if events := int(counts.get("dropped events", 0)):
            found[cpu.name.removeprefix("cpu")] = events
    return found


class _Command:
    """The command in a child that waits for :meth:`run` before it begins.

    Attributes:
        told: the last signal that we got and handed on.
    """

    def __init__(self, command: Sequence[str], mask: set[int | signal.Signals]) -> None:
        self.command = command
        self.told: signal.Signals | None = None
        self.child = Child(lambda connection: _execute(command, mask, connection))

    def run(self, watched: set[signal.Signals]) -> int:
        """Let it begin, wait for its end, and hand on the signals we get; its status.  Raises :class:`NotStarted`."""
        self.child.connection.send("go")
        while not self.child.ended():
            got = signal.sigwaitinfo(watched)
            if got.si_signo == signal.SIGCHLD:
                continue
            number = signal.Signals(got.si_signo)
            if self.told is number:
                os.kill(self.child.pid, signal.SIGKILL)
            elif got.si_code != SI_KERNEL:  # a terminal's signal has reached the command already
                os.kill(self.child.pid, number)
            self.told = number
        with contextlib.suppress(Lost):  # what was executed says nothing
            raise NotStarted(f"{self.command[0]!r}: {self.child.receive()}")
        status = self.child.wait()
        return 128 + self.told if self.told else 128 - status if status < 0 else status


def _execute(command: Sequence[str], mask: set[int | signal.Signals], connection: Connection) -> None:
    """In the child: execute the command when told to, or say why that cannot be."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    connection.recv()
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        connection.send(error.strerror)
    except ValueError as error:
        connection.send(str(error))
