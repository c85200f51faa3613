# SPDX-License-Identifier: Apache-2.0
"""What has a number or a name in the C text, known before any of it is written."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guestmem.checker.frontend.source import Place, source_line
from guestmem.checker.ir import (
    Block,
    Body,
    Expr,
    If,
    Instr,
    Load,
    Loop,
    Op,
    Part,
    Reached,
    Require,
    Return,
    Store,
    children,
    expressions,
)
from guestmem.checker.middle.bodies import Bodies
from guestmem.checker.middle.intervals import Intervals, Ranges
from guestmem.checker.pools import Pools
from guestmem.model.errors import ALWAYS_A_STEP, IN_RANGE, TOO_LARGE, Refused
from guestmem.model.record import Field
from guestmem.model.world import to_be_shown

#: Situations whose numbers fit the word that notes them.
MOST_SITUATIONS = 64
#: Properties of states whose numbers fit a word.
MOST_PROPERTIES = 64


@dataclass(frozen=True)
class Site:
    """What can break a rule: a place in the source, or a property of states (None)."""

    rule: str
    detail: str
    place: Place | None


ENDLESS = Site(ALWAYS_A_STEP, "it chooses without end", Place("", 0))


def too_large(op: Op) -> Site:
    """Where an operation has a result that does not fit."""
    assert op.place is not None
    return Site(TOO_LARGE, source_line(op.place), op.place)


class Numbers:
    """The numbers and names of a world's bodies.

    Attributes:
        sites: what ``site`` numbers in the engine's answers mean.
        always: the rules of the state properties, in the engine's numbering; several properties may say one rule.
        loops: the loops that a thread must leave, with its number, in the engine's numbering.
        situations: what must be reached, in the engine's numbering: first the state predicates, then those that the world
            names, then those that code alone does.
        tables: the names of tables of constants.
    """

    def __init__(self, pools: Pools, bodies: Bodies, changing: Iterable[Field], ranges: Ranges) -> None:
        self.pools = pools
        self.always = list(dict.fromkeys(rule for rule, _ in bodies.always))
        self.situations = [situation for situation, _ in bodies.sometimes] + to_be_shown(pools.world)
        self.loops = [(number, loop) for number, thread in enumerate(bodies.threads) for loop in thread.loops]
        self.sites: list[Site] = []
        self.tables: dict[tuple[int, ...], str] = {}
        self._sites: dict[Site, int] = {}
        self._loops: dict[Loop, int] = {loop: number for number, (_, loop) in enumerate(self.loops)}
        self._fields: dict[Field, str] = {f: f"{i}_{f.owner.__name__}_{f.name}" for i, f in enumerate(changing)}
        self._bodies: dict[Body, str] = {body: f"f{i}_{body.function.node.name}" for i, body in enumerate(bodies.atomic)}
        for body in bodies.atomic:
            self._blocks(body.blocks, ranges.bodies[body])
        for thread in bodies.threads:
            self._blocks(thread.blocks, ranges.threads[thread])
        self._add(ENDLESS)
        what = type(pools.world).__qualname__
        for count, most, of in (
            (len(self.always), MOST_PROPERTIES, "rules of states"),
            (len(self.situations), MOST_SITUATIONS, "situations"),
        ):
            if count > most:
                raise Refused(what, f"more than {most} {of}", "split the world into several")

    def site(self, site: Site) -> int:
        return self._sites[site]

    def situation(self, situation: str) -> int:
        return self.situations.index(situation)

    def table(self, values: Sequence[int]) -> str:
        """The name of a table of constants."""
        return self.tables[tuple(values)]

    def loop(self, loop: Loop) -> int | None:
        """The number of a loop, if it is one that must be left."""
        return self._loops.get(loop)

    def field(self, field: Field) -> str:
        return self._fields[field]

    def body(self, body: Body) -> str:
        return self._bodies[body]

    def progression(self, values: Sequence[int]) -> int | None:
        """The difference of each value to the next, if it is always the same."""
        stride = values[1] - values[0] if len(values) > 1 else 1
        return stride if all(b - a == stride for a, b in itertools.pairwise(values)) else None

    # ---- what comes to be numbered

    def _add(self, site: Site) -> None:
        if site not in self._sites:
            self._sites[site] = len(self.sites)
            self.sites.append(site)

    def _blocks(self, blocks: Iterable[Block], known: Intervals) -> None:
        for block in blocks:
            for instr in block.instrs:
                self._instr(instr, known)
            match block.end:
                case If(condition, _, _):
                    self._expr(condition, known)
                case Return(values):
                    for value in values:
                        self._expr(value, known)

    def _instr(self, instr: Instr, known: Intervals) -> None:
        if isinstance(instr, Store) and not known.fits(instr):
            self._add(out_of_range(self.pools, instr))
        for expr in expressions(instr):
            self._expr(expr, known)
        match instr:
            case Require(_, rule, detail, place):
                self._add(Site(rule, detail, place))
            case Reached(situation) if situation not in self.situations:
                self.situations.append(situation)

    def _expr(self, expr: Expr, known: Intervals) -> None:
        if isinstance(expr, Op) and known.op_overflows(expr):
            self._add(too_large(expr))
        for child in children(expr):
            self._expr(child, known)
        if (isinstance(expr, Load) and not expr.changes) or isinstance(expr, Part):
            values = self.pools.values(expr.field)
            if isinstance(expr, Load) or self.progression(values) is None:
                self.tables.setdefault(tuple(values), f"table_{len(self.tables)}")


def out_of_range(pools: Pools, store: Store) -> Site:
    """Where a number is stored that does not lie in the range of its field."""
    low, high = pools.interval(store.field.type)
    return Site(IN_RANGE, f"{store.field!r} outside {low}..{high}", store.place)
