"""A way to PostgreSQL that can be cut anywhere: between asyncpg and the server, message by message."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto

import sqlalchemy as sa

STARTUP = 8
"""Bytes of the request for encryption, which has no type."""
ENDS_EXCHANGE = frozenset({b"Q", b"S", b"H"})
"""Query, Sync and Flush: what the client sends before it waits for the server."""
READY = b"Z\x00\x00\x00\x05I"
"""What the server says outside of any transaction, waiting for the next query."""


class Cut(Enum):
    """What happens to one message of the client's."""

    BEFORE = auto()
    """The server never sees it."""
    AFTER = auto()
    """The server sees it, and the connection is gone at once."""
    REPLY = auto()
    """The server sees it and does what it says; its reply is lost."""
    LATE = auto()
    """The client's connection is gone; the server sees the message later, when it is released."""


class Proxy:
    """Forwards what asyncpg and PostgreSQL tell each other, until it is told to cut."""

    def __init__(self, server: sa.URL) -> None:
        self.server = server
        self.port = 0
        self.open = True
        """Whether connections are accepted."""
        self.exchanges = 0
        """How often a client has waited for the server."""
        self.wanted: Callable[[bytes, int], Cut | None] = lambda message, number: None
        self.released = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients reach the server through this."""
        here = sa.URL.create(
            self.server.drivername,
            username=self.server.username,
            password=self.server.password,
            host="127.0.0.1",
            port=self.port,
            database=self.server.database,
        )
        return here.render_as_string(hide_password=False)

    def cut(self, where: Cut, when: Callable[[bytes, int], bool]) -> None:
        """Cut once, at the first message for which *when* holds, given the message and the number of its exchange."""
        self.exchanges = 0

        def wanted(message: bytes, number: int) -> Cut | None:
            if not when(message, number):
                return None
            self.wanted = lambda message, number: None
            return where

        self.wanted = wanted

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection in both directions."""
        if not self.open:
            writer.close()
            return
        link = Link(self, reader, writer, *await self._reach())
        task = asyncio.ensure_future(link.forward())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port, directory = self.server.port or 5432, self.server.query.get("host")
        if isinstance(directory, str) and directory.startswith("/"):
            return await asyncio.open_unix_connection(f"{directory}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self.server.host, port)


class Link:
    """One connection of a client, and the one to the server that goes with it."""

    def __init__(
        self,
        proxy: Proxy,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self.proxy = proxy
        self.from_client, self.to_client = from_client, to_client
        self.from_server, self.to_server = from_server, to_server
        self.replying = True

    async def forward(self) -> None:
        """Forward messages until one side is gone, or it is cut."""
        replies = asyncio.ensure_future(self._reply())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._ask()
        self.to_server.close()
        self.to_client.close()
        with suppress(ConnectionError):
            await replies

    async def _reply(self) -> None:
        """What the server says; nothing that it says after a cut."""
        while said := await self.from_server.read(65536):
            if self.replying:
                self.to_client.write(said)
            elif said.endswith(READY):
                self.to_server.close()
        self.to_client.close()

    async def _ask(self) -> None:
        """What the client says, from its greeting on."""
        await self._greet()
        while True:
            kind = await self.from_client.readexactly(1)
            message = kind + await self._sized()
            self.proxy.exchanges += kind in ENDS_EXCHANGE
            where = self.proxy.wanted(message, self.proxy.exchanges)
            if where is not None:
                await self._cut(where, message)
                return
            self.to_server.write(message)

    async def _greet(self) -> None:
        greeting = await self._sized()
        self.to_server.write(greeting)
        if len(greeting) == STARTUP:
            await self._greet()

    async def _sized(self) -> bytes:
        size = await self.from_client.readexactly(4)
        return size + await self.from_client.readexactly(int.from_bytes(size) - 4)

    async def _cut(self, where: Cut, message: bytes) -> None:
        self.replying = False
        if where is Cut.BEFORE:
            return
        if where is Cut.LATE:
            self.to_client.close()
            await self.proxy.released.wait()
        self.to_server.write(message)
        if where is not Cut.AFTER:
            await self.to_server.wait_closed()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the server of a database."""
    proxy = Proxy(sa.make_url(url))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(proxy.tasks):
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)
