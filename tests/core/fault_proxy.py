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

TURNS = 3
"""Of the loop, until a connection that was accepted in the one before has its task, and that has begun."""


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


def untouched(_message: bytes, _number: int) -> None:
    """Nothing happens to a message."""


class Proxy:
    """Forwards what asyncpg and PostgreSQL tell each other, until it is told to cut."""

    def __init__(self, server: sa.URL) -> None:
        self.server = server
        self.port = 0
        self.open = True
        """Whether connections are accepted."""
        self.gate = asyncio.Event()
        """Connections wait here until it is set."""
        self.gate.set()
        self.exchanges = 0
        """How often a client has waited for the server."""
        self.wanted: Callable[[bytes, int], Cut | None] = untouched
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
            query={"ssl": "disable"},
        )
        return here.render_as_string(hide_password=False)

    def cut(self, where: Cut, when: Callable[[bytes, int], bool]) -> None:
        """Cut once, at the first message for which *when* holds, given the message and the number of its exchange."""
        self.exchanges = 0

        def wanted(message: bytes, number: int) -> Cut | None:
            if not when(message, number):
                return None
            self.wanted = untouched
            return where

        self.wanted = wanted

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection in both directions, unless none is accepted."""
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        try:
            with suppress(ConnectionError):
                await self.gate.wait()
                if self.open:
                    await Link(self, reader, writer, *await self._reach()).forward()
        finally:
            await closed(writer)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port, directory = self.server.port or 5432, self.server.query.get("host")
        if isinstance(directory, str) and directory.startswith("/"):
            return await asyncio.open_unix_connection(f"{directory}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self.server.host, port)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close one end of a connection."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


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
        self.is_cut = False

    async def forward(self) -> None:
        """Forward messages until one side is gone, or it is cut."""
        replies = asyncio.ensure_future(self._reply())
        try:
            with suppress(asyncio.IncompleteReadError):
                where = await self._ask()
                if where in {Cut.REPLY, Cut.LATE}:
                    await replies
        finally:
            replies.cancel()
            ends = (self.to_server, self.to_client)
            for end in ends:
                end.close()  # here, not in a task: it might be cancelled before it has begun
            await asyncio.gather(replies, *(end.wait_closed() for end in ends), return_exceptions=True)

    async def _reply(self) -> None:
        """Tell the client what the server says, until it is cut: the first reply after that is the last."""
        try:
            while (said := await self.from_server.read(65536)) and not self.is_cut:
                self.to_client.write(said)
        finally:
            self.to_client.close()

    async def _ask(self) -> Cut:
        """Tell the server what the client says, from its greeting on, until it is cut."""
        await self._greet()
        while True:
            kind = await self.from_client.readexactly(1)
            message = kind + await self._sized()
            self.proxy.exchanges += kind in ENDS_EXCHANGE
            where = self.proxy.wanted(message, self.proxy.exchanges)
            if where is not None:
                await self._cut(where, message)
                return where
            self.to_server.write(message)

    async def _cut(self, where: Cut, message: bytes) -> None:
        self.is_cut = True
        if where is Cut.LATE:
            self.to_client.close()
            await self.proxy.released.wait()
        if where is not Cut.BEFORE:
            self.to_server.write(message)

    async def _greet(self) -> None:
        greeting = await self._sized()
        self.to_server.write(greeting)
        if len(greeting) == STARTUP:
            await self._greet()

    async def _sized(self) -> bytes:
        size = await self.from_client.readexactly(4)
        return size + await self.from_client.readexactly(int.from_bytes(size) - 4)


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
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for task in list(proxy.tasks):
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)
