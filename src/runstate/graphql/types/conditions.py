"""The basis of comparisons: inputs whose members are conditions in SQL.

A condition on a column that is null can be NULL in SQL. NULL counts as false; `negated` makes it so.
"""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.errors import BadUserInput
from runstate.graphql.types.input_values import DEFINITION

Clause = sa.ColumnElement[bool]
Column = sa.ColumnElement[Any]


def is_set(value: object) -> bool:
    """Return whether a client sent a value for a member of an input. Null counts as omitted."""
    return value is not UNSET and value is not None


def negated(clause: Clause) -> Clause:
    """Return the negation of a condition. NULL counts as false, so its negation is true."""
    return sa.not_(sa.func.coalesce(clause, sa.false()))


def as_uuid(value: str) -> UUID | None:
    """Return a text as a UUID; None if it is malformed."""
    try:
        return UUID(value)
    except ValueError:
        return None


def member(description: str, name: str | None = None) -> Any:
    """Return an optional member of an input."""
    return strawberry.field(name=name, default=UNSET, description=description)


class Conditions:
    """An input with conditions. Null is rejected: a filter whose value is missing would match everything."""

    options: ClassVar[frozenset[str]] = frozenset()
    """Members that are not conditions."""
    may_be_empty: ClassVar[bool] = False

    @classmethod
    def check_members(cls, given: Mapping[str, Any]) -> None:
        """Raise BadUserInput if a member is null, or if no member is a condition."""
        name = getattr(cls, DEFINITION).name
        null = next((member for member, value in given.items() if value is None), None)
        if null is not None:
            hint = ", or use `isNull: true` to match null" if hasattr(cls, "is_null") else ""
            raise BadUserInput(f"`{null}` of {name} is null. Omit it{hint}.")
        if not cls.may_be_empty and given.keys() <= cls.options:
            raise BadUserInput(
                f"{name} has no condition. Add one, or omit the input. A variable without a value counts as omitted."
            )
