# SPDX-License-Identifier: Apache-2.0
"""Recorded runs: real ones are consistent, and any line taken out or frame changed in them is noticed where it can be."""

import bz2
import gzip
import json
import lzma
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from guestmem.cli import main as cli
from guestmem.linux.trace import rules as module
from guestmem.linux.trace import text as ftrace
from guestmem.linux.trace.operations import operations
from guestmem.linux.trace.replay import replay

TRACES = Path(__file__).with_name("traces")
HOST, GUEST, SECRET, PUNCH = (
    "1_gmem_host_mapping.txt",
    "2_gmem_guest_faults.txt",
    "3_memfd_secret.txt",
    "4_concurrent_punch.txt",
)
PERF, TRACE_CMD, TDP = "5_perf_script.txt", "6_trace_cmd_report.txt", "7_tdp.txt"
FRAME = re.compile(r"(?<=pfn=0x)[0-9a-f]+|(?<=pfn )[0-9a-f]+|(?<=spte )[0-9a-f]+(?=[0-9a-f]{3} )")


def text(name: str) -> list[str]:
    return ftrace.lines(str(TRACES / f"{name}.gz"))


@pytest.mark.parametrize(
    ("name", "events", "added", "removed", "entries"),
    [
        (HOST, 268, 28, 28, 0),
        (GUEST, 119, 20, 24, 21),
        (SECRET, 87, 8, 8, 0),
        (PUNCH, 972, 576, 384, 0),
        (PERF, 169, 22, 22, 11),
        (TRACE_CMD, 227, 22, 22, 11),
        (TDP, 11694, 9, 9, 13),
    ],
)
def test_a_real_recording_is_consistent(name: str, events: int, added: int, removed: int, entries: int) -> None:
    report = replay(text(name))
    assert (report.verdict, report.violations) == ("consistent", [])
    counts = report.counts
    assert (counts["events"], counts["added"], counts["removed"]) == (events, added, removed)
    assert counts.get("stage-2 entries set", 0) == entries


# ---- one line taken out


@pytest.mark.parametrize("name", [HOST, GUEST, SECRET])
def test_any_line_taken_out_is_noticed(name: str) -> None:
    lines = text(name)
    for at, line in enumerate(lines):
        if not line.startswith("#"):
            report = replay(lines[:at] + lines[at + 1 :])
            assert report.verdict == "violated"
            assert report.violations[0].rule == module.COMPLETE
            assert report.violations[0].lines[0][0] == 3


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_lines_taken_out_of_a_long_recording_are_noticed(data: st.DataObject) -> None:
    lines = text(PUNCH)
    at = data.draw(st.integers(12, len(lines) - 1))
    more = data.draw(st.integers(1, 5))
    assert replay(lines[:at] + lines[at + more :]).verdict == "violated"


@pytest.mark.parametrize(("name", "noticed", "all_there_are"), [(HOST, 56, 56), (GUEST, 8, 44), (SECRET, 16, 16)])
def test_pages_taken_out_are_noticed_without_a_header(name: str, noticed: int, all_there_are: int) -> None:
    """Where frames' allocation is recorded, each add and each removal has a partner; where not, it may be from before."""
    lines = [line for line in text(name) if "entries-in-buffer" not in line]
    pages = [at for at, line in enumerate(lines) if "to_page_cache" in line or "from_page_cache" in line]
    refused = sum(replay(lines[:at] + lines[at + 1 :]).verdict == "violated" for at in pages)
    assert (refused, len(pages)) == (noticed, all_there_are)


# ---- one frame number changed


def changed(lines: list[str], only: str = "") -> Iterator[tuple[int, str, list[str]]]:
    """The index of a line, the frame in it, and the trace with another frame there, for each frame in each line."""
    for at, line in enumerate(lines):
        for found in FRAME.finditer(line):
            if only in line:
                other = f"{int(found[0], 16) ^ 0x4000:x}"
                yield at, found[0], [*lines[:at], line[: found.start()] + other + line[found.end() :], *lines[at + 1 :]]


