"""Live queries, which are executed again after each commit: once for all subscribers to the same query.

Slow queries, or many different ones, must not overload the database. Each query pauses for at least as long as it took,
and few are executed at the same time.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.driver import fetch
from runstate.errors import ServerRestarting

CONNECTIONS: Final = 4
"""Maximum number of live queries that are executed at the same time."""
PAUSE_SECONDS: Final = 0.25
"""Shortest time between two executions of one query."""
REST_SECONDS: Final = 10
"""Time without a notification after which a query is executed again if the database has changed."""

Rows = list[list[Any]]


class LiveQueries:
    """All live queries of a server."""

    def __init__(
        self,
        database: Database,
        snapshot: Callable[[], str],
        *,
        pause_seconds: float = PAUSE_SECONDS,
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        self.database = database
        self.snapshot = snapshot
        """Returns the snapshot of the last poll, which changes with each commit; an empty text on SQLite."""
        self.pause_seconds = pause_seconds
        self.rest_seconds = rest_seconds
        self.connections = asyncio.Semaphore(CONNECTIONS)
        self.queries: dict[Hashable, LiveQuery] = {}
        self.closing = False

    async def rows(self, statement: sa.Select[Any]) -> AsyncGenerator[Rows, None]:
        """Yield the rows of a statement, and again whenever they have changed. Raise ServerRestarting at the end."""
        query = self._query(statement)
        query.subscribers += 1
        try:
            # A running execution may have begun before the subscription, and may not see its changes.
            read, rows = await query.read_after(query.started)
            yield rows
            while True:
                last = rows
                read, rows = await query.read_after(read)
                if rows != last:
                    yield rows
        finally:
            query.subscribers -= 1
            if not query.subscribers:
                self._end(query)

    def refresh(self) -> None:
        """Execute every query again, after a commit."""
        for query in self.queries.values():
            query.due.set()

    def close(self) -> None:
        """End every query."""
        self.closing = True
        self.refresh()

    def _query(self, statement: sa.Select[Any]) -> "LiveQuery":
        compiled = statement.compile(dialect=self.database.reader.dialect)
        # Equal queries of all subscribers are executed once.
        key = str(compiled), repr(sorted(compiled.params.items()))
        query = self.queries.get(key)
        # The task of a failed query has ended, so the query starts anew.
        if query is None or query.task.done():
            query = self.queries[key] = LiveQuery(self, key, statement)
        query.due.set()
        return query

    def _end(self, query: "LiveQuery") -> None:
        query.task.cancel()
        # A failed query may have been replaced already.
        if self.queries.get(query.key) is query:
            del self.queries[query.key]


class LiveQuery:
    """A query that is executed repeatedly, with the rows of its last execution."""

    def __init__(self, queries: LiveQueries, key: Hashable, statement: sa.Select[Any]) -> None:
        self.queries = queries
        self.key = key
        self.statement = statement
        self.subscribers = 0
        self.due = asyncio.Event()
        """Set if the rows may have changed since the last execution started."""
        self.started = 0
        """Number of the last execution that started."""
        self.finished = 0
        """Number of the last execution that finished; `rows` is its result."""
        self.rows: Rows = []
        self.turned = asyncio.Event()
        """Set, and replaced by a new event, at the end of each execution and of the task."""
        # The task serves all subscribers, so it must not inherit the context of the first one.
        self.task = asyncio.create_task(self._run(), context=Context())
        # Waiting subscribers must also be woken when the task ends.
        self.task.add_done_callback(lambda _: self._turn())

    async def read_after(self, number: int) -> tuple[int, Rows]:
        """Wait for an execution with a higher number; return its number and rows. Raise its exception if it fails."""
        while self.finished <= number:
            if self.task.done():
                self.task.result()
            await self.turned.wait()
        return self.finished, self.rows

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while not self.queries.closing:
            # Cleared before the read: a commit during it causes another execution.
            self.due.clear()
            snapshot, began = self.queries.snapshot(), clock()
            self.started += 1
            self.rows = await self._read()
            self.finished = self.started
            self._turn()
            # At most half of the time, so that a slow query does not keep a connection for itself.
            await asyncio.sleep(max(self.queries.pause_seconds, clock() - began))
            await self._changed_since(snapshot)
        raise ServerRestarting("")

    async def _read(self) -> Rows:
        async with self.queries.connections, self.queries.database.read() as connection:
            return await fetch(connection, self.statement)

    async def _changed_since(self, snapshot: str) -> None:
        """Wait until the rows may have changed. If a process is killed after its commit, only the snapshot shows it."""
        while not self.due.is_set() and self.queries.snapshot() == snapshot:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.queries.rest_seconds):
                    await self.due.wait()

    def _turn(self) -> None:
        self.turned.set()
        self.turned = asyncio.Event()
