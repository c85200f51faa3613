# SPDX-License-Identifier: Apache-2.0
"""Random schedules, in plain Python and in translated code, compared after every step."""

import random
from collections.abc import Callable

from guestmem.checker import Model
from guestmem.checker.ir import Boundary
from guestmem.model import Verdict, World
from guestmem.model.schedule import Schedule, Slice


def compare_threads(model: Model, schedule: Schedule, state: tuple[int, ...]) -> None:
    """Each thread stands at the same call in both, with the same values in the locals that are still needed."""
    layout, pools = model.translation.layout, model.translation.pools
    for number, body in enumerate(model.translation.program.threads):
        boundary, values = layout.thread(state, number, body)
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
                    expected = pools.encode(pools_value(model, schedule, frame.f_locals[name]), var.type)
                    assert values[var] == expected, f"{function}: {name} is {values[var]}, not {expected}"


def pools_value(model: Model, schedule: Schedule, value: object) -> object:
    """A value of the schedule's world as one of the model's: records are matched by their paths."""
    return RECORDS[id(schedule)][id(value)] if id(value) in RECORDS[id(schedule)] else value


RECORDS: dict[int, dict[int, object]] = {}


def run(build: Callable[[], World], model: Model, seed: int, steps: int) -> list[Slice]:
    """One random schedule; the slices that ran.  Fails where the two differ."""
    from guestmem.checker.pools import Pools
    from guestmem.model.world import records_of

    generator = random.Random(seed)
    world = build()
    pools = Pools(world)
    state, broken = model.start()
    assert broken is None
    done: list[Slice] = []
    twins = zip(records_of(world), records_of(model.world), strict=True)
    with Schedule(world) as schedule:
        RECORDS[id(schedule)] = {id(mine): theirs for mine, theirs in twins}
        for _ in range(steps):
            edges = model.edges(state)
            if not edges:
                break
            edge = generator.choice(edges)
            if edge.broken is not None:
                try:
                    schedule.run(edge.slice)
                except Verdict as verdict:
                    assert verdict.rule == edge.broken.rule
                    break
                raise AssertionError(f"plain Python does not break {edge.broken}")
            event = schedule.run(edge.slice)
            done.append(edge.slice)
            assert event is not None or not edge.slice.stepped, f"{edge.slice} waits in plain Python"
            state = edge.state
            model_fields = model.translation.layout.pack
            mask = fields_only(model, state)
            layout = model.translation.layout
            layout_pools, layout.pools = layout.pools, pools
            try:
                assert model_fields(world) == mask, describe(model, world, state)
            finally:
                layout.pools = layout_pools
            compare_threads(model, schedule, state)
            expected = model.broken_rule(state)
            try:
                schedule.check()
            except Verdict as verdict:
                assert verdict.rule == expected
                break
            assert expected is None
    return done


def fields_only(model: Model, state: tuple[int, ...]) -> list[int]:
    """A state without the threads' areas."""
    words = list(state)
    for area in model.translation.layout.areas:
        for word, shift, width in area.chunks:
            words[word] &= ~(((1 << width) - 1) << shift)
    return words


def describe(model: Model, world: World, state: tuple[int, ...]) -> str:
    from guestmem.model.world import snapshot

    model.translation.layout.unpack(state, model.world)
    theirs, mine = snapshot(model.world), snapshot(world)
    return "; ".join(f"{k}: plain {mine[k]}, translated {theirs[k]}" for k in mine if mine[k] != theirs[k])


__all__ = ["Boundary", "run"]
