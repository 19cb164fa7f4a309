"""The comparison of JSON values."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.database.json_conditions import json_contains, json_equals, json_is_null
from runstate.errors import BadUserInput, LimitExceeded
from runstate.graphql.types.conditions import Clause, Column, Conditions, is_set, member, negated
from runstate.graphql.types.fields import input_type


@input_type(name="JSONComparison")
class JsonComparison(Conditions):
    """Conditions on a JSON value. All must hold; null is rejected. `and` combines conditions on several paths."""

    options = frozenset({"path"})

    path: list[str] | None = member("Path of the compared value: keys and list positions. By default all of it.")
    eq: strawberry.scalars.JSON | None = member("The value equals this one; 1 and 1.0 are equal.")
    ne: strawberry.scalars.JSON | None = member("The value differs from this one, or does not exist.")
    in_: list[strawberry.scalars.JSON] | None = member(
        "The value is one of these; an empty list matches nothing.", name="in"
    )
    not_in: list[strawberry.scalars.JSON] | None = member("The value differs from all of these, or does not exist.")
    contains: strawberry.scalars.JSON | None = member(
        "The value contains this one: objects are compared by key, recursively, and lists by items in any order. A "
        "list also contains each of its items."
    )
    is_null: bool | None = member("True if the value is null or does not exist; false otherwise.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the conditions on a JSON column."""
        keys: list[str] = [] if self.path is UNSET else self.path or []
        # PostgreSQL rejects keys with NUL, and no stored key has one.
        if any("\0" in key for key in keys):
            keys = [NOWHERE]
        if is_set(self.eq):
            yield _json(json_equals, column, keys, self.eq)
        if is_set(self.ne):
            yield negated(_json(json_equals, column, keys, self.ne))
        if is_set(self.in_):
            # SQLAlchemy deprecates or_() without arguments.
            yield sa.or_(sa.false(), *(_json(json_equals, column, keys, each) for each in self.in_ or []))
        if is_set(self.not_in):
            yield negated(sa.or_(sa.false(), *(_json(json_equals, column, keys, each) for each in self.not_in or [])))
        if is_set(self.contains):
            yield _json(json_contains, column, keys, self.contains)
        if is_set(self.is_null):
            null = json_is_null(column, keys)
            yield null if self.is_null else sa.not_(null)


MOST_ITEMS: Final = 1_000
"""Largest number of items in all lists of one JSON value."""
MOST_NESTED: Final = 200
"""Largest number of levels of one JSON value; the database accepts 254."""
NOWHERE: Final = "\ufffd\ufffd no key \ufffd\ufffd"
"""Key in place of one with NUL, which no stored value has."""


def _json(compare: Callable[[Column, list[str], Any], Clause], column: Column, keys: list[str], value: Any) -> Clause:
    """Return a condition. Raise LimitExceeded if the lists in the value are too long.

    PostgreSQL compares two lists item by item and cannot be interrupted.
    """
    if (items := _items(value, 0)) > MOST_ITEMS:
        raise LimitExceeded("listItems", MOST_ITEMS, items)
    # No stored value contains NUL.
    return sa.false() if _has_nul(value) else compare(column, keys, value)


def _items(value: Any, depth: int) -> int:
    """Return the number of items in all lists of a JSON value. Raise BadUserInput if it is nested too deeply."""
    if depth > MOST_NESTED:
        raise BadUserInput("A JSON value is nested too deeply.")
    if isinstance(value, dict):
        return sum(_items(each, depth + 1) for each in value.values())
    return sum(1 + _items(each, depth + 1) for each in value) if isinstance(value, list) else 0


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(held) for key, held in value.items())
    return any(map(_has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value
