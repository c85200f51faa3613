# SPDX-License-Identifier: Apache-2.0
"""C for threads: functions that go on where a thread stands, and save its place and locals where it stops."""

from __future__ import annotations

import itertools

from guestmem.checker.backend.c import Code, Emitter, Shared, literal
from guestmem.checker.backend.layout import WORD, Area, Saved
from guestmem.checker.ir import Block, Boundary, Call, Choose, Const, If, Instr, Return, Suspend, ThreadBody, begins, reads_state
from guestmem.checker.middle.bodies import touches
from guestmem.checker.middle.intervals import Intervals
from guestmem.checker.middle.liveness import Liveness
from guestmem.checker.middle.unfold import Fork


def pc_of(area: Area) -> str:
    """Where a thread stands."""
    word, shift, _ = area.chunks[0]
    return f"(int)(s[{word}] >> {shift} & {(1 << area.pc_width) - 1})" if area.pc_width else "0"


class ThreadCode(Code):
    """Writes the code of one thread."""

    def __init__(self, out: Emitter, shared: Shared, known: Intervals, number: int, thread: ThreadBody) -> None:
        super().__init__(out, shared, known)
        self.number = number
        self.thread = thread
        self.area = shared.layout.areas[number]

    def write(self) -> None:
        """The function that runs the next slice of the thread, or with ``c->start`` the way to its first boundary."""
        out, blocks = self.out, self.thread.blocks
        with out.function(f"static inline int run_{self.number}(u64 *s, struct ctx *c)"):
            self.declarations(blocks)
            out.line("int fresh = 1, began = -1;")
            out.line("(void)fresh; (void)began;")
            out.line("if (c->start) goto start;")
            out.line(f"began = {pc_of(self.area)};")
            self.resume()
            out.lines.append("start:")
            out.line("fresh = 0;")
            targets = {successor for block in blocks for successor in block.successors()}
            resumed = {b.end.resume: b.end.boundary for b in blocks if isinstance(b.end, Suspend)}
            for block, following in itertools.zip_longest(blocks, blocks[1:]):
                if block in targets:
                    out.label(f"b{block.number}")
                self.block(block, resumed.get(block), following)
        out.line(f"static inline int thread_{self.number}(u64 *s, struct ctx *c)")
        out.line(f"{{ keep_marks(); return settle_marks(run_{self.number}(s, c)); }}")

    def resume(self) -> None:
        """Load the locals that are kept where the thread stands, and go on there."""
        out = self.out
        out.line("switch (began) {")
        for boundary in self.thread.boundaries:
            if boundary.kind == "end":
                out.line(f"case {boundary.pc}: return FINISHED;")
                continue
            loads = [
                f"{s.var.c()} = {self.chunk(s)}{f' + {literal(s.low)}' if s.low else ''};" for s in self.area.saved[boundary]
            ]
            out.line(f"case {boundary.pc}: {' '.join(loads)} goto t{boundary.pc};")
        out.line("}")
        out.line("__builtin_unreachable();")

    def block(self, block: Block, resumed: Boundary | None, following: Block | None) -> None:
        """A block, which may begin at a boundary, and end at one."""
        out, rest = self.out, block.instrs
        if resumed is not None:
            out.label(f"t{resumed.pc}")
            if resumed.kind == "end":
                out.line("return FINISHED;")
                return
            if resumed.kind == "step":
                marks = list(itertools.takewhile(begins, block.instrs))
                call, rest = block.instrs[len(marks)], block.instrs[len(marks) + 1 :]
                assert isinstance(call, Call)
                self.step(marks, call, resumed)
        for instr in rest:
            if touches(instr):
                out.line("fresh = 0;")
            self.instr(instr)
        match block.end:
            case Suspend(boundary, resume):
                out.line(f"if (!fresh) {{ {self.park(boundary)} return DONE; }}")
                if boundary.kind == "end":
                    out.line(f"{self.park(boundary)} return DONE;")
                elif resume is not following:
                    out.line(f"goto t{boundary.pc};")
            case end:
                if isinstance(end, If) and reads_state(end.condition):
                    out.line("fresh = 0;")
                self.jump(end, following)

    def step(self, marks: list[Instr], call: Call, boundary: Boundary) -> None:
        """The call of a step, which may have to wait: at its own boundary, or before it if the slice began earlier."""
        out, text = self.out, self.call(call)
        if call.body in self.shared.stopping:
            out.line("{ struct marks before = pending;")
            for mark in marks:
                self.instr(mark)
            out.line(f"  int st = {text};")
            out.line(f"  if (st == WAITS && began != {boundary.pc}) {{ pending = before; {self.park(boundary)} return DONE; }}")
            out.line("  if (st) { c->stepped = 1; return st; } }")
        else:
            for mark in marks:
                self.instr(mark)
            out.line(f"{text};")
        out.line("fresh = 0; c->stepped = 1;")

    def chunk(self, saved: Saved) -> str:
        word, base, _ = self.area.chunks[saved.chunk]
        mask = literal((1 << saved.width) - 1) if saved.width < WORD else "~0ull"
        return f"({self.type(saved.var)})(s[{word}] >> {base + saved.shift} & {mask})" if saved.width else "0"

    def park(self, boundary: Boundary) -> str:
        """Save the thread's place and locals."""
        text = []
        for i, (word, base, width) in enumerate(self.area.chunks):
            if not width:
                continue
            mask = ((1 << width) - 1) << base
            value = [f"(u64){boundary.pc} << {base}"] if i == 0 and boundary.pc else []
            value += [
                f"(u64)({s.var.c()}{f' - {literal(s.low)}' if s.low else ''}) << {base + s.shift}"
                for s in self.area.saved[boundary]
                if s.chunk == i and s.width
            ]
            text.append(f"s[{word}] = (s[{word}] & ~{mask}ull){''.join(' | ' + v for v in value)};")
        return " ".join(text)


