"""Connections to SQLite: one that writes beside several that read, each with a thread of its own."""

import asyncio
import math
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypeVar

import aiosqlite
import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runstate.database import json, lanes
from runstate.errors import ConfigurationError

T = TypeVar("T")

QUERIES = 5
"""Connections for queries of clients: threads, which take the interpreter from each other."""
READERS = QUERIES + lanes.RESERVED - lanes.BATCHES
STEPS = 10_000
"""Steps of the SQLite virtual machine between two checks of the deadline."""
FETCH_LOCK = Lock()
"""Held while many rows are fetched. A thread releases the interpreter lock at each row, so several threads at once take
it from each other all the time and need twice as long. Work before the first row is done concurrently.
"""
MANY = 20
"""Number of rows that are fetched without the lock."""
FETCH_LOCK_SECONDS = 0.02
"""Time for which a thread waits for the lock."""
WORK_SECONDS = 0.0001
"""How long functions of a statement keep the interpreter from other threads while somebody writes."""
YIELD_SECONDS = 0.0002
"""How long they leave it to others: long enough for a thread to wake."""
LASTING_SECONDS = 0.05
"""How long after a transaction another one is expected."""
NO_TIMEOUT = "patient"
"""Execution option of statements without a deadline."""
BEGIN_WRITING = "BEGIN IMMEDIATE"
BUSY_SECONDS = 10
"""Time for which a statement waits for another process that writes to the file."""


class LateError(Exception):
    """The deadline of a statement has passed."""


class Interruptible(aiosqlite.Connection):
    """A connection to SQLite whose statements end when their caller is cancelled.

    Its thread would continue such a statement, and SQLAlchemy would wait for the connection to close: forever, if the
    event loop ends meanwhile.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.deferred: list[Callable[[], None]] = []
        """Calls that return no rows, and so can wait for the next turn of the thread."""
        self.deadline = math.inf
        """Time at which the current statement is interrupted, by the monotonic clock."""
        self.yield_at = 0.0
        """When functions of the statement next leave the interpreter to other threads, by the monotonic clock."""
        self.writing_until = 0.0
        self.transactions: Callable[[], int] = int
        """Returns how many transactions write."""
        self.parsed: dict[str, Any] = {}
        """Parsed JSON parameters of the current statement."""

    async def _connect(self) -> aiosqlite.Connection:
        """Connect; if that fails, wait until the thread has ended, for it answers to a loop that may end sooner."""
        try:
            return await super()._connect()
        except Exception:
            await asyncio.to_thread(self._thread.join)
            raise

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            if self._connection:
                self._connection.interrupt()
                await super()._execute(_nothing)  # type: ignore[no-untyped-call]
            raise

    def is_late(self) -> bool:
        """Return whether the deadline of the statement has passed."""
        return time.monotonic() > self.deadline

    def check(self) -> None:
        """Raise LateError if the deadline of the statement has passed. Let other threads work if somebody writes.

        A function is called for each row. Between two calls, this thread lets go of the interpreter for so short a time
        that no other one wakes: the writer and the event loop would wait for the switch interval at each step.
        """
        now = time.monotonic()
        if now > self.deadline:
            raise LateError
        if now > self.yield_at:
            if self.transactions():
                self.writing_until = now + LASTING_SECONDS
            if now < self.writing_until:
                time.sleep(YIELD_SECONDS)
            self.yield_at = time.monotonic() + WORK_SECONDS

    def parse(self, text: str) -> Any:
        """Return the value of a JSON parameter, which is parsed once for all rows."""
        if text not in self.parsed:
            self.parsed[text] = orjson.loads(text)
        return self.parsed[text]

    def function(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call a function for a row of the statement that runs, which ends when its deadline has passed."""
        try:
            return function(self, *arguments)
        except LateError:
            self._conn.interrupt()
            return None

    def catch_up(self) -> None:
        """Execute deferred statements, in the thread; the first that fails ends it."""
        waiting, self.deferred = self.deferred, []
        for each in waiting:
            each()

    async def commit(self) -> None:
        """Execute deferred statements and commit."""
        await self._execute(self._commit)

    def _commit(self) -> None:
        self.catch_up()
        self._conn.commit()

    async def rollback(self) -> None:
        """Roll back if a transaction has begun, and drop deferred statements."""
        self.deferred = []
        if self.in_transaction:
            await super().rollback()

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        """The rows of a statement."""
        return await (await self.cursor().execute(sql, parameters)).fetchall()

    def later(self, method: str, sql: str, parameters: Any) -> None:
        """Defer a call that returns no rows."""
        self.deferred.append(partial(BufferedCursor(self).now, method, sql, parameters))

    def cursor(self) -> "BufferedCursor":  # type: ignore[override]
        """A cursor; none is made before there is a statement."""
        return BufferedCursor(self)


