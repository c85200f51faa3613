# SPDX-License-Identifier: Apache-2.0
"""Our checker, Spin, and a search written by hand, on the shared test model, one after the other in each round.

    python benchmarks/explore.py [--pages 4 5] [--rounds 3] [--save docs/explore.md]

Needs gcc; without Spin (apt-get install spin) its rows are left out, and it says so.  CPU seconds are those of the
search alone; compiling is not counted for anybody, and of two runs in a row the second counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from donate import Donate  # noqa: E402
from guestmem.checker import Model  # noqa: E402

#: Spin needs 68 to 150 bytes a state; five pages in breadth first order would take more than half an hour.
SPIN_MOST_PAGES = 4
OURS, HAND, SPIN_DFS, SPIN_BFS = "guestmem", "by hand", "Spin DFS", "Spin BFS"


class Run(NamedTuple):
    """States and transitions found, CPU seconds, bytes for each state."""

    states: int
    transitions: int
    seconds: float
    bytes: float

    @property
    def rate(self) -> float:
        """States per CPU second."""
        return self.states / self.seconds


def build(directory: Path, pages: int, spin: bool) -> dict[str, list[str]]:
    """Compile the others; the command of each."""
    hand = directory / f"hand{pages}"
    source = HERE / "donate_by_hand.c"
    subprocess.run(["gcc", "-O3", "-march=native", f"-DPAGES={pages}", "-o", hand, source], check=True)
    commands = {HAND: [str(hand)]}
    if spin and pages <= SPIN_MOST_PAGES:
        for name, flag in ((SPIN_DFS, "-DNOREDUCE"), (SPIN_BFS, "-DBFS")):
            place = directory / f"{name.replace(' ', '')}{pages}"
            place.mkdir()
            quiet = {"cwd": place, "check": True, "capture_output": True}
            subprocess.run(["spin", "-a", f"-DPAGES={pages}", HERE / "donate.pml"], **quiet)  # type: ignore[call-overload]
            flags = ["-O3", "-w", "-DSAFETY", "-DMEMLIM=16000", flag]
            subprocess.run(["gcc", *flags, "-o", "pan", "pan.c"], **quiet)  # type: ignore[call-overload]
            commands[name] = [str(place / "pan"), "-m10000000", "-w24"]
    return commands


def run(name: str, command: list[str]) -> Run:
    """Run one of the others."""
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = os.times()
    if name == HAND:
        values = dict(re.findall(r"(\w+)=([\d.]+)", done.stdout))
        return Run(int(values["states"]), int(values["transitions"]), float(values["seconds"]), float(values["bytes"]))
    states = int(re.search(r"([\d.e+]+) states, stored", done.stdout)[1].split(".")[0])  # type: ignore[index]
    transitions = int(re.search(r"(\d+) transitions", done.stdout)[1])  # type: ignore[index]
    memory = float(re.search(r"([\d.]+)\s+total actual memory usage", done.stdout)[1])  # type: ignore[index]
    seconds = after.children_user - before.children_user + after.children_system - before.children_system
    return Run(states, transitions, seconds, memory * 2**20 / states)


def ours(model: Model) -> Run:
    """Run our checker."""
    began = time.process_time()
    outcome = model.explore()
    return Run(outcome.states, outcome.transitions, time.process_time() - began, outcome.bytes / outcome.states)


def second(once: Callable[[], Run]) -> Run:
    """The second of two runs: the first finds memory and caches as somebody else has left them."""
    once()
    return once()


def measure(pages: int, rounds: int, spin: bool) -> list[str]:
    """The rows of the table for one size."""
    runs: dict[str, list[Run]] = defaultdict(list)
    model = Model(Donate(pages=pages))
    with tempfile.TemporaryDirectory() as directory:
        commands = build(Path(directory), pages, spin)
        for number in range(rounds):
            print(f"P={pages}, round {number + 1} of {rounds}", file=sys.stderr)
            runs[OURS].append(second(lambda: ours(model)))
            for name, command in commands.items():
                runs[name].append(second(lambda name=name, command=command: run(name, command)))  # type: ignore[misc]
    middle = {name: sorted(of, key=lambda r: r.rate)[len(of) // 2] for name, of in runs.items()}
    rows = []
    for name, one in middle.items():
        ratio = statistics.median(a.rate / b.rate for a, b in zip(runs[OURS], runs[name], strict=True))
        counts = f"{one.states:,} | {one.transitions:,}"
        rows.append(f"| {pages} | {name} | {counts} | {one.rate / 1e6:.3f} M | {one.bytes:.1f} | {ratio:.2f} |")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, nargs="+", default=[4, 5])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", metavar="FILE")
    arguments = parser.parse_args()
    spin = shutil.which("spin") is not None
    lines = [
        "| P | who | states | transitions | states per CPU second | bytes per state | ours to this |",
        "|---|---|---|---|---|---|---|",
    ]
    for pages in arguments.pages:
        lines += measure(pages, arguments.rounds, spin)
    lines.append("")
    if not spin:
        lines.append("Spin was not measured: apt-get install spin.")
    elif max(arguments.pages) > SPIN_MOST_PAGES:
        lines.append(f"Spin was measured up to P={SPIN_MOST_PAGES}: beyond, it needs minutes and gigabytes.")
    lines.append(f"Median of {arguments.rounds} interleaved rounds on {os.cpu_count()} CPUs ({platform.machine()}), by")
    lines.append(f"`python benchmarks/explore.py --pages {' '.join(map(str, arguments.pages))} --rounds {arguments.rounds}`.")
    print("\n".join(lines))
    if arguments.save:
        title = "# Exploring the shared test model\n\n"
        Path(arguments.save).write_text(title + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
