"""Connections to PostgreSQL, and transactions that its driver begins and ends."""

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
from runstate.database.failures import TOO_MANY_CONNECTIONS, Kind, failure_of, sqlstate
from runstate.errors import UnknownOutcome

PATIENCE_SECONDS: Final = 2.0
"""Time to wait for one of the open connections if the database permits no more."""
FULL_SECONDS: Final = 1.0
"""Time for which no more connections are opened after that."""
RESERVED: Final = 4
"""So many connections always come from the pool, for those who take one of there themselves."""

BEGIN_READING: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL enable_seqscan = off"
"""Who writes looks for rows by key. Plans are kept, and one made when a table was new would read all of it each time,
until PostgreSQL looks at the table again, a minute and a hundred thousand rows later.
"""


def settings(statement_timeout_seconds: float, application: str, schema: str | None) -> dict[str, str]:
    """Return the settings of a session."""
    in_schema = {"search_path": quoted_name(schema)} if schema else {}
    return {
        "application_name": application,
        "statement_timeout": str(round(statement_timeout_seconds * 1000)),
        "idle_in_transaction_session_timeout": "60000",
        "jit": "off",
        **in_schema,
    }


def quoted_name(name: str) -> str:
    """Return a name as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'


def engine(connector: Connector, connections: int) -> AsyncEngine:
    """A pool of connections on which each statement is committed by itself."""
    made = create_async_engine(
        connector.address.url,
        isolation_level="AUTOCOMMIT",
        pool_size=connections,
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
            connection._prepared_statement_cache = None  # noqa: SLF001 known too late for its argument

    def set_locally(connection: sa.Connection) -> None:
        if connector.is_pooled:
            connection.exec_driver_sql(connector.local_settings.removeprefix("; "))

    sa.event.listen(made.sync_engine, "connect", forget_statements)
    sa.event.listen(made.sync_engine, "begin", set_locally)
    return made


class Connections:
    """Connections that stay out of the pool when nobody uses them: the way there and back costs more than a statement.

    Only as long as nobody waits for one.
    """

    def __init__(self, pool: AsyncEngine, connections: int, connector: Connector) -> None:
        self.pool = pool
        self.connector = connector
        self.most = max(connections - RESERVED, 1)
        self.kept: list[AsyncConnection] = []
        self.asked = 0
        """How many wait for one from the pool."""
        self.waiting: deque[asyncio.Future[AsyncConnection | None]] = deque()
        """Those who wait for one of the open connections, because the database permits no more."""
        self.full_until = 0.0
        """Time until which no more connections are opened, by the loop's clock."""

    def use(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection on which each statement is committed by itself; through a pooler, in one transaction."""
        return self._within(BEGIN_READING) if self.connector.is_pooled else self._use()

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection in a transaction: committed at the end of the block, rolled back when the block raises."""
        return self._within(BEGIN)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[AsyncConnection]:
        connection = await self._take()
        driver = driver_of(connection)
        try:
            yield connection
        except BaseException as error:
            await self._discard(connection, driver, error)
            raise
        await self._put_back(connection)

    @asynccontextmanager
    async def _within(self, begin: str) -> AsyncIterator[AsyncConnection]:
        async with self._use() as connection:
            driver = driver_of(connection)
            with raised_as_sqlalchemy("BEGIN", driver):
                await driver.execute(begin + self.connector.local_settings)
            try:
                yield connection
            except BaseException:
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
            if connection := await (self._next() if self._is_full else self._connect()):
                return connection

    @property
    def _is_full(self) -> bool:
        """Whether the database has just refused one more connection, and others are open."""
        return asyncio.get_running_loop().time() < self.full_until and self._in_use > 0

    @property
    def _in_use(self) -> int:
        pool: Any = self.pool.pool
        in_use: int = pool.checkedout()
        return in_use

    async def _connect(self) -> AsyncConnection | None:
        """Return a connection from the pool; None if the database permits no more, but others are open."""
        self.asked += 1
        try:
            return await self.pool.connect()
        except (DBAPIError, asyncpg.PostgresError) as error:
            if sqlstate(error) != TOO_MANY_CONNECTIONS or not self._in_use:
                raise
            self.full_until = asyncio.get_running_loop().time() + FULL_SECONDS
            return None
        finally:
            self.asked -= 1

    async def _next(self) -> AsyncConnection | None:
        """Return the next connection that is given back; None if one was closed instead."""
        waiting: asyncio.Future[AsyncConnection | None] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiting)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await waiting
        except BaseException as error:
            with suppress(ValueError):
                self.waiting.remove(waiting)
            if waiting.done() and not waiting.cancelled() and (connection := waiting.result()):
                await self._put_back(connection)
            if isinstance(error, TimeoutError):
                raise asyncpg.TooManyConnectionsError("the database permits no more connections") from None
            raise

    def _hand_over(self, connection: AsyncConnection | None) -> bool:
        """Give a connection, or the room for one, to whoever has waited longest for it. Return whether anybody has."""
        while self.waiting:
            waiting = self.waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False

    async def _put_back(self, connection: AsyncConnection) -> None:
        if self._hand_over(connection):
            return
        if self.asked or len(self.kept) >= self.most:
            await connection.close()
        else:
            self.kept.append(connection)

    async def _discard(self, connection: AsyncConnection, driver: Any, error: BaseException | None = None) -> None:
        """Give a connection back after something went wrong; if it is lost or stale, none is kept that is as old."""
        is_stale = error is not None and failure_of(error).kind is Kind.STALE
        if not connection.invalidated and (is_stale or driver.is_closed()):
            await self.renew(connection)
        if not connection.invalidated and driver.is_in_transaction():
            await connection.invalidate()
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
        """Give back the connections that are kept."""
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
