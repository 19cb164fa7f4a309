"""JSON serialization for columns, and the comparison operators of jsonb as functions for SQLite."""

from typing import Any, Final, Protocol
from uuid import UUID

import orjson
from pydantic import BaseModel

from runstate.documents import exact_json
from runstate.documents.base import omits_defaults


def _kept(value: Any) -> Any:
    """Return the JSON form of a value of a type that orjson does not support."""
    if isinstance(value, UUID):  # orjson does not accept subclasses, and asyncpg returns one
        return str(value)
    if isinstance(value, BaseModel):
        # Pydantic writes the text directly: a dictionary in between would cost time.
        return orjson.Fragment(
            value.__pydantic_serializer__.to_json(value, exclude_defaults=omits_defaults(type(value)))
        )
    return exact_json.written(value)


def _read(document: str | bytes | float) -> Any:
    """Return the value of a JSON text. Numbers are returned unchanged: SQLite's JSON functions return them parsed."""
    return document if isinstance(document, int | float) else exact_json.loads(document)


OPTIONS: Final[dict[str, Any]] = {
    "json_serializer": lambda value: exact_json.dumps_with_fractions(value, default=_kept).decode(),
    "json_deserializer": exact_json.loads,
}
"""Arguments of `create_async_engine`."""
SQLITE_OPTIONS: Final[dict[str, Any]] = {**OPTIONS, "json_deserializer": _read}
"""The same for SQLite."""


class Statement(Protocol):
    """The running SQLite statement that calls these functions."""

    def parse(self, text: str) -> Any:
        """Return the value of a JSON parameter, which is parsed once per statement."""

    def check(self) -> None:
        """Raise an exception if the deadline has passed."""


def at(statement: Statement, document: str | None, path: str) -> tuple[bool, Any]:
    """Return whether a path of keys exists in a JSON text, and the value at the path."""
    statement.check()
    if document is None:
        return False, None
    found = exact_json.loads(document)
    for key in statement.parse(path):
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and (place := _place(key, len(found))) is not None:
            found = found[place]
        else:
            return False, None
    return True, found


def _place(key: str, length: int) -> int | None:
    # int() also accepts spaces and underscores.
    if not key.removeprefix("-").isdecimal():
        return None
    place = int(key) + (length if key.startswith("-") else 0)
    return place if 0 <= place < length else None


def equals(statement: Statement, document: str | None, path: str, value: str) -> bool:
    """Return whether the value at a path equals this one; 1 and 1.0 are equal."""
    there, found = at(statement, document, path)
    return there and same(found, statement.parse(value))


def contains(statement: Statement, document: str | None, path: str, value: str) -> bool:
    """Return whether the value at a path contains this one. A list also contains each of its items."""
    there, found = at(statement, document, path)
    wanted = statement.parse(value)
    if not there:
        return False
    if isinstance(found, list) and not isinstance(wanted, list | dict):
        return _scalar(wanted) in _scalars(found)
    return covers(statement, found, wanted)


def is_null(statement: Statement, document: str | None, path: str) -> bool:
    """Return whether the value at a path is null or absent."""
    return at(statement, document, path)[1] is None


def text(statement: Statement, document: str | None, path: str) -> str | None:
    """Return the text at a path; None without one."""
    found = at(statement, document, path)[1]
    return found if isinstance(found, str) else None


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal. A Boolean never equals a number."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return _scalar(one) == _scalar(other)


def covers(statement: Statement, value: Any, wanted: Any) -> bool:
    """Return whether a JSON value contains another: objects by key, lists regardless of order and repetition.

    Scalars in lists take linear time. Lists and objects in lists take quadratic time: each pair may be compared.
    """
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            key in value and covers(statement, value[key], wanted[key]) for key in wanted
        )
    if not isinstance(wanted, list):
        return same(value, wanted)
    return isinstance(value, list) and _covers_items(statement, value, wanted)


def _covers_items(statement: Statement, values: list[Any], wanted: list[Any]) -> bool:
    scalars = _scalars(values)
    if not all(isinstance(item, list | dict) or _scalar(item) in scalars for item in wanted):
        return False
    return _covers_containers(statement, _containers(values), _containers(wanted))


def _covers_containers(statement: Statement, values: list[Any], wanted: list[Any]) -> bool:
    # Equal items are found by their text in linear time; only the others are compared with each value.
    known = set(map(_written, values))
    for item in wanted:
        statement.check()
        if _written(item) not in known and not any(_covers_checked(statement, value, item) for value in values):
            return False
    return True


def _covers_checked(statement: Statement, value: Any, item: Any) -> bool:
    statement.check()
    return covers(statement, value, item)


def _scalar(value: Any) -> tuple[bool, Any]:
    # In Python, True equals 1; in JSON, it does not.
    return isinstance(value, bool), exact_json.comparable(value)


def _scalars(items: list[Any]) -> set[tuple[bool, Any]]:
    return {_scalar(item) for item in items if not isinstance(item, list | dict)}


def _containers(items: list[Any]) -> list[Any]:
    return [item for item in items if isinstance(item, list | dict)]


def _written(value: Any) -> bytes:
    return exact_json.dumps(value, option=orjson.OPT_SORT_KEYS)
