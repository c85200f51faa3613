# SPDX-License-Identifier: Apache-2.0
"""What only the world as built makes wrong is no refusal: it breaks a rule where it runs, as in plain Python."""

from guestmem.checker import Model
from guestmem.model import Record, World, bounded, part, step, thread
from guestmem.model.errors import IN_RANGE, NO_NONE
from lockstep import Lockstep


class Cell(Record):
    n: int = bounded(1)


class StoresTooMuch(World):
    limit: int = bounded(7)
    n: int = bounded(3)

    def setup(self) -> None:
        self.limit = 5

    @thread
    def only(self) -> None:
        self.act()

    @step
    def act(self) -> None:
        self.n = self.limit


class PassesNone(World):
    cell: Cell = part()

    @thread
    def only(self) -> None:
        self.through(None)

    def through(self, cell: Cell | None) -> None:
        self.nothing()
        if self.cell.n == 0:
            cell.n = 1  # type: ignore[union-attr]

    @step
    def nothing(self) -> None:
        pass


def rules(world: type[World]) -> list[str]:
    """The rules that a world breaks, in the translation; and in plain Python after the same steps."""
    model = Model(world())
    Lockstep(world, model).run(1, 5)
    return [violation.rule for violation in model.explore().violations]


def test_a_constant_outside_the_range_of_a_field() -> None:
    assert rules(StoresTooMuch) == [IN_RANGE]


def test_a_none_that_is_passed_on_and_followed() -> None:
    model = Model(PassesNone())
    assert [violation.rule for violation in model.explore().violations] == [NO_NONE]
