# SPDX-License-Identifier: Apache-2.0
"""Random schedules, in plain Python and in translated code, compared after every step."""

from __future__ import annotations

import random
from collections.abc import Callable

from guestmem.checker.explore import Edge, Steps
from guestmem.checker.pools import Pools
from guestmem.model import Verdict, World
from guestmem.model.errors import ALWAYS_A_STEP, TOO_LARGE
from guestmem.model.schedule import Schedule
from guestmem.model.world import records_of, snapshot


class Lockstep:
    """One world twice: running as Python threads, and as states of the translated code."""

    def __init__(self, build: Callable[[], World], model: Steps) -> None:
        self.model = model
        self.world = build()
        self.pools = Pools(self.world)
        self.twin = {id(mine): theirs for mine, theirs in zip(records_of(self.world), records_of(model.world), strict=True)}
        self.state, broken = model.start()
        assert broken is None

    def run(self, seed: int, steps: int) -> int:
        """Run a random schedule of at most ``steps`` slices; how many ran.  Fails where the two differ."""
        generator = random.Random(seed)
        with Schedule(self.world) as schedule:
            for done in range(steps):
                edges = self.model.edges(self.state)
                if not edges or not self.take(schedule, generator.choice(edges)):
                    return done
        return steps

    def take(self, schedule: Schedule, edge: Edge) -> bool:
        """Do one slice on both sides; False when it broke a rule, the same one."""
        if edge.broken is not None:
            if edge.broken.rule in (ALWAYS_A_STEP, TOO_LARGE):  # it would not end in plain Python either; Python's numbers fit
                return False
            assert edge.broken.rule == rule_broken(lambda: schedule.run(edge.slice))
            return False
        event = schedule.run(edge.slice)
        assert event is not None or not edge.slice.stepped, f"{edge.slice} waits in plain Python"
        self.state = edge.state
        layout = self.model.translation.layout
        assert layout.pack(self.pools) == self.fields_of(self.state), self.difference()
        self.compare_threads(schedule)
        broken = {site.rule for site in self.model.broken_rules(self.state)}
        if TOO_LARGE in broken:
            return False
        assert {verdict.rule for verdict in schedule.broken()} == broken
        return True

    def compare_threads(self, schedule: Schedule) -> None:
        """Each thread stands at the same call on both sides, with the same values in the locals that are needed."""
        layout, pools = self.model.translation.layout, self.model.translation.layout.pools
        for number, body in enumerate(self.model.translation.bodies.threads):
            if not schedule.started(number):
                continue
            boundary, values = layout.thread(self.state, number, body)
            assert (boundary.kind == "end") == schedule.finished(number)
            if boundary.kind == "end":
                continue
            frames = {(f.f_code.co_filename, f.f_code.co_firstlineno): f for f in schedule.frames(number)}
            for function, place, variables in boundary.stack:
                code = function.python.__code__
                frame = frames[code.co_filename, code.co_firstlineno]
                assert frame.f_lineno == place.line, f"{function}: at line {frame.f_lineno}, not {place}"
                for name, var in variables.items():
                    if var in values and name in frame.f_locals:
                        value = frame.f_locals[name]
                        expected = pools.encode(self.twin.get(id(value), value), var.type)
                        assert values[var] == expected, f"{function}: {name} is {values[var]}, not {expected}"

    def fields_of(self, state: tuple[int, ...]) -> list[int]:
        """A state without the threads' areas."""
        words = list(state)
        for area in self.model.translation.layout.areas:
            for word, shift, width in area.chunks:
                words[word] &= ~(((1 << width) - 1) << shift)
        return words

    def difference(self) -> str:
        """The fields in which the two sides differ."""
        self.model.translation.layout.unpack(self.state, self.model.world)
        theirs, mine = snapshot(self.model.world), snapshot(self.world)
        return "; ".join(f"{k}: plain {mine[k]}, translated {theirs[k]}" for k in mine if mine[k] != theirs[k])


def rule_broken(action: Callable[[], object]) -> str | None:
    """The rule that an action breaks, if any."""
    try:
        action()
    except Verdict as verdict:
        return verdict.rule
    return None