@pytest.mark.parametrize(("name", "noticed", "all_there_are"), [(HOST, 170, 173), (GUEST, 83, 86), (SECRET, 50, 50)])
def test_a_changed_frame_is_noticed(name: str, noticed: int, all_there_are: int) -> None:
    """Unless no other line has that frame: of a page that was there before, or that is in no file."""
    lines = text(name)
    refused = total = 0
    for at, frame, trace in changed(lines):
        total += 1
        report = replay(trace)
        if report.verdict == "violated":
            refused += 1
            assert any(number == at + 1 or frame in told for v in report.violations for number, told in v.lines)
        else:
            assert sum(frame in line for line in lines) == 1
            assert any(why.endswith("one line alone has them") for why in report.cannot_tell)
    assert (refused, total) == (noticed, all_there_are)


def test_a_changed_frame_of_a_page_that_stays_cannot_be_noticed_and_is_told() -> None:
    lines = text(PUNCH)
    assert "whether 192 frame numbers are right: one line alone has them" in replay(lines).cannot_tell
    removals = list(changed(lines, "mm_filemap_delete"))
    assert len(removals) == 384
    assert all(replay(trace).verdict == "violated" for _, _, trace in removals[::16])


# ---- the rules, each by the smallest trace that breaks it

ADD = "mm_filemap_add_to_page_cache: dev 0:16 ino 7 pfn=0x{pfn:x} ofs={ofs} order=0"
DELETE = "mm_filemap_delete_from_page_cache: dev 0:16 ino 7 pfn=0x{pfn:x} ofs={ofs} order=0"
ALLOC = "mm_page_alloc: page=00000000{page:08x} pfn=0x{pfn:x} order=0 migratetype=0 gfp_flags=GFP_HIGHUSER|__GFP_COMP"
WHOLE = "tracing_mark_write: guestmem record: all of guest_memfd on 0:16, memfd_secret on 0:14"
BOUND = "tracing_mark_write: gmem ino=0x7, slot gfn 100.. = gmem index 0.."
REQUEST = "kvm_mmu_spte_requested: gfn {gfn:x} pfn {pfn:x} level 1"
SET = "kvm_mmu_set_spte: gfn {gfn:x} spte {pfn:x}e67 (rwxu) level 1 at 18ee1d818"
CHANGED = "kvm_tdp_mmu_spte_changed: as id 0 gfn {gfn:x} level {level} old_spte {old:x} new_spte {new:x}"
PUNCHES = "sys_fallocate(fd: 6, mode: 3, offset: 0x{ofs:x}, len: 0x2000)"
ALLOCATES = "sys_fallocate(fd: 6, mode: 1, offset: 0x{ofs:x}, len: 0x2000)"
TOUCH = "page_fault_user: address=0x7f3854bef000 ip=0x7f3854dbeaa3 error_code=0x6"
DONE = "sys_fallocate -> 0x0"
RUN = "sys_ioctl(fd: 5, cmd: ae80, arg: 0)"
ENDED = "sched_process_exit: comm=vcpu pid=17 prio=120 group_dead=true"


def trace(*events: str) -> list[str]:
    return [f"  vcpu 0-17    [000] .....  10.{at:06}: {event}\n" for at, event in enumerate(events)]


def add(pfn: int, ofs: int = 0) -> str:
    return ADD.format(pfn=pfn, ofs=ofs)


def delete(pfn: int, ofs: int = 0) -> str:
    return DELETE.format(pfn=pfn, ofs=ofs)


def alloc(pfn: int, page: int | None = None) -> str:
    return ALLOC.format(pfn=pfn, page=pfn if page is None else page)


def free(pfn: int) -> str:
    return f"mm_page_free: page=00000000{pfn:08x} pfn=0x{pfn:x} order=0"


def fault(gfn: int, pfn: int, entry: int | None = None) -> list[str]:
    return [REQUEST.format(gfn=gfn, pfn=pfn), SET.format(gfn=gfn, pfn=pfn if entry is None else entry)]


NOTHING, TABLE = 1 << 63, 0x7880827


def page_entry(pfn: int) -> int:
    """The value of an entry that maps a page."""
    return pfn << 12 | 0xE67


