# SPDX-License-Identifier: Apache-2.0
"""Traces pasted into mails: quoted ones give the same verdict, those that were changed are refused, none is consistent."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from guestmem.cli import main as cli
from guestmem.linux.trace import text as ftrace
from guestmem.linux.trace.pasted import as_printed
from guestmem.linux.trace.replay import replay

TRACES = sorted(file.name for file in Path(__file__).with_name("traces").glob("*.txt.gz"))
GUEST = "2_gmem_guest_faults.txt.gz"
Lines = list[str]


def trace(name: str) -> Lines:
    return ftrace.lines(str(Path(__file__).with_name("traces") / name))


def quoted(mark: str) -> Callable[[Lines], Lines]:
    return lambda lines: [(mark + line).rstrip() + "\n" for line in lines]


def broken(width: int, indent: str = "", at: str = " ") -> Callable[[Lines], Lines]:
    """Lines broken where there is a space, or anywhere."""

    def change(lines: Lines) -> Lines:
        changed = []
        for line in (line.rstrip() for line in lines):
            while len(line) > width:
                start = len(line) - len(line.lstrip()) + 1
                cut = line.rfind(at, start, width + 1) if at else width
                cut = cut if cut > 0 else line.find(at, start)
                if cut < 0:
                    break
                changed.append(line[:cut].rstrip() + "\n")
                line = indent + line[cut:].lstrip()
            changed.append(line + "\n")
        return changed

    return change


READ: dict[str, Callable[[Lines], Lines]] = {
    "quoted": quoted("> "),
    "quoted without spaces": quoted(">"),
    "quoted twice": quoted("> > "),
    "quoted twice, tightly": quoted(">> "),
    "quoted with initials": quoted("JD> "),
    "quoted with bars": quoted("| "),
    "not indented": lambda lines: [line.lstrip(" ") for line in lines],
    "spaces collapsed": lambda lines: [re.sub(" +", " ", line) for line in lines],
    "lines end as in DOS": lambda lines: [line.rstrip("\n") + "\r\n" for line in lines],
}


@pytest.mark.parametrize("how", READ)
@pytest.mark.parametrize("name", TRACES)
def test_what_was_only_quoted_gives_the_same_verdict(name: str, how: str) -> None:
    lines = trace(name)
    before, after = replay(lines), replay(as_printed("file", READ[how](lines)))
    assert (after.verdict, after.counts, after.cannot_tell) == (before.verdict, before.counts, before.cannot_tell)


def test_a_violation_is_told_by_the_line_that_was_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = trace(GUEST)
    at = next(at for at, line in enumerate(lines) if "mm_filemap_delete" in line)
    lines[at] = lines[at].replace("pfn=0x3087e1", "pfn=0x3087e2")
    (tmp_path / "mail").write_text("".join(quoted("> ")(lines)))
    assert cli.main(["replay", str(tmp_path / "mail")]) == 1
    assert f"line {at + 1}: python3-32034" in capsys.readouterr().out


WIDTHS = (72, 76, 78, 80, 100, 120)
BROKEN: dict[str, Callable[[Lines], Lines]] = {
    **{f"broken at {width}": broken(width) for width in WIDTHS},
    **{f"broken at {width}, indented": broken(width, "    ") for width in WIDTHS},
    **{f"broken at {width}, anywhere": broken(width, at="") for width in WIDTHS},
    "quoted, then broken": lambda lines: broken(78)(quoted("> ")(lines)),
    "broken, then quoted": lambda lines: quoted("> ")(broken(76)(lines)),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("name", TRACES)
def test_broken_lines_are_refused(name: str, how: str) -> None:
    with pytest.raises(ftrace.NoText, match="is the rest of the line before, long lines were broken"):
        as_printed("file", BROKEN[how](trace(name)))


@pytest.mark.parametrize("name", TRACES)
def test_one_broken_line_is_refused(name: str) -> None:
    """The longest of a part that has no longer ones."""
    lines = [line for line in trace(name) if len(line) <= 133 and not line.startswith("#")][:150]
    longest = max(lines, key=len)
    at = lines.index(longest)
    pieces = broken(len(longest) - 2)([longest])
    assert len(pieces) == 2
    with pytest.raises(ftrace.NoText, match=f"^file: line {at + 2} "):
        as_printed("file", [*lines[:at], *pieces, *lines[at + 1 :]])


MAILS: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "headers": (lambda lines: ["From: A <a@example.org>\n", "Subject: a trace\n", "\n", *lines], "line 1 is not of a trace"),
    "who wrote it": (lambda lines: ["On Tue, 3 Nov 2026, A wrote:\n", *quoted("> ")(lines)], "line 1 is not of a trace"),
    "greeting": (lambda lines: ["Hi,\n", *lines], "line 1 is not of a trace ('Hi,')"),
    "thanks": (lambda lines: [*lines, "\n", "Thanks,\n"], "is not of a trace ('Thanks,')"),
    "signature": (lambda lines: [*lines, "-- \n", "A\n"], "is not of a trace ('--')"),
    "remark": (lambda lines: [*lines[:40], "Here it goes wrong, I think\n", *lines[40:]], "line 41 is not of a trace"),
    "left out": (lambda lines: [*lines[:40], "[...]\n", *lines[40:]], "line 41 is not of a trace ('[...]')"),
    "fence": (lambda lines: ["```\n", *lines, "```\n"], "line 1 is not of a trace"),
    "half": (lambda lines: [*lines[:40], *quoted("> ")(lines[40:])], "(line 1 without a mark and line 41 with >)"),
    "depths": (lambda lines: [*quoted("> ")(lines[:40]), *quoted(">> ")(lines[40:])], "(line 1 with > and line 41 with >>)"),
    "pre": (lambda lines: ["<pre>\n", *lines, "</pre>\n"], "line 1 is HTML"),
    "br": (lambda lines: [line.rstrip("\n") + "<br>\n" for line in lines], "line 1 is HTML"),
    "entities": (lambda lines: [line.replace(">", "&gt;") for line in lines], "is HTML"),
    "quoted-printable": (lambda lines: [line.replace("=", "=3D") for line in lines], "is quoted-printable"),
    "stack": (lambda lines: [*lines, "ffffffff81000000 kvm_gmem_fault+0x10 ([kvm])\n"], "has lost its indentation"),
}


@pytest.mark.parametrize("how", MAILS)
def test_what_a_mail_has_changed_is_refused_in_one_line(how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, says = MAILS[how]
    (tmp_path / "mail").write_text("".join(change(trace(GUEST))))
    for command in ("replay",), ("compare", "--trace"):
        assert cli.main([*command, str(tmp_path / "mail")]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert says in said.err
        assert said.err.endswith(": give the trace alone, as it was printed, in a file of its own\n")


@pytest.mark.parametrize("name", TRACES)
def test_what_was_cut_short_or_damaged_is_still_violated(name: str) -> None:
    lines = [*trace(name)[:-1], "  python3-17    [00"]
    assert as_printed("file", lines) == lines
    assert replay(lines).verdict == "violated"
