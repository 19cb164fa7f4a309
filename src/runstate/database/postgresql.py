"""Connections to PostgreSQL, and transactions that its driver begins and ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runstate.database import json
from runstate.database.driver import driver_of, raised_as_sqlalchemy

KEPT: Final = 3
"""So many connections are kept for the next transactions, and always fewer than there are."""


def engine(url: sa.URL, statement_timeout_seconds: float, application: str, connections: int) -> AsyncEngine:
    """A pool of connections, whose transactions SQLAlchemy begins and ends."""
    settings = {
        "application_name": application,
        "statement_timeout": str(round(statement_timeout_seconds * 1000)),
        "idle_in_transaction_session_timeout": "60000",
        "jit": "off",
    }
    return create_async_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=connections,
        max_overflow=0,
        pool_use_lifo=True,
        connect_args={"server_settings": settings, "timeout": 5},
        **json.OPTIONS,
    )


class Writers:
    """Connections that write. Some are kept beside the pool: the way there and back costs as much as a statement."""

    def __init__(self, autocommit: AsyncEngine, connections: int) -> None:
        self.engine = autocommit
        self.most = min(KEPT, connections - 1)
        self.kept: list[AsyncConnection] = []

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end of the block, rolled back when the block raises."""
        connection, driver = await self._take()
        try:
            with raised_as_sqlalchemy("BEGIN", driver):
                transaction = driver.transaction(isolation="read_committed")
                await transaction.start()
            try:
                yield connection
            except BaseException:
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await transaction.rollback()
                raise
            with raised_as_sqlalchemy("COMMIT", driver):
                await transaction.commit()
        except BaseException:
            await self._give_up(connection, driver)
            raise
        if len(self.kept) < self.most:
            self.kept.append(connection)
        else:
            await connection.close()

    async def _take(self) -> tuple[AsyncConnection, Any]:
        while self.kept:
            connection = self.kept.pop()
            driver = driver_of(connection)
            if not driver.is_closed():
                return connection, driver
            await self._give_up(connection, driver)
        connection = await self.engine.connect()
        return connection, driver_of(connection)

    async def _give_up(self, connection: AsyncConnection, driver: Any) -> None:
        """Give a connection back after something went wrong; if it is lost, none is kept that is as old."""
        if connection.invalidated:
            pass  # SQLAlchemy has seen it
        elif driver.is_closed():
            await self.close()
            with suppress(DBAPIError):
                await connection.exec_driver_sql("SELECT 1")  # SQLAlchemy sees it, and gives up its pool
        elif driver.is_in_transaction():
            await connection.invalidate()
        await connection.close()

    async def close(self) -> None:
        """Give back the connections that are kept."""
        while self.kept:
            await self.kept.pop().close()
