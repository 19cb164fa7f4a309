"""How JSON is kept; and what its values have in common, as jsonb has it, for SQLite, which has no such operators."""

from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel

from runstate.documents.base import omits_defaults


def _kept(value: Any) -> Any:
    """Return what orjson writes for a value that it does not know. asyncpg has a UUID of its own."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, BaseModel):
        return orjson.Fragment(
            value.__pydantic_serializer__.to_json(value, exclude_defaults=omits_defaults(type(value)))
        )
    raise TypeError(f"{type(value).__name__} cannot be kept as JSON")


def _read(document: str | bytes | float) -> Any:
    """Return the value of a JSON text; what SQLite computes from one may be a number already."""
    return document if isinstance(document, int | float) else orjson.loads(document)


OPTIONS: Final[dict[str, Any]] = {
    "json_serializer": lambda value: orjson.dumps(value, default=_kept).decode(),
    "json_deserializer": _read,
}
"""What an engine is told of JSON."""


def at(document: str | None, path: str) -> tuple[bool, Any]:
    """Whether there is something at a path of keys in a JSON text, and what."""
    if document is None:
        return False, None
    found = orjson.loads(document)
    for key in orjson.loads(path):
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and (place := _place(key, len(found))) is not None:
            found = found[place]
        else:
            return False, None
    return True, found


def _place(key: str, length: int) -> int | None:
    if not key.removeprefix("-").isdecimal():
        return None
    place = int(key) + (length if key.startswith("-") else 0)
    return place if 0 <= place < length else None


def equals(document: str | None, path: str, value: str) -> bool:
    """Whether the value at a path is this one; 1 and 1.0 are the same."""
    there, found = at(document, path)
    return there and same(found, orjson.loads(value))


def contains(document: str | None, path: str, value: str) -> bool:
    """Whether the value at a path contains this one; a list contains what is one of its items."""
    there, found = at(document, path)
    asked = orjson.loads(value)
    if not there:
        return False
    if isinstance(found, list) and not isinstance(asked, list | dict):
        return any(same(each, asked) for each in found)
    return holds(found, asked)


def is_null(document: str | None, path: str) -> bool:
    """Whether there is nothing at a path, or null."""
    return at(document, path)[1] is None


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: truth values are no numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def holds(held: Any, asked: Any) -> bool:
    """Whether a JSON value contains another: objects by their keys, lists whatever the order and number of items."""
    if isinstance(asked, dict):
        return isinstance(held, dict) and all(key in held and holds(held[key], asked[key]) for key in asked)
    if isinstance(asked, list):
        return isinstance(held, list) and all(any(holds(each, item) for each in held) for item in asked)
    return same(held, asked)
