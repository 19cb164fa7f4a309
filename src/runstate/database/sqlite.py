"""Connections to SQLite: one that writes and several that read, each with its own thread."""

import asyncio
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypeVar

import aiosqlite
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runstate.database import json, lanes, patterns
from runstate.database.budget import ReadBudget, Rows, texts_at
from runstate.documents import exact_json
from runstate.errors import ConfigurationError, LimitExceeded, Overloaded

T = TypeVar("T")

QUERIES = 5
"""Connections for queries of clients. Each is a thread, and threads compete for the interpreter lock."""
READERS = QUERIES + lanes.RESERVED - lanes.BATCHES
STEPS = 10_000
"""Steps of the SQLite virtual machine between two checks of the deadline."""
FETCH_LOCK = Lock()
"""Held while many rows are fetched. A thread releases the interpreter lock at each row, so threads that fetch at the
same time hinder each other and take twice as long. Work before the first row is done concurrently.
"""
MANY = 16
"""Number of rows that are fetched without the lock, and counted together: a row may have more than a megabyte."""
FETCH_LOCK_SECONDS = 0.02
"""Time for which a thread waits for the lock."""
WORK_SECONDS = 0.0001
"""Time for which SQL functions of a statement hold the interpreter lock before they yield to a writer."""
YIELD_SECONDS = 0.0002
"""Duration of one yield: long enough for another thread to wake."""
LASTING_SECONDS = 0.05
"""Time after a writing transaction for which SQL functions still yield, because another one may follow."""
NO_TIMEOUT = "patient"
"""Execution option of statements without a deadline."""
BEGIN_WRITING = "BEGIN IMMEDIATE"
BUSY_SECONDS = 10
"""Time for which a statement waits for another process that writes to the file."""


class LateError(Exception):
    """The deadline of a statement has passed."""


