# SPDX-License-Identifier: Apache-2.0
"""Records: the fixed-size pieces a world is made of.

A record is declared like a dataclass.  What its fields may be::

    class Owner(Enum):
        HOST = 0
        GUEST = 1

    class Frame(Record):
        owner: Owner = Owner.HOST                # an enum
        present: bool = True                     # a boolean
        pins: int = bounded(2)                   # an integer in 0..2
        index: Pgoff = Pgoff(0)                  # an integer with a name of its own
        folio: Folio | None = None               # a reference that may be None
        host: Host                               # a reference that ``setup`` must set
        lock: Mutex = part()                     # a record inside this one
        slots: list[Folio | None] = array("pages")   # a fixed array

A method can say which fields a lock guards, and when the running thread may change them::

        @guards("slots", "pins")
        def locked(self) -> bool:
            return self.lock.held()

Sizes and bounds are integers or names from the *geometry* of the world ("pages", "cpus + 1"), so one source serves four
pages and 2^28.  Running as ordinary Python, an assignment outside the declared range raises :class:`Verdict`, as the
checker reports it.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar, cast

from guestmem.model import control
from guestmem.model.errors import GUARDED, IN_ARRAY, IN_RANGE, Refused, Verdict

__all__ = ["Array", "Index", "Record", "array", "bounded", "guards", "part"]

F = TypeVar("F", bound=Callable[..., Any])


#: What a world says of itself, and no field.
SETTINGS = ("geometry", "ladder", "must_show")


class Index(int):
    """Base of named integers, so that a gfn is not taken for a pgoff: ``class Pgoff(Index, below="pages")``.

    Values are 0 <= value < ``below`` (an integer, or an expression over the geometry).  Arithmetic gives a plain
    integer; ``Pgoff(n)`` makes it an offset again, and breaks a rule if it lies outside the range.  A geometry is known
    where a world runs; elsewhere the range is checked where the offset is stored, or used as an index.
    """

    below: ClassVar[int | str] = 0

    def __new__(cls, value: int = 0) -> Self:
        geometry = control.geometry()
        if geometry and not 0 <= value < evaluate(cls.below, geometry):
            raise Verdict(IN_RANGE, f"{cls.__name__}({int(value)}) of {evaluate(cls.below, geometry)}")
        return super().__new__(cls, value)

    def __init_subclass__(cls, *, below: int | str) -> None:
        cls.below = below

    @classmethod
    def span(cls, start: int, end: int) -> Iterable[Self]:
        """The values start, start + 1, ... end - 1, each as this type."""
        return map(cls, range(start, end))


class _Declared:
    """What ``bounded``, ``part`` and ``array`` leave in the class body."""

    def __init__(self, kind: str, length: int | str = 0, hi: int | str = 0, lo: int | str = 0, init: Any = None) -> None:
        self.kind = kind
        self.length = length
        self.hi = hi
        self.lo = lo
        self.init = init


def bounded(hi: int | str, *, lo: int | str = 0, init: int | str | None = None) -> Any:
    """A field holding an integer lo <= value <= hi, starting at ``init`` (default: lo); each may be of the geometry."""
    return _Declared("scalar", hi=hi, lo=lo, init=init)


def part() -> Any:
    """A field holding a record that lives and dies with this one."""
    return _Declared("part")


def array(length: int | str, *, hi: int | str = 0, init: Any = None) -> Any:
    """A field holding ``length`` elements: records, references, booleans, enums, or integers 0..hi."""
    return _Declared("array", length=length, hi=hi, init=init)


def guards(*fields: str) -> Callable[[F], F]:
    """Mark a method as the one that says whether the running thread may change these fields: what it must hold for that.

    It is asked before each assignment, and what it finds wrong breaks a rule.  Set-up, and what runs alone, is not asked.
    """

    def mark(method: F) -> F:
        cast(Any, method)._guards = fields
        return method

    return mark


class BoolType:
    """The type of a boolean field."""

    def __repr__(self) -> str:
        return "bool"


class IntType:
    """The type of an integer field: lo <= value <= hi, expressions over the geometry; ``index`` its named type."""

    def __init__(self, lo: int | str, hi: int | str, index: type[Index] | None = None) -> None:
        self.lo = lo
        self.hi = hi
        self.index = index

    def __repr__(self) -> str:
        return self.index.__name__ if self.index else f"{self.lo}..{self.hi}"


class EnumType:
    """The type of an enum field; the stored number is the position of the member in its class."""

    def __init__(self, cls: type[enum.Enum]) -> None:
        self.cls = cls
        self.members = list(cls)

    def __repr__(self) -> str:
        return self.cls.__name__


class RefType:
    """The type of a reference to a record of class ``cls``, which may be None when ``optional``."""

    def __init__(self, cls: type[Record], optional: bool) -> None:
        self.cls = cls
        self.optional = optional

    def __repr__(self) -> str:
        return self.cls.__name__ + (" | None" if self.optional else "")


ScalarType = BoolType | IntType | EnumType | RefType


class Field:
    """One declared field of a record class.

    ``kind`` is "scalar", "part" (a record inside) or "array" (``length`` of them); ``type`` is the type of the scalar,
    of the part (a RefType that is never None) or of an element; ``parts`` tells an array of records from one of
    references.  ``guard`` names the method that says whether the running thread may change it; empty: it always may.
    """

    def __init__(self, owner: type[Record], name: str, kind: str, type_: ScalarType, default: Any) -> None:
        self.owner = owner
        self.name = name
        self.kind = kind
        self.type = type_
        self.default = default
        self.length: int | str = 0
        self.parts = False
        self.guard = ""

    def __repr__(self) -> str:
        return f"{self.owner.__name__}.{self.name}"

    def narrows(self, other: Field) -> bool:
        """Whether this is a record of a class derived from that of ``other``."""
        if self.kind != "part" or other.kind != "part":
            return False
        assert isinstance(self.type, RefType) and isinstance(other.type, RefType)
        return issubclass(self.type.cls, other.type.cls)


def evaluate(expression: int | str, geometry: Mapping[str, int]) -> int:
    """The value of a size or bound: an integer, or sums, differences, products and powers of names in the geometry."""
    if isinstance(expression, int):
        return expression

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if name in geometry:
                return geometry[name]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return value(left) - value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case ast.BinOp(left=ast.Constant(value=2), op=ast.Pow(), right=right) if 0 <= (power := value(right)) < 64:
                return 1 << power
        if not geometry:
            raise Refused("geometry", f"{expression!r} is a size, and this record is in no world", "write name: Class = part()")
        known = ", ".join(sorted(geometry))
        raise Refused(
            "geometry",
            f"{expression!r} is not known",
            f"use integers, + - * 2 ** n and names of the geometry ({known})",
        )

    return value(_parsed(expression))


@functools.cache
def _parsed(expression: str) -> ast.expr:
    return ast.parse(expression, mode="eval").body


def _where(cls: type[Record], name: str) -> str:
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None) or cls.__module__
    return f"{file}: {cls.__qualname__}.{name}"


def _check_names(cls: type[Record]) -> None:
    """Refuse a field where a base class has something else of that name, and a method where Record or World need theirs."""
    fields = {n for n, hint in inspect.get_annotations(cls).items() if not n.startswith("_") and "ClassVar" not in str(hint)}
    for base in cls.__mro__[1:-1]:
        taken = {n for n, value in vars(base).items() if isinstance(value, (types.FunctionType, classmethod, property))}
        own = {n for n, hint in inspect.get_annotations(base).items() if "ClassVar" in str(hint)}
        for name in sorted(fields & (taken | own)):
            raise Refused(_where(cls, name), f"a field with a name of {base.__name__}'s own", "give it another name")
        if base.__module__.startswith(__package__ + "."):
            needed = own | {n for n, value in vars(base).items() if isinstance(value, classmethod)}
            for name, value in vars(cls).items():
                if name in needed and isinstance(value, (types.FunctionType, property)):
                    raise Refused(_where(cls, name), f"a method with a name of {base.__name__}'s own", "give it another name")


#: What a decorator leaves on a method, and how it is written.
MARKS = {"_thread": "@thread", "_always": "@always(rule)", "_sometimes": "@sometimes(situation)", "_step": "@step"}


def _check_marks(cls: type[Record]) -> None:
    """Refuse a method that overrides one with a mark and has none: the thread, rule or step would be gone unnoticed."""
    for name in dict.fromkeys(name for base in cls.__mro__ for name in vars(base)):
        method, *hidden = [vars(base)[name] for base in cls.__mro__ if name in vars(base)]
        if not isinstance(method, types.FunctionType):
            continue
        for mark, decorator in MARKS.items():
            if not hasattr(method, mark) and any(hasattr(other, mark) for other in hidden):
                code = inspect.unwrap(method).__code__
                what = f"{method.__qualname__} overrides a method with {decorator}, and has no mark"
                raise Refused(f"{code.co_filename}:{code.co_firstlineno}", what, f"write {decorator} above it")


def _scalar_type(where: str, hint: Any, declared: _Declared | None) -> ScalarType:
    """The field type an annotation stands for; refuses what is outside the language."""
    if hint is bool:
        return BoolType()
    if hint is int:
        if declared is None:
            raise Refused(where, "an int without bounds", "write bounded(hi), or give the number a type with Index")
        return IntType(declared.lo, declared.hi)
    if isinstance(hint, type):
        if issubclass(hint, Index):
            return IntType(0, f"{hint.below} - 1", hint)
        if issubclass(hint, enum.Enum):
            return EnumType(hint)
        if issubclass(hint, Record):
            return RefType(hint, optional=False)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        options = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(options) == 1 and isinstance(options[0], type) and issubclass(options[0], Record):
            return RefType(options[0], optional=True)
    raise Refused(
        where,
        f"{getattr(hint, '__name__', hint)} is not a field type",
        "use bool, an Enum, a bounded int, an Index, a Record, Record | None, or list[...] with array()",
    )


class Record:
    """Base class of everything a world is made of.  See the module's text for the fields a subclass may declare."""

    _declared_fields: ClassVar[dict[str, Field] | None] = None
    _root: ClassVar[bool] = False  # a world, which may have a variant of a record where its base class has the record
    _geometry: Mapping[str, int]
    _name: str

    def __init_subclass__(cls) -> None:
        cls._declared_fields = None
        _check_names(cls)
        _check_marks(cls)
        for name, value in vars(cls).items():
            if isinstance(value, (list, dict, set)) and not name.startswith("_") and name not in SETTINGS:
                raise Refused(
                    _where(cls, name), f"a {type(value).__name__} as a default", "use array() for a fixed array of fields"
                )

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """The declared fields, bases first, in the order of declaration."""
        if cls._declared_fields is None:
            fields: dict[str, Field] = {}
            for base in cls.__mro__[-1:0:-1]:
                if issubclass(base, Record):
                    fields.update(base.fields())
            for field in _own_fields(cls):
                if field.name in fields and not (cls._root and field.narrows(fields[field.name])):
                    raise Refused(_where(cls, field.name), "a field declared twice", "set another value in setup()")
                fields[field.name] = field
            for name, method in vars(cls).items():
                for guarded in getattr(method, "_guards", ()):
                    if guarded not in fields or fields[guarded].owner is not cls or fields[guarded].kind == "part":
                        raise Refused(_where(cls, name), f"a guard of {guarded!r}", "name fields of the same class")
                    fields[guarded].guard = name
            cls._declared_fields = fields
        return cls._declared_fields

    def _check_guard(self, field: Field) -> None:
        """Raise :class:`Verdict` unless the running thread may change a field now."""
        if field.guard and control.others_run() and not getattr(self, field.guard)():
            raise Verdict(GUARDED, f"{field!r}, not {field.guard}()")

    def __init__(self, geometry: Mapping[str, int] | None = None, name: str = "") -> None:
        put = super().__setattr__
        put("_geometry", geometry or {})
        put("_name", name or type(self).__name__.lower())
        for field in self.fields().values():
            put(field.name, self._initial(field, f"{name}.{field.name}" if name else field.name))

    def _initial(self, field: Field, name: str) -> Any:
        geometry: Mapping[str, int] = self._geometry
        if field.kind == "part":
            assert isinstance(field.type, RefType)
            return field.type.cls(geometry, name)
        if field.kind == "array":
            count = evaluate(field.length, geometry)
            if field.parts:
                assert isinstance(field.type, RefType)
                return Array((field.type.cls(geometry, f"{name}[{i}]") for i in range(count)), self, field)
            return Array((_default(field, geometry) for _ in range(count)), self, field)
        return _default(field, geometry)

    def __setattr__(self, name: str, value: Any) -> None:
        field = self.fields().get(name)
        if field is None:
            raise Verdict(IN_RANGE, f"{type(self).__name__} has no field {name!r}")
        if field.kind != "scalar":
            raise Verdict(IN_RANGE, f"{field!r} is part of its record and cannot be replaced")
        self._check_guard(field)
        check_value(field, value, self._geometry, f"{self._name}.{name}")
        super().__setattr__(name, value)

    def __str__(self) -> str:
        """Where it is in its world, as ``machine.frames[1]``."""
        return self._name

    def __repr__(self) -> str:
        values = ", ".join(f"{field.name}={_text(getattr(self, field.name))}" for field in self.fields().values())
        return f"<{type(self).__name__} {self}: {values}>" if values else f"<{type(self).__name__} {self}>"


