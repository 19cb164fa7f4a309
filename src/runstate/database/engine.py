"""A database, and transactions whose callbacks and notifications follow the commit."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from functools import partial
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import lanes, postgresql, sqlite
from runstate.database.address import SQLITE, parse
from runstate.database.condition import Condition, DatabaseFile
from runstate.database.connector import Connector
from runstate.database.driver import before_commit, pace_of
from runstate.database.failures import Kind, failure_of
from runstate.database.grouping import Grouping, Work
from runstate.database.lanes import Lane, QueryLanes
from runstate.errors import ConfigurationError

POSTGRESQL_POOL = 20


class Transaction:
    """A transaction in progress, with callbacks for after its commit."""

    def __init__(self, connection: AsyncConnection, notify: Callable[[str], None]) -> None:
        self.connection = connection
        self._notify = notify
        self.waiting: list[Callable[[], None]] = []

    def before_commit(self, callback: Callable[[], None]) -> None:
        """Have *callback* called once every statement so far has succeeded and only COMMIT is left.

        On SQLite it is called in the thread that executes statements. Statements without rows are deferred until COMMIT
        there, so one of them can still fail after the block has ended.
        """
        before_commit(self.connection, callback)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Have *callback* called after the commit; it must not block."""
        self.waiting.append(callback)

    def notify(self, channel: str) -> None:
        """Notify the listeners of a channel after the commit."""
        self.after_commit(partial(self._notify, channel))


