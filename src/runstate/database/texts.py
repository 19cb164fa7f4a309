"""Conditions on parts of texts."""

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from runstate.database.dialects import text_contains

Column = sa.ColumnElement[Any]
Clause = sa.ColumnElement[bool]


def starts_with(column: Column, text: str) -> Clause:
    """Return the condition that a column starts with a text, with the same case."""
    # LIKE ignores case on SQLite, and treats some characters as wildcards.
    return sa.func.substr(column, 1, len(text)) == text


def ends_with(column: Column, text: str) -> Clause:
    """Return the condition that a column ends with a text, with the same case."""
    length = sa.func.length(column)
    # A start before the first character means another one to each database.
    return sa.and_(length >= len(text), sa.func.substr(column, length - len(text) + 1) == text)


def equals_ignoring_case(column: Column, text: str) -> Clause:
    """Return the condition that a column equals a text, ignoring case."""
    return sa.and_(sa.func.length(column) == len(text), text_contains(column, text))


TEXT_CLAUSES: Final[dict[str, Callable[[Column, str], Clause]]] = {
    "contains": text_contains,
    "starts_with": starts_with,
    "ends_with": ends_with,
    "eq_ignore_case": equals_ignoring_case,
}
"""Conditions on parts of a text, by member of a comparison of texts."""