def _text(value: Any) -> str:
    """A field's value in a record's ``repr``: other records by where they are, and of many of its own how many."""
    if isinstance(value, Array):
        return f"{len(value)} {value.field.type}" if value.field.parts else f"[{', '.join(map(_text, value))}]"
    return show(value)


def show(value: Any) -> str:
    """A field's value as a trace prints it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.name if isinstance(value, enum.Enum) else str(value)


class Array(list[Any]):
    """The fixed array in a field of ``owner``: elements can be set, the length cannot change."""

    def __init__(self, elements: Iterable[Any], owner: Record, field: Field) -> None:
        super().__init__(elements)
        self.owner = owner
        self.field = field

    def _inside(self, index: Any) -> int:
        if not 0 <= index < len(self):
            raise Verdict(IN_ARRAY, f"{self.owner}.{self.field.name}[{index}] of {len(self)}")
        return int(index)

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(self._inside(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.field.parts:
            raise Verdict(IN_RANGE, f"{self.field!r} holds its records for good and cannot be assigned")
        position = self._inside(index)
        self.owner._check_guard(self.field)
        check_value(self.field, value, self.owner._geometry, f"{self.owner}.{self.field.name}[{index}]")
        super().__setitem__(position, value)


def check_value(field: Field, value: Any, geometry: Mapping[str, int], what: str) -> None:
    """Raise :class:`Verdict` unless ``value`` may be stored in ``field``."""
    kind = field.type
    if isinstance(kind, BoolType):
        good = isinstance(value, bool)
    elif isinstance(kind, IntType):
        good = isinstance(value, int) and evaluate(kind.lo, geometry) <= value <= evaluate(kind.hi, geometry)
    elif isinstance(kind, EnumType):
        good = isinstance(value, kind.cls)
    else:
        good = (value is None and kind.optional) or isinstance(value, kind.cls)
    if not good:
        raise Verdict(IN_RANGE, f"{what} = {value!r}, which is not {_resolved(kind, geometry)}")


def _resolved(kind: ScalarType, geometry: Mapping[str, int]) -> str:
    """A type as a message has it: bounds that are expressions with their values."""
    if not isinstance(kind, IntType):
        return repr(kind)
    bounds = f"{evaluate(kind.lo, geometry)}..{evaluate(kind.hi, geometry)}"
    return bounds if repr(kind) == bounds else f"{kind!r}: {bounds}"


def _default(field: Field, geometry: Mapping[str, int]) -> Any:
    if field.default is not None:
        value = evaluate(field.default, geometry) if isinstance(field.default, str) else field.default
        try:
            check_value(field, value, geometry, f"{field!r}")
        except Verdict as verdict:
            raise Refused(_where(field.owner, field.name), verdict.detail, "begin with a value of the field's type") from None
        return value
    match field.type:
        case BoolType():
            return False
        case IntType(lo=lo, index=index):
            low = evaluate(lo, geometry)
            return index(low) if index else low
        case EnumType(members=members):
            return members[0]
    return None


def _own_fields(cls: type[Record]) -> Iterator[Field]:
    own = inspect.get_annotations(cls)
    if not own:
        return
    hints = typing.get_type_hints(cls)
    for name in own:
        hint = hints[name]
        where = _where(cls, name)
        if typing.get_origin(hint) is ClassVar or name.startswith("_"):
            continue
        default = cls.__dict__.get(name)
        declared = default if isinstance(default, _Declared) else None
        if typing.get_origin(hint) is list:
            if declared is None or declared.kind != "array":
                raise Refused(where, "a list without a length", 'write = array("pages")')
            element = _scalar_type(where, typing.get_args(hint)[0], declared)
            field = Field(cls, name, "array", element, declared.init)
            field.length = declared.length
            field.parts = isinstance(element, RefType) and not element.optional
        elif declared is not None and declared.kind == "array":
            raise Refused(where, "array() on a field that is no list", "annotate the field list[...]")
        elif declared is not None and declared.kind == "part":
            kind = _scalar_type(where, hint, None)
            if not isinstance(kind, RefType) or kind.optional:
                raise Refused(where, "part() on a field that is no record", "annotate the field with a Record class")
            field = Field(cls, name, "part", kind, None)
        else:
            kind = _scalar_type(where, hint, declared)
            field = Field(cls, name, "scalar", kind, declared.init if declared else default)
        yield field
