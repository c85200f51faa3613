# SPDX-License-Identifier: Apache-2.0
"""``guestmem mutate``: change code in one place, and see whether a rule notices."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guestmem.cli.files import may_write
from guestmem.cli.scenario import SIZES, one_size, options, sizes
from guestmem.cli.terminal import HOLDS, INCOMPLETE, VIOLATED, Usage, count, duration, named, progress, told_to_stop

if TYPE_CHECKING:
    from guestmem.mutation.mutants import Mutant
    from guestmem.mutation.report import Listed
    from guestmem.mutation.run import Case, Result, Source

#: Options that only a file of the user's has.
OF_A_FILE = ("protection", "arch", "speculation", "size", *SIZES)


def add(commands: Any) -> None:
    """Add the command."""
    mutate = commands.add_parser(
        "mutate",
        help="change code in one place, and see whether a rule notices",
        description="Exit codes: 0 every mutant that could be noticed is killed, 1 some survive, 2 usage, 3 incomplete.",
    )
    mutate.add_argument(
        "target",
        nargs="+",
        metavar="TARGET",
        help="file.py:World of yours; or the project's own logic: guest_memfd, hypervisors, mm, machine, or mm/folio.py",
    )
    mutate.add_argument("--sample", type=count, metavar="N", help="N of the mutants, over all files")
    mutate.add_argument("--seed", type=int, metavar="S", default=0, help="another sample (default: 0)")
    mutate.add_argument("--only", metavar="KIND", action="append", help="only mutants of a kind, as 'lines swapped'")
    mutate.add_argument("--file", metavar="F", action="append", help="only mutants of a file, as mm/folio.py")
    mutate.add_argument(
        "--cases", type=count, metavar="N", help="try a mutant in the N cheapest scenarios that have its function"
    )
    mutate.add_argument(
        "--within", type=duration, metavar="TIME", help="begin nothing new after this time, as 90s, 40m, 2h (exit 3)"
    )
    mutate.add_argument("--jobs", type=count, metavar="N", help="mutants at a time (default: one a CPU)")
    mutate.add_argument("--resume", metavar="FILE", help="keep results in FILE as they come; go on with what it has not killed")
    mutate.add_argument(
        "--hints", metavar="FILE", help="results of other code, as --resume wrote them: try first what killed a mutant there"
    )
    mutate.add_argument("--survivors", metavar="FILE", help="a list of survivors with reasons, as docs/mutants.toml")
    mutate.add_argument("--protection", metavar="P", help="of a file of yours: none, unmap, fixup, unmap+fixup (default: each)")
    mutate.add_argument("--arch", metavar="A", help="of a file of yours, as in check")
    for name, what in (
        ("pages", "pages of the file"),
        ("frames", "page frames"),
        ("cpus", "CPUs of the host"),
        ("vms", "guests"),
    ):
        mutate.add_argument(f"--{name}", type=count, metavar="N", help=f"of a file of yours: {what}")
    mutate.add_argument("--speculation", action="store_true", default=None, help="of a file of yours: as in compare")
    mutate.add_argument("--size", type=one_size, metavar="NAME=N", action="append", default=[], help="any size of its world")
    mutate.add_argument("--json", action="store_true")
    mutate.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Try mutants; a signal that would end it has it stop and say what it found."""
    from guestmem.mutation.mutants import KINDS
    from guestmem.mutation.report import UNNOTICEABLE, Results, hints, line, listed, score, settled
    from guestmem.mutation.run import Campaign, Result, code_digest

    began = time.monotonic()
    for kind in arguments.only or ():
        named(kind, "kind of mutant", KINDS)
    if arguments.resume:
        may_write(arguments.resume, "--resume")
    sources, cases = targets(arguments)
    known = listed(arguments.survivors) if arguments.survivors else {}
    everything = [mutant for source in sources for mutant in source.mutants()]
    wanted = choose(arguments, sources, everything)
    about = {
        "code": code_digest([s.path for s in sources if not s.place.startswith("guestmem/")]),
        "set of scenarios": hashlib.sha256(repr(cases).encode()).hexdigest()[:16],
    }
    kept = Results(arguments.resume, about) if arguments.resume else None
    before = dict(kept.found) if kept is not None else {}
    results: dict[Any, Result] = {}
    for mutant in wanted:
        found = before.get(mutant.key)
        if found is not None and found.status in ("killed", "invalid"):
            results[mutant.key] = replace(found, line=mutant.line)
        elif mutant.key in known and known[mutant.key].reason in UNNOTICEABLE:
            results[mutant.key] = settled(found or Result(mutant.key, mutant.line, "survived"), known)
    left = [mutant for mutant in wanted if mutant.key not in results]
    campaign = Campaign(sources, cases, arguments.jobs or os.cpu_count() or 1, arguments.cases)
    if arguments.hints:
        campaign.hints = hints(arguments.hints)
    if arguments.within is not None:
        campaign.deadline = began + arguments.within
    with progress("mutate") as note, told_to_stop(campaign.stop):
        campaign.note = note
        for result in campaign.run(left, before) if left else ():
            results[result.key] = settled(result, known)
            if kept is not None and result != before.get(result.key):
                kept.add(result)
            if not arguments.json:
                note("")
                print(line(result), flush=True)
            note(f"{len(results)} of {len(wanted)}")
    if kept is not None:
        kept.close()
    ordered = [results[mutant.key] for mutant in wanted if mutant.key in results]
    stale = [
        entry for key, entry in known.items() if key not in {m.key for m in everything} and key.file in {s.name for s in sources}
    ]
    if arguments.json:
        print(json.dumps(as_json(arguments, ordered, len(wanted), campaign.left_out, stale), indent=1))
    else:
        report(ordered, len(wanted), campaign.left_out, stale, known)
    killed, noticeable = score(ordered)
    if len(ordered) < len(wanted) or any(result.status == "incomplete" for result in ordered):
        return INCOMPLETE
    return HOLDS if killed == noticeable else VIOLATED


