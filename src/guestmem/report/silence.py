# SPDX-License-Identifier: Apache-2.0
"""What a check says of what it did not look at: a line each, only where there is something to say."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guestmem.checker.coverage import Silence
    from guestmem.checker.explore import Model
    from guestmem.model.world import World
    from guestmem.scenarios.catalogue import Scenario

__all__ = ["Watch", "silence_json", "silence_lines"]


class Watch:
    """Watches what is executed of a user's file while a scenario is explored, once or at several sizes.

    ``everything``: of the files of this package too.  Raises ``Refused`` for what is defined and cannot be heard.
    """

    def __init__(self, scenario: Scenario, given: Mapping[str, Any], everything: bool = False) -> None:
        from guestmem.checker.coverage import Executed, any_file, users_file
        from guestmem.checker.frontend.classes import refuse_unplugged

        self.last: tuple[Model, Mapping[str, Any]] | None = None
        self.watches: Callable[[str], bool] = any_file if everything else users_file
        self.executed = Executed()

        def build() -> World:
            world = scenario.build(**given)
            world.begun()  # as a trace asks
            return world

        refuse_unplugged(self.executed.built(build, self.watches))

    def explored(self, model: Model, options: Mapping[str, Any]) -> None:
        """Take in what the last exploration of a model executed; it was built with these options."""
        self.executed.explored(model)
        self.last = model, options

    def silence(self) -> Silence:
        """What none of the explorations looked at."""
        from guestmem.checker.coverage import silence

        assert self.last is not None
        model, options = self.last
        return silence(model, self.executed, self.watches, dict(options))


def silence_lines(found: Silence, world: str, *, code: bool) -> Iterator[str]:
    """The lines to print; ``code``: those about code that was not executed in the states explored, too."""
    from guestmem.checker.frontend.source import shown_file

    if found.same_as:
        yield f"the same states and transitions as {found.same_as}: your file changed nothing"
    for name in found.unused:
        yield f"class {name} is used by nothing in {world}"
    if found.uncalled:
        yield f"{', '.join(found.uncalled)} {'is' if len(found.uncalled) == 1 else 'are'} called by nothing in {world}"
    yield from found.wrong
    if code:
        for file, in_file in itertools.groupby(found.never, key=lambda never: never.file):
            functions = itertools.groupby(in_file, key=lambda never: never.function)
            texts = [f"{', '.join(map(str, lines))} ({function})" for function, lines in functions]
            yield f"never executed: {shown_file(file)}:{', '.join(texts)}"
        if found.alternatives:
            yield f"never taken: {'; '.join(map(str, found.alternatives))}"


def silence_json(found: Silence) -> dict[str, Any]:
    """The same as JSON has it."""
    return dataclasses.asdict(found)
