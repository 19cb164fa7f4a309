"""Cursors: opaque texts with a fingerprint of the order and the values of its keys."""

import base64
import binascii
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from enum import Enum
from math import isfinite
from typing import Any, Final
from uuid import UUID
from zlib import crc32

import orjson
import sqlalchemy as sa

from runstate.errors import InvalidInput
from runstate.graphql.types.comparisons import LONGEST
from runstate.graphql.types.orders import Order
from runstate.rows import Row
from runstate.rows.base import EPOCH, MICROSECOND, Timestamp, value_of

LARGEST_INTS: Final[dict[type, int]] = {sa.SmallInteger: 2**15, sa.BigInteger: 2**63, sa.Integer: 2**31}
"""Exclusive limits of integers by the type of their column; the first match counts."""
FURTHEST: Final = 2**58
"""Exclusive limit of microseconds since 1970: beyond the year 9999."""


def fingerprint(row: type[Row], keys: Order) -> int:
    """Return a checksum of the order and of the name of the row."""
    text = ",".join(f"{key.column} {key.descending}" for key in keys)
    return crc32(f"{row.__name__}:{text}".encode())


def cursor(mark: int, values: Iterable[Any]) -> str:
    """Return the cursor for values of the keys of an order with this fingerprint."""
    return base64.urlsafe_b64encode(orjson.dumps([mark, *map(_plain, values)])).decode().rstrip("=")


def position(row: type[Row], keys: Order, text: str) -> list[Any]:
    """Return the values in a cursor. Raise InvalidInput if it is malformed or belongs to another order."""
    try:
        # Cursors have no padding, so it is added.
        mark, *values = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        columns = [value_of(row, key.column) for key in keys]
        keys_of_row = [_value(column, value) for column, value in zip(columns, values, strict=True)]
    except (binascii.Error, OverflowError, TypeError, UnicodeError, ValueError) as error:
        raise InvalidInput("The cursor is malformed.") from error
    if mark != fingerprint(row, keys):
        raise InvalidInput("The cursor belongs to another order.")
    return keys_of_row


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return (value - EPOCH) // MICROSECOND
        case timedelta():
            return value // MICROSECOND
        case date():
            return value.isoformat()
        case Enum():
            return value.value
        case UUID():
            return str(value)
        case float() if not isfinite(value):
            raise ValueError("A cursor holds finite numbers.")
    return value


def _value(column: sa.ColumnElement[Any], value: Any) -> Any:
    # Clients can send anything as a cursor: a value of a wrong type would be an error of the database.
    if value is None:
        if not getattr(column, "nullable", True):
            raise ValueError("The column is not nullable.")
        return None
    kind: type = datetime if isinstance(column.type, Timestamp) else column.type.python_type
    if issubclass(kind, Enum):
        return kind(value)
    if kind not in KINDS:
        raise TypeError("Columns of this type have no order.")
    return KINDS[kind](column, value)


def _uuid(column: Any, value: Any) -> UUID:
    return UUID(_text(column, value))


def _instant(_: Any, value: Any) -> datetime:
    return EPOCH + timedelta(microseconds=_int_below(FURTHEST, value))


def _duration(_: Any, value: Any) -> timedelta:
    return timedelta(microseconds=_int_below(LONGEST // MICROSECOND, value))


def _date(column: Any, value: Any) -> date:
    return date.fromisoformat(_text(column, value))


def _text(_: Any, value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("The value is not a text.")
    return value


def _int(column: Any, value: Any) -> int:
    limits = (limit for kind, limit in LARGEST_INTS.items() if isinstance(column.type, kind))
    return _int_below(next(limits), value)


def _int_below(limit: int, value: Any) -> int:
    # `isinstance` would also accept a Boolean.
    if type(value) is not int or not -limit <= value < limit:
        raise ValueError("The value is not an integer, or out of range.")
    return value


def _float(_: Any, value: Any) -> float:
    if type(value) is not float or not isfinite(value):
        raise ValueError("The value is not a finite number.")
    return value


def _bool(_: Any, value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("The value is not a Boolean.")
    return value


KINDS: Final[dict[type, Callable[[Any, Any], Any]]] = {
    UUID: _uuid,
    datetime: _instant,
    timedelta: _duration,
    date: _date,
    str: _text,
    int: _int,
    float: _float,
    bool: _bool,
}
"""Functions that read a value of a cursor, by the Python type of the column."""