class Interruptible(aiosqlite.Connection):
    """A connection to SQLite that interrupts a statement at its deadline or when its caller is cancelled.

    Otherwise the thread would continue the statement, and SQLAlchemy would wait for the connection to close: forever,
    if the event loop ends meanwhile.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.deferred: list[Callable[[], None]] = []
        """Calls without rows. The thread executes them with the next statement or COMMIT, to save switches."""
        self.deadline = math.inf
        """Time at which the current statement is interrupted, by the monotonic clock."""
        self.yield_at = 0.0
        """Time at which SQL functions yield next, by the monotonic clock."""
        self.writing_until = 0.0
        """Time until which SQL functions yield, by the monotonic clock."""
        self.transactions: Callable[[], int] = int
        """Returns the number of writing transactions."""
        self.parsed: dict[str, Any] = {}
        """Parsed JSON parameters of the current statement."""
        self.budget: ReadBudget | None = None
        """Limits the bytes that the current statement may read."""
        self.texts = texts_at(())
        """Returns the texts of rows that the current statement reads."""

    async def _connect(self) -> aiosqlite.Connection:
        """Connect. After a failure, wait for the end of the thread: it reports to an event loop that may end sooner."""
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
                # Thread-safe: SQLite ends the running statement with SQLITE_INTERRUPT at its next step.
                self._connection.interrupt()
                # The connection is free again only when its thread has left the statement.
                await super()._execute(_nothing)  # type: ignore[no-untyped-call]
            raise

    def is_late(self) -> bool:
        """Return whether the deadline of the statement has passed."""
        return time.monotonic() > self.deadline

    def check(self) -> None:
        """Raise LateError if the deadline of the statement has passed. Yield to other threads during transactions.

        An SQL function is called for each row. Between two calls, this thread releases the interpreter lock for such a
        short time that no other thread wakes. Without yields, the writer and the event loop would wait for the switch
        interval at each step.
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
        """Return the value of a JSON parameter. It is parsed once for all rows."""
        if text not in self.parsed:
            self.parsed[text] = exact_json.loads(text)
        return self.parsed[text]

    def function(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call an SQL function for a row of the running statement. Interrupt the statement after its deadline."""
        try:
            return function(self, *arguments)
        except LateError:
            self._conn.interrupt()
            return None

    def catch_up(self) -> None:
        """Execute the deferred calls, in the thread. A failure drops the remaining ones."""
        # Taken first: a call that fails must not be repeated with the next statement.
        waiting, self.deferred = self.deferred, []
        for each in waiting:
            each()

    async def commit(self) -> None:
        """Execute the deferred calls and commit, in one turn of the thread."""
        await self._execute(self._commit)

    def _commit(self) -> None:
        self.catch_up()
        self._conn.commit()

    async def rollback(self) -> None:
        """Roll back if a transaction has begun, and drop deferred statements."""
        self.deferred = []
        # BEGIN is deferred, so there may be no transaction yet.
        if self.in_transaction:
            await super().rollback()

    @asynccontextmanager
    async def within(self, budget: ReadBudget, texts: Callable[[Rows], Iterable[Any]]) -> AsyncIterator[None]:
        """Limit the bytes of the rows that are fetched; `texts` returns their texts."""
        self.budget, self.texts = budget, texts
        try:
            yield
        finally:
            self.budget = None

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        """Return the rows of a statement."""
        return await (await self.cursor().execute(sql, parameters)).fetchall()

    def later(self, method: str, sql: str, parameters: Any) -> None:
        """Defer a call that returns no rows."""
        self.deferred.append(partial(BufferedCursor(self).now, method, sql, parameters))

    def cursor(self) -> "BufferedCursor":  # type: ignore[override]
        """Return a cursor. SQLite's own cursor is created with the first statement."""
        return BufferedCursor(self)


class BufferedCursor(aiosqlite.Cursor):
    """A cursor that executes a statement and fetches its rows in one turn of the thread; aiosqlite needs four."""

    def __init__(self, connection: Interruptible) -> None:
        self._conn = self._of = connection
        self._rows: list[Any] = []
        self._about: tuple[Any, int, int | None] = None, -1, None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Any = ()) -> "BufferedCursor":
        """Execute a statement and fetch its rows. The BEGIN of a writer is deferred to its first statement."""
        # A turn of the thread less for each transaction: BEGIN has no rows that somebody waits for.
        if sql == BEGIN_WRITING:
            self._of.later("execute", sql, parameters)
            return self
        await self._execute(self._turn, "execute", sql, parameters)  # type: ignore[no-untyped-call]
        return self

    async def executemany(self, sql: str, parameters: Any) -> "BufferedCursor":
        """Defer a statement without rows, to be executed with each of several parameters."""
        self._of.later("executemany", sql, parameters)
        return self

    def _turn(self, method: str, sql: str, parameters: Any) -> None:
        self._of.catch_up()
        self.now(method, sql, parameters)

    def now(self, method: str, sql: str, parameters: Any) -> None:
        """Call a method of a SQLite cursor and fetch its rows, in the thread."""
        try:
            with closing(self._conn._conn.cursor()) as cursor:  # noqa: SLF001 aiosqlite uses it in its thread, too
                getattr(cursor, method)(sql, parameters)
                self._rows = self._fetched(cursor) if cursor.description else []
                self._about = cursor.description, cursor.rowcount, cursor.lastrowid
        except (LimitExceeded, Overloaded) as error:
            raise error.with_traceback(None) from None  # its frames hold what was read
        finally:
            # The parameters of earlier statements would fill the memory.
            self._of.parsed.clear()

    def _fetched(self, cursor: sqlite3.Cursor) -> list[Any]:
        """Return the rows of a cursor. Threads fetch many rows in turn, but none waits long for another."""
        # Most statements return few rows, and finish without the lock.
        rows = self._some(cursor)
        if len(rows) < MANY:
            return rows
        alone = FETCH_LOCK.acquire(timeout=FETCH_LOCK_SECONDS)
        try:
            # Without a budget nothing is counted between rows, so one call fetches all.
            if self._of.budget is None:
                return rows + cursor.fetchall()
            while more := self._some(cursor):
                rows += more
            return rows
        finally:
            if alone:
                FETCH_LOCK.release()

    def _some(self, cursor: sqlite3.Cursor) -> list[Any]:
        rows = cursor.fetchmany(MANY)
        if rows and self._of.budget:
            self._of.budget.spend_rows(rows, self._of.texts)
        return rows

    async def fetchall(self) -> list[Any]:
        """Return all rows."""
        return self._rows

    async def close(self) -> None:
        """Do nothing: the SQLite cursor is closed already."""

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
        """Row id of the last inserted row."""
        return self._about[2]


def _nothing() -> None:
    """Do nothing. A caller that waits for this waits for everything that the thread was to execute before."""


def _interruptible(database: str, **options: Any) -> aiosqlite.Connection:
    connection = Interruptible(partial(sqlite3.connect, database, **options), iter_chunk_size=64)
    connection._thread.daemon = True  # noqa: SLF001 SQLAlchemy does the same, so that a process can exit
    return connection


def _set_deadline(seconds: float) -> Callable[..., None]:
    """Return a listener that sets the deadline of each statement, unless NO_TIMEOUT is set."""

    def begin(connection: sa.Connection, *_: Any) -> None:
        patient = connection.get_execution_options().get(NO_TIMEOUT, False)
        driver: Any = connection.connection.driver_connection
        driver.deadline = math.inf if patient else time.monotonic() + seconds

    return begin


