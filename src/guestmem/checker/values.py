# SPDX-License-Identifier: Apache-2.0
"""The types of values that the checker computes with, and what operations on known values give."""

from __future__ import annotations

from collections.abc import Callable

from guestmem.model.record import BoolType, EnumType, IntType, RefType, ScalarType

BOOL = BoolType()

#: The bounds of an integer about which nothing is known: what the checker computes with.
INT_LO, INT_HI = -(2**127) + 1, 2**127 - 1
#: The bounds of what it computes with one word.
WORD_LO, WORD_HI = -(2**63) + 1, 2**63 - 1
INT = IntType(INT_LO, INT_HI)

Interval = tuple[int, int]

_RESULT: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "floormod": lambda a, b: a % b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    ">": lambda a, b: int(a > b),
    ">=": lambda a, b: int(a >= b),
    "&&": lambda a, b: a & b,
    "||": lambda a, b: a | b,
    "min": min,
    "max": max,
}


def result(op: str, a: int, b: int) -> int | None:
    """What an operation gives, in Python's numbers; None if it has no result, or one far beyond 127 bits."""
    if (op.startswith("floor") and b == 0) or (op in ("<<", ">>") and b < 0) or (op == "<<" and a and b > 128):
        return None
    return _RESULT[op](a, b)


def fits(number: int) -> bool:
    """Whether a number is one that the checker computes with."""
    return INT_LO <= number <= INT_HI


def fits_word(interval: Interval) -> bool:
    """Whether one word is enough for the values of an interval."""
    return interval[0] >= WORD_LO and interval[1] <= WORD_HI


def same_kind(a: ScalarType, b: ScalarType) -> bool:
    """Whether a value of type ``b`` can stand where ``a`` is expected (ranges and None are checked when running)."""
    match a, b:
        case (BoolType(), BoolType()):
            return True
        case (IntType(index=want), IntType(index=got)):
            return want is None or want is got
        case (EnumType(cls=one), EnumType(cls=two)):
            return one is two
        case (RefType(cls=one), RefType(cls=two)):
            return issubclass(two, one)
    return False


def widened(type_: ScalarType) -> ScalarType:
    """The type of a variable that once has a value of this type: plain integers lose their bounds, records may be None."""
    match type_:
        case IntType(index=None):
            return INT
        case RefType(cls=cls):
            return RefType(cls, True)
    return type_
