"""Protection of counters and references that SQLite can lose when Alembic rebuilds a table as a copy."""

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
    """Preserve the AUTOINCREMENT counters of tables, and check afterwards that no foreign key is broken.

    Both are needed on SQLite only: PostgreSQL changes its tables in place.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    # Read before the migrations: a table that is rebuilt forgets its number.
    numbers = _numbers(connection)
    yield
    _count_on(connection, numbers)
    _check_references(connection)


def _numbers(connection: sa.Connection) -> dict[str, int]:
    """Return the last number of each table with AUTOINCREMENT; the row with the number may have been deleted."""
    # SQLite creates the table of counters with the first table that has AUTOINCREMENT.
    if not connection.scalar(COUNTS):
        return {}
    return {row.name: row.seq for row in connection.execute(NUMBERS)}


def _count_on(connection: sa.Connection, numbers: dict[str, int]) -> None:
    """Restore the counters of existing tables. The counter of a rebuilt table starts at its highest existing row."""
    for name, number in numbers.items():
        connection.execute(FORGET, {"name": name, "number": number})
        connection.execute(REMEMBER, {"name": name, "number": number})


def _check_references(connection: sa.Connection) -> None:
    """Raise RuntimeError if rows refer to rows that do not exist: foreign keys are not enforced during a rebuild."""
    broken = [f"{table} to {parent}" for table, parent in connection.execute(DANGLING)]
    if broken:
        raise RuntimeError(f"Rows refer to rows that do not exist: from {', from '.join(broken)}.")
