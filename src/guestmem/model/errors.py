# SPDX-License-Identifier: Apache-2.0
"""What can stop a model: a refusal when it is built, a verdict when it runs."""


class Refused(Exception):
    """Code or a declaration outside the model language.

    Prints as one line: where it stands, what it is, what to write instead.
    """

    def __init__(self, where: str, what: str, instead: str) -> None:
        super().__init__(f"{where}: {what}: {instead}")
        self.where = where
        self.what = what
        self.instead = instead


class Verdict(Exception):
    """A run broke a rule.  ``rule`` is the sentence it broke, ``detail`` says how, ``where`` in the source."""

    def __init__(self, rule: str, detail: str = "") -> None:
        super().__init__(f"{rule}: {detail}" if detail else rule)
        self.rule = rule
        self.detail = detail


class Blocked(Exception):
    """A step cannot happen now (``when`` was false); the thread waits at the step."""


class Deadlock(Verdict):
    """A plain single-threaded run reached a step that nobody else can ever enable."""


#: Rules that every model has, whatever it is about.
NO_PANIC = "no host access ends in a panic"
IN_RANGE = "a value stays in its declared range"
NO_NONE = "no None is used as a record"
IN_ARRAY = "an index lies inside its array"
TOO_LARGE = "a number fits the bits that the checker computes with"  # a limit of the checker, no rule of the model's
NOT_REACHED = "what the checker has found out of reach is not reached"  # were it, the checker would be wrong
NO_DEADLOCK = "no deadlock; a wait ends"
HOLDER_RELEASES = "a lock is released by the thread that holds it"
TAKEN_ONCE = "a thread does not take a lock it already holds"
NO_SLEEP = "nobody sleeps while he holds a spin lock"
GUARDED = "what a lock guards is changed only under it"
ALWAYS_A_STEP = "a thread goes on until its next step"
