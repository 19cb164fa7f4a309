"""Bounds on the bytes that are read from a database for one operation."""

from collections.abc import Sequence
from typing import Any, Final

from runstate.errors import LimitExceeded

ANSWER_BYTES: Final = 2**24
"""Default of the largest number of bytes of an answer, and of those that are read for it."""
VALUE_BYTES: Final = 16
"""Bytes that each value counts, besides those of its text."""


class ReadBudget:
    """The bytes that may still be read. It may be shared by several connections."""

    def __init__(self, allowed: int) -> None:
        self.allowed = self.left = allowed

    def spend(self, number: int) -> None:
        """Count bytes that were read. Raise LimitExceeded if they are too many."""
        self.left -= number
        if self.left < 0:
            raise LimitExceeded("bytes", self.allowed)

    def spend_rows(self, rows: Sequence[Sequence[Any]], texts: Sequence[int]) -> None:
        """Count rows; `texts` are the places of their columns with text."""
        columns = [*zip(*rows, strict=True)]
        length = sum(sum(map(len, filter(None, columns[place]))) for place in texts)
        self.spend(length + VALUE_BYTES * len(rows) * len(columns))