def block_entry(pfn: int) -> int:
    """The same for a block."""
    return page_entry(pfn) | 0x80


def changes(gfn: int, old: int, new: int, level: int = 1) -> str:
    return CHANGED.format(gfn=gfn, level=level, old=old, new=new)


PAIRS: dict[str, tuple[list[str], list[str], int]] = {
    module.ADDED_ONCE: ([add(1), delete(1), add(2)], [add(1), add(2)], 2),
    module.ONE_FILE: ([add(1), delete(1), add(1, 4096)], [add(1), add(1, 4096)], 2),
    module.ALLOCATED: ([alloc(1), add(1), alloc(2), add(2, 4096)], [alloc(1), add(1), add(2, 4096)], 3),
    module.AS_ADDED: ([add(1), delete(1)], [add(1), delete(2)], 2),
    module.ONLY_ADDED: ([WHOLE, add(1), delete(1)], [WHOLE, delete(1)], 2),
    module.NOT_FREED: ([alloc(1), add(1), delete(1), free(1)], [alloc(1), add(1), free(1)], 3),
    module.AS_REQUESTED: (fault(5, 1), fault(5, 1, entry=2), 2),
    module.RESIDENT: ([BOUND, add(1), TOUCH, *fault(0x100, 1)], [BOUND, add(1), TOUCH, *fault(0x100, 2)], 5),
    module.NOT_AFTER: ([BOUND, add(1), *fault(0x100, 1), delete(1)], [BOUND, add(1), delete(1), *fault(0x100, 1)], 5),
    module.ZAPPED_FIRST: (
        [TOUCH, add(1), changes(9, NOTHING, page_entry(1)), changes(9, page_entry(1), NOTHING), delete(1)],
        [TOUCH, add(1), changes(9, NOTHING, page_entry(1)), delete(1), changes(9, page_entry(1), NOTHING)],
        4,
    ),
    module.PUNCHED: (
        [add(1), add(2, 4096), PUNCHES.format(ofs=0), delete(1), delete(2, 4096), DONE],
        [add(1), add(2, 4096), PUNCHES.format(ofs=0), delete(1), DONE],
        5,
    ),
    module.FILLED: (
        [WHOLE, ALLOCATES.format(ofs=0), add(1), add(2, 4096), DONE],
        [WHOLE, ALLOCATES.format(ofs=0), add(1), DONE],
        4,
    ),
    module.PAIRED: (
        [PUNCHES.format(ofs=0), DONE, PUNCHES.format(ofs=0), DONE],
        [PUNCHES.format(ofs=0), DONE, DONE, PUNCHES.format(ofs=0)],
        3,
    ),
    module.ONE_FRAME: ([alloc(1), free(1)], [alloc(1), alloc(2, page=1)], 2),
}


@pytest.mark.parametrize("rule", PAIRS)
def test_each_rule_has_a_good_and_a_bad_trace(rule: str) -> None:
    good, bad, line = PAIRS[rule]
    assert replay(trace(*good)).violations == []
    report = replay(trace(*bad))
    assert (report.verdict, report.violations[0].rule, report.violations[0].lines[-1][0]) == ("violated", rule, line)


def test_a_page_outside_of_a_punched_hole_is_not_removed_by_it() -> None:
    report = replay(trace(add(1), add(2, 8192), PUNCHES.format(ofs=0), delete(1), delete(2, 8192), DONE))
    assert [v.rule for v in report.violations] == [module.PUNCHED]
    assert [number for number, _ in report.violations[0].lines] == [3, 5]


def test_a_frame_that_was_removed_is_not_mapped_before_it_is_allocated() -> None:
    gone = [alloc(1), add(1), *fault(9, 1), delete(1)]
    assert replay(trace(*gone, alloc(1), *fault(9, 1))).verdict == "consistent"
    report = replay(trace(*gone, *fault(9, 1)))
    assert [v.rule for v in report.violations] == [module.NOT_AFTER]


# ---- entries of TDP page tables


