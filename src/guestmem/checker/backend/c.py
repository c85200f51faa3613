# SPDX-License-Identifier: Apache-2.0
"""C for a lowered program: functions over packed states, one resumable function a thread."""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from guestmem.checker.backend.layout import Area, Bits, Layout, width_of
from guestmem.checker.backend.marks import MOST_TOLD, Marks, nothing
from guestmem.checker.frontend.program import read
from guestmem.checker.frontend.source import Place, source_line
from guestmem.checker.ir import (
    Block,
    Body,
    Boundary,
    Call,
    Choose,
    Const,
    Expr,
    Goto,
    If,
    Instr,
    Left,
    Load,
    Local,
    Loop,
    Mark,
    Op,
    Part,
    Reached,
    Require,
    Return,
    Set,
    Store,
    Suspend,
    ThreadBody,
    Var,
    Watches,
    When,
    around,
    assigned,
    begins,
    expressions,
    reads_state,
    used_bodies,
)
from guestmem.checker.middle.bodies import lower, touches
from guestmem.checker.middle.effects import effects
from guestmem.checker.middle.intervals import Ranges
from guestmem.checker.middle.liveness import Liveness
from guestmem.checker.middle.unfold import Fork, fork_of
from guestmem.checker.pools import Pools
from guestmem.model.errors import ALWAYS_A_STEP, IN_RANGE, TOO_LARGE, Refused
from guestmem.model.record import Field, RefType
from guestmem.model.world import World, to_be_shown

#: Operations whose results may not fit, and those that C has not or does not define as Python does.
CHECKED = {"+": "add", "-": "sub", "*": "mul", "<<": "shl", "&": "and", "|": "or", "^": "xor"}
NAMED = {"min": "min", "max": "max", "floordiv": "floordiv", "floormod": "floormod", "<<": "shl", ">>": "shr"}
#: Choices one slice of a thread may make; more is taken for a loop without end.
MOST_CHOICES = 64
#: Situations whose numbers fit the word that notes them.
MOST_SITUATIONS = 64
#: Properties of states whose numbers fit a word.
MOST_PROPERTIES = 64
#: Turns that loops without a step may take in one slice.
MOST_TURNS = 1 << 20


def text_of(name: str) -> str:
    """A file of C that stands beside this one."""
    return resources.files("guestmem.checker").joinpath(name).read_text()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the cyclic garbage collector, which takes a third of a translation's time and finds nothing in it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(frozen=True)
class Site:
    """What can break a rule: a place in the source, or a property of states (None)."""

    rule: str
    detail: str
    place: Place | None