def targets(arguments: argparse.Namespace) -> tuple[list[Source], list[Case]]:
    """The sources to change, and the scenarios to try."""
    from guestmem.model import World
    from guestmem.mutation.run import Case, Source, catalogue_cases, package_sources
    from guestmem.report.names import plain
    from guestmem.scenarios.catalogue import PROTECTIONS, find

    if not any(":" in name for name in arguments.target):
        asked = next((name for name in OF_A_FILE if getattr(arguments, name)), None)
        if asked is not None:
            raise Usage(f"--{asked} is for a file of yours: the project's scenarios have sizes of their own")
        found = {source.name: source for name in arguments.target for source in _own(name, package_sources(name))}
        return list(found.values()), catalogue_cases()
    if len(arguments.target) > 1:
        raise Usage(f"{' '.join(arguments.target)}: name one file.py:World at a time, or some of the project's own logic")
    target = arguments.target[0]
    scenario = find(target)
    world, file = scenario.world, target.rpartition(":")[0]
    names = plain({**sizes(scenario, arguments), **options(scenario, arguments)})
    protections = [names.pop("protection", "")] if arguments.protection else []
    names.pop("protection", None)
    if not protections and isinstance(world, type) and issubclass(world, World) and "protection" in world.fields():
        protections = list(PROTECTIONS)
    each = [{"protection": p, **names} for p in protections] or [names]
    source = Source(os.path.basename(file), Path(file).resolve(), f"user/{os.path.basename(file)}")
    name = f"{source.name}:{target.rpartition(':')[2]}"
    return [source], [Case(name, tuple(one.items())) for one in each]


def _own(name: str, found: list[Source]) -> list[Source]:
    if not found:
        raise Usage(
            f"{name!r} is nothing to change: use file.py:World, guest_memfd, hypervisors, mm, machine, or a file as mm/folio.py"
        )
    return found


def choose(arguments: argparse.Namespace, sources: list[Source], everything: list[Mutant]) -> list[Mutant]:
    """The mutants that were asked for, in the order of the sources; a sample stays the same where the code does."""
    for file in arguments.file or ():
        named(file, "file of these targets", [source.name for source in sources])
    wanted = [
        mutant
        for mutant in everything
        if mutant.kind in (arguments.only or (mutant.kind,)) and mutant.file in (arguments.file or (mutant.file,))
    ]
    if not wanted:
        raise Usage("there is no such mutant: nothing in these files can be changed in this way")
    if arguments.sample is not None:
        drawn = sorted(wanted, key=lambda m: hashlib.sha256(f"{arguments.seed} {m.key}".encode()).digest())
        keys = {mutant.key for mutant in drawn[: arguments.sample]}
        wanted = [mutant for mutant in wanted if mutant.key in keys]
    return wanted


def report(ordered: list[Result], wanted: int, left_out: dict[str, str], stale: list[Listed], known: dict[Any, Listed]) -> None:
    """The tables, and what is to be said besides."""
    from guestmem.mutation.report import score, tables

    print()
    for line in tables(ordered):
        print(line)
    print()
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    for entry in stale:
        print(f"listed, but there is no such mutant: {entry.key.file} {entry.key.function} {entry.key.kind}: {entry.key.before}")
    for result in ordered:
        if result.status == "killed" and result.key in known:
            print(f"listed as {known[result.key].reason}, but killed: {result.key.file}:{result.line} {result.key.kind}")
    killed, noticeable = score(ordered)
    print(f"{len(ordered)} of {wanted} mutants tried; killed {killed} of {noticeable} that a rule could notice")


def as_json(
    arguments: argparse.Namespace, ordered: list[Result], wanted: int, left_out: dict[str, str], stale: list[Listed]
) -> dict[str, Any]:
    """All of it as one object."""
    from guestmem.mutation.report import score

    killed, noticeable = score(ordered)
    return {
        "schema": 1,
        "targets": arguments.target,
        "sample": arguments.sample,
        "seed": arguments.seed,
        "wanted": wanted,
        "killed": killed,
        "noticeable": noticeable,
        "results": [result.as_json() for result in ordered],
        "left_out": left_out,
        "stale": [entry.key._asdict() for entry in stale],
    }