def zaps(lines: list[str]) -> list[int]:
    """The lines in which an entry for a page goes away."""
    return [at for at, line in enumerate(lines) if re.search(r"level 1 old_spte \w+e67 new_spte 8000000000000000", line)]


def refused_at(lines: list[str]) -> tuple[str, str]:
    """The first broken rule, and what the line says that breaks it."""
    violation = replay(lines).violations[0]
    return violation.rule, violation.lines[-1][1].split(": ", 1)[1]


def test_a_page_that_stays_in_stage_2_is_told_by_the_line_that_removes_it() -> None:
    """Two alterations of a real recording: no zap at all; and the first zap after the page is gone."""
    lines = [line for line in text(TDP) if "entries-in-buffer" not in line]
    gone = "mm_filemap_delete_from_page_cache: dev 0:29 ino 56d pfn=0x7884 ofs=0 order=0"
    assert refused_at([line for at, line in enumerate(lines) if at not in zaps(lines)]) == (module.ZAPPED_FIRST, gone)
    first, after = zaps(lines)[0], next(at for at, line in enumerate(lines) if gone in line)
    late = re.sub(r"\d+\.\d+(?=: kvm)", re.findall(r"\d+\.\d+(?=: mm)", lines[after])[0], lines[first])
    moved = [*lines[:first], *lines[first + 1 : after + 1], late, *lines[after + 1 :]]
    assert refused_at(moved) == (module.ZAPPED_FIRST, gone)


def test_each_zap_of_a_file_that_is_missing_is_noticed() -> None:
    lines = [line for line in text(TDP) if "entries-in-buffer" not in line]
    of_file = [at for at in zaps(lines) if "old_spte 788" in lines[at]]
    assert len(of_file) == 9
    assert all(replay(lines[:at] + lines[at + 1 :]).verdict == "violated" for at in of_file)


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        # A block has 512 pages.
        ([changes(0x200, NOTHING, block_entry(0x200), 2), delete(0x201)], "violated"),
        ([changes(0x200, NOTHING, block_entry(0x200), 2), changes(0x200, block_entry(0x200), NOTHING, 2), delete(0x201)], ""),
        # A block becomes a table: its entries have lines of their own.
        ([changes(0x200, NOTHING, block_entry(0x200), 2), changes(0x200, block_entry(0x200), TABLE, 2), delete(0x201)], ""),
        # A table goes with what is in it, and with nothing beside it.
        ([changes(9, NOTHING, page_entry(0x201)), changes(0, TABLE, NOTHING, 2), delete(0x201)], ""),
        ([changes(9, NOTHING, page_entry(0x201)), changes(0x200, TABLE, NOTHING, 2), delete(0x201)], "violated"),
        # Two roots have the page.
        ([changes(9, NOTHING, page_entry(0x201))] * 2 + [changes(9, page_entry(0x201), NOTHING), delete(0x201)], "violated"),
        ([changes(9, NOTHING, page_entry(0x201))] * 2 + [changes(9, page_entry(0x201), NOTHING)] * 2 + [delete(0x201)], ""),
        # Other permissions; another page; what is no page of memory (MMIO).
        (
            [changes(9, NOTHING, page_entry(0x201)), changes(9, page_entry(0x201), page_entry(0x201) & ~2), delete(0x201)],
            "violated",
        ),
        ([changes(9, NOTHING, page_entry(0x201)), changes(9, page_entry(0x201), page_entry(0x300)), delete(0x201)], ""),
        ([changes(9, NOTHING, 0x201027), delete(0x201)], ""),
        # The frame came into the file later: whoever unmapped it before has no lines.
        ([changes(9, NOTHING, page_entry(0x201)), delete(0x201), add(0x201), delete(0x201)], "violated"),
        ([delete(0x201), changes(9, NOTHING, page_entry(0x201)), add(0x201), delete(0x201)], ""),
    ],
)
def test_what_an_entry_maps(events: list[str], verdict: str) -> None:
    report = replay(trace(TOUCH, add(0x201), *events))
    assert {v.rule for v in report.violations} == ({module.ZAPPED_FIRST} if verdict else set())


