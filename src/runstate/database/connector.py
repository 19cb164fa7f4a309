"""New connections to PostgreSQL, directly or through a pooler such as PgBouncer."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from runstate.database.address import Address
from runstate.database.budget import ReadBudget
from runstate.errors import LimitExceeded, Overloaded

OF_POOLERS: Final = frozenset({"application_name"})
"""Startup settings that a pooler supports; it refuses or ignores all others."""
UNSUPPORTED: Final = "unsupported startup parameter"
"""Part of the error message with which PgBouncer refuses a setting."""


class Connection(asyncpg.Connection):
    """A connection whose statements end when they have received too many bytes.

    asyncpg keeps all rows of a statement in memory, and reads in portions only within a transaction, with a round trip
    for each portion.
    """

    budget: ReadBudget | None = None
    """Limits the bytes that the current statement may receive."""
    exceeded: LimitExceeded | Overloaded | None = None
    """Set if the current statement has received too many bytes."""

    def measure(self) -> None:
        """Count what is received from now on."""
        own: Any = self
        protocol, transport = own._protocol, own._transport  # noqa: SLF001 asyncpg has no other way
        feed = protocol.data_received

        def data_received(data: bytes) -> None:
            if self.budget is not None:
                self._spend(len(data))
            # Also after the limit: asyncpg must see the whole message, or the connection could not be used again.
            feed(data)

        protocol.data_received = data_received
        transport.set_protocol(protocol)  # uvloop looks the method up here

    def _spend(self, number: int) -> None:
        try:
            if self.budget is not None:
                self.budget.spend(number)
        except (LimitExceeded, Overloaded) as error:
            self.budget, self.exceeded = None, error
            self.deadline.reschedule(0)  # the statement is cancelled, here and on the server

    @asynccontextmanager
    async def within(self, budget: ReadBudget, _: Any) -> AsyncIterator[None]:
        """Limit the bytes that are received within a block. Raises LimitExceeded or Overloaded if they are too many."""
        self.budget = budget
        try:
            async with asyncio.timeout(None) as self.deadline:
                yield
        except TimeoutError:
            if self.exceeded is None:
                raise
            raise self.exceeded from None
        finally:
            self.budget = self.exceeded = None


class Connector:
    """Opens connections with session settings, and detects poolers.

    A pooler assigns a database session for one transaction only. Settings are therefore set in each transaction, and
    statements are not prepared. A pooler is detected by its process id: the database session has another one.
    """

    def __init__(self, address: Address, settings: Mapping[str, str]) -> None:
        self.address = address
        self.settings = {**settings, **address.settings}
        self.is_pooled: bool | None = None
        """Whether the server is a pooler; None before the first connection."""
        self.first = asyncio.Lock()

    async def connect(self) -> "asyncpg.Connection[Any]":
        """Open a connection."""
        async with self.first:  # one detection is enough: concurrent callers wait for its result
            if self.is_pooled is None:
                return await self._open_first()
        return await self._open()

    async def _open_first(self) -> "asyncpg.Connection[Any]":
        """Open a connection and detect a pooler."""
        try:
            connection = await self._dial(self.settings)
        except asyncpg.ProtocolViolationError as error:
            # A pooler refuses settings of the session that it does not know, which tells that it is one.
            if UNSUPPORTED not in str(error):
                raise
            self.is_pooled = True
            return await self._open()
        is_pooled = await _backend(connection) != connection.get_server_pid()
        if is_pooled:
            # This connection has settings and prepared statements, which a pooler does not support.
            await connection.close()
            self.is_pooled = True
            return await self._open()
        self.is_pooled = False
        return connection

    async def _open(self) -> "asyncpg.Connection[Any]":
        if not self.is_pooled:
            return await self._dial(self.settings)
        kept = {name: value for name, value in self.settings.items() if name in OF_POOLERS}
        return await self._dial(kept, statement_cache_size=0)  # a prepared statement belongs to one session

    async def _dial(self, settings: Mapping[str, str], **options: Any) -> "asyncpg.Connection[Any]":
        """Open a connection. Raise ConnectionError if the database is not reached, whatever the system calls that."""
        try:
            connection: Connection = await asyncpg.connect(
                self.address.dsn,
                server_settings=dict(settings),
                timeout=self.address.connect_seconds,
                connection_class=Connection,
                **options,
            )
        except OSError as error:
            raise ConnectionError(str(error)) from error
        connection.measure()
        return connection

    @property
    def local_settings(self) -> str:
        """SQL that follows BEGIN and sets the settings for the transaction; empty if the session has them."""
        if not self.is_pooled:
            return ""
        local = {name: value for name, value in self.settings.items() if name not in OF_POOLERS}
        # The last argument limits a setting to the transaction: the session is shared with others.
        calls = ", ".join(f"set_config({_quoted(name)}, {_quoted(value)}, true)" for name, value in local.items())
        return f"; SELECT {calls}"

    def statement_name(self) -> str | None:
        """Return the name for a prepared statement: empty with a pooler, None (the driver's choice) without."""
        return "" if self.is_pooled else None


async def _backend(connection: "asyncpg.Connection[Any]") -> int:
    """Return the process id of the database session that executes statements."""
    async with connection.transaction():  # a pooler keeps the session until the end of the transaction
        # A statement without a name works with a pooler, too.
        statement = await connection.prepare("SELECT pg_backend_pid()", name="")
        pid: int = await statement.fetchval()
        return pid


def _quoted(text: str) -> str:
    # `E''` means the same with each value of `standard_conforming_strings`.
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