class BufferedCursor(aiosqlite.Cursor):
    """A cursor that has a statement executed and its rows fetched in one turn of the thread, instead of in four."""

    def __init__(self, connection: Interruptible) -> None:
        self._conn = self._of = connection
        self._rows: list[Any] = []
        self._about: tuple[Any, int, int | None] = None, -1, None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Any = ()) -> "BufferedCursor":
        """Execute a statement and fetch its rows; a transaction begins with the first of them."""
        if sql == BEGIN_WRITING:
            self._of.later("execute", sql, parameters)
            return self
        await self._execute(self._turn, "execute", sql, parameters)  # type: ignore[no-untyped-call]
        return self

    async def executemany(self, sql: str, parameters: Any) -> "BufferedCursor":
        """Execute a statement that gives no rows for each of several parameters: before the next one, or the commit."""
        self._of.later("executemany", sql, parameters)
        return self

    def _turn(self, method: str, sql: str, parameters: Any) -> None:
        self._of.catch_up()
        self.now(method, sql, parameters)

    def now(self, method: str, sql: str, parameters: Any) -> None:
        """Do something, in the thread."""
        try:
            with closing(self._conn._conn.cursor()) as cursor:  # noqa: SLF001 in the thread, where it is aiosqlite's own
                getattr(cursor, method)(sql, parameters)
                self._rows = _fetched(cursor) if cursor.description else []
                self._about = cursor.description, cursor.rowcount, cursor.lastrowid
        finally:
            self._of.parsed.clear()

    async def fetchall(self) -> list[Any]:
        """All rows."""
        return self._rows

    async def close(self) -> None:
        """Nothing is open."""

    @property
    def description(self) -> Any:
        """Descriptions of the columns; None if the statement returned no rows."""
        return self._about[0]

    @property
    def rowcount(self) -> int:
        """Number of changed rows; -1 if the statement returned rows."""
        return self._about[1]

    @property
    def lastrowid(self) -> int | None:
        """Row id of the row that was inserted last."""
        return self._about[2]


def _fetched(cursor: sqlite3.Cursor) -> list[Any]:
    """Return the rows of a cursor. Threads fetch many rows one after another, unless one takes long."""
    rows = cursor.fetchmany(MANY)
    if len(rows) < MANY:
        return rows
    alone = FETCH_LOCK.acquire(timeout=FETCH_LOCK_SECONDS)
    try:
        return rows + cursor.fetchall()
    finally:
        if alone:
            FETCH_LOCK.release()


def _nothing() -> None:
    """Do nothing: once the thread has executed this, it has executed all that was submitted before."""


def _interruptible(database: str, **options: Any) -> aiosqlite.Connection:
    connection = Interruptible(partial(sqlite3.connect, database, **options), iter_chunk_size=64)
    connection._thread.daemon = True  # noqa: SLF001 as SQLAlchemy has it
    return connection


def _set_deadline(seconds: float) -> Callable[..., None]:
    """Return a listener that gives each statement its deadline, unless it is known to take long."""

    def begin(connection: sa.Connection, *_: Any) -> None:
        patient = connection.get_execution_options().get(NO_TIMEOUT, False)
        driver: Any = connection.connection.driver_connection
        driver.deadline = math.inf if patient else time.monotonic() + seconds

    return begin


def engines(url: sa.URL, statement_timeout_seconds: float) -> tuple[AsyncEngine, AsyncEngine]:
    """Return an engine with one connection that writes, and one with several that read."""
    if url.database in (None, "", ":memory:"):
        raise ConfigurationError("An in-memory SQLite database has no readers of its own: name a file.")
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    options = {
        "max_overflow": 0,
        "pool_timeout": 60,
        "hide_parameters": True,  # errors are logged, and parameters are what clients sent
        "connect_args": {"async_creator_fn": _interruptible},
        **json.OPTIONS,
    }
    writer = create_async_engine(url, pool_size=1, **options)
    reader = create_async_engine(url, pool_size=READERS, pool_use_lifo=True, **options)
    for engine, begin in ((writer, BEGIN_WRITING), (reader, "BEGIN")):
        sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite(read_only=engine is reader))
        sa.event.listen(engine.sync_engine, "connect", _watch_statements)
        sa.event.listen(engine.sync_engine, "begin", _begin(begin))
        sa.event.listen(engine.sync_engine, "before_cursor_execute", _set_deadline(statement_timeout_seconds))
    sa.event.listen(reader.sync_engine, "connect", _give_way(writer))
    return writer, reader


def _give_way(writer: AsyncEngine) -> Callable[[Any, Any], None]:
    def prepare(connection: Any, _: Any) -> None:
        connection.driver_connection.transactions = writer.pool.checkedout  # type: ignore[attr-defined]

    return prepare


def _watch_statements(connection: Any, _: Any) -> None:
    """Have statements end at their deadline, and give them functions for which PostgreSQL has operators."""
    functions = (
        ("json_equals", 3, json.equals),
        ("json_contains", 3, json.contains),
        ("json_is_null", 2, json.is_null),
        ("text_contains", 2, _text_contains),
        ("place_among", 2, _place_among),
    )
    driver: Interruptible = connection.driver_connection
    connection.run_async(lambda _: driver.set_progress_handler(driver.is_late, STEPS))
    for name, arguments, function in functions:
        connection.create_function(name, arguments, partial(driver.function, function), deterministic=True)


def _text_contains(statement: Interruptible, value: str | None, text: str) -> bool | None:
    statement.check()
    return None if value is None else text.lower() in value.lower()


def _place_among(statement: Interruptible, instant: int | None, starts: str) -> int | None:
    statement.check()
    return None if instant is None else bisect_right(statement.parse(starts), instant)


def _prepare_sqlite(*, read_only: bool) -> Callable[[Any, Any], None]:
    """Return a listener that sets a write-ahead log, durable commits, foreign keys, and explicit transactions."""

    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        _write_ahead(cursor)
        for pragma in (
            "synchronous = FULL",
            "foreign_keys = ON",
            "cache_size = -65536",
            "temp_store = MEMORY",
            *(["query_only = ON"] if read_only else []),
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return prepare


def _write_ahead(cursor: Any) -> None:
    """Turn the write-ahead log on. If another process does so at the same time, SQLite raises instead of waiting."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
        else:
            return


def _begin(statement: str) -> Callable[[sa.Connection], None]:
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin
