# SPDX-License-Identifier: Apache-2.0
"""What is outside the language is refused, with the line and what to write instead; a test per kind."""

import importlib.util
import sys
from pathlib import Path

import pytest

from guestmem.checker.translate import Translation
from guestmem.model import Refused, World

MODULE = """\
from enum import Enum
from guestmem.model import Index, Mutex, Record, World, always, array, bounded, choose, may, part, require, step, thread, when

class Colour(Enum):
    RED = 0
    BLUE = 1

class Slot(Index, below=2):
    pass

LAST = Slot(5)

class Cell(Record):
    n: int = bounded(3)
    flag: bool = False
    peer: "Cell | None" = None

def helper(cell: Cell, n: int) -> int:
    return cell.n + n

def pair(cell: Cell) -> tuple[int, int]:
    return cell.n, 1

class W(World):
    cells: list[Cell] = array(2)
    marks: list[bool] = array(2)
    lock: Mutex = part()
    colour: Colour = Colour.RED
    count: int = bounded(3)

    @thread
    def only(self) -> None:
        while True:
            self.act()

    @step
    def act(self) -> None:
        {body}
"""

BODIES = [
    ("raise ValueError", "raise: return -ERRNO, or panic(why)"),
    ("assert self.count == 0", "assert: use require(condition, rule)"),
    ("try:\n            pass\n        finally:\n            pass", "try: return -ERRNO and test it"),
    ("for i in range(2):\n            pass\n        else:\n            pass", "else on a loop: set a variable"),
    ("match self.count:\n            case 1:\n                pass", "match: use if and elif"),
    ("import os", "import in a function: put imports and state outside"),
    ("def inner() -> None:\n            pass", "a definition inside a function: put it at the top of the module"),
    ("x: int", "a declaration without a value: assign a value"),
    ("a = b = 1", "several targets in one assignment: assign one after the other"),
    ("a, b = 1, 2", "several values assigned at once"),
    ("a, b, c = pair(self.cells[0])", "2 results for 3 names: name each result"),
    ("self.count, b = pair(self.cells[0])", "a result assigned to something that is no name"),
    ("self.lock = self.lock", "assignment to the part 'lock': assign its fields or elements"),
    ("self.cells[0] = self.cells[1]", "assignment to an element of W.cells: assign the fields of the record"),
    ("cells = self.cells", "the array W.cells in a variable: name the array where it is used"),
    ("x = None\n        x = self.cells[0]", "None in 'x', which has no type yet: write x: Record | None = None"),
    ("for i in range(2):\n            i = 1", "assignment to the loop variable 'i': use another name"),
    ("for i in range(0, 2, 2):\n            pass", "range with a step: use a while loop"),
    ("for i in self.count:\n            pass", "self.count is no array: use an array field, range() or Index.span()"),
    ("with self.lock as held:\n            pass", "several guards, or a guard with a name"),
    ("return 1", "1 results where 0 are declared: return what the annotation says"),
    ("if self.colour:\n            pass", "self.colour as a condition: compare it"),
    ("self.count = self.colour", "Colour where W.count is 0..3: use a value of that type"),
    ("self.cells[0].n = self.cells[0]", "Cell where Cell.n is 0..3"),
    ("self.cells[0].colour = 1", "Cell has no field 'colour': use one of: n, flag, peer"),
    ("self.marks[0] = self.count or self.marks[1]", "self.count is no boolean: compare it with != 0 or `is not None`"),
    ("self.count = self.count / 2", "the operator in self.count / 2: use + - * // % << >> & | ^"),
    ("self.count = 1 in self.marks", "the comparison in 1 in self.marks: use == != < <= > >= is, or a loop"),
    ("self.marks[0] = self.cells == self.cells", "an array in a comparison: compare its elements"),
    ("self.marks[0] = self.colour == 1", "Colour compared with 1..1: compare values of one kind"),
    ("self.count = 4", "4 for W.count, which is 0..3: widen the field, or store less"),
    ("x = [1, 2]", "List in '[1, 2]': use names, fields, arithmetic, comparisons, calls"),
    ("x = 'text'", "Constant in \"'text'\": use names, fields, arithmetic"),
    ("self.count = unknown", "the name 'unknown': assign it first; a loop variable ends with its loop"),
    ("self.count = unknown()", "the function 'unknown': define or import it"),
    ("print(self.count)", "the function 'print': define or import it"),
    ("self.count = helper(self.cells[0])", "helper without its 'n': pass it"),
    ("self.count = helper(self.cells[0], 1, 2)", "3 arguments passed to helper: it takes cell, n"),
    ("self.count = helper(self.cells[0], m=1)", "helper without its 'n'"),
    ("self.cells[0].missing()", "Cell has no method 'missing': define it"),
    ("self.act()", "W.act calls itself: write a loop"),
    ("self.count = self.cells[0].n.bit_length()", "self.cells[0].n is no record: use a record"),
    ("x = Slot(1, 2)", "Slot of 2 values: give one integer"),
    ("self.count = len(self.cells, 1)", "len of 2 arguments: see the language"),
    ("self.count = max(self.cells, key=1)", "keywords for max: pass plain arguments"),
    ("require(self.count == 0)", "require with 1 arguments: see its documentation"),
    ("require(self.count == 0, self.count)", "self.count where a text is expected: write a string, or name a constant"),
    (
        "self.count = 1\n        when(self.count == 0)",
        "a step that waits after it has changed something: move when() to its start",
    ),
    ("yield 1", "Expr as a statement: use assignments, calls, if, while"),
    ("for i, mark in enumerate(self.marks, start=1):\n            pass", "the function 'enumerate'"),
    ("x = choose(2, label='which')", "keywords for choose: pass plain arguments"),
    ("super(W, self).setup()", "the function 'super'"),
    ("del self.count", "delete in a function"),
    ("if self.count == 1:\n            x = 1\n        self.count = x", "'x' may have no value here: assign x on every path"),
    ("for i in range(2):\n            x = i\n        self.count = x", "'x' may have no value here"),
    ("while self.count == 0:\n            x = 1\n            break\n        self.count = x", "'x' may have no value here"),
    ("for i in range(2):\n            pass\n        self.count = i", "'i' may have no value here"),
    ("self.count += x\n        x = 1", "'x' may have no value here"),
    ("x += 1", "'x' may have no value here"),
    ("self.count = 1 << 127", "a number of more than 127 bits: use smaller ones"),
    ("x = 170141183460469231731687303715884105728", "a number of more than 127 bits"),
    (
        "cell: Cell | None = None\n        if cell is not None:\n            self.count = self.colour",
        "Colour where W.count is 0..3: use a value of that type",
    ),
    ("return\n        self.count = self.colour", "Colour where W.count is 0..3: use a value of that type"),
    ("self.count = 1 if True else self.colour", "Colour where"),
    ("(lambda: 1)()", "the call (lambda: 1)(): call a function, or a method of a record"),
]

DECLARATIONS = [
    (
        "n: int = bounded(3)",
        "n: int = 0",
        "Cell.n: an int without bounds: write bounded(hi), or give the number a type with Index",
    ),
    ("count: int = bounded(3)", "count: int = bounded(1 << 64)", "W.count: a field of 65 bits: narrow its range to 64 bits"),
    (
        "n: int = bounded(3)",
        "n: int = bounded(3, init=4)",
        "Cell.n = 4, which is not 0..3: begin with a value of the field's type",
    ),
    ("helper(self.cells[0], 1)", "helper(self.cells[0], LAST)", "5 for Slot, which is 0..1: use one inside, or a larger world"),
    ("    return cell.n + n\n", "    if n == 0:\n        return 1\n", "helper() may end without a return: return a value"),
    ("    return cell.n + n\n", "    while n > 0:\n        return 1\n", "helper() may end without a return"),
    ("flag: bool = False", "flag: float = 0.0", "Cell.flag: float is not a field type: use bool, an Enum, a bounded int"),
    ("marks: list[bool] = array(2)", "marks: list[bool]", 'W.marks: a list without a length: write = array("pages")'),
    ("marks: list[bool] = array(2)", "marks: list[bool] = []", "W.marks: a list as a default: use array() for a fixed array"),
    ("count: int = bounded(3)", "count: int = array(3)", "W.count: array() on a field that is no list"),
    ("count: int = bounded(3)", "count: bool = part()", "W.count: part() on a field that is no record"),
    (
        "cells: list[Cell] = array(2)",
        'cells: list[Cell] = array("pages")',
        "'pages' is not known: use integers, + - * 2 ** n and names",
    ),
    ("def helper(cell: Cell, n: int)", "def helper(cell: Cell, n)", "the parameter 'n' without a type: annotate it"),
    ("def helper(cell: Cell, n: int)", "def helper(cell: Cell, *n: int)", "a starred or keyword-only parameter"),
    ("n: int) -> int:", "n: int):", "helper without a result type: annotate it, with -> None if there is none"),
    ("n: int) -> int:", "n: float) -> int:", "the type <class 'float'>: use bool, int, an Enum, an Index, a Record"),
    ("def only(self) -> None:", "def only(self, i: int) -> None:", "a thread with 2 parameters: use (self) or (self, i)"),
    (
        "            self.act()\n\n",
        "            when(self.count == 0)\n\n",
        "when() outside a step: put it into a function with @step",
    ),
]