class Translation:
    """A world as C, and what is needed to read its states.

    Attributes:
        marks: what is watched of the files for which ``watches`` is true.
        source: the C text, without the search.
        initial: the words of the world as built, threads not started.
        sites: what ``site`` numbers in the engine's answers mean.
        always: the rules of the state properties, in the engine's numbering; several properties may say one rule.
        loops: the loops that a thread must leave, with its number, in the engine's numbering.
        situations: what must be reached, in the engine's numbering: first the state predicates, then those that the world
            names, then those that code alone does.
    """

    def __init__(self, world: World, watches: Watches = nothing) -> None:
        self.world = world
        with uncollected():
            self._translate(world, watches)

    def _translate(self, world: World, watches: Watches) -> None:
        self.pools = Pools(world)
        source = read(self.pools)
        self.notes = source.notes
        does = effects(source, self.pools)
        self.changing = does.known.changing or set()
        self.program = lower(source, does, watches)
        bodies = used_bodies(
            [b for t in self.program.threads for b in t.calls] + [b for _, b in self.program.always + self.program.sometimes]
        )
        properties = [body for _, body in self.program.always + self.program.sometimes]
        whole = (self.pools.number(world),) * 2
        self.ranges = Ranges(self.pools, self.program.threads, [(b, [whole for _ in b.parameters]) for b in properties])
        self.stopping: set[Body] = set()  # the bodies that can end without a result
        for body in bodies:
            self.known = self.ranges.bodies[body]
            if any(map(self._can_stop, body.blocks)) or not self.stopping.isdisjoint(body.calls):
                self.stopping.add(body)
        threads = []
        for thread in self.program.threads:
            live = Liveness(thread.blocks)
            for block in thread.blocks:
                if isinstance(block.end, Suspend):
                    block.end.boundary.live = live.at(block.end.resume)
            threads.append((thread, self.ranges.threads[thread]))
        changing = sorted(self.changing, key=lambda f: (f.owner.__module__, f.owner.__qualname__, f.name))
        self.layout = Layout(self.pools, changing, threads)
        self.initial = self.layout.pack(self.layout.pools)
        self.always = list(dict.fromkeys(rule for rule, _ in self.program.always))
        if len(self.always) > MOST_PROPERTIES:
            raise Refused(
                type(world).__qualname__, f"more than {MOST_PROPERTIES} rules of states", "split the world into several"
            )
        self.situations = [situation for situation, _ in self.program.sometimes] + to_be_shown(world)
        self.loops = [(number, loop) for number, thread in enumerate(self.program.threads) for loop in thread.loops]
        self._loop_numbers: dict[Loop, int] = {loop: number for number, (_, loop) in enumerate(self.loops)}
        self.sites: list[Site] = []
        self._site_numbers: dict[Site, int] = {}
        self._tables: dict[tuple[int, ...], str] = {}
        self._field_names: dict[Field, str] = {f: f"{i}_{f.owner.__name__}_{f.name}" for i, f in enumerate(changing)}
        self._body_names: dict[Body, str] = {body: f"{i}_{body.function.node.name}" for i, body in enumerate(bodies)}
        self.marks = Marks([*self.ranges.bodies.items(), *threads])
        code: list[str] = []
        self.forks = {i: fork for i, (thread, _) in enumerate(threads) if (fork := fork_of(thread)) is not None}
        forced = {body for fork in self.forks.values() for body in used_bodies(fork.body.calls)}
        for body in bodies:
            code += self._function(body, forced)
        for number, thread in enumerate(self.program.threads):
            code += self._thread(number, thread)
            if number in self.forks:
                code += self._fork(number, self.forks[number])
        code += self._properties()
        code += self._loops()
        self.source = "\n".join([*self._prelude(), *code, text_of("engine/replay.c")])

    # ---- the parts of the file

    def _prelude(self) -> list[str]:
        lines = [
            f"#define WORDS {self.layout.words}",
            f"#define THREADS {len(self.program.threads)}",
            f"#define MOST_CHOICES {MOST_CHOICES}",
            f"#define MOST_TURNS {MOST_TURNS}",
            f"#define ENDLESS {self._site(ALWAYS_A_STEP, 'it chooses without end', Place('', 0))}",
            f"#define PROPERTIES {len(self.always)}",
            f"#define LOOPS {len(self.loops)}",
            f"#define SITUATIONS {len(self.situations)}",
            f"#define STATE_SITUATIONS {len(self.program.sometimes)}",
            text_of("prelude.h"),
            f"#define MARKS {self.marks.words}",
            text_of("marks.h"),
        ]
        for values, name in self._tables.items():
            lines.append(f"static const num {name}[] = {{{', '.join(map(str, values))}}};")
        for declared, bits in self.layout.fields.items():
            lines += self._accessors(self._field_names[declared], bits)
        return lines

    @staticmethod
    def _accessors(name: str, bits: Bits) -> list[str]:
        low = f" + {bits.low}" if bits.low else ""
        less = f" - {bits.low}" if bits.low else ""
        if bits.width == 0:
            return [
                f"static inline num get_{name}(const u64 *s, num i) {{ (void)s; (void)i; return {bits.low}; }}",
                f"static inline void set_{name}(u64 *s, num i, num v) {{ (void)s; (void)i; (void)v; }}",
            ]
        if bits.count <= bits.per_word:
            word = f"{bits.word}"
            shift = f"({bits.shift} + i * {bits.width})" if bits.count > 1 else f"{bits.shift}"
        else:
            word = f"{bits.word} + i / {bits.per_word}"
            shift = f"(i % {bits.per_word} * {bits.width})"
        mask = f"(u64){(1 << bits.width) - 1}u" if bits.width <= 32 else f"{(1 << bits.width) - 1}ull"
        return [
            f"static inline num get_{name}(const u64 *s, num i) {{ (void)i; return (num)(s[{word}] >> {shift} & {mask}){low}; }}",
            f"static inline void set_{name}(u64 *s, num i, num v) "
            f"{{ (void)i; s[{word}] = (s[{word}] & ~({mask} << {shift})) | (u64)(v{less}) << {shift}; }}",
        ]

    def _function(self, body: Body, forced: set[Body]) -> list[str]:
        self.known = self.ranges.bodies[body]
        parameters = "".join(f", num {p.c()}" for p in body.parameters)
        results = "".join(f", num *r{i}" for i in range(len(body.results)))
        kind = "int" if body in self.stopping else "void"
        inline = "ALWAYS_INLINE" if body in forced else "static inline"
        lines = [f"{inline} {kind} f{self._body_names[body]}(u64 *s, struct ctx *c{parameters}{results})", "{"]
        lines += self._declarations(body.blocks, body.parameters)
        lines.append("\t(void)s; (void)c;")
        for i, block in enumerate(body.blocks):
            lines.append(f"b{block.number}: ;")
            for instr in block.instrs:
                lines += self._instr(instr)
            following = body.blocks[i + 1] if i + 1 < len(body.blocks) else None
            match block.end:
                case Return(values):
                    lines += [f"\t*r{n} = {self._expr(value)};" for n, value in enumerate(values)]
                    lines.append("\treturn DONE;" if body in self.stopping else "\treturn;")
                case end:
                    assert end is not None
                    lines += self._jump(end, following)
        lines.append("}")
        return lines

    def _fork(self, number: int, fork: Fork) -> list[str]:
        """A thread's one step with its choices unfolded, so that each alternative is compiled on its own."""
        self.known = self.ranges.bodies[fork.body]
        live = Liveness(fork.body.blocks)
        heads: dict[Choose | None, str] = {}
        lines: list[str] = []
        for choice in reversed(fork.order):
            block, position = fork.start(choice)
            variables = [*live.at(block, position)] if choice else fork.body.parameters
            heads[choice] = f"fork_{number}_{len(heads)}"
            parameters = "".join(f", num {var.c()}" for var in variables)
            lines += [
                f"ALWAYS_INLINE int {heads[choice]}(struct search *x, const u64 *now, const u64 *from{parameters})",
                "{",
                "\tstruct ctx *c = &x->ctx; u64 s[WORDS]; int broke = 0;",
                "\tfor (int i = 0; i < WORDS; i++) s[i] = from[i];",
                *self._declarations(fork.body.blocks, variables),
                "\t(void)c; (void)broke;",
            ]
            if choice is None:
                for mark in fork.marks:
                    lines += self._instr(mark)
            part = fork.part(choice)
            for i, (inside, first) in enumerate(part):
                lines.append(f"b{inside.number}_{first}: ;")
                choices = [n for n, instr in enumerate(inside.instrs) if n >= first and isinstance(instr, Choose)]
                for instr in inside.instrs[first : choices[0] if choices else None]:
                    lines += self._instr(instr)
                if choices:
                    following = inside.instrs[choices[0]]
                    assert isinstance(following, Choose) and isinstance(following.n, Const)
                    after, at = fork.start(following)
                    lines.append("\t{ struct marks before = pending;")
                    for k in range(following.n.value):
                        values = "".join(f", {k if var is following.var else var.c()}" for var in live.at(after, at))
                        lines.append(f"\tbroke |= {heads[following]}(x, now, s{values}); pending = before;")
                    lines.append("\treturn broke; }")
                    continue
                match inside.end:
                    case Return():
                        lines.append("\tkeep_marks(); found(x, now, s); keep_marks(); return 0;")
                    case end:
                        assert end is not None
                        nextb = part[i + 1] if i + 1 < len(part) else None
                        jump = self._jump(end, nextb[0] if nextb and nextb[1] == 0 else None)
                        lines += [re.sub(r"goto (b\d+);", r"goto \1_0;", line) for line in jump]
            lines.append("}")
        parameters = "".join(f", int {var.c()}" for var in fork.body.parameters)
        values = "".join(f", {var.c()}" for var in fork.body.parameters)
        lines += [
            f"ALWAYS_INLINE int fork_{number}(struct search *x, const u64 *now, const u64 *from{parameters})",
            f"{{ int broke; keep_marks(); broke = {heads[None]}(x, now, from{values}); settle_marks(WAITS); return broke; }}",
        ]
        return lines

    @staticmethod
    def _is_target(block: Block, blocks: Sequence[Block]) -> bool:
        return any(block in other.successors() for other in blocks)

    @staticmethod
    def _declarations(blocks: Sequence[Block], parameters: Sequence[Var] = ()) -> list[str]:
        found = {v: None for b in blocks for i in b.instrs for v in assigned(i)}
        for block in blocks:
            if isinstance(block.end, Return):
                found.update({v.var: None for v in block.end.values if isinstance(v, Local)})
        names = [f"{var.c()} = 0" for var in found if var not in parameters]
        return [f"\tnum {', '.join(names)};"] if names else []

    def _jump(self, end: object, following: Block | None) -> list[str]:
        match end:
            case Goto(target):
                return [] if target is following else [f"\tgoto b{target.number};"]
            case If(condition, then, other):
                text = self._expr(condition)
                if then is following:
                    return [f"\tif (!({text})) goto b{other.number};"]
                if other is following:
                    return [f"\tif ({text}) goto b{then.number};"]
                return [f"\tif ({text}) goto b{then.number}; else goto b{other.number};"]
        raise AssertionError(end)

    def _thread(self, number: int, thread: ThreadBody) -> list[str]:
        self.known = self.ranges.threads[thread]
        area = self.layout.areas[number]
        lines = [f"static inline int run_{number}(u64 *s, struct ctx *c)", "{"]
        lines += self._declarations(thread.blocks)
        lines += ["\tint fresh = 1, began = -1;", "\t(void)fresh; (void)began;", "\tif (c->start) goto start;"]
        lines.append(f"\tbegan = {self._pc(area)};")
        lines.append("\tswitch (began) {")
        for boundary in thread.boundaries:
            if boundary.kind == "end":
                lines.append(f"\tcase {boundary.pc}: return FINISHED;")
                continue
            loads = [
                f"{s.var.c()} = {self._chunk(area.chunks[s.chunk], s.shift, s.width)}{f' + {s.low}' if s.low else ''};"
                for s in area.saved[boundary]
            ]
            lines.append(f"\tcase {boundary.pc}: {' '.join(loads)} goto t{boundary.pc};")
        lines += ["\t}", "\t__builtin_unreachable();", "start:", "\tfresh = 0;"]
        resumed = {b.end.resume: b.end.boundary for b in thread.blocks if isinstance(b.end, Suspend)}
        for i, block in enumerate(thread.blocks):
            if self._is_target(block, thread.blocks):
                lines.append(f"b{block.number}: ;")
            if block in resumed:
                boundary = resumed[block]
                lines.append(f"t{boundary.pc}: ;")
                if boundary.kind == "end":
                    lines.append("\treturn FINISHED;")
                    continue
                rest = block.instrs
                if boundary.kind == "step":
                    marks = list(itertools.takewhile(begins, block.instrs))
                    call = block.instrs[len(marks)]
                    assert isinstance(call, Call)
                    lines += self._step(marks, call, boundary, self._park(number, boundary))
                    rest = block.instrs[len(marks) + 1 :]
            else:
                rest = block.instrs
            for instr in rest:
                if touches(instr):
                    lines.append("\tfresh = 0;")
                lines += self._instr(instr)
            following = thread.blocks[i + 1] if i + 1 < len(thread.blocks) else None
            match block.end:
                case Suspend(boundary, resume):
                    lines.append(f"\tif (!fresh) {{ {self._park(number, boundary)} return DONE; }}")
                    if boundary.kind == "end":
                        lines.append(f"\t{self._park(number, boundary)} return DONE;")
                    elif resume is not following:
                        lines.append(f"\tgoto t{boundary.pc};")
                case end:
                    assert end is not None
                    if isinstance(end, If) and reads_state(end.condition):
                        lines.append("\tfresh = 0;")
                    lines += self._jump(end, following)
        lines += [
            "}",
            f"static inline int thread_{number}(u64 *s, struct ctx *c)",
            f"{{ keep_marks(); return settle_marks(run_{number}(s, c)); }}",
        ]
        return lines

    def _step(self, marks: list[Instr], call: Call, boundary: Boundary, park: str) -> list[str]:
        """The call of a step, which may have to wait: at its own boundary, or before it if the slice began earlier."""
        text = self._call_text(call)
        before = [line for mark in marks for line in self._instr(mark)]
        after = ["\tfresh = 0; c->stepped = 1;"]
        if call.body not in self.stopping:
            return [*before, f"\t{text};", *after]
        return [
            "\t{ struct marks before = pending;",
            *before,
            f"\t  int st = {text};",
            f"\t  if (st == WAITS && began != {boundary.pc}) {{ pending = before; {park} return DONE; }}",
            "\t  if (st) { c->stepped = 1; return st; } }",
            *after,
        ]

    @staticmethod
    def _chunk(chunk: tuple[int, int, int], shift: int, width: int) -> str:
        word, base, _ = chunk
        return f"(num)(s[{word}] >> {base + shift} & {(1 << width) - 1})" if width else "0"

    def _park(self, number: int, boundary: Boundary) -> str:
        """Save a thread's place and locals."""
        area = self.layout.areas[number]
        text = []
        for i, (word, base, width) in enumerate(area.chunks):
            if not width:
                continue
            mask = ((1 << width) - 1) << base
            value = [f"(u64){boundary.pc} << {base}"] if i == 0 and boundary.pc else []
            value += [
                f"(u64)({s.var.c()}{f' - {s.low}' if s.low else ''}) << {base + s.shift}"
                for s in area.saved[boundary]
                if s.chunk == i and s.width
            ]
            text.append(f"s[{word}] = (s[{word}] & ~{mask}ull){''.join(' | ' + v for v in value)};")
        return " ".join(text)

    def _properties(self) -> list[str]:
        lines = ["static inline rules_t broken_rules(u64 *s, struct ctx *c, int *sites)", "{", "\tnum ok; rules_t broken = 0;"]
        lines.append("\t(void)s; (void)c; (void)sites; (void)ok;")
        world = self.pools.number(self.world)
        for rule, body in self.program.always:
            i = self.always.index(rule)
            bit = f"broken |= (rules_t)1 << {i};"
            lines += self._property(body, world, f"{{ {bit} if (sites) sites[{i}] = c->site; }}", f"if (!ok) {bit}")
        lines += ["\treturn broken;", "}"]
        lines += ["static inline u64 situations(u64 *s, struct ctx *c)", "{", "\tnum ok; u64 found = 0;"]
        lines.append("\t(void)s; (void)c; (void)ok;")
        for i, (_, body) in enumerate(self.program.sometimes):
            lines += self._property(body, world, "{ }", f"if (ok) found |= 1ull << {i};")
        lines += ["\treturn found;", "}"]
        for i in range(len(self.program.threads)):
            lines += [
                f"static int advance_{i}(u64 *s, struct ctx *c) {{ c->self = {i}; return thread_{i}(s, c); }}",
            ]
        names = ", ".join(f"advance_{i}" for i in range(len(self.program.threads)))
        lines.append(f"static int (*const advance[])(u64 *, struct ctx *) = {{{names}}};")
        unrolled = " ".join(
            f"FORK({i}, {''.join(f', {self._expr(a)}' for a in self.forks[i].arguments)})" if i in self.forks else f"EXPAND({i})"
            for i in range(len(self.program.threads))
        )
        lines.append(f"#define EXPAND_ALL {unrolled}")
        return lines

    def _loops(self) -> list[str]:
        """Where a thread stands, and at which of its boundaries it is in which loop."""
        lines = ["static inline int pc_of(const u64 *s, int thread)", "{", "\t(void)s;", "\tswitch (thread) {"]
        for number, area in enumerate(self.layout.areas):
            lines.append(f"\tcase {number}: return {self._pc(area)};")
        lines += ["\t}", "\t__builtin_unreachable();", "}"]
        rows = []
        for thread, loop in self.loops:
            boundaries = self.program.threads[thread].boundaries
            inside = "".join(str(int(loop in around(boundary.loop))) for boundary in boundaries)
            outer = next((self._loop_numbers[other] for other in around(loop.outer) if other in self._loop_numbers), -1)
            rows.append(f'{{{thread}, {outer}, {len(boundaries)}, "{inside}"}}')
        lines.append(f"static const struct loop loops[LOOPS + 1] = {{{', '.join([*rows, '{-1, -1, 0, 0}'])}}};")
        return lines

    @staticmethod
    def _pc(area: Area) -> str:
        word, shift, _ = area.chunks[0]
        return f"(int)(s[{word}] >> {shift} & {(1 << area.pc_width) - 1})" if area.pc_width else "0"

    def _property(self, body: Body, world: int, stopped: str, then: str) -> list[str]:
        """Evaluate a property; ``stopped`` is what to do when that itself breaks a rule, ``then`` otherwise."""
        arguments = f", {world}" if body.parameters else ""
        text = f"f{self._body_names[body]}(s, c{arguments}, &ok)"
        return [f"\tif ({text}) {stopped} else" if body in self.stopping else f"\t{text};", f"\t{then}"]

    # ---- instructions and expressions

    def _can_stop(self, block: Block) -> bool:
        """Whether a body can end in a block without a result: it waits, chooses, breaks a rule, or has too large a number."""
        evaluated = [e for instr in block.instrs for e in expressions(instr)]
        match block.end:
            case If(condition, _, _):
                evaluated.append(condition)
            case Return(values):
                evaluated += values
        stops = any(isinstance(i, (When, Require, Choose)) or (isinstance(i, Store) and not self._fits(i)) for i in block.instrs)
        return stops or any(map(self.known.overflows, evaluated))

    def _fits(self, store: Store) -> bool:
        """Whether what is stored lies in the range of the field."""
        low, high = self.pools.interval(store.field.type)
        values = self.known.expr(store.value)
        if values is None:  # control does not come here
            return True
        if isinstance(store.field.type, RefType):  # a None that must not be is another rule's
            return values[1] <= high and (values[0] >= low or values[0] == 0)
        return low <= values[0] and values[1] <= high

    def _instr(self, instr: Instr) -> list[str]:
        match instr:
            case Set(var, value):
                return [f"\t{var.c()} = {self._expr(value)};"]
            case Store():
                return self._store(instr)
            case Call(body, _, _, _):
                text = self._call_text(instr)
                if body in self.stopping:
                    return [f"\t{{ int st = {text}; if (st) return st; }}"]
                return [f"\t{text};"]
            case Choose(var, n, _):
                return [f"\t{{ int st = choose(c, {self._expr(n)}, &{var.c()}); if (st) return st; }}"]
            case When(condition, _):
                return [f"\tif (!({self._expr(condition)})) return WAITS;"]
            case Require(condition, rule, detail, place):
                return [f"\tif (!({self._expr(condition)})) {self._break(rule, detail, place)}"]
            case Reached(situation):
                if situation not in self.situations:
                    self.situations.append(situation)
                    if len(self.situations) > MOST_SITUATIONS:
                        raise Refused(situation, f"more than {MOST_SITUATIONS} situations", "split the world into several")
                return [f"\tc->reached |= 1ull << {self.situations.index(situation)};"]
            case Left(loop):
                return [f"\tif (c->loop == {self._loop_numbers[loop] + 1}) c->left = 1;"]
            case Mark(what, taken):
                first = self.marks.first(what)
                if taken is None:
                    return [f"\tmark({first});"]
                return [f"\tmark({first} + min_num({self._expr(taken)}, {MOST_TOLD - 1}));"]
        raise AssertionError(instr)

    def _break(self, rule: str, detail: str, place: Place) -> str:
        return f"{{ c->site = {self._site(rule, detail, place)}; return BROKEN; }}"

    def _site(self, rule: str, detail: str, place: Place) -> int:
        site = Site(rule, detail, place)
        if site not in self._site_numbers:
            self._site_numbers[site] = len(self.sites)
            self.sites.append(site)
        return self._site_numbers[site]

    def _store(self, store: Store) -> list[str]:
        declared = store.field
        low, high = self.pools.interval(declared.type)
        cell, name = self._cell(declared, store.ref, store.index), self._field_names[declared]
        if self._fits(store):
            return [f"\tset_{name}(s, {cell}, {self._expr(store.value)});"]
        broken = self._break(IN_RANGE, f"{declared!r} outside {low}..{high}", store.place)
        return [
            f"\t{{ num v = {self._expr(store.value)};",
            f"\t  if (v < {low} || v > {high}) {broken}",
            f"\t  set_{name}(s, {cell}, v); }}",
        ]

    def _call_text(self, call: Call) -> str:
        arguments = "".join(f", {self._expr(a)}" for a in call.args)
        results = "".join(f", &{var.c()}" for var in call.results)
        return f"f{self._body_names[call.body]}(s, c{arguments}{results})"

    def _cell(self, declared: Field, ref: Expr, index: Expr | None) -> str:
        """The number of a field's cell: records in order, the elements of each side by side."""
        first = self.pools.interval(RefType(declared.owner, False))[0]
        length = self.pools.length(declared)
        if isinstance(ref, Const) and (index is None or isinstance(index, Const)):
            return str((ref.value - first) * length + (index.value if isinstance(index, Const) else 0))
        text = f"({self._expr(ref)} - {first})"
        if length != 1:
            text += f" * {length}"
        return text if index is None else f"{text} + {self._expr(index)}"

    def _expr(self, expr: Expr) -> str:
        match expr:
            case Const(value=value):
                text = f"{value}ll" if abs(value) >= 1 << 31 else str(value)
                return text if value >= 0 else f"({text})"
            case Local(var):
                return var.c()
            case Load(field=declared, ref=ref, index=index, changes=changes):
                cell = self._cell(declared, ref, index)
                if changes:
                    return f"get_{self._field_names[declared]}(s, {cell})"
                return f"{self._table(self.pools.values(declared))}[{cell}]"
            case Part(field=declared, ref=ref, index=index):
                numbers = self.pools.values(declared)
                cell = self._cell(declared, ref, index)
                stride = numbers[1] - numbers[0] if len(numbers) > 1 else 1
                if numbers == [numbers[0] + i * stride for i in range(len(numbers))]:
                    return f"({numbers[0]} + ({cell}) * {stride})"
                return f"{self._table(numbers)}[{cell}]"
            case Op(op="current"):
                return "(c->self)"
            case Op(op="turn"):
                return "(++c->turns < MOST_TURNS)"
            case Op(op="+", args=[value, Const(value=0)]):
                return self._expr(value)
            case Op(op=op, args=[a, b], place=place) if self.known.op_overflows(expr):
                assert place is not None
                number = self._site(TOO_LARGE, source_line(place), place)
                return f"CHECKED({CHECKED[op]}, {self._expr(a)}, {self._expr(b)}, {number})"
            case Op(op=op, args=[a, b]) if op in NAMED:
                return f"{NAMED[op]}_num({self._expr(a)}, {self._expr(b)})"
            case Op(op=op, args=[a, b]):
                return f"({self._expr(a)} {op} {self._expr(b)})"
        raise AssertionError(expr)

    def _table(self, values: Sequence[int]) -> str:
        return self._tables.setdefault(tuple(values), f"table_{len(self._tables)}")


__all__ = ["Site", "Translation", "width_of"]