class Database:
    """Connections to one database: on SQLite one writer and several readers, on PostgreSQL one pool.

    Each kind of work has its own share of the connections (a lane): `batches`, `feed`, `subscriptions`, `keys` and
    `health` are views of the same database with other lanes. This one serves commands and services. On SQLite all lanes
    share the one writer.
    """

    def __init__(
        self,
        url: str,
        *,
        statement_timeout_seconds: float = 10,
        application: str = "runstate",
        connections: int = POSTGRESQL_POOL,
        schema: str | None = None,
        direct_url: str | None = None,
    ) -> None:
        address = parse(url)
        self.url = address.url
        self.shown = address.shown
        """The URL without its password."""
        self.file = address.file
        """The file of a SQLite database; None for PostgreSQL."""
        self.condition = Condition()
        self.schema = schema
        """PostgreSQL: the schema of the tables; None means the first of the search path."""
        self.direct: Connector | None = None
        """PostgreSQL: connector for notifications, which do not work through a pooler; None on SQLite."""
        self.connections: postgresql.Connections | None = None
        """PostgreSQL: the reused connections; None on SQLite."""
        if self.is_sqlite:
            if schema or direct_url:
                raise ConfigurationError(
                    "RUNSTATE_DATABASE_SCHEMA and RUNSTATE_DATABASE_DIRECT_URL are for PostgreSQL only."
                    " Unset them to use SQLite."
                )
            self.writer, self.reader = sqlite.engines(self.url, statement_timeout_seconds)
            self.opened = self._watch_file()
            # Only here: on PostgreSQL the writer shares the events of the reader, which would count statements twice.
            sa.event.listen(self.writer.sync_engine, "before_cursor_execute", self._count)
        else:
            settings = postgresql.settings(statement_timeout_seconds, application, schema)
            connector = Connector(address, settings)
            self.direct = Connector(parse(direct_url), settings) if direct_url else connector
            self.reader = postgresql.engine(connector, connections)
            # The engine is in autocommit mode, and migrations need transactions.
            self.writer = self.reader.execution_options(isolation_level="READ COMMITTED")
            self.connections = postgresql.Connections(self.reader, connections, connector)
        self.group = Grouping(self._execute)
        self.statements = 0
        self.listeners: list[Callable[[str], None]] = []
        """Functions that are called with the name of each notified channel."""
        self.lane = Lane(lanes.COMMANDS)
        # Queries of clients get the connections that other kinds of work do not need.
        queries = sqlite.QUERIES if self.is_sqlite else max(connections - lanes.RESERVED, lanes.FEWEST_QUERIES)
        self.query_lanes = QueryLanes(queries)
        self.batches = self._within(lanes.BATCHES)
        self.feed = self._within(lanes.FEED)
        self.subscriptions = self._within(lanes.SUBSCRIPTIONS)
        self.keys = self._within(lanes.KEYS)
        self.health = self._within(lanes.HEALTH)
        sa.event.listen(self.reader.sync_engine, "before_cursor_execute", self._count)

    def _within(self, connections: int) -> "Database":
        """Return a view of the database with its own lane."""
        # The copy shares connections and listeners; only its lane is its own.
        view = copy(self)
        view.lane = Lane(connections)
        return view

    def _watch_file(self) -> DatabaseFile:
        assert self.file  # noqa: S101 a database in memory is refused
        opened = DatabaseFile(self.file)
        for made in (self.writer, self.reader):
            sa.event.listen(made.sync_engine, "connect", lambda *_: opened.open())
        sa.event.listen(self.writer.sync_engine, "connect", lambda *_: opened.reopen_log())
        return opened

    def _count(self, *_: Any) -> None:
        self.statements += 1

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite, which has one writer and one process."""
        return self.url.drivername == SQLITE

    def channel(self, name: str) -> str:
        """Return the PostgreSQL channel for a name; replicas on other schemas of the database use other channels."""
        return f"{name}.{self.schema}" if self.schema else name

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for reading. Each statement sees all commits before its start."""
        try:
            async with self.lane.turn(), self._reader() as connection:
                yield connection
        except Exception as error:
            self.condition.fail(error)
            raise

    @asynccontextmanager
    async def query(self, statement: Any) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for a client's query. Raise Overloaded if too many wait for one, or for too long."""
        pace = pace_of(self.reader.dialect, statement)
        try:
            async with self.query_lanes.turn(pace), self._reader() as connection:
                yield connection
        except Exception as error:
            self.condition.fail(error)
            raise

    def _reader(self) -> AbstractAsyncContextManager[AsyncConnection]:
        if self.connections:
            return self.connections.use()
        # A file that was replaced, as by a restored backup, is noticed before the read and not by wrong answers.
        self.opened.glance()
        return self.reader.connect()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """Yield a transaction. It is committed at the end of the block, and rolled back if the block raises."""
        try:
            async with self._writer() as connection:
                transaction = Transaction(connection, self.notify)
                yield transaction
        except Exception as error:
            self.condition.fail(error, writing=True)
            raise
        self.condition.succeed()
        # After the block: if COMMIT fails, it raises before this, and nobody is notified.
        for callback in transaction.waiting:
            callback()

    async def write_together(self, work: Work) -> None:
        """Execute work in a transaction. On SQLite, callers at the same time share it: a commit waits for the disk."""
        if self.is_sqlite:
            # Each commit waits for the disk, which is most of the time of a small transaction.
            await self.group.submit(work)
        else:
            await self._execute([work])

    async def _execute(self, works: list[Work]) -> None:
        async with self.write() as transaction:
            for work in works:
                await work(transaction)

    def notify(self, channel: str) -> None:
        """Notify the listeners of a channel at once, about changes that are already committed."""
        for listener in self.listeners:
            listener(channel)

    async def write_fault(self) -> str | None:
        """Return why the database cannot be written; None if it can. Raise what the database raises.

        The last transaction tells if it is recent. Otherwise PostgreSQL is asked whether it is a standby, and SQLite
        writes a page.
        """
        if self.connections:
            await self._check_primary()
        else:
            self.opened.check_log()
            # A recent transaction has told already, and a running one holds the only writer.
            if not (self.condition.fault or self.condition.is_writing):
                await self._touch()
        return self.condition.fault

    async def _check_primary(self) -> None:
        async with self.read() as connection:
            # After a fail-over, connections can lead to a standby: it answers reads and refuses each write.
            if await connection.scalar(sa.text("SHOW transaction_read_only")) != "off":
                raise asyncpg.ReadOnlySQLTransactionError("PostgreSQL is read-only")

    async def _touch(self) -> None:
        """Write a page without changing anything. That it works does not say that more than a page can be written."""
        try:
            async with self._writer() as connection:
                await sqlite.touch(connection)
        except Exception as error:
            self.condition.fail(error, writing=True)
            raise

    @asynccontextmanager
    async def _writer(self) -> AsyncIterator[AsyncConnection]:
        if self.connections:
            async with self.lane.turn(), self.connections.transaction() as connection:
                yield connection
            return
        # The pool of one connection is the queue of all writers, whatever their lane.
        async with self.writer.connect() as connection:
            try:
                self.opened.check_log()
                async with connection.begin():
                    yield connection
                self.opened.check_log()
            except Exception as error:
                if failure_of(error).kind is Kind.BROKEN:
                    await connection.invalidate(error)
                raise

    async def close(self) -> None:
        """Close every connection."""
        if self.connections:
            await self.connections.close()
        await self.writer.dispose()
        await self.reader.dispose()
