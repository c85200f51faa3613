# SPDX-License-Identifier: Apache-2.0
"""Random programs of the model language: each is refused by name, or runs in lockstep with plain Python.

By hand: ``python tests/programs.py --programs 10000 --seed 1``.  It prints how many programs were refused and how many
steps were compared; a program whose translation differs from Python is printed, made as small as possible.  A program is
drawn anew from the seed and its number: ``--first N --programs 1``.
"""

from __future__ import annotations

import _ctypes
import argparse
import ast
import contextlib
import functools
import importlib.util
import linecache
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from guestmem.checker.engine.compile import QUICK
from guestmem.checker.explore import Steps
from guestmem.checker.frontend import source
from guestmem.model import Refused
from lockstep import Lockstep
from program_author import Author
from program_values import HEAD

ROOT = Path(__file__).parents[1]
#: So many programs are run in one process.
BATCH = 100


def programs() -> st.SearchStrategy[str]:
    """The texts of modules of the model language, each with a world W."""
    return st.randoms(use_true_random=False).map(lambda random: Author(random.randrange).program())


@dataclass
class Tally:
    """What a number of programs came to."""

    drawn: int = 0
    refused: int = 0
    compared: int = 0
    wide: int = 0  # left where more can happen in a state than is listed
    steps: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    constructs: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Count what another has counted as well."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@contextlib.contextmanager
def imported(text: str, directory: Path, name: str) -> Iterator[Any]:
    """A program as a module; forgotten when left."""
    file = directory / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
        source.READ.clear()
        linecache.clearcache()
        for cache in (source.tree_of, source._definitions):
            cache.cache_clear()
        file.unlink()


def run(text: str, directory: Path, tally: Tally, schedules: int = 3, steps: int = 25) -> None:
    """Refuse a program or run it in lockstep; an error or a difference is raised."""
    tally.drawn += 1
    name = f"program_{tally.drawn}"
    with imported(text, directory, name) as module:
        try:
            model = Steps(module.W(), flags=QUICK)
        except Refused as refused:
            if f"{name}.py:" not in refused.where:
                raise AssertionError(f"refused without a line of the program: {refused}") from refused
            tally.refused += 1
            tally.reasons[re.sub(r"\d+", "N", re.sub(r"'[^']*'", "...", refused.what))[:60]] += 1
            return
        try:
            tally.compared += 1
            tally.constructs.update(set(constructs(text)))
            for number in range(schedules):
                tally.steps += Lockstep(module.W, model).run(number, steps)
        except OverflowError:
            tally.compared -= 1
            tally.wide += 1
        finally:
            _ctypes.dlclose(model.library._handle)


def constructs(text: str) -> Iterator[str]:
    """The kinds of things a program contains."""
    names = ("choose", "may", "when", "require", "reached", "enumerate", "span", "all", "any", "sum", "super", "min", "max")
    for node in ast.walk(ast.parse(text.removeprefix(HEAD))):
        match node:
            case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.UnaryOp(op=op) | ast.BoolOp(op=op):
                yield f"{type(node).__name__} {type(op).__name__}"
            case ast.Compare(ops=ops):
                yield "Compare, chained" if len(ops) > 1 else f"Compare {type(ops[0]).__name__}"
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)):
                yield f"Call {called}" if called in names else "Call of the program's own"
                if any(k.arg for k in node.keywords):
                    yield "Call with keywords"
            case ast.ClassDef(bases=bases) if len(bases) > 1:
                yield "ClassDef of several bases"
            case ast.FunctionDef(decorator_list=decorators):
                yield from (f"FunctionDef @{ast.unparse(d).partition('(')[0]}" for d in decorators)
            case ast.stmt() | ast.expr():
                yield type(node).__name__


def failure(text: str, directory: Path, tally: Tally) -> str:
    """How a program fails: an error and where it was raised; empty if it does not."""
    try:
        run(text, directory, tally)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(at.filename).name}:{at.lineno}: {at.line}" if at.filename.startswith(str(ROOT)) else ""
        return f"{type(error).__name__} {where}"
    return ""


