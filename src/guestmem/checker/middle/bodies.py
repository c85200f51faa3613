# SPDX-License-Identifier: Apache-2.0
"""All bodies of a world: its threads and properties, and what they call."""

from __future__ import annotations

from dataclasses import dataclass, field

from guestmem.checker.frontend.program import Program, Thread
from guestmem.checker.frontend.tree import Routine
from guestmem.checker.ir import (
    Block,
    Body,
    Boundary,
    Call,
    Choose,
    If,
    Instr,
    Left,
    Loop,
    Require,
    Store,
    Suspend,
    ThreadBody,
    Watches,
    When,
    around,
    expressions,
    reads_state,
    used_bodies,
    without_boundary,
)
from guestmem.checker.middle.blocks import Lowering
from guestmem.checker.middle.effects import Effects


@dataclass
class Bodies:
    """The lowered program; ``always`` and ``sometimes`` are the properties of states, each with what it says."""

    threads: list[ThreadBody] = field(default_factory=list)
    always: list[tuple[str, Body]] = field(default_factory=list)
    sometimes: list[tuple[str, Body]] = field(default_factory=list)

    @property
    def atomic(self) -> list[Body]:
        """The bodies that are no threads, callees first."""
        return used_bodies([b for t in self.threads for b in t.calls] + [b for _, b in self.always + self.sometimes])


def lower(program: Program, effects: Effects, watches: Watches) -> Bodies:
    """The bodies of a program; ``watches`` says of a file whether its statements and decisions are marked."""
    made: dict[Routine, Body] = {}

    def body_of(routine: Routine) -> Body:
        if routine not in made:
            made[routine] = _atomic(routine, Lowering(effects, body_of, watches), effects)
        return made[routine]

    bodies = Bodies()
    for number, thread in enumerate(program.threads):
        bodies.threads.append(_thread(thread, Lowering(effects, body_of, watches, number)))
    bodies.always = [(rule, body_of(routine)) for rule, routine in program.always]
    bodies.sometimes = [(situation, body_of(routine)) for situation, routine in program.sometimes]
    return bodies


def _atomic(routine: Routine, lowering: Lowering, effects: Effects) -> Body:
    parameters, blocks = lowering.atomic(routine)
    instrs = [i for block in blocks for i in block.instrs]
    ends = [block.end.condition for block in blocks if isinstance(block.end, If)]
    effect = effects.of(routine)
    body = Body(routine.function, repr(routine), parameters, routine.results, blocks)
    body.calls = _called(lowering, instrs)
    body.writes, body.waits = effect.writes, effect.waits
    reads = any(reads_state(e) for i in instrs for e in expressions(i)) or any(map(reads_state, ends))
    body.reads = reads or bool(body.writes) or any(callee.reads for callee in body.calls)
    return body


def _called(lowering: Lowering, instrs: list[Instr]) -> list[Body]:
    """The bodies that instructions call, in the order in which they were first met."""
    used = {i.body for i in instrs if isinstance(i, Call)}
    return [body for body in lowering.calls if body in used]


def _thread(thread: Thread, lowering: Lowering) -> ThreadBody:
    start = lowering.thread(thread)
    if is_same_whenever(start):
        entry = lowering.blocks[0]
        entry.instrs, entry.end = start.instrs, start.end
    blocks = lowering.reachable()
    boundaries = [block.end.boundary for block in blocks if isinstance(block.end, Suspend)]
    for pc, boundary in enumerate(boundaries):
        boundary.pc = pc
    instrs = [i for block in blocks for i in block.instrs]
    writes = {i.field for i in instrs if isinstance(i, Store)}
    return ThreadBody(thread.name, blocks, boundaries, writes, _called(lowering, instrs), _loops(blocks, boundaries))


def _loops(blocks: list[Block], boundaries: list[Boundary]) -> list[Loop]:
    """The loops in which a thread could go on for ever; that others are over is not noted."""
    left = {instr.loop for block in blocks for instr in block.instrs if isinstance(instr, Left)}
    nested = [loop for boundary in boundaries for loop in around(boundary.loop) if loop in left]
    found = sorted(dict.fromkeys(nested), key=lambda loop: -len(around(loop)))
    for block in blocks:
        block.instrs = [i for i in block.instrs if not (isinstance(i, Left) and i.loop not in found)]
    return found


def is_same_whenever(start: Block) -> bool:
    """Whether what a thread does from a block to its next boundary is the same whenever it does it, and cannot stop."""
    blocks = without_boundary(start)
    instrs = [instr for block in blocks for instr in block.instrs]
    called = used_bodies([instr.body for instr in instrs if isinstance(instr, Call)])
    inside = [instr for body in called for block in body.blocks for instr in block.instrs]
    ends = [block.end.condition for block in blocks if isinstance(block.end, If)]
    can_stop = any(isinstance(instr, (When, Require, Choose)) for instr in instrs + inside)
    return not (can_stop or any(map(touches, instrs)) or any(map(reads_state, ends)))


def touches(instr: Instr) -> bool:
    """Whether an instruction of a thread reads or changes what others see."""
    if isinstance(instr, Store) or (isinstance(instr, Call) and instr.body.reads):
        return True
    return any(map(reads_state, expressions(instr)))