def test_what_a_thread_without_other_lines_did_is_not_known() -> None:
    """`guestmem record` follows one command, and has the pages of files of all processes: what another unmaps has no line."""
    events = trace(TOUCH, add(1), changes(9, NOTHING, page_entry(1)), delete(1))
    assert replay(events).verdict == "violated"
    assert replay([*events[:-1], events[-1].replace("-17 ", "-18 ")]).verdict == "consistent"


def test_a_fault_that_adds_a_page_maps_it() -> None:
    report = replay(trace(RUN, add(1), *fault(9, 2)))
    assert [v.rule for v in report.violations] == [module.AS_REQUESTED]
    assert [number for number, _ in report.violations[0].lines] == [2, 3]
    assert replay(trace(add(1), RUN, *fault(9, 2))).verdict == "consistent"
    # Without system calls nobody knows whether the thread has entered its guest since.
    assert replay(trace(add(1), *fault(9, 2))).verdict == "consistent"


def test_time_does_not_go_back_and_every_line_is_read() -> None:
    lines = trace(add(1), delete(1))
    assert [v.rule for v in replay(lines[::-1]).violations] == [module.IN_ORDER]
    assert [v.rule for v in replay([lines[0], lines[1][:40]]).violations] == [module.READABLE]
    assert [v.rule for v in replay([lines[0], "what is this\n"]).violations] == [module.READABLE]
    task = "python3 123 [000] 1.1: PERF_RECORD_EXIT(123:123):(1:1)\n"
    assert replay([lines[0], task, "\n", "# a remark\n", " => kvm_gmem_fault\n", lines[1]]).verdict == "consistent"


def test_pages_of_a_process_that_ended_are_left_open_unless_the_recording_has_all() -> None:
    events = alloc(1), add(1), ENDED, alloc(1), add(1, 4096)
    report = replay(trace(*events))
    assert report.verdict == "consistent"
    assert "how 2 pages left their files: a process ended, and what it does then may have no line" in report.cannot_tell
    assert [v.rule for v in replay(trace(WHOLE, *events)).violations] == [module.NOT_FREED, module.ONE_FILE]
    resident = replay(trace(WHOLE, alloc(1), add(1), ENDED))
    assert "what becomes of 1 pages that are resident at the end" in resident.cannot_tell


def test_pages_of_a_file_that_is_older_may_have_been_there_before() -> None:
    older = f"{WHOLE}, but for 6 7"
    events = PUNCHES.format(ofs=0), delete(1), DONE, ALLOCATES.format(ofs=0), add(2), DONE
    assert [v.rule for v in replay(trace(WHOLE, *events)).violations] == [module.ONLY_ADDED, module.FILLED]
    assert replay(trace(older, *events)).verdict == "consistent"
    assert [v.rule for v in replay(trace(f"{WHOLE}, but for 6", *events)).violations] == [module.ONLY_ADDED, module.FILLED]


def test_files_whose_pages_come_without_a_line_are_left_open() -> None:
    """Pages of shmem are removed with an event and added without one."""
    report = replay(trace(alloc(1), delete(1), alloc(2), delete(2), delete(2)))
    assert (report.verdict, report.counts["removed"]) == ("consistent", 3)
    assert "how 3 pages came into their files: they were there before the recording" in report.cannot_tell


def test_nothing_to_check_is_no_consistency() -> None:
    report = replay(trace(TOUCH, TOUCH))
    assert report.verdict == "incomplete"
    assert "nothing to check" in report.why


def test_many_violations_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text("".join(trace(*[add(1)] * 31)))
    assert cli.main(["replay", str(file)]) == 1
    assert f"  and {30 - module.MOST} more\n" in capsys.readouterr().out


def test_lost_events_give_no_verdict() -> None:
    lines = [*trace(add(1), add(1)), "CPU:0 [LOST 12 EVENTS]\n"]
    assert replay(lines).verdict == "incomplete"
    full = "# entries-in-buffer/entries-written: 2/5   #P:2\n"
    assert replay([full, *trace(add(1), delete(1))]).verdict == "incomplete"


