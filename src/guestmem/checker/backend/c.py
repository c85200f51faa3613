# SPDX-License-Identifier: Apache-2.0
"""C for instructions and expressions, over states in packed words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from guestmem.checker.backend.layout import Layout
from guestmem.checker.backend.marks import MOST_TOLD, Marks
from guestmem.checker.backend.numbers import Numbers, Site, out_of_range, too_large
from guestmem.checker.ir import (
    Block,
    Body,
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
    Mark,
    Op,
    Part,
    Reached,
    Require,
    Return,
    Set,
    Store,
    Terminator,
    Var,
    When,
    assigned,
)
from guestmem.checker.middle.bodies import Bodies
from guestmem.checker.middle.intervals import Intervals, Ranges
from guestmem.checker.pools import Pools
from guestmem.checker.values import Interval, fits_word
from guestmem.model.record import BoolType, Field, RefType

#: Operations whose results may not fit, and those that C has not or does not define as Python does.
CHECKED = {"+": "add", "-": "sub", "*": "mul", "<<": "shl", "&": "and", "|": "or", "^": "xor"}
NAMED = {"min": "min", "max": "max", "floordiv": "floordiv", "floormod": "floormod", "<<": "shl", ">>": "shr"}


def literal(value: int) -> str:
    """A number in C, which has none of more than 64 bits."""
    if fits_word((value, value)):
        return str(value)
    high, low = value >> 64, value % (1 << 64)
    return f"(((wide){high} << 64) + {low}ull)"


def c_type(interval: Interval | None) -> str:
    """The type in C for values within an interval; where control has not been seen to come it does not matter."""
    return "num" if interval is None or fits_word(interval) else "wide"


class Emitter:
    """Lines of C, as they are written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0

    def line(self, text: str) -> None:
        self.lines.append("\t" * self._depth + text)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}: ;")

    @contextmanager
    def indent(self) -> Iterator[None]:
        """What is written inside stands one tab further to the right."""
        self._depth += 1
        yield
        self._depth -= 1

    @contextmanager
    def function(self, head: str) -> Iterator[None]:
        """What is written inside is the body of a function."""
        self.line(head)
        self.line("{")
        with self.indent():
            yield
        self.line("}")


class Shared:
    """What C text of any body refers to: the numbers, the places of fields, the bodies that can end without a result."""

    def __init__(self, pools: Pools, numbers: Numbers, layout: Layout, marks: Marks, bodies: Bodies, ranges: Ranges) -> None:
        self.pools = pools
        self.numbers = numbers
        self.layout = layout
        self.marks = marks
        self.stopping = ranges.stopping(bodies.atomic)
        self.result_types = {body: list(map(c_type, ranges.results(body))) for body in bodies.atomic}