def engines(url: sa.URL, statement_timeout_seconds: float) -> tuple[AsyncEngine, AsyncEngine]:
    """Return the engine of the writer, with one connection, and the engine of the readers."""
    # Each connection would have a database of its own.
    if url.database in (None, "", ":memory:"):
        raise ConfigurationError("In-memory SQLite databases are not supported. Use a file: sqlite:///runstate.db.")
    # SQLite creates the file, but not its folder.
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    options = {
        "max_overflow": 0,
        "pool_timeout": 60,
        "hide_parameters": True,  # errors are logged, and parameters are what clients sent
        "connect_args": {"async_creator_fn": _interruptible},
        **json.SQLITE_OPTIONS,
    }
    # SQLite has one writer at a time. The pool is a fair queue; SQLite's own lock is polled, in no order.
    writer = create_async_engine(url, pool_size=1, **options)
    # The connection that was used last has the most pages in its cache.
    reader = create_async_engine(url, pool_size=READERS, pool_use_lifo=True, **options)
    # A transaction that reads first and asks for the write lock later could fail, so writers lock the file at once.
    for engine, begin in ((writer, BEGIN_WRITING), (reader, "BEGIN")):
        sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite(read_only=engine is reader))
        sa.event.listen(engine.sync_engine, "connect", _watch_statements)
        sa.event.listen(engine.sync_engine, "begin", _begin(begin))
        sa.event.listen(engine.sync_engine, "before_cursor_execute", _set_deadline(statement_timeout_seconds))
    sa.event.listen(reader.sync_engine, "connect", _give_way(writer))
    return writer, reader


async def touch(connection: AsyncConnection) -> None:
    """Write a page of the file without changing anything."""
    # Setting the number that is there writes the header of the file, which fails if the disk is full or read-only.
    version = await connection.scalar(sa.text("PRAGMA user_version"))
    await connection.exec_driver_sql(f"PRAGMA user_version = {version}")


def _give_way(writer: AsyncEngine) -> Callable[[Any, Any], None]:
    def prepare(connection: Any, _: Any) -> None:
        # The writer is checked out for exactly as long as a transaction lasts.
        connection.driver_connection.transactions = writer.pool.checkedout  # type: ignore[attr-defined]

    return prepare


def _watch_statements(connection: Any, _: Any) -> None:
    """Make statements end at their deadline, and register functions in place of PostgreSQL's operators."""
    functions = (
        ("json_equals", 3, json.equals),
        ("json_contains", 3, json.contains),
        ("json_is_null", 2, json.is_null),
        ("json_text", 2, json.text),
        ("text_fits", 2, _text_fits),
        ("text_contains", 2, _text_contains),
    )
    driver: Interruptible = connection.driver_connection
    # A handler at each step would cost more than the statement.
    connection.run_async(lambda _: driver.set_progress_handler(driver.is_late, STEPS))
    for name, arguments, function in functions:
        # Deterministic, so that SQLite calls them once for constant arguments.
        connection.create_function(name, arguments, partial(driver.function, function), deterministic=True)


def _text_contains(statement: Interruptible, value: str | None, text: str) -> bool | None:
    statement.check()
    return None if value is None else _lower(text) in _lower(value)


def _text_fits(statement: Interruptible, value: str | None, text: str) -> bool | None:
    statement.check()
    return None if value is None else patterns.compiled(text).fullmatch(value) is not None


def _lower(text: str) -> str:
    """Return a text in lower case, each character by itself like PostgreSQL: Python looks at their neighbours too."""
    return text.replace("İ", "i").replace("Σ", "σ").lower()  # noqa: RUF001 Greek


def _prepare_sqlite(*, read_only: bool) -> Callable[[Any, Any], None]:
    """Return a listener that sets up a connection: write-ahead log, durable commits, foreign keys, explicit BEGIN."""

    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # otherwise the driver begins transactions itself, and too late
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        _write_ahead(cursor)
        for pragma in (
            # With NORMAL, a power failure could lose committed transactions of the write-ahead log.
            "synchronous = FULL",
            # SQLite does not enforce them by default.
            "foreign_keys = ON",
            # Negative means KiB: 64 MB for each connection; the default is 2 MB.
            "cache_size = -65536",
            # Sorts of pages that clients ask for need no file.
            "temp_store = MEMORY",
            # A commit that moves the log into the file waits for the disk twice more; every 1,000 pages is often.
            "wal_autocheckpoint = 4000",
            # A reader that wrote would compete with the one writer.
            *(["query_only = ON"] if read_only else []),
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return prepare


def _write_ahead(cursor: Any) -> None:
    """Turn the write-ahead log on. Retry, because SQLite raises an error if another process does so concurrently."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            # With a write-ahead log, readers and the writer do not block each other.
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
