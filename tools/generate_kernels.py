# SPDX-License-Identifier: Apache-2.0
"""Try kernels under ``guestmem boot`` and put what came of it into docs/kernels.md.

    python tools/generate_kernels.py [--python DIR] [--append WORDS] [--module FILE.ko --label TEXT] KERNEL...
    python tools/generate_kernels.py

Each kernel is booted three times: ``probe``, ``conform --backend both``, ``fuzz --seconds 60``.  The results are kept in
docs/kernels.json, one entry for a kernel, machine and options, from which the page is made; without kernels only that.
DIR has the guest's Python for kernels of another architecture (see docs/linux.md).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
RESULTS, PAGE = DOCS / "kernels.json", DOCS / "kernels.md"
BEGIN, END = "<!-- kernels: python tools/generate_kernels.py -->\n", "<!-- end -->"
SKIPPED = 4
COMMANDS = {
    "probe": ["probe", "--json"],
    "conform": ["conform", "--backend", "both", "--json"],
    "fuzz": ["fuzz", "--seconds", "60", "--json"],
}


def boot(kernel: str, options: Sequence[str], command: Sequence[str]) -> tuple[dict[str, Any], float]:
    """The JSON that a command prints on a kernel, none if that is skipped, and the seconds with the boot."""
    start = time.monotonic()
    argv = [sys.executable, "-m", "guestmem", "boot", *options, kernel, "--", "guestmem", *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode == SKIPPED and not done.stdout:
        return {}, time.monotonic() - start
    if not done.stdout.startswith("{"):
        raise SystemExit(f"{kernel}: {' '.join(command)}: exit {done.returncode}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found, time.monotonic() - start


def tried(kernel: str, options: Sequence[str], shown: Sequence[str]) -> dict[str, Any]:
    """What came of a kernel, as docs/kernels.json keeps it."""
    found, seconds = {}, {}
    for name, command in COMMANDS.items():
        found[name], seconds[name] = boot(kernel, options, command)
    probe, conform, fuzz = (found[name] for name in COMMANDS)
    rows = conform["results"]
    return {
        "kernel": probe["kernel"]["release"],
        "machine": probe["kernel"]["machine"],
        "options": " ".join(shown),
        "facts": probe["kvm"].get("facts"),
        "why": probe["kvm"].get("why"),
        "testable": [row["what"] for row in probe["testable"] if row["testable"]],
        "model": Counter(row["result"] for row in rows if row["backend"] == "model"),
        "rows": Counter(row["result"] for row in rows if row["backend"] == "kernel"),
        "failed": [row["name"] for row in rows if row["result"] in ("fail", "xpass")],
        "skips": Counter(row["reason"] for row in rows if row["result"] == "skip" and row["backend"] == "kernel"),
        "deviations": sorted({row["reason"].partition(" (")[0] for row in rows if row["result"] == "xfail"}),
        "fuzz": {name: fuzz[name] for name in ("programs", "operations", "deviations", "missing") if fuzz},
        "divergences": [one["title"] for one in fuzz.get("divergences", ())],
        "seconds": {name: round(taken) for name, taken in seconds.items()},
    }


def way(facts: dict[str, Any]) -> str:
    """How a VMM has guest memory there: the first that the kernel can do."""
    if 3 in facts["bindable"]:
        return "all memory from one file (1)"
    if facts["protected"]:
        return "private pages from a file (2)"
    return "no guest_memfd (3)"


def page(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The generated part of the page."""
    what = "kernel, machine, options, files, slots take, private, pre-fault, in-place, pass, xfail, skip, fail, a VMM uses"
    yield f"| {what.replace(', ', ' | ')} |"
    yield "|---" * 13 + "|"
    for one in results:
        facts, rows = one["facts"], Counter(one["rows"])
        flags = (", ".join(map(str, facts[name])) or "none" for name in ("files", "bindable"))
        has = ("yes" if facts[name] else "no" for name in ("protected", "pre_faults", "converts"))
        counts = (str(rows[name]) for name in ("pass", "xfail", "skip"))
        words = [one["kernel"], one["machine"], f"`{one['options']}`" if one["options"] else "", *flags, *has, *counts]
        yield f"| {' | '.join(words)} | {rows['fail'] + rows['xpass']} | {way(facts)} |"
    yield ""
    yield "| kernel | machine | options | fuzzed operations | unexplained | seconds with the boot: probe, conform, fuzz |"
    yield "|---|---|---|---|---|---|"
    for one in results:
        options = f"`{one['options']}`" if one["options"] else ""
        seconds = ", ".join(str(one["seconds"][name]) for name in COMMANDS)
        operations = str(one["fuzz"].get("operations", "none: skipped"))
        words = [one["kernel"], one["machine"], options, operations, str(len(one["divergences"])), seconds]
        yield f"| {' | '.join(words)} |"
    for title, key in (("Known deviations", "deviations"), ("Why rows were skipped", "skips")):
        yield f"\n**{title}**, and where:\n"
        where: dict[str, list[str]] = {}
        for one in results:
            for reason in one[key]:
                options = f" {one['options']}" if one["options"] else ""
                where.setdefault(reason, []).append(f"{one['kernel'].partition('+')[0]} {one['machine']}{options}")
        yield from (f"- {reason}: {'; '.join(those)}" for reason, those in sorted(where.items()))


def kept() -> list[dict[str, Any]]:
    """The results so far."""
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return found


def order(one: dict[str, Any]) -> tuple[Any, ...]:
    """By machine, then by kernel."""
    return one["machine"], [int(part) for part in re.findall(r"\d+", one["kernel"])[:3]], one["options"]


def main() -> int:
    """Try kernels, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", metavar="DIR")
    parser.add_argument("--append", default="", help="for all kernels that are given")
    parser.add_argument("--module", action="append", default=[])
    parser.add_argument("--label", default="", help="what the page says of the modules")
    parser.add_argument("kernels", nargs="*", metavar="KERNEL")
    arguments = parser.parse_args()
    for kernel in arguments.kernels:
        options = [*(["--python", arguments.python] if arguments.python else [])]
        options += [*(["--append", arguments.append] if arguments.append else [])]
        options += [word for module in arguments.module for word in ("--module", module)]
        entry = tried(kernel, options, [word for word in (arguments.append, arguments.label) if word])
        results = kept()
        same = [entry[name] for name in ("kernel", "machine", "options")]
        results = [one for one in results if [one[name] for name in ("kernel", "machine", "options")] != same] + [entry]
        results.sort(key=order)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(*same, dict(entry["rows"]), entry["failed"], entry["divergences"], flush=True)
    results, text = kept(), PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n".join(page(results)) + "\n" + END + after)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