# ---- what may be read


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_text_gives_a_verdict(data: st.DataObject) -> None:
    """Whatever is in the lines, there is a verdict and no traceback."""
    lines = text(data.draw(st.sampled_from((HOST, GUEST, PERF, TRACE_CMD))))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        start = data.draw(st.integers(0, len(line)))
        put = data.draw(st.sampled_from(("", "0", "9" * 20, "f" * 20, "x", ":", "-", "\x00", "[", "(", "order=", "pfn=0x")))
        lines[at] = line[:start] + put + line[start + data.draw(st.integers(0, 9)) :]
    assert replay(lines).verdict in ("consistent", "violated", "incomplete")


def test_packed_text_is_read(tmp_path: Path) -> None:
    lines = text(GUEST)
    data = "".join(lines).encode()
    for name, packed in (
        ("a", data),
        ("a.gz", gzip.compress(data)),
        ("a.xz", lzma.compress(data)),
        ("a.bz2", bz2.compress(data)),
        ("a.zst", zstandard.compress(data)),
        ("frames.zst", zstandard.compress(data[:999]) + zstandard.compress(data[999:])),
        ("bom", b"\xef\xbb\xbf" + data),
    ):
        (tmp_path / name).write_bytes(packed)
        assert ftrace.lines(str(tmp_path / name)) == lines


