"""Values of the reference's columns, as both databases return them, as values of ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from runstate.documents.exact_json import loads
from runstate.documents.states import StateType
from runstate.rows.base import EPOCH

Convert = Callable[[Any], Any]
ESCAPED_NUL: Final = "\\u0000"
NUL: Final = re.compile(r"((?<!\\)(?:\\\\)*)\\u0000")
"""A NUL character in the text of JSON, after escaped backslashes."""
MILLISECONDS: Final = 48
"""Bits of the time in a UUID of version 7."""


def uuid(value: Any) -> UUID:
    """Return an id."""
    return value if isinstance(value, UUID) else UUID(value)


def instant(value: Any) -> datetime:
    """Return a time in UTC. SQLite has texts without an offset."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def seconds(value: Any) -> float:
    """Return a time span in seconds, at least 0. SQLite has the time that is as long after 1970."""
    span = value if isinstance(value, timedelta) else instant(value) - EPOCH
    return max(span.total_seconds(), 0.0)


def text(value: Any) -> str:
    """Return a text without NUL characters, which PostgreSQL cannot store."""
    return value.replace("\0", "") if "\0" in value else str(value)


def json(value: Any) -> Any:
    """Return a JSON value without NUL characters; null for none."""
    if value is None:
        return None
    if ESCAPED_NUL in value:
        value = NUL.sub(r"\1", value)
    return loads(value)


def state_type(value: Any) -> StateType:
    """Return the type of a state."""
    return StateType(value)


def document(annotation: Any, reshape: Convert | None = None) -> Convert:
    """Return the converter of a JSON column to a document; `reshape` brings the value into its form first."""
    validate = TypeAdapter(annotation).validator.validate_python

    def convert(value: Any) -> Any:
        found = json(value)
        return None if found is None else validate(reshape(found) if reshape else found)

    return convert


def known_members(annotation: Any) -> Convert:
    """Return a function that leaves out the members of an object that a document does not have."""
    names = frozenset(annotation.model_fields)
    return lambda value: {key: each for key, each in value.items() if key in names}


def ordered(id: UUID, at: datetime) -> UUID:
    """Return an id of version 7 with a time: the id itself, or one that is derived from it and its time."""
    if id.version == 7:  # noqa: PLR2004 the version of ids that have a time
        return id
    milliseconds = (at - EPOCH) // timedelta(milliseconds=1)
    rest = id.int & ((1 << 128 - MILLISECONDS) - 1)
    return UUID(int=(milliseconds << 128 - MILLISECONDS) | (rest & ~(0xF << 76)) | (7 << 76))
