# SPDX-License-Identifier: Apache-2.0
"""The text of the engine, and the sizes that it is built with."""

from importlib import resources

#: Choices one slice of a thread may make; more is taken for a loop without end.
MOST_CHOICES = 64
#: Turns that loops without a step may take in one slice.
MOST_TURNS = 1 << 20

LOCAL = '#include "'


def engine_text(*names: str) -> str:
    """Files of the engine, one after the other, without the inclusion of each other."""
    texts = (resources.files(__package__).joinpath(name).read_text() for name in names)
    return "\n".join(line for text in texts for line in text.splitlines() if not line.startswith(LOCAL))