CANNOT_BE_READ = {
    "gzip cut short": (gzip.compress(b"x" * 1000)[:-9], "damaged or cut short"),
    "gzip damaged": (b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff" * 9, "damaged or cut short"),
    "bzip2 cut short": (bz2.compress(b"x" * 1000)[:5], "damaged or cut short"),
    "zstd cut short": (zstandard.compress(b"x" * 1000)[:-3], "damaged or cut short"),
    "zstd damaged": (b"\x28\xb5\x2f\xfdgarbage", "damaged or cut short"),
    "utf-16": (b"\xff\xfe\x00", "it is no text: name a text of ftrace"),
    "trace.dat": (b"\x17\x08\x44tracing", "a recording, not its text: give the output of trace-cmd report"),
    "perf.data": (b"PERFILE2", "a recording, not its text"),
    "nothing": (b"", "no event in it"),
    "another text": (b"Hello, world\n", "no event in it"),
}


@pytest.mark.parametrize("name", CANNOT_BE_READ)
def test_what_cannot_be_read_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, says = CANNOT_BE_READ[name]
    file = tmp_path / "file"
    file.write_bytes(data)
    assert cli.main(["replay", str(file)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_what_has_no_end_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ftrace, "LIMIT", 1 << 20)
    long = b"# a remark\n" * (1 << 17)
    for name, packed in (
        ("a", long),
        ("a.gz", gzip.compress(long)),
        ("a.xz", lzma.compress(long)),
        ("a.bz2", bz2.compress(long)),
        ("a.zst", zstandard.compress(long)),
    ):
        (tmp_path / name).write_bytes(packed)
        assert cli.main(["replay", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err == f"guestmem: {tmp_path / name}: more than 1 MiB of text: give a part of it\n"
    assert cli.main(["replay", "/dev/zero"]) == 2
    assert "it is no text" in capsys.readouterr().err


def test_tests_are_named_by_words_and_not_by_data(request: pytest.FixtureRequest) -> None:
    """Packed bytes may hold the time when they were packed, and workers that collect different names do not start."""
    data = [item.nodeid for item in request.session.items if re.search(r"\\+x[0-9a-f]{2}", item.nodeid)]
    assert data == []


def test_without_zstd_one_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.zst"
    file.write_bytes(zstandard.compress(b"x"))
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert cli.main(["replay", str(file)]) == 2
    said = f"guestmem: {file}: packed with zstd: use Python 3.14, or pip install zstandard, or unzstd it\n"
    assert capsys.readouterr().err == said


def test_a_name_that_is_cut_within_a_character_is_read(tmp_path: Path) -> None:
    (tmp_path / "trace").write_bytes("".join(trace(add(1), delete(1))).encode().replace(b"vcpu 0", b"caf\xc3"))
    assert replay(ftrace.lines(str(tmp_path / "trace"))).verdict == "consistent"


def test_a_violation_is_printed_with_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = text(GUEST)
    at = next(at for at, line in enumerate(lines) if "mm_filemap_delete" in line)
    lines[at] = lines[at].replace("pfn=0x3087e1", "pfn=0x3087e2")
    file = tmp_path / "trace.txt"
    file.write_text("".join(lines))
    assert cli.main(["replay", str(file)]) == 1
    said = capsys.readouterr().out
    assert "violated" in said
    assert "a page is removed with the frame that it was added with: page 0x304 of inode 13d7f has frame 0x3087e1" in said
    assert f"line {at + 1}: python3-32034" in said
    assert cli.main(["replay", str(file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["verdict"]) == (1, "violated")
    assert found["violations"][0]["lines"][-1]["line"] == at + 1


def test_the_same_recording_feeds_compare() -> None:
    workload = operations("guest", text(GUEST))
    assert (workload.pages, len(workload.operations)) == (16, 21)
    assert [op for op in workload.operations if op.kind == "punch"] == [("punch", 4, 8)]
    for name in (PERF, TRACE_CMD):
        kinds = [op.kind for op in operations(name, text(name)).operations]
        assert (kinds.count("guest"), kinds.count("user"), kinds.count("allocate"), kinds.count("punch")) == (10, 4, 8, 1)


def test_a_recording_of_no_page_cannot_be_priced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "trace.txt"
    file.write_text("".join(trace(TOUCH)))
    assert cli.main(["compare", "--trace", str(file)]) == 2
    what = "no mm_filemap_add_to_page_cache in it: record with that event on, as text"
    assert capsys.readouterr().err == f"guestmem: {file}: {what}\n"


@pytest.mark.parametrize(
    ("line", "pid", "cpu", "time"),
    [
        ("       CPU 0/KVM-1234    [001] d..2.  3032.931082: tlb_flush: pages:4", 1234, 1, 3032931082000),
        ("       CPU 0/KVM-1234    (   1200) [001] d..2.  3032.931082: tlb_flush: pages:4", 1234, 1, 3032931082000),
        ("           <...>-17      (-------) [127] .....  1.5: tlb_flush: pages:4", 17, 127, 1500000000),
        (" kworker/u8:1-ev-99      [000] .N.1.   0.000001: tlb_flush: pages:4", 99, 0, 1000),
        ("try:        python-15971 [000]  3045.083722: tlb_flush:            pages:4", 15971, 0, 3045083722000),
        ("CPU 0/KVM  1234 [001]  3032.931082:   tlb:tlb_flush: pages:4", 1234, 1, 3032931082000),
        ("CPU 0/KVM  1200/1234 [001]  3032.931082123:   tlb:tlb_flush: pages:4", 1234, 1, 3032931082123),
        ("swapper     0 [003] 12: tlb:tlb_flush: pages:4", 0, 3, 12000000000),
    ],
)
def test_the_head_of_a_line_is_read(line: str, pid: int, cpu: int, time: int) -> None:
    assert list(ftrace.parse([line + "\n"])) == [ftrace.Event(1, line, pid, cpu, time, "tlb_flush", "pages:4")]


def test_system_calls_have_the_same_names_everywhere() -> None:
    said = [
        "a-1 [000] ..... 1.1: sys_fallocate(fd: 6, mode: 3, offset: 0x304000, len: 0x4000)",
        "a-1 [000] ..... 1.2: sys_fallocate -> 0x0",
        "a 1 [000] 1.1: syscalls:sys_enter_fallocate: fd: 0x00000006, mode: 0x00000003, offset: 0x00304000, len: 0x00004000",
        "a 1 [000] 1.2: syscalls:sys_exit_fallocate: 0x0",
    ]
    events = [event for event in ftrace.parse(said) if isinstance(event, ftrace.Event)]
    assert [event.name for event in events] == ["sys_enter_fallocate", "sys_exit_fallocate"] * 2
    assert ftrace.numbers(events[0].fields) == ftrace.numbers(events[2].fields)
    assert ftrace.numbers(events[0].fields) == {"fd": 6, "mode": 3, "offset": 0x304000, "len": 0x4000}
