# SPDX-License-Identifier: Apache-2.0
"""Which rows of the contract notice a change of the model: ``python tools/row_mutants.py [SAMPLE] [FILE]``.

SAMPLE: how many of some 2700 changes, drawn at random (default: all).  FILE: where results are kept; a run that was interrupted
goes on with those that it has, and a larger sample takes in a smaller one's.

Every row but those of the groups that wait or race runs on the simulated host with one change in its source, for every
change that ``guestmem mutate`` knows, in the system calls and in the library and memory management below them.  Rows that
have noticed a change run again only where one that has not does.  The result goes into docs/contract.md: how many rows
notice at least one change, and the names of those that notice none.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from multiprocessing import Pool
from pathlib import Path
from types import CodeType, ModuleType

import guestmem
from guestmem.contract.conform import FAIL, judge
from guestmem.contract.rows import rows
from guestmem.mutation.mutants import Mutant, mutants

SOURCE = Path(guestmem.__file__).parent
MUTATED = (
    *sorted((SOURCE / "contract/syscalls").glob("*.py")),
    *(SOURCE / name for name in ("contract/operations.py", "contract/spans.py", "guest_memfd/library.py")),
    *(SOURCE / name for name in ("mm/filemap.py", "mm/secretmem.py", "hypervisors/kvm.py", "machine/guest.py")),
)
SLOW = {"limits", "concurrency"}
CRUDE = 100  # rows that fail: then the model is broken, and not wrong in one thing
ROUND = 40  # changes after which it is seen which rows are still missing
SECONDS = 60  # for one row; a change with which one does not end does not count, as it may break all rows alike
DOCUMENT = Path(__file__).parents[1] / "docs" / "contract.md"
BLOCK = re.compile(r"(<!-- row mutants: python tools/row_mutants.py -->\n).*?(<!-- end -->)", re.S)


class Loader(importlib.abc.InspectLoader):
    """Loads one module from another source."""

    def __init__(self, name: str, source: str, path: str) -> None:
        self.name, self.source, self.path = name, source, path

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec")

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None


def module_of(path: Path) -> str:
    """The name of a module."""
    return ".".join(("guestmem", *path.relative_to(SOURCE).with_suffix("").parts))


def notice(job: tuple[str, str, str], missing: set[str]) -> list[str] | None:
    """The rows that fail with a changed module, none if none of those that are missing does; None: a row does not end."""
    name, source, path = job
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        wanted = sorted((row for row in rows() if row.group not in SLOW), key=lambda row: row.name not in missing)
        try:
            for loaded in [one for one in sys.modules if one == name or one.startswith("guestmem.contract.syscalls")]:
                del sys.modules[loaded]
            sys.meta_path.insert(0, Loader(name, source, path))
            from guestmem.contract.syscalls.simulated_host import SimulatedHost

            host, many = SimulatedHost(), 0
            for number, row in enumerate(wanted):
                if number == len(missing) and many == 0:
                    break
                signal.alarm(SECONDS)
                failed = judge(row, host)[0] == FAIL
                if failed:
                    os.write(writing, f"{row.name}\n".encode())
                    host = SimulatedHost()
                    many += 1
                if many > CRUDE:
                    break
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        failed_rows = told.read().splitlines()
    _, status = os.waitpid(child, 0)
    return failed_rows if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else None


def crude(names: list[str] | None) -> bool:
    """Whether a change breaks too much to say something about a row."""
    return names is None or len(names) > CRUDE


def changed(path: Path, mutant: Mutant) -> tuple[str, str, str]:
    """A module with a change: its name, source and path."""
    return module_of(path), mutant.apply(path.read_text()), str(path)


def digest(job: tuple[str, str, str]) -> str:
    """By what a change is known again."""
    return hashlib.sha256(f"{job[0]} {job[1]}".encode()).hexdigest()


def still_missing(known: Iterable[list[str] | None]) -> list[str]:
    """The rows that have noticed no change yet."""
    noticed = {name for names in known if not crude(names) for name in names or ()}
    return [row.name for row in rows() if row.group not in SLOW and row.name not in noticed]


def block(never: list[str], made: int, broken: int) -> str:
    """What the document says."""
    names = [row.name for row in rows() if row.group not in SLOW]
    lines = [
        f"{len(rows())} rows, of which {len(rows()) - len(names)} wait or race and were left out here. Of the other "
        f"{len(names)}, {len(names) - len(never)} notice at least one of {made} changes of the model, {len(never)} none. "
        f"{broken} more changes break over {CRUDE} rows at once, or have one not end, and do not count.",
        "",
    ]
    if never:
        lines += ["These notice none of them:", ""]
        lines += [f"- `{name}`" for name in never]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Run all, and put the result into the document."""
    everything = [(path, one) for path in MUTATED for one in mutants(path.read_text(), path.name)]
    random.Random(0).shuffle(everything)
    sample = int(sys.argv[1]) if sys.argv[1:] else len(everything)
    jobs = {digest(job): job for job in (changed(*one) for one in everything[:sample])}
    kept = Path(sys.argv[2]) if sys.argv[2:] else Path(os.devnull)
    known = dict(json.loads(line) for line in (kept.read_text().splitlines() if kept.exists() else ()))
    left = [key for key in jobs if key not in known]
    with Pool(os.cpu_count()) as pool, kept.open("a") as file:
        for start in range(0, len(left), ROUND):
            keys = left[start : start + ROUND]
            look = functools.partial(notice, missing=set(still_missing(known.values())))
            for key, names in zip(keys, pool.map(look, [jobs[key] for key in keys], chunksize=1), strict=True):
                known[key] = names
                print(json.dumps([key, names]), file=file, flush=True)
            print(f"{start + len(keys)} of {len(left)} changes", file=sys.stderr)
    each = [known[key] for key in jobs]
    broken = sum(map(crude, each))
    text = DOCUMENT.read_text()
    assert BLOCK.search(text), "docs/contract.md has no place for it"
    made = block(still_missing(each), len(jobs) - broken, broken)
    DOCUMENT.write_text(BLOCK.sub(lambda found: found[1] + made + found[2], text))
    print(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
