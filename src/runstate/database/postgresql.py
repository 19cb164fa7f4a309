"""Connections to PostgreSQL, and transactions controlled through the driver."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runstate.database import json
from runstate.database.connector import Connector
from runstate.database.driver import driver_of, raised_as_sqlalchemy

RESERVED: Final = 4
"""Connections that are never kept outside the pool, for code that uses the pool directly."""

BEGIN_READING: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL enable_seqscan = off"
"""Writing transactions find rows by key. A plan that was cached while the table was empty would scan the growing table
until autovacuum analyzes it, a minute and a hundred thousand rows later.
"""


def settings(statement_timeout_seconds: float, application: str, schema: str | None) -> dict[str, str]:
    """Return the settings of each session."""
    in_schema = {"search_path": quoted_name(schema)} if schema else {}
    return {
        "application_name": application,
        "statement_timeout": str(round(statement_timeout_seconds * 1000)),
        "idle_in_transaction_session_timeout": "60000",  # a server that hangs must not hold its locks for longer
        "jit": "off",
        **in_schema,
    }


def quoted_name(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def engine(connector: Connector, connections: int) -> AsyncEngine:
    """Return an engine whose connections commit each statement by itself."""
    made = create_async_engine(
        connector.address.url,
        # In a transaction, each read would take two more round trips.
        isolation_level="AUTOCOMMIT",
        pool_size=connections,
        # The setting is the exact number of connections that a process has.
        max_overflow=0,
        pool_use_lifo=True,
        hide_parameters=True,  # errors are logged, and parameters are what clients sent
        connect_args={
            "async_creator_fn": lambda *_, **__: connector.connect(),
            "prepared_statement_name_func": connector.statement_name,
        },
        **json.OPTIONS,
    )

    def forget_statements(connection: Any, _: Any) -> None:
        if connector.is_pooled:
            connection._prepared_statement_cache = None  # noqa: SLF001 a pooler is detected after the engine's creation

    def set_locally(connection: sa.Connection) -> None:
        if connector.is_pooled:
            connection.exec_driver_sql(connector.local_settings.removeprefix("; "))

    sa.event.listen(made.sync_engine, "connect", forget_statements)
    sa.event.listen(made.sync_engine, "begin", set_locally)
    return made


class Connections:
    """Idle connections that are kept outside the pool: a checkout and check-in cost more than a statement.

    A connection is returned to the pool if a caller is waiting for one.
    """

    def __init__(self, pool: AsyncEngine, connections: int, connector: Connector) -> None:
        self.pool = pool
        self.connector = connector
        self.most = max(connections - RESERVED, 1)
        self.kept: list[AsyncConnection] = []
        self.waiting = 0
        """Number of callers that wait for a connection from the pool."""

    def use(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection that commits each statement by itself; with a pooler, one in a transaction."""
        # A pooler assigns a session for one transaction, in which the settings must be set.
        return self._within(BEGIN_READING) if self.connector.is_pooled else self._use()

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection in a transaction: committed at the end of the block, rolled back if the block raises."""
        return self._within(BEGIN)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[AsyncConnection]:
        connection = await self._take()
        # Read before the block: an invalidated connection has no driver connection any more.
        driver = driver_of(connection)
        try:
            yield connection
        # Also after a cancellation, which can leave the driver in the middle of a statement.
        except BaseException:
            await self._discard(connection, driver)
            raise
        await self._put_back(connection)

    @asynccontextmanager
    async def _within(self, begin: str) -> AsyncIterator[AsyncConnection]:
        async with self._use() as connection:
            driver = driver_of(connection)
            with raised_as_sqlalchemy("BEGIN", driver):
                # One message: the settings of a pooled transaction cost no round trip.
                await driver.execute(begin + self.connector.local_settings)
            try:
                yield connection
            except BaseException:
                # The error of the block matters more than that of the ROLLBACK, which fails if the connection is lost.
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await driver.execute("ROLLBACK")
                raise
            with raised_as_sqlalchemy("COMMIT", driver):
                await driver.execute("COMMIT")

    async def _take(self) -> AsyncConnection:
        while self.kept:
            connection = self.kept.pop()
            driver = driver_of(connection)
            if not driver.is_closed():
                return connection
            await self._discard(connection, driver)
        self.waiting += 1
        try:
            return await self.pool.connect()
        finally:
            self.waiting -= 1

    async def _put_back(self, connection: AsyncConnection) -> None:
        # A waiting caller waits in the pool and would not find a kept connection.
        if self.waiting or len(self.kept) >= self.most:
            await connection.close()
        else:
            self.kept.append(connection)

    async def _discard(self, connection: AsyncConnection, driver: Any) -> None:
        """Return a connection to the pool after an error. If it was lost, return all kept connections too."""
        if connection.invalidated:
            pass  # SQLAlchemy has invalidated its pool already
        elif driver.is_closed():
            await self.close()
            with suppress(DBAPIError):
                await connection.exec_driver_sql("SELECT 1")  # fails, so that SQLAlchemy invalidates its whole pool
        elif driver.is_in_transaction():  # ROLLBACK failed or was cancelled
            await connection.invalidate()
        await connection.close()

    async def close(self) -> None:
        """Return all kept connections to the pool."""
        while self.kept:
            await self.kept.pop().close()
