"""JSON whose numbers keep their value. By itself, orjson reads a number with many digits as the nearest double."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, Self

import orjson
from typing_extensions import override

LONGEST_NUMBER: Final = 1_000
"""Characters of a number. PostgreSQL takes more, and no number of a value is larger than the largest double."""
LONG: Final = b"0" * 16
"""Digits of a number that may be more than a double holds, as `MARKS` translates them."""
EXACT: Final = 16
"""Characters of a number without an exponent whose digits, at most 15, a double always holds."""
TINY: Final = b"0e-000"
"""An exponent that may be too small for a double, as `MARKS` translates it."""
TINY_NUMBER: Final = re.compile(rb"(?<![^\s\[,:])-?[0-9.]+[eE]-[0-9]{3}")
"""A number with such an exponent, at a place where a value can begin."""
SHORTEST: Final = len(TINY)
LARGE: Final = b"e+"
"""Part of the numbers that orjson writes with a positive exponent. Ids never contain it."""
MARKS: Final = bytes(
    ord("0") if chr(code) in "0123456789.+" else ord("e") if chr(code) in "eE" else ord("-") if code == ord("-") else 32
    for code in range(256)
)
LARGE_FLOAT: Final = 1e16
SMALLEST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**64 - 1
"""Bounds of the integers that orjson writes."""


class LongFloat(float):
    """A number with a fraction or an exponent and more digits than a double holds. It is written as it was read."""

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> Self:
        """Keep the text of a number."""
        self = super().__new__(cls, text)
        self.text = text
        return self

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, int | float) or isinstance(other, bool):
            return False
        return Decimal(self.text) == _decimal(other)

    @override
    def __ne__(self, other: object) -> bool:
        return not self == other

    @override
    def __hash__(self) -> int:
        # Equal numbers need equal hashes; those of Decimal agree with int and float.
        return hash(Decimal(self.text))


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raise orjson.JSONDecodeError if it is invalid or a number is out of range."""
    value = orjson.loads(text)
    # Too short to contain one of the marks.
    if len(text) < SHORTEST:
        return value
    given = text.encode() if isinstance(text, str) else text
    marks = given.translate(MARKS)
    # Parsing with all digits is slow, so only texts that may need it are parsed again. Many ids contain the mark of an
    # exponent.
    return _exact(text) if LONG in marks or (TINY in marks and TINY_NUMBER.search(given)) else value


def _exact(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_float=_float)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise orjson.JSONDecodeError(str(error), "", 0) from None


def _float(text: str) -> float:
    """Return the double that has the same value, or the number with all its digits."""
    value = float(text)
    # Most numbers need no comparison of decimals, which is slow: all clients wait while a text is parsed.
    if repr(value) == text or (len(text) <= EXACT and "e" not in text.lower()):
        return value
    if len(text) > LONGEST_NUMBER or (value == 0 and Decimal(text) != 0):
        raise ValueError(f"a number has more than {LONGEST_NUMBER:,} characters, or is too small")
    return value if Decimal(repr(value)) == Decimal(text) else LongFloat(text)


def _decimal(number: float) -> Decimal:
    return Decimal(number.text if isinstance(number, LongFloat) else repr(number))


def comparable(value: Any) -> Any:
    """Return a value that equals others with the same decimal number: `1e23` as a double is a little less."""
    return int(Decimal(repr(value))) if type(value) is float and abs(value) >= LARGE_FLOAT else value


def written(value: Any) -> orjson.Fragment:
    """Return what orjson writes for a number that it does not know: the `default` of `dumps`."""
    if isinstance(value, LongFloat):
        return orjson.Fragment(value.text)
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def dumps(value: Any, *, default: Callable[[Any], Any] = written, option: int | None = None) -> bytes:
    """Return a value as JSON. Raise TypeError if it is not JSON."""
    try:
        return orjson.dumps(value, default, option)
    except TypeError:
        # Only after a failure: integers of more than 64 bits are rare.
        return orjson.dumps(_replaced(value, _long_integer), default, option)


def dumps_with_fractions(value: Any, *, default: Callable[[Any], Any] = written) -> bytes:
    """Return a value as JSON without positive exponents: jsonb makes an integer of `1e300`, but not of `10….0`."""
    text = dumps(value, default=default)
    if LARGE not in text:
        return text
    return orjson.dumps(_replaced(value, lambda number: _long_integer(number) or _large_float(number)), default)


def _replaced(value: Any, replacement: Callable[[Any], Any]) -> Any:
    """Return a value with fragments in place of some numbers."""
    match value:
        case list() | tuple():
            return [_replaced(item, replacement) for item in value]
        case dict():
            return {key: _replaced(item, replacement) for key, item in value.items()}
    return replacement(value) or value


def _long_integer(value: Any) -> orjson.Fragment | None:
    """Return an integer that orjson does not write."""
    is_long = isinstance(value, int) and not SMALLEST_INTEGER <= value <= LARGEST_INTEGER
    return orjson.Fragment(str(value)) if is_long else None


def _large_float(value: Any) -> orjson.Fragment | None:
    """Return a number that orjson writes with a positive exponent."""
    # Not `isinstance`: a LongFloat is written with its own digits.
    is_large = type(value) is float and abs(value) >= LARGE_FLOAT
    return orjson.Fragment(f"{Decimal(repr(value)):f}.0") if is_large else None
