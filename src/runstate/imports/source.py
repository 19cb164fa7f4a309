"""A database of the reference, opened for reading only: one snapshot, read in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runstate.database import postgresql
from runstate.database.address import Address, parse
from runstate.database.connector import Connector
from runstate.errors import ConfigurationError

SESSION: Final = {"idle_in_transaction_session_timeout": "0"}
"""The snapshot stays open while pages are written to the other database."""
MARK: Final = "flow_run_state"
"""A table that every database of the reference has, and runstate's too, with other columns."""
MARK_COLUMN: Final = "state_details"

Raw = Sequence[Any]
"""The values of a row as the driver returns them."""


class Source:
    """A snapshot of a database of the reference."""

    def __init__(self, connection: AsyncConnection, columns: dict[str, dict[str, Any]]) -> None:
        self.connection = connection
        self.columns = columns
        """Types of the columns by name, by table."""
        self.tables = {name: sa.table(name, *map(sa.column, known)) for name, known in columns.items()}

    def selected(self, name: str, columns: Sequence[str]) -> list[sa.ColumnElement[Any]]:
        """Return columns of a table; JSON as text: drivers differ. Raise ConfigurationError if one is missing."""
        known = self.columns.get(name, {})
        if missing := set(columns) - known.keys():
            raise ConfigurationError(
                f"The table {name} has no column {min(missing)}: upgrade the database to Prefect 3.8.5 first"
                " (prefect server database upgrade)."
            )
        table = self.tables[name]
        return [
            sa.cast(table.c[each], sa.Text).label(each) if isinstance(known[each], sa.JSON) else table.c[each]
            for each in columns
        ]

    async def count(self, table: str, where: sa.ColumnElement[bool] | None = None) -> int:
        """Return the number of rows of a table, or of those that meet a condition; 0 if there is no such table."""
        # Earlier versions of the reference lack some tables.
        if table not in self.columns:
            return 0
        asked = sa.select(sa.func.count()).select_from(sa.table(table)).where(sa.true() if where is None else where)
        return int((await self.connection.execute(asked)).scalar_one())

    async def rows(self, statement: Any, **values: Any) -> Sequence[Raw]:
        """Return the rows of a statement."""
        return cast("Sequence[Raw]", (await self.connection.execute(statement, values)).all())

    async def pages(self, table: str, columns: Sequence[str], size: int) -> AsyncIterator[Sequence[Raw]]:
        """Yield the rows of a table in pages, in the order of their ids; the first column is the id."""
        # By id, because an offset would read a million rows again for each page.
        first = sa.select(*self.selected(table, columns)).order_by(self.tables[table].c.id).limit(size)
        page = await self.rows(first)
        following = first.where(self.tables[table].c.id > sa.bindparam("after"))
        while page:
            yield page
            page = await self.rows(following, after=page[-1][0]) if len(page) == size else []


@asynccontextmanager
async def opened(name: str) -> AsyncIterator[Source]:
    """Yield a snapshot of the database with a URL, or in a SQLite file. Raise ConfigurationError if it is another."""
    address = parse(name) if "://" in name else None
    engine = _in_file(Path(name)) if address is None else _at(address)
    try:
        async with engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                # All pages are of one moment, also while a server of the reference goes on writing.
                await connection.exec_driver_sql("BEGIN")
            else:
                await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            columns = await connection.run_sync(_columns)
            if not columns:
                raise ConfigurationError(f"{address.shown if address else name} is not a database of Prefect 3.")
            yield Source(connection, columns)
    finally:
        await engine.dispose()


def _at(address: Address) -> AsyncEngine:
    if address.file is not None:
        return _in_file(address.file)
    settings = postgresql.settings(0, "runstate import", None) | SESSION
    return postgresql.engine(Connector(address, settings), 1)


def _in_file(file: Path) -> AsyncEngine:
    if not file.is_file():
        raise ConfigurationError(f"{file} does not exist.")
    # The database of the reference may be in use, and must not be changed.
    read_only = {"mode": "ro", "uri": "true"}
    url = sa.URL.create("sqlite+aiosqlite", database=f"file:{quote(str(file.absolute()))}", query=read_only)
    return create_async_engine(url, hide_parameters=True)


def _columns(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    inspector = sa.inspect(connection)
    if not inspector.has_table(MARK) or MARK_COLUMN not in {each["name"] for each in inspector.get_columns(MARK)}:
        return {}
    return {
        table: {each["name"]: each["type"] for each in inspector.get_columns(table)}
        for table in sorted(inspector.get_table_names())
    }
