"""New connections to PostgreSQL, directly or through a pooler such as PgBouncer."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from runstate.database.address import Address
from runstate.database.budget import ReadBudget
from runstate.errors import LimitExceeded

OF_POOLERS: Final = frozenset({"application_name"})
"""Settings that a pooler keeps for each of its clients; it refuses or ignores others when a connection is opened."""
UNSUPPORTED: Final = "unsupported startup parameter"


class Connection(asyncpg.Connection):  # type: ignore[type-arg]
    """A connection whose statements end when they have received too many bytes.

    asyncpg keeps all rows of a statement in memory, and reads in portions only within a transaction, with a round trip
    for each portion.
    """

    budget: ReadBudget | None = None
    """Limits the bytes that the current statement may receive."""
    exceeded: LimitExceeded | None = None
    """Set if the current statement has received too many bytes."""

    def measure(self) -> None:
        """Count what is received from now on."""
        protocol, transport = self._protocol, self._transport
        feed = protocol.data_received

        def data_received(data: bytes) -> None:
            if self.budget is not None:
                self._spend(len(data))
            feed(data)

        protocol.data_received = data_received
        transport.set_protocol(protocol)  # uvloop looks the method up here

    def _spend(self, number: int) -> None:
        try:
            if self.budget is not None:
                self.budget.spend(number)
        except LimitExceeded as error:
            self.budget, self.exceeded = None, error
            self.deadline.reschedule(0)  # the statement is cancelled, here and on the server

    @asynccontextmanager
    async def within(self, budget: ReadBudget, _: Sequence[int] = ()) -> AsyncIterator[None]:
        """Limit the bytes that are received within a block. Raise LimitExceeded if they are too many."""
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
    """Opens connections with settings of their own.

    A pooler lends a session of the database for one transaction, so settings hold for a transaction and statements are
    not prepared. Poolers do not say that they are there; but the session behind one is not the one that it names.
    """

    def __init__(self, address: Address, settings: Mapping[str, str]) -> None:
        self.address = address
        self.settings = {**settings, **address.settings}
        self.is_pooled: bool | None = None
        """Whether there is a pooler; None before the first connection."""
        self.first = asyncio.Lock()

    async def connect(self) -> "asyncpg.Connection[Any]":
        """Open a connection."""
        async with self.first:  # the others need not find out too
            if self.is_pooled is None:
                return await self._open_first()
        return await self._open()

    async def _open_first(self) -> "asyncpg.Connection[Any]":
        """Open a connection and find out whether there is a pooler."""
        try:
            connection = await self._dial(self.settings)
        except asyncpg.ProtocolViolationError as error:
            if UNSUPPORTED not in str(error):
                raise
            self.is_pooled = True
            return await self._open()
        is_pooled = await _backend(connection) != connection.get_server_pid()
        if is_pooled:
            await connection.close()
            self.is_pooled = True
            return await self._open()
        self.is_pooled = False
        return connection

    async def _open(self) -> "asyncpg.Connection[Any]":
        if not self.is_pooled:
            return await self._dial(self.settings)
        kept = {name: value for name, value in self.settings.items() if name in OF_POOLERS}
        return await self._dial(kept, statement_cache_size=0)

    async def _dial(self, settings: Mapping[str, str], **options: Any) -> "asyncpg.Connection[Any]":
        connection: Connection = await asyncpg.connect(
            self.address.dsn,
            server_settings=dict(settings),
            timeout=self.address.connect_seconds,
            connection_class=Connection,
            **options,
        )
        connection.measure()
        return connection

    @property
    def local_settings(self) -> str:
        """The statement that gives a transaction its settings, after BEGIN; empty if the session has them."""
        if not self.is_pooled:
            return ""
        local = {name: value for name, value in self.settings.items() if name not in OF_POOLERS}
        calls = ", ".join(f"set_config({_quoted(name)}, {_quoted(value)}, true)" for name, value in local.items())
        return f"; SELECT {calls}"

    def statement_name(self) -> str | None:
        """Return the name of a prepared statement: none through a pooler, one of the driver's choice without."""
        return "" if self.is_pooled else None


async def _backend(connection: "asyncpg.Connection[Any]") -> int:
    """Return the id of the process that answers; in a transaction, so that a pooler does not change it meanwhile."""
    async with connection.transaction():
        statement = await connection.prepare("SELECT pg_backend_pid()", name="")
        pid: int = await statement.fetchval()
        return pid


def _quoted(text: str) -> str:
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