def refusal(tmp_path: Path, source: str) -> str:
    """What building the world of a module says."""
    with pytest.raises(Refused) as caught:
        Translation(world(tmp_path, source))
    return str(caught.value)


def world(tmp_path: Path, source: str) -> World:
    """The world of a module."""
    file = tmp_path / f"refused_{abs(hash(source))}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    built: World = module.W()
    return built


@pytest.mark.parametrize(("body", "says"), BODIES, ids=[body.partition("\n")[0] for body, _ in BODIES])
def test_statements_and_expressions(tmp_path: Path, body: str, says: str) -> None:
    line = refusal(tmp_path, MODULE.replace("{body}", body))
    assert says in line
    assert ".py:" in line


PROPERTIES = [
    (
        "-> bool:\n        self.count = 0\n        return True",
        "waits or chooses: return a condition",
    ),
    ("-> bool:\n        return choose(2) == 0", "a property that changes the world, waits or chooses"),
    ("-> bool:\n        self.lock.acquire()\n        return True", "a property that changes the world, waits or chooses"),
    ("-> int:\n        return self.count", "a property that gives no boolean: annotate it -> bool"),
]


@pytest.mark.parametrize(("body", "says"), PROPERTIES, ids=[says for _, says in PROPERTIES])
def test_properties(tmp_path: Path, body: str, says: str) -> None:
    source = MODULE.replace("{body}", "self.count = 0")
    assert says in refusal(tmp_path, f'{source}\n    @always("it is so")\n    def so(self) {body}\n')


UNCALLED = [
    ("-> int:\n        return 1 / 0", "the operator in 1 / 0, in spare, which nothing calls: use + - *"),
    ("-> int:\n        pass", "spare() may end without a return, in spare, which nothing calls"),
    ("-> None:\n        self.colour.missing()", "self.colour is no record, in spare, which nothing calls"),
]


@pytest.mark.parametrize(("body", "says"), UNCALLED, ids=[says for _, says in UNCALLED])
def test_what_is_wrong_in_a_method_that_nothing_calls_is_noted(tmp_path: Path, body: str, says: str) -> None:
    source = MODULE.replace("{body}", "self.count = 0") + f"\n    def spare(self) {body}\n"
    (note,) = Translation(world(tmp_path, source)).program.notes
    assert says in note
    assert ".py:" in note


def test_of_a_method_that_nothing_calls_and_that_is_right_nothing_is_noted(tmp_path: Path) -> None:
    source = MODULE.replace("{body}", "self.count = 0") + "\n    def spare(self) -> int:\n        return self.count\n"
    assert Translation(world(tmp_path, source)).program.notes == []


@pytest.mark.parametrize(("good", "bad", "says"), DECLARATIONS, ids=[bad.strip() for _, bad, _ in DECLARATIONS])
def test_declarations(tmp_path: Path, good: str, bad: str, says: str) -> None:
    source = MODULE.replace("{body}", "self.count = helper(self.cells[0], 1)")
    assert good in source
    assert says in refusal(tmp_path, source.replace(good, bad))


def test_the_module_itself_is_in_the_language(tmp_path: Path) -> None:
    source = MODULE.replace("{body}", "self.count = 0")
    with pytest.raises(pytest.fail.Exception):
        refusal(tmp_path, source)


DRIVER = """\
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.direct_map import set_direct_map_invalid_noflush
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah

class Driver(GunyahDriver):
    def prepare_inaccessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        return set_direct_map_invalid_noflush(file.kernel, folio.frame, folio.order)

class W(OnGunyah):
    driver: Driver = part()
"""


def test_a_driver_does_not_change_the_direct_map(tmp_path: Path) -> None:
    line = refusal(tmp_path, DRIVER)
    assert ".py:11: a call of set_direct_map_invalid_noflush in refused_" in line
    assert "it is exported to guestmem.mm and guestmem.guest_memfd; ask these" in line
