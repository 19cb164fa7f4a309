"""Violated constraints, as each kind of database reports them."""

import re
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

UNIQUE: Final = frozenset({"23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"})
FOREIGN_KEY: Final = frozenset({"23001", "23503", "SQLITE_CONSTRAINT_FOREIGNKEY", "SQLITE_CONSTRAINT_TRIGGER"})
# SQLite implements ON DELETE RESTRICT as a trigger and reports it as one. The tables have no other triggers.
COLUMNS: Final = re.compile(r"UNIQUE constraint failed: (?P<columns>.*)")
"""SQLite reports the columns of a unique key in the message only."""


def is_taken(error: IntegrityError) -> bool:
    """Return whether another row has the values of a unique key."""
    return _code(error) in UNIQUE


def is_dangling(error: IntegrityError) -> bool:
    """Return whether a foreign key would refer to a row that does not exist, or that is to be deleted."""
    return _code(error) in FOREIGN_KEY


def _code(error: IntegrityError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None))


def taken_key(error: IntegrityError, table: sa.Table) -> Sequence[sa.Column[object]]:
    """Return the columns of the unique key that is taken; empty if it belongs to another table."""
    if found := COLUMNS.search(str(error.orig)):
        names = [each.rpartition(".") for each in found["columns"].split(", ")]
        return [table.c[column] for owner, _, column in names if owner == table.name]
    # SQLAlchemy may wrap the exception of asyncpg; only the latter has the name of the constraint.
    causes: tuple[object, ...] = (error.orig, getattr(error.orig, "__cause__", None))
    name = next((found for each in causes if (found := getattr(each, "constraint_name", None))), None)
    constraints = [
        each for each in table.constraints if isinstance(each, sa.UniqueConstraint | sa.PrimaryKeyConstraint)
    ]
    # A unique index is not a constraint for SQLAlchemy.
    return next((list(key.columns) for key in (*constraints, *table.indexes) if key.name == name), [])
