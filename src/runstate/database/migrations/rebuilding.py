"""Protection of what SQLite would lose where a table is rebuilt: a new one is filled, and the old one dropped."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

COUNTS = sa.text("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')")
NUMBERS = sa.text("SELECT name, seq FROM sqlite_sequence")
FORGET = sa.text("DELETE FROM sqlite_sequence WHERE name = :name AND seq < :number")
REMEMBER = sa.text(
    "INSERT INTO sqlite_sequence (name, seq) SELECT :name, :number"
    " WHERE EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = :name)"
    " AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = :name)"
)
DANGLING = sa.text('SELECT DISTINCT "table", parent FROM pragma_foreign_key_check() ORDER BY 1, 2')


@contextmanager
def keeping_what_holds(connection: sa.Connection) -> Iterator[None]:
    """Keep the numbers that tables count with, and check that every reference leads to a row.

    Both are for SQLite alone: PostgreSQL changes its tables in place.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    numbers = _numbers(connection)
    yield
    _count_on(connection, numbers)
    _check_references(connection)


def _numbers(connection: sa.Connection) -> dict[str, int]:
    """Return the highest number that each table with AUTOINCREMENT has given out; its row may be gone."""
    if not connection.scalar(COUNTS):
        return {}
    return {row.name: row.seq for row in connection.execute(NUMBERS)}


def _count_on(connection: sa.Connection, numbers: dict[str, int]) -> None:
    """Let the tables that are still there go on from these numbers; a rebuilt table knows only the rows that it got."""
    for name, number in numbers.items():
        connection.execute(FORGET, {"name": name, "number": number})
        connection.execute(REMEMBER, {"name": name, "number": number})


def _check_references(connection: sa.Connection) -> None:
    """Raise if rows refer to rows that do not exist. SQLite does not check that while tables are rebuilt."""
    broken = [f"{table} to {parent}" for table, parent in connection.execute(DANGLING)]
    if broken:
        raise RuntimeError(f"References lead to rows that do not exist: from {', from '.join(broken)}.")