class Code:
    """Writes the code of one body, in which locals have ``known`` intervals."""

    def __init__(self, out: Emitter, shared: Shared, known: Intervals) -> None:
        self.out = out
        self.shared = shared
        self.numbers = shared.numbers
        self.pools = shared.pools
        self.known = known

    def declarations(self, blocks: Sequence[Block], parameters: Sequence[Var] = ()) -> None:
        """Declare the locals of some blocks that are no parameters."""
        found = {v: None for b in blocks for i in b.instrs for v in assigned(i)}
        for block in blocks:
            if isinstance(block.end, Return):
                found.update({v.var: None for v in block.end.values if isinstance(v, Local)})
        for kind in ("num", "wide"):
            names = [f"{var.c()} = 0" for var in found if var not in parameters and self.type(var) == kind]
            if names:
                self.out.line(f"{kind} {', '.join(names)};")

    def type(self, var: Var) -> str:
        """The type of a local in C."""
        return c_type(self.known.of.get(var))

    def function(self, body: Body, *, inlined: bool) -> None:
        """An atomic function."""
        out = self.out
        parameters = "".join(f", {self.type(p)} {p.c()}" for p in body.parameters)
        results = "".join(f", {kind} *r{i}" for i, kind in enumerate(self.shared.result_types[body]))
        kind = "int" if body in self.shared.stopping else "void"
        inline = "ALWAYS_INLINE" if inlined else "static inline"
        with out.function(f"{inline} {kind} {self.numbers.body(body)}(u64 *s, struct ctx *c{parameters}{results})"):
            self.declarations(body.blocks, body.parameters)
            out.line("(void)s; (void)c;")
            for i, block in enumerate(body.blocks):
                out.label(f"b{block.number}")
                for instr in block.instrs:
                    self.instr(instr)
                if isinstance(block.end, Return):
                    for n, value in enumerate(block.end.values):
                        out.line(f"*r{n} = {self.expr(value)};")
                    out.line("return DONE;" if body in self.shared.stopping else "return;")
                else:
                    self.jump(block.end, body.blocks[i + 1] if i + 1 < len(body.blocks) else None)

    def jump(self, end: Terminator | None, following: Block | None, suffix: str = "") -> None:
        """Go on at the next block; ``following`` is the one whose code comes next."""
        match end:
            case Goto(target):
                if target is not following:
                    self.out.line(f"goto b{target.number}{suffix};")
            case If(condition, then, other):
                text = self.expr(condition)
                one, two = (f"goto b{block.number}{suffix};" for block in (then, other))
                if then is following:
                    self.out.line(f"if (!({text})) {two}")
                elif other is following:
                    self.out.line(f"if ({text}) {one}")
                else:
                    self.out.line(f"if ({text}) {one} else {two}")
            case _:
                raise AssertionError(end)

    # ---- instructions

    def instr(self, instr: Instr) -> None:
        line = self.out.line
        match instr:
            case Set(var, value):
                line(f"{var.c()} = {self.expr(value)};")
            case Store():
                self.store(instr)
            case Call(body, _, _, _):
                text = self.call(instr)
                line(f"{{ int st = {text}; if (st) return st; }}" if body in self.shared.stopping else f"{text};")
            case Choose(var, n, _):
                most = f"min_wide({self.expr(n)}, INT64_MAX)" if self.known.is_wide(n) else self.expr(n)
                text = self.into(f"choose(c, {most}", [var], ["num"], "int")
                line(f"{{ int st = {text}; if (st) return st; }}")
            case When(condition, _):
                line(f"if (!({self.expr(condition)})) return WAITS;")
            case Require(condition, rule, detail, place):
                line(f"if (!({self.expr(condition)})) {self.broken(Site(rule, detail, place))}")
            case Reached(situation):
                line(f"c->reached |= 1ull << {self.numbers.situation(situation)};")
            case Left(loop):
                number = self.numbers.loop(loop)
                assert number is not None
                line(f"if (c->loop == {number + 1}) c->left = 1;")
            case Mark(what, None):
                line(f"mark({self.shared.marks.first(what)});")
            case Mark(what, Expr() as taken):
                line(f"mark({self.shared.marks.first(what)} + min_num({self.expr(taken)}, {MOST_TOLD - 1}));")

    def broken(self, site: Site) -> str:
        """End the body where a rule is broken."""
        return f"{{ c->site = {self.numbers.site(site)}; return BROKEN; }}"

    def store(self, store: Store) -> None:
        declared = store.field
        cell, name = self.cell(declared, store.ref, store.index), self.numbers.field(declared)
        if self.known.fits(store):
            self.out.line(f"set_{name}(s, {cell}, {self.expr(store.value)});")
            return
        low, high = self.pools.interval(declared.type)
        self.out.line(f"{{ {c_type(self.known.expr(store.value))} v = {self.expr(store.value)};")
        self.out.line(f"  if (v < {literal(low)} || v > {literal(high)}) {self.broken(out_of_range(self.pools, store))}")
        self.out.line(f"  set_{name}(s, {cell}, v); }}")

    def call(self, call: Call) -> str:
        arguments = "".join(f", {self.expr(a)}" for a in call.args)
        head, types = f"{self.numbers.body(call.body)}(s, c{arguments}", self.shared.result_types[call.body]
        return self.into(head, call.results, types, "int" if call.body in self.shared.stopping else "void")

    def into(self, head: str, results: Sequence[Var], types: Sequence[str], kind: str) -> str:
        """A call whose results go into locals, which may have other types in C."""
        before, text, after = "", head, ""
        for i, (var, type_) in enumerate(zip(results, types, strict=True)):
            if self.type(var) == type_:
                text += f", &{var.c()}"
            else:
                before, text, after = f"{before}{type_} t{i} = 0; ", f"{text}, &t{i}", f"{after} {var.c()} = t{i};"
        if not before:
            return f"{text})"
        return f"({{ {before}int st = {text});{after} st; }})" if kind == "int" else f"({{ {before}{text});{after} }})"

    # ---- expressions

    def cell(self, declared: Field, ref: Expr, index: Expr | None) -> str:
        """The number of a field's cell: records in order, the elements of each side by side."""
        first = self.pools.interval(RefType(declared.owner, False))[0]
        length = self.pools.length(declared)
        if isinstance(ref, Const) and (index is None or isinstance(index, Const)):
            return str((ref.value - first) * length + (index.value if isinstance(index, Const) else 0))
        text = f"({self.expr(ref)} - {first})"
        if length != 1:
            text += f" * {length}"
        return text if index is None else f"{text} + {self.expr(index)}"

    def expr(self, expr: Expr) -> str:
        match expr:
            case Const(value=value):
                if not fits_word((value, value)):
                    return literal(value)
                text = f"{value}ll" if abs(value) >= 1 << 31 else str(value)
                return text if value >= 0 else f"({text})"
            case Local(var):
                return var.c()
            case Load(field=declared, ref=ref, index=index, changes=True):
                return f"get_{self.numbers.field(declared)}(s, {self.cell(declared, ref, index)})"
            case Load(field=declared, ref=ref, index=index):
                return f"{self.numbers.table(self.pools.values(declared))}[{self.cell(declared, ref, index)}]"
            case Part(field=declared, ref=ref, index=index):
                values, cell = self.pools.values(declared), self.cell(declared, ref, index)
                stride = self.numbers.progression(values)
                if stride is not None:
                    return f"({values[0]} + ({cell}) * {stride})"
                return f"{self.numbers.table(values)}[{cell}]"
            case Op(op="current"):
                return "(c->self)"
            case Op(op="turn"):
                return "(++c->turns < MOST_TURNS)"
            case Op(op="+", args=[value, Const(value=0)]):
                return self.expr(value)
            case Op(op=op, args=[a, b]) if self.known.op_overflows(expr):
                kind = "num" if self.known.stays_in_word(expr) else "wide"
                return f"CHECKED({kind}, {CHECKED[op]}, {self.expr(a)}, {self.expr(b)}, {self.numbers.site(too_large(expr))})"
            case Op(op=op, args=[a, b]) if op in NAMED:
                kind = "wide" if self.known.computes_wide(expr) else "num"
                return f"{NAMED[op]}_{kind}({self.expr(a)}, {self.expr(b)})"
            case Op(op=op, args=[a, b]):
                if self.known.computes_wide(expr) and not isinstance(expr.type, BoolType):
                    return f"((wide){self.expr(a)} {op} {self.expr(b)})"
                return f"({self.expr(a)} {op} {self.expr(b)})"
        raise AssertionError(expr)
