"""Connections to PostgreSQL, and transactions controlled through the driver."""

import asyncio
from collections import deque
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
from runstate.database.failures import TOO_MANY_CONNECTIONS, Kind, failure_of, is_ended, sqlstate
from runstate.errors import UnknownOutcome

PATIENCE_SECONDS: Final = 2.0
"""Time to wait for one of the open connections if the database permits no more."""
FULL_SECONDS: Final = 1.0
"""Time for which no more connections are opened after that."""
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
        self.refused: deque[asyncio.Future[AsyncConnection | None]] = deque()
        """Callers that wait for one of the open connections, because the database permits no more."""
        self.in_use = 0
        """Connections that callers use now. The pool also counts those that are kept or being opened."""
        self.full_until = 0.0
        """Time until which no more connections are opened, by the loop's clock."""

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
        self.in_use += 1
        # Read before the block: an invalidated connection has no driver connection any more.
        driver = driver_of(connection)
        try:
            yield connection
        # Also after a cancellation, which can leave the driver in the middle of a statement.
        except BaseException as error:
            self.in_use -= 1
            await self._discard(connection, driver, error)
            raise
        self.in_use -= 1
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
            await _commit(driver, writing=begin == BEGIN)

    async def _take(self) -> AsyncConnection:
        while True:
            while self.kept:
                connection = self.kept.pop()
                driver = driver_of(connection)
                if not driver.is_closed():
                    return connection
                await self._discard(connection, driver)
            if opened := await (self._next() if self._is_full else self._connect()):
                return opened

    @property
    def _is_full(self) -> bool:
        """Whether the database has just refused one more connection, and all open ones are in use."""
        pool: Any = self.pool.pool
        return asyncio.get_running_loop().time() < self.full_until and self.in_use > 0 and not pool.checkedin()

    async def _connect(self) -> AsyncConnection | None:
        """Return a connection from the pool; None if the database permits no more, but others are open."""
        self.waiting += 1
        try:
            return await self.pool.connect()
        except (DBAPIError, asyncpg.PostgresError) as error:
            if not self.in_use:
                # Nobody else has a connection to return, so those who wait for one have to try themselves.
                while self._hand_over(None):
                    pass
            if sqlstate(error) != TOO_MANY_CONNECTIONS or not self.in_use:
                raise
            self.full_until = asyncio.get_running_loop().time() + FULL_SECONDS
            return None
        finally:
            self.waiting -= 1

    async def _next(self) -> AsyncConnection | None:
        """Wait for the next connection that a caller returns; None if it was closed instead."""
        refused: asyncio.Future[AsyncConnection | None] = asyncio.get_running_loop().create_future()
        self.refused.append(refused)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await refused
        except BaseException as error:
            with suppress(ValueError):
                self.refused.remove(refused)
            # The connection may have come at the same moment.
            if refused.done() and not refused.cancelled() and (connection := refused.result()):
                await self._put_back(connection)
            if isinstance(error, TimeoutError):
                raise asyncpg.TooManyConnectionsError("the database permits no more connections") from None
            raise

    def _hand_over(self, connection: AsyncConnection | None) -> bool:
        """Give a connection, or the room for one, to the caller that waits longest. Return whether there is one."""
        while self.refused:
            refused = self.refused.popleft()
            if not refused.done():
                refused.set_result(connection)
                return True
        return False

    async def _put_back(self, connection: AsyncConnection) -> None:
        if self._hand_over(connection):
            return
        # A waiting caller waits in the pool and would not find a kept connection.
        if self.waiting or len(self.kept) >= self.most:
            await connection.close()
        else:
            self.kept.append(connection)

    async def _discard(self, connection: AsyncConnection, driver: Any, error: BaseException | None = None) -> None:
        """Return a connection to the pool after an error. If it is lost or stale, replace all that are as old."""
        is_stale = error is not None and (failure_of(error).kind is Kind.STALE or is_ended(error))
        try:
            if not connection.invalidated and (is_stale or driver.is_closed()):
                await self.renew(connection)
            if not connection.invalidated and driver.is_in_transaction():  # ROLLBACK failed or was cancelled
                await connection.invalidate()
        finally:  # also if the caller is cancelled meanwhile
            await connection.close()
            self._hand_over(None)

    async def renew(self, connection: AsyncConnection) -> None:
        """Close a connection that is in use, and replace all that are as old when they are used next."""
        await self.close()
        sync: Any = connection.sync_connection
        pool: Any = self.pool.pool
        pool._invalidate(sync.connection, _checkin=False)  # noqa: SLF001 as SQLAlchemy does if it sees that one is lost
        await connection.invalidate()

    async def close(self) -> None:
        """Return all kept connections to the pool."""
        while self.kept:
            await self.kept.pop().close()


async def _commit(driver: Any, *, writing: bool) -> None:
    """Commit. Raise UnknownOutcome if the connection is lost meanwhile and something is to be written."""
    try:
        with raised_as_sqlalchemy("COMMIT", driver):
            await driver.execute("COMMIT")
    except Exception as error:
        if writing and failure_of(error).kind is Kind.LOST:
            raise UnknownOutcome from error
        raise