class ForkCode(Code):
    """Writes a thread's one step with its choices unfolded, so that each alternative is compiled on its own."""

    def __init__(self, out: Emitter, shared: Shared, known: Intervals, number: int, fork: Fork) -> None:
        super().__init__(out, shared, known)
        self.number = number
        self.fork = fork
        self.live = Liveness(fork.body.blocks)
        self.heads: dict[Choose | None, str] = {}

    def write(self) -> None:
        """A function for what follows each choice, the last ones first, and one for the step."""
        out, parameters = self.out, self.fork.body.parameters
        for choice in reversed(self.fork.order):
            self.heads[choice] = f"fork_{self.number}_{len(self.heads)}"
            self.part(choice)
        taken = "".join(f", {self.type(var)} {var.c()}" for var in parameters)
        values = "".join(f", {var.c()}" for var in parameters)
        call = f"broke = {self.heads[None]}(x, now, from{values});"
        out.line(f"ALWAYS_INLINE int fork_{self.number}(struct search *x, const u64 *now, const u64 *from{taken})")
        out.line(f"{{ int broke; keep_marks(); {call} settle_marks(WAITS); return broke; }}")

    def part(self, choice: Choose | None) -> None:
        """What follows a choice, up to the next ones."""
        out, fork = self.out, self.fork
        block, position = fork.start(choice)
        variables = [*self.live.at(block, position)] if choice else fork.body.parameters
        taken = "".join(f", {self.type(var)} {var.c()}" for var in variables)
        with out.function(f"ALWAYS_INLINE int {self.heads[choice]}(struct search *x, const u64 *now, const u64 *from{taken})"):
            out.line("struct ctx *c = &x->ctx; u64 s[WORDS]; int broke = 0;")
            out.line("for (int i = 0; i < WORDS; i++) s[i] = from[i];")
            self.declarations(fork.body.blocks, variables)
            out.line("(void)c; (void)broke;")
            for mark in fork.marks if choice is None else ():
                self.instr(mark)
            part = fork.part(choice)
            for (inside, first), following in itertools.zip_longest(part, part[1:]):
                out.label(f"b{inside.number}_{first}")
                choices = [n for n, instr in enumerate(inside.instrs) if n >= first and isinstance(instr, Choose)]
                for instr in inside.instrs[first : choices[0] if choices else None]:
                    self.instr(instr)
                if choices:
                    self.alternatives(inside.instrs[choices[0]])
                elif isinstance(inside.end, Return):
                    out.line("keep_marks(); found(x, now, s); keep_marks(); return 0;")
                else:
                    self.jump(inside.end, following[0] if following and following[1] == 0 else None, "_0")

    def alternatives(self, choice: Instr) -> None:
        """Go on with each number that a choice can give."""
        assert isinstance(choice, Choose)
        assert isinstance(choice.n, Const)
        after, at = self.fork.start(choice)
        self.out.line("{ struct marks before = pending;")
        for k in range(choice.n.value):
            values = "".join(f", {k if var is choice.var else var.c()}" for var in self.live.at(after, at))
            self.out.line(f"broke |= {self.heads[choice]}(x, now, s{values}); pending = before;")
        self.out.line("return broke; }")