def cuts(tree: ast.Module) -> Iterator[Callable[[], None]]:
    """Ways to make a program smaller, statements first; each changes the tree, and gives what takes that back."""
    blocks = [
        block
        for node in ast.walk(tree)
        for name in ("body", "orelse")
        if isinstance(block := getattr(node, name, None), list) and not isinstance(node, ast.Lambda)
    ]
    for block in blocks:
        for i in range(len(block) - 1, -1, -1):
            if i >= len(block) or isinstance(block[i], ast.Pass):
                continue
            kept = list(block)
            inner: list[ast.stmt] = [] if isinstance(kept[i], (ast.ClassDef, ast.FunctionDef)) else getattr(kept[i], "body", [])
            for instead in ([], inner) if inner else ([],):
                block[i : i + 1] = instead
                if not block and block is not tree.body:
                    block.append(ast.Pass())
                yield functools.partial(block.__setitem__, slice(None), kept)
    for node in ast.walk(tree):
        for name, value in ast.iter_fields(node):
            places: list[tuple[Callable[[ast.expr], None], ast.expr]] = []
            if isinstance(value, ast.expr) and not isinstance(value, (ast.Name, ast.Constant)):
                places.append((functools.partial(setattr, node, name), value))
            elif isinstance(value, list):
                places += [(functools.partial(value.__setitem__, i), v) for i, v in enumerate(value) if isinstance(v, ast.expr)]
            for put, old in places:
                parts = [part for part in ast.iter_child_nodes(old) if isinstance(part, ast.expr)]
                for new in [*parts, *map(ast.Constant, (0, 1, True))]:
                    if ast.dump(new) != ast.dump(old):
                        put(new)
                        yield functools.partial(put, old)


def reduced(text: str, directory: Path, seconds: float = 120) -> str:
    """A smaller program that fails in the same way."""
    tree, scrap = ast.parse(text), Tally()
    wanted = failure(text, directory, scrap)
    until = time.monotonic() + seconds
    progress = True
    while progress:
        progress = False
        for undo in cuts(tree):
            if time.monotonic() > until:
                undo()
                return ast.unparse(tree)
            try:
                smaller = ast.unparse(ast.fix_missing_locations(tree))
                ast.parse(smaller)
                same = failure(smaller, directory, scrap) == wanted
            except (SyntaxError, ValueError):
                same = False
            if same:
                progress = True
            else:
                undo()
    return ast.unparse(tree)


def batch(seed: int, as_drawn: bool, numbers: range) -> Tally:
    """Run some programs, in a process of their own: what an interpreter keeps of each is gone with it."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        for number in numbers:
            text = Author(Random(f"{seed} {number}").randrange).program()
            how = failure(text, Path(scratch), tally)
            if how:
                if not tally.differences[how]:
                    shown = text if as_drawn else reduced(text, Path(scratch))
                    print(f"---- seed {seed}, program {number}: {how}\n{shown}\n", flush=True)
                tally.differences[how] += 1
            shutil.rmtree(Path(scratch, "guestmem"), ignore_errors=True)
    return tally


def main() -> int:
    """Draw, run, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the program to begin with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="programs at a time (default: one a CPU)")
    parser.add_argument("--statistics", action="store_true", help="how many programs contain what, and why some were refused")
    parser.add_argument("--as-drawn", action="store_true", help="print a program that differs as it is, not made smaller")
    arguments = parser.parse_args()
    began = time.monotonic()
    end = arguments.first + arguments.programs
    batches = [range(first, min(first + BATCH, end)) for first in range(arguments.first, end, BATCH)]
    work = functools.partial(batch, arguments.seed, arguments.as_drawn)
    total = Tally()
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for tally in pool.imap_unordered(work, batches):
            total.add(tally)
            print(f"{total.drawn} programs, {total.steps} steps, {total.differences.total()} differences", file=sys.stderr)
    if arguments.statistics:
        for title, counts in (("compared", total.constructs), ("refused", total.reasons), ("different", total.differences)):
            for name, count in counts.most_common():
                print(f"{title} {count:6} {name}")
    print(
        f"seed {arguments.seed}: {total.drawn} programs drawn, {total.refused} refused, {total.compared} compared in lockstep, "
        f"{total.wide} left as too much can happen in one state, "
        f"{total.steps} steps, {total.differences.total()} differences, {time.monotonic() - began:.0f} s"
    )
    return 1 if total.differences else 0


if __name__ == "__main__":
    sys.exit(main())
