# SPDX-License-Identifier: Apache-2.0
"""Writes random programs of the model language: classes, functions, statements.  A case for a statement goes here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from program_values import HEAD, RANGES, SLOTS, WORDS, Callee, Declared, Scope, Values, optional, record_of

__all__ = ["Author"]


class Author(Values):
    """Writes one program."""

    # ---- the whole

    def program(self) -> str:
        """The text of a module with a world W."""
        self.write_classes()
        for _ in range(1 + self.below(6)):
            self.write_callee()
        self.write_step("tick")
        for _ in range(1 + self.below(3)):
            self.write_thread()
        for _ in range(self.below(3)):
            condition = self.boolean(Scope("W", "pure", ("bool",)), 2)
            if self.chance(80):
                condition = f"{self.boolean(Scope('W', 'pure', ('bool',)), 1)} or not ({condition}) or {condition}"
            self.methods["W"] += [f'@always("rule {next(self.names)}")', f"def {self.fresh('holds')}(self) -> bool:"]
            self.methods["W"].append(f"    return {condition}")
        return HEAD + "\n".join(self.text())

    def text(self) -> Iterator[str]:
        records = [name for name in self.classes if name not in ("Root", "W")]
        for name in records:
            yield from self.class_text(name)
        yield from self.functions
        yield from self.class_text("Root")
        yield from self.class_text("W")

    def class_text(self, name: str) -> Iterator[str]:
        bases = [base.__name__ for base in self.classes[name].__bases__ if base is not object] or ["Record"]
        if name == "Root":
            bases = ["World"]
        yield f"class {name}({', '.join(bases)}):"
        if name == "Root":
            yield f"    geometry = {{'slots': {SLOTS}}}"
        body = [declared.text() for declared in self.own[name]] + self.methods[name]
        yield from (f"    {line}" for line in body or ["pass"])
        yield ""

    def write_classes(self) -> None:
        for name in ("Plain", "Base", "Left", "Right", "Both", "Last")[: 2 + self.below(5)]:
            bases: tuple[type, ...] = ()
            if name not in ("Plain", "Base"):
                known = [c for c in self.classes.values() if c.__name__ != "Plain"]
                one, other = known[-1 - self.below(len(known))], self.pick([known[0], *self.classes.values()])
                bases = (one,) if issubclass(one, other) or not self.chance(60) else (one, other)
            try:
                self.classes[name] = type(name, bases, {})
            except TypeError:
                self.classes[name] = type(name, bases[:1], {})
            self.methods[name] = []
            self.own[name] = []
            for i in range(1 + self.below(4 if name == "Base" else 2)):
                self.own[name].append(self.scalar(f"{name.lower()}{i}", name))
            if name == "Base" and self.chance(40):
                self.own[name].append(Declared("inner", "part", "Plain"))
        root = [Declared("lock", "part", "Mutex"), Declared("sem", "part", "RwSem")]
        root += [Declared(f"the_{name.lower()}", "part", name) for name in self.classes]
        root += [Declared(f"all_{name.lower()}", "parts", name, length=2) for name in self.classes if self.chance(30)]
        root += [self.scalar(f"w{i}", self.pick(list(self.classes))) for i in range(2 + self.below(4))]
        self.classes["Root"] = type("Root", (), {})
        self.classes["W"] = type("W", (self.classes["Root"],), {})
        self.own["Root"], self.own["W"] = root, []
        setup = ["def setup(self) -> None:", "    pass"]
        for path, cls in [("self", "W"), *self.instances()]:
            for declared in self.fields(cls):
                if declared.kind == "scalar" and record_of(declared.type):
                    others = [text for text, other in self.instances() if self.fits(other, record_of(declared.type))]
                    if not optional(declared.type) or self.chance(50):
                        setup.append(f"    {path}.{declared.name} = {self.pick(others)}")
                elif declared.kind == "scalar" and declared.type == "int" and declared.low <= 0 and self.chance(20):
                    setup.append(f"    {path}.{declared.name} = {min(1, declared.high)}")
        self.methods["Root"], self.methods["W"] = setup, []

    def instances(self) -> Iterator[tuple[str, str]]:
        """The records of the world, by path and class."""
        for declared in self.own["Root"]:
            if declared.type in ("Mutex", "RwSem") or declared.kind not in ("part", "parts"):
                continue
            paths = [f"self.{declared.name}"]
            if declared.kind == "parts":
                paths = [f"self.{declared.name}[{i}]" for i in range(declared.length)]
            for path in paths:
                yield path, declared.type
                for inner in self.fields(declared.type):
                    if inner.kind == "part":
                        yield f"{path}.{inner.name}", inner.type

    def scalar(self, name: str, cls: str) -> Declared:
        """A field of bits or references, or an array of them."""
        kind = "array" if self.chance(30) else "scalar"
        type_ = self.pick(["bool", "int", "int", "Colour", "Slot", f"{cls} | None", cls])
        low, high = self.pick(RANGES[:6]) if not self.chance(5) else self.pick(RANGES)
        if kind == "array":
            low = 0
            type_ = f"{cls} | None" if type_ == cls else type_
        return Declared(name, kind, type_, low, high, self.pick([SLOTS, 2]) if kind == "array" else 0)

    # ---- functions

    def a_type(self) -> str:
        records = [name for name in self.classes if name not in ("W", "Root")]
        cls = self.pick(records)
        return str(self.pick(["int", "int", "bool", "Colour", "Slot", cls, f"{cls} | None"]))

    def write_callee(self) -> None:
        owner = self.pick(["W", "Root", "", *(c for c in self.classes if c not in ("W", "Root"))])
        is_property = bool(owner) and self.chance(20)
        mode = self.pick(["atomic", "step", "pure", "interruptible"])
        waits = mode == "step" and owner in ("W", "Root") and self.chance(20)
        parameters: list[tuple[str, str, str]] = []
        for i in range(0 if is_property else self.below(4)):
            type_ = self.a_type()
            default = ""
            if (self.chance(25) or (parameters and parameters[-1][2])) and not (record_of(type_) and not optional(type_)):
                default = {"int": "2", "bool": "True", "Colour": "Colour.BLUE", "Slot": "Slot(1)"}.get(type_, "None")
            elif parameters and parameters[-1][2]:
                type_, default = "int", "1"
            parameters.append((f"p{i}", type_, default))
        results = [self.a_type() for _ in range(1 if is_property else self.pick([1, 0, 2]))]
        callee = Callee(
            WORDS[len(self.callees)],
            owner,
            tuple(parameters),
            tuple(results),
            mode,
            waits or mode == "interruptible",
            is_property,
        )
        self.write_function(callee, owner, waits)
        if owner:
            for cls in self.classes:
                if cls != owner and self.fits(cls, owner) and self.chance(60):
                    self.write_function(callee, cls, waits)
        self.callees.append(callee)

    def write_function(self, callee: Callee, owner: str, waits: bool) -> None:
        """One definition of a function; of a method one in its own class and others in derived ones."""
        into = self.methods[owner] if owner else self.functions
        if callee.is_property:
            into.append("@property")
        if callee.mode == "step":
            into.append("@step")
        given = [f"{name}: {type_}{f' = {default}' if default else ''}" for name, type_, default in callee.parameters]
        if owner:
            given.insert(0, "self")
        result = ", ".join(callee.results)
        if len(callee.results) != 1:
            result = f"tuple[{result}]" if callee.results else "None"
        into.append(f"def {callee.name}({', '.join(given)}) -> {result}:")
        scope = Scope(owner, callee.mode, callee.results, {name: type_ for name, type_, _ in callee.parameters})
        if owner != callee.owner and not callee.is_property:
            scope.parent = f"super().{callee.name}"
        lines: list[str] = []
        if waits and self.chance(80):
            lines.append(f"when({self.boolean(scope.inside(mode='pure'), 1)})")
        if scope.parent and self.chance(70):
            self.call_parent(lines, scope, callee)
        open_ = self.block(lines, scope, 3)
        if open_ and callee.results and not self.chance(2):
            lines.append(f"return {self.results(scope, 2)}")
        into += [f"    {line}" for line in lines]

    def call_parent(self, lines: list[str], scope: Scope, callee: Callee) -> None:
        call = f"{scope.parent}({self.arguments(scope, callee, 1)})"
        if not callee.results:
            lines.append(call)
            return
        names = [self.fresh("s") for _ in callee.results]
        lines.append(f"{', '.join(names)} = {call}")
        scope.names.update(zip(names, callee.results, strict=True))

    def write_step(self, name: str) -> None:
        self.write_function(Callee(name, "W", (), (), "step", False), "W", False)
        self.callees.append(Callee(name, "W", (), (), "step", False))

    def write_thread(self) -> None:
        several = self.chance(25)
        into = self.methods["W"]
        scope = Scope("W", "interruptible", (), {"i": "int"} if several else {}, frozenset({"i"}))
        into.append("@thread(2)" if several else "@thread")
        into.append(f"def {self.fresh('t')}(self{', i: int' if several else ''}) -> None:")
        lines: list[str] = []
        if self.chance(20):
            self.block(lines, scope, 2)
        self.left += 12
        if self.chance(85):
            inner = ["self.tick()"]
            self.block(inner, scope.inside(loops=1), 3)
            lines += ["while True:", *(f"    {line}" for line in inner)]
        else:
            self.block(lines, scope, 3)
            lines.append("self.tick()")
        into += [f"    {line}" for line in lines]

    # ---- statements

    def block(self, lines: list[str], scope: Scope, depth: int) -> bool:
        """Some statements; whether control can go on after them."""
        for _ in range(1 + self.below(3 if depth > 1 else 2)):
            self.left -= 1
            if self.left < 0:
                break
            if not self.statement(lines, scope, depth):
                return False
        if not lines:
            lines.append("pass")
        return True

    def nested(self, lines: list[str], scope: Scope, depth: int, first: Sequence[str] = ()) -> bool:
        inner = list(first)
        goes_on = self.block(inner, scope, depth)
        lines += [f"    {line}" for line in inner]
        return goes_on

    def statement(self, lines: list[str], scope: Scope, depth: int) -> bool:
        writers: list[Callable[[list[str], Scope, int], bool]] = [self.assign_local, self.assign_local, self.call_statement]
        if scope.mode != "pure":
            writers += [self.assign_field, self.assign_field, self.augment, self.augment, self.call_statement]
        if depth > 0:
            writers += [self.write_if, self.write_if, self.write_for, self.write_for, self.write_while, self.narrow]
            if scope.mode == "interruptible" and scope.owner in ("W", "Root") and not scope.guarded:
                writers += [self.write_with]
        writers += [self.leave, self.check]
        write: Callable[[list[str], Scope, int], bool] = self.pick(writers)
        return write(lines, scope, depth)

    def assign_local(self, lines: list[str], scope: Scope, depth: int) -> bool:
        known = [n for n in scope.names if n not in scope.fixed]
        if known and self.chance(45):
            name = self.pick(known)
            value = self.value(scope, scope.names[name], 2)
            lines.append(f"{name} = {value}")
            scope.records -= {name}
            return True
        name, type_ = self.fresh("x"), self.a_type()
        annotated = f": {type_}" if optional(type_) or self.chance(20) else ""
        lines.append(f"{name}{annotated} = {self.value(scope, type_, 2)}")
        scope.names[name] = type_
        return True

    def assign_field(self, lines: list[str], scope: Scope, depth: int) -> bool:
        places = self.places(scope)
        if not places:
            return self.check(lines, scope, depth)
        path, declared = self.pick(places)
        target = self.fill(scope, path, 1)
        lines.append(f"{target} = {self.stored(scope, declared)}")
        return True

    def stored(self, scope: Scope, declared: Declared) -> str:
        """A value for a field, mostly in its range."""
        if declared.type != "int" or self.chance(7):
            return self.value(scope, declared.type, 2)
        if declared.high - declared.low > 1000:
            return str(self.pick([declared.high, declared.low, "EDGE", self.integer(scope, 1)]))
        size = declared.high - declared.low + 1
        shift = f" - {-declared.low}" if declared.low else ""
        return f"({self.integer(scope, 2)}) % {size}{shift}"

    def augment(self, lines: list[str], scope: Scope, depth: int) -> bool:
        places = [(path, d) for path, d in self.places(scope) if d.type == "int"]
        local = [n for n, t in scope.names.items() if t == "int" and n not in scope.fixed]
        if not places and not local:
            return self.check(lines, scope, depth)
        if local and (not places or self.chance(30)):
            lines.append(f"{self.pick(local)} {self.pick(['+', '-', '&', '%', '//'])}= {self.pick(['1', '3', 'LIMIT'])}")
            return True
        path, declared = self.pick(places)
        target = self.fill(scope, path, 1)
        if self.chance(30) or declared.low < 0:
            lines.append(f"{target} += 1")
        else:
            lines.append(f"{target} {self.pick(['%', '//', '&', '>>'])}= {1 + self.below(3)}")
        return True

    def call_statement(self, lines: list[str], scope: Scope, depth: int) -> bool:
        callees = [c for c in self.callable(scope) if not c.is_property]
        if not callees:
            return self.check(lines, scope, depth)
        callee = self.pick(callees)
        call = self.call(scope, callee, 2)
        if len(callee.results) == 2 or (callee.results and self.chance(50)):
            names = [self.fresh("r") for _ in callee.results]
            if len(names) == 2 and self.chance(20):
                names[0] = "_"
            lines.append(f"{', '.join(names)} = {call}")
            scope.names.update({n: t for n, t in zip(names, callee.results, strict=True) if n != "_"})
        else:
            lines.append(call)
        return True

    def write_if(self, lines: list[str], scope: Scope, depth: int) -> bool:
        lines.append(f"if {self.boolean(scope, 2)}:")
        leaks = self.chance(2)
        then = scope if leaks else scope.inside()
        going = [self.nested(lines, then, depth - 1)]
        if self.chance(20):
            lines.append(f"elif {self.boolean(scope, 1)}:")
            going.append(self.nested(lines, scope.inside(), depth - 1))
        if self.chance(50):
            lines.append("else:")
            going.append(self.nested(lines, scope.inside(), depth - 1))
        else:
            going.append(True)
        return any(going)

    def narrow(self, lines: list[str], scope: Scope, depth: int) -> bool:
        """A look at a reference that may be None."""
        names = [n for n, t in scope.names.items() if optional(t) and n not in scope.records]
        if not names:
            return self.write_if(lines, scope, depth)
        name = self.pick(names)
        if self.chance(50) and (not scope.results or depth > 1):
            lines.append(f"if {name} is None:")
            goes_on = self.nested(lines, scope.inside(), 0)
            if goes_on:
                lines.append(f"    return {self.results(scope, 1)}".rstrip())
            scope.records |= {name}
            return True
        lines.append(f"if {name} is not None:")
        self.nested(lines, scope.inside(records=scope.records | {name}), depth - 1)
        scope.records -= {name}
        return True

    def write_for(self, lines: list[str], scope: Scope, depth: int) -> bool:
        name = self.fresh("v") if not self.chance(30) else next(n for n in ("i", "j", "k", "l", "m", "n") if n not in scope.names)
        kind = self.pick(["range", "span", "array", "enumerate", "range2"])
        arrays = self.arrays(scope)
        inside = scope.inside(loops=scope.loops + 1)
        if kind == "range" or (kind in ("array", "enumerate") and not arrays):
            over, type_ = f"range({self.small(scope)})", "int"
        elif kind == "range2":
            over, type_ = f"range({self.small(scope)}, {self.small(scope)})", "int"
        elif kind == "span":
            end = str(SLOTS) if not self.chance(10) else self.small(scope)
            over, type_ = f"Slot.span({self.pick(['0', '1'])}, {end})", "Slot"
        else:
            path, declared = self.pick(arrays)
            over, type_ = self.fill(scope, path, 1), declared.type
            if kind == "enumerate":
                number = self.fresh("at")
                inside.names[number] = "int"
                inside.fixed |= {number}
                lines.append(f"for {number}, {name} in enumerate({over}):")
        if kind != "enumerate" or not arrays:
            lines.append(f"for {name} in {over}:")
        inside.names[name] = type_
        inside.fixed |= {name}
        self.assigned_in_loop(scope, inside)
        self.nested(lines, inside, depth - 1)
        return True

    @staticmethod
    def assigned_in_loop(scope: Scope, inside: Scope) -> None:
        """What is assigned in a loop is not known in it, nor after it."""
        fixed = frozenset(n for n in scope.records if n in scope.fixed)
        scope.records = inside.records = fixed

    def write_while(self, lines: list[str], scope: Scope, depth: int) -> bool:
        """A loop that ends: it counts."""
        name = self.fresh("c")
        lines.append(f"{name} = 0")
        scope.names[name] = "int"
        inside = scope.inside(loops=scope.loops + 1)
        inside.fixed |= {name}
        self.assigned_in_loop(scope, inside)
        condition = f"{name} < {1 + self.below(3)}"
        if self.chance(40):
            condition = f"{condition} and {self.boolean(inside, 1)}"
        lines.append(f"while {condition}:")
        step = f"{name} += 1" if scope.mode != "interruptible" else f"{name} = min({name} + 1, 3)"
        self.nested(lines, inside, depth - 1, [step])
        return True

    def write_with(self, lines: list[str], scope: Scope, depth: int) -> bool:
        lines.append(f"with {self.pick(['self.lock', 'self.sem.shared', 'self.sem.exclusive'])}:")
        return self.nested(lines, scope.inside(guarded=True), depth - 1)

    def leave(self, lines: list[str], scope: Scope, depth: int) -> bool:
        """Leave a loop or the function, mostly on a condition."""
        ways = ["return"]
        if scope.loops:
            ways += ["break", "continue"]
        way = self.pick(ways)
        if way == "return":
            way = f"return {self.results(scope, 1)}".rstrip()
        if depth < 3 and self.chance(30):
            lines.append(way)
            return False
        lines += [f"if {self.boolean(scope, 1)}:", f"    {way}"]
        return True

    def check(self, lines: list[str], scope: Scope, depth: int) -> bool:
        if scope.mode == "pure" or self.chance(30):
            lines.append("pass" if scope.mode == "pure" else f'reached("{self.fresh("situation")}")')
        else:
            condition = self.boolean(scope, 1)
            lines.append(f'require({condition} or {self.boolean(scope, 1)} or True, "{self.fresh("rule")}")')
            if self.chance(20):
                lines[-1] = lines[-1].replace(" or True", "")
        return True
