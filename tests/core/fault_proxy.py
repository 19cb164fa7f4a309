"""A proxy between asyncpg and PostgreSQL that cuts a connection at a chosen message."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto

import sqlalchemy as sa

STARTUP = 8
"""Length in bytes of the SSL request, a message without a type."""
ENDS_EXCHANGE = frozenset({b"Q", b"S", b"H"})
"""Query, Sync and Flush: messages after which the client waits for the server."""

TURNS = 3
"""Iterations of the event loop until an accepted connection has a task that runs."""


class Cut(Enum):
    """The fate of one message from the client."""

    BEFORE = auto()
    """The server does not receive it."""
    AFTER = auto()
    """The server receives it, and the connection is cut immediately."""
    REPLY = auto()
    """The server receives and executes it; the reply is lost."""
    LATE = auto()
    """The client's connection is cut; the server receives the message later, when it is released."""


def untouched(_message: bytes, _number: int) -> None:
    """Leave a message alone."""


class Proxy:
    """Forwards messages between asyncpg and PostgreSQL until it cuts the connection."""

    def __init__(self, server: sa.URL) -> None:
        self.server = server
        self.port = 0
        self.open = True
        """Whether connections are accepted."""
        self.gate = asyncio.Event()
        """Set while connections may proceed."""
        self.gate.set()
        self.exchanges = 0
        """Number of times that a client waited for the server."""
        self.wanted: Callable[[bytes, int], Cut | None] = untouched
        self.released = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """URL at which clients reach the server through the proxy."""
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
        """Cut once, at the first message for which *when* is true, given the message and its exchange number."""
        self.exchanges = 0

        def wanted(message: bytes, number: int) -> Cut | None:
            if not when(message, number):
                return None
            self.wanted = untouched
            return where

        self.wanted = wanted

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection in both directions, or refuse it while the proxy is closed."""
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
    """One connection of a client and the matching connection to the server."""

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
        """Forward messages until one side closes or the connection is cut."""
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
                end.close()  # here, not in a task: the task could be cancelled before it starts
            await asyncio.gather(replies, *(end.wait_closed() for end in ends), return_exceptions=True)

    async def _reply(self) -> None:
        """Forward messages of the server to the client until the cut; the first reply after the cut is the last."""
        try:
            while (said := await self.from_server.read(65536)) and not self.is_cut:
                self.to_client.write(said)
        finally:
            self.to_client.close()

    async def _ask(self) -> Cut:
        """Forward messages of the client to the server, from its greeting on, until the cut."""
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
    """Yield a proxy in front of the server of a database."""
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
