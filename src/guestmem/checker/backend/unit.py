# SPDX-License-Identifier: Apache-2.0
"""The C text of a world: its header, functions over packed states, one resumable function a thread, what the engine asks."""

from __future__ import annotations

from guestmem.checker.backend.c import Code, Emitter, Shared, c_type, literal
from guestmem.checker.backend.layout import Bits
from guestmem.checker.backend.numbers import ENDLESS
from guestmem.checker.backend.threads import ForkCode, ThreadCode, pc_of
from guestmem.checker.engine.text import MOST_CHOICES, MOST_TURNS, engine_text
from guestmem.checker.ir import Body, around, used_bodies
from guestmem.checker.middle.bodies import Bodies
from guestmem.checker.middle.intervals import Ranges
from guestmem.checker.middle.unfold import Fork


class Unit:
    """Writes the text; ``forks`` are the threads that are unfolded."""

    def __init__(self, shared: Shared, bodies: Bodies, ranges: Ranges, forks: dict[int, Fork]) -> None:
        self.shared = shared
        self.numbers = shared.numbers
        self.bodies = bodies
        self.ranges = ranges
        self.forks = forks
        self.out = Emitter()

    def text(self) -> str:
        self.header()
        inlined = {body for fork in self.forks.values() for body in used_bodies(fork.body.calls)}
        for body in self.bodies.atomic:
            self.code(body).function(body, inlined=body in inlined)
        for number, thread in enumerate(self.bodies.threads):
            ThreadCode(self.out, self.shared, self.ranges.threads[thread], number, thread).write()
            if number in self.forks:
                fork = self.forks[number]
                ForkCode(self.out, self.shared, self.ranges.bodies[fork.body], number, fork).write()
        self.properties()
        self.advance()
        self.loops()
        return "\n".join(self.out.lines)

    def code(self, body: Body) -> Code:
        return Code(self.out, self.shared, self.ranges.bodies[body])

    def header(self) -> None:
        """The sizes, what the engine declares, tables of constants, and the fields."""
        line, numbers = self.out.line, self.numbers
        line(f"#define WORDS {self.shared.layout.words}")
        line(f"#define THREADS {len(self.bodies.threads)}")
        line(f"#define MOST_CHOICES {MOST_CHOICES}")
        line(f"#define MOST_TURNS {MOST_TURNS}")
        line(f"#define ENDLESS {numbers.site(ENDLESS)}")
        line(f"#define PROPERTIES {len(numbers.always)}")
        line(f"#define LOOPS {len(numbers.loops)}")
        line(f"#define SITUATIONS {len(numbers.situations)}")
        line(f"#define STATE_SITUATIONS {len(self.bodies.sometimes)}")
        line(f"#define MARKS {self.shared.marks.words}")
        line(engine_text("engine.h", "marks.h"))
        for values, name in numbers.tables.items():
            kind = c_type((min(values), max(values)))
            line(f"static const {kind} {name}[] = {{{', '.join(map(literal, values))}}};")
        for declared, bits in self.shared.layout.fields.items():
            self.accessors(numbers.field(declared), bits)

    def accessors(self, name: str, bits: Bits) -> None:
        """The two functions that read and write a field."""
        kind = c_type((bits.low, bits.low + (1 << bits.width) - 1))
        get, put = f"get_{name}(const u64 *s, num i)", f"set_{name}(u64 *s, num i, {kind} v)"
        low = f" + {literal(bits.low)}" if bits.low else ""
        less = f" - {literal(bits.low)}" if bits.low else ""
        if bits.width == 0:
            self.out.line(f"static inline {kind} {get} {{ (void)s; (void)i; return {literal(bits.low)}; }}")
            self.out.line(f"static inline void {put} {{ (void)s; (void)i; (void)v; }}")
            return
        if bits.count <= bits.per_word:
            word = f"{bits.word}"
            shift = f"({bits.shift} + i * {bits.width})" if bits.count > 1 else f"{bits.shift}"
        else:
            word = f"{bits.word} + i / {bits.per_word}"
            shift = f"(i % {bits.per_word} * {bits.width})"
        mask = f"(u64){(1 << bits.width) - 1}u" if bits.width <= 32 else f"{(1 << bits.width) - 1}ull"
        self.out.line(f"static inline {kind} {get} {{ (void)i; return ({kind})(s[{word}] >> {shift} & {mask}){low}; }}")
        value = f"(s[{word}] & ~({mask} << {shift})) | (u64)(v{less}) << {shift}"
        self.out.line(f"static inline void {put} {{ (void)i; s[{word}] = {value}; }}")

    def properties(self) -> None:
        """Which properties a state breaks, and which situations it shows."""
        out = self.out
        with out.function("static inline rules_t broken_rules(u64 *s, struct ctx *c, int *sites)"):
            out.line("num ok; rules_t broken = 0;")
            out.line("(void)s; (void)c; (void)sites; (void)ok;")
            for rule, body in self.bodies.always:
                i = self.numbers.always.index(rule)
                bit = f"broken |= (rules_t)1 << {i};"
                self.property(body, f"{{ {bit} if (sites) sites[{i}] = c->site; }}", f"if (!ok) {bit}")
            out.line("return broken;")
        with out.function("static inline u64 situations(u64 *s, struct ctx *c)"):
            out.line("num ok; u64 found = 0;")
            out.line("(void)s; (void)c; (void)ok;")
            for i, (_, body) in enumerate(self.bodies.sometimes):
                self.property(body, "{ }", f"if (ok) found |= 1ull << {i};")
            out.line("return found;")

    def property(self, body: Body, stopped: str, then: str) -> None:
        """Evaluate a property; ``stopped`` is what to do when that itself breaks a rule, ``then`` otherwise."""
        pools = self.shared.pools
        arguments = f", {pools.number(pools.world)}" if body.parameters else ""
        text = f"{self.numbers.body(body)}(s, c{arguments}, &ok)"
        self.out.line(f"if ({text}) {stopped} else" if body in self.shared.stopping else f"{text};")
        self.out.line(then)

    def advance(self) -> None:
        """The threads by their numbers, and how the search runs all of them."""
        out, threads = self.out, range(len(self.bodies.threads))
        for i in threads:
            out.line(f"static int advance_{i}(u64 *s, struct ctx *c) {{ c->self = {i}; return thread_{i}(s, c); }}")
        names = ", ".join(f"advance_{i}" for i in threads)
        out.line(f"static int (*const advance[])(u64 *, struct ctx *) = {{{names}}};")
        out.line(f"#define EXPAND_ALL {' '.join(map(self.expand, threads))}")

    def expand(self, thread: int) -> str:
        fork = self.forks.get(thread)
        if fork is None:
            return f"EXPAND({thread})"
        return f"FORK({thread}, {''.join(f', {self.code(fork.body).expr(a)}' for a in fork.arguments)})"

    def loops(self) -> None:
        """Where a thread stands, and at which of its boundaries it is in which loop."""
        out = self.out
        with out.function("static inline int pc_of(const u64 *s, int thread)"):
            out.line("(void)s;")
            out.line("switch (thread) {")
            for number, area in enumerate(self.shared.layout.areas):
                out.line(f"case {number}: return {pc_of(area)};")
            out.line("}")
            out.line("__builtin_unreachable();")
        rows = []
        for thread, loop in self.numbers.loops:
            boundaries = self.bodies.threads[thread].boundaries
            inside = "".join(str(int(loop in around(boundary.loop))) for boundary in boundaries)
            outer = [found for other in around(loop.outer) if (found := self.numbers.loop(other)) is not None]
            rows.append(f'{{{thread}, {outer[0] if outer else -1}, {len(boundaries)}, "{inside}"}}')
        out.line(f"static const struct loop loops[LOOPS + 1] = {{{', '.join([*rows, '{-1, -1, 0, 0}'])}}};")
