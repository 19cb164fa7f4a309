"""Sizes of answers: estimated while plans write them, and counted before an answer is sent if it may be too large."""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from runstate.errors import LimitExceeded
from runstate.graphql.types.scalars import dumped

ESCAPED: Final = 6
"""The most bytes of a character in JSON."""
VALUE_BYTES: Final = 4
"""Bytes of a value besides its text: quotes, colon and comma."""


class AnswerSize:
    """An estimate of the size of an answer: at least its bytes, if a character had one byte."""

    def __init__(self) -> None:
        self.characters = 0
        self.is_known = True
        """Whether plans wrote all of it from rows. The size of other parts is not estimated."""

    def repeat(self, since: int, times: float) -> None:
        """Note that what was written since the answer had a size appears in it so many times."""
        self.characters += int((self.characters - since) * (times - 1))

    def check(self, answer: Any, allowed: int) -> None:
        """Raise LimitExceeded if an answer has more bytes than are allowed."""
        if not self.is_known or self.characters * ESCAPED > allowed:
            check_size(answer, allowed)


UNKNOWN: Final = AnswerSize()
"""The size of an answer that no plan wrote."""
UNKNOWN.is_known = False


def check_size(answer: Any, allowed: int) -> None:
    """Raise LimitExceeded if an answer has more bytes of JSON than are allowed. Parts are written one by one."""
    left, waiting = allowed, [answer]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            left -= sum(map(len, value)) + VALUE_BYTES * len(value)
            waiting += value.values()
        elif isinstance(value, list | tuple):
            left -= len(value) + 2
            waiting += value
        else:
            left -= len(dumped(value))
        if left < 0:
            raise LimitExceeded("bytes", allowed)


def as_json(answer: dict[str, Any], allowed: int) -> dict[str, Any]:
    """Return an answer whose fields are JSON already. Raise LimitExceeded if it has more bytes than are allowed.

    Items of lists are written one by one, so that little more than the allowed bytes is ever in memory. No part is
    written twice, as it would be by `check_size`.
    """
    return {name: _field_as_json(value, allowed) for name, value in answer.items()}


def _field_as_json(value: Any, allowed: int) -> Any:
    if isinstance(value, list):
        return list(_written(value, allowed))
    (field,) = _written([value], allowed)
    return field


def _written(items: list[Any], allowed: int) -> Iterator[orjson.Fragment]:
    left = allowed
    for item in items:
        text = dumped(item)
        left -= len(text)
        if left < 0:
            raise LimitExceeded("bytes", allowed)
        yield orjson.Fragment(text)
