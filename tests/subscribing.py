"""The application over real sockets, in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import httpx
import orjson
import websockets
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection

from runstate.feed import Hub
from runstate.rows import Transition
from runstate.server import Server
from runstate.settings import Settings
from tests.client import Ask

PROTOCOL: Any = ["graphql-transport-ws"]


class Listening(Server):
    """A server that a test stops without a signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to pytest."""
        yield

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.listens = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        """Start, and set the event."""
        await super().startup(sockets)
        self.listens.set()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/graphql"

    @property
    def hub(self) -> Hub[Transition]:
        """Hub of the server."""
        hub: Hub[Transition] = self.app.state.feed.transitions
        return hub

    @property
    def starlette(self) -> Starlette:
        """Application of the server."""
        return self.app


@asynccontextmanager
async def listening(url: str, *, services: str = "off", **settings: Any) -> AsyncIterator[Listening]:
    """Yield a server on a free port."""
    server = Listening(Settings(**{"database_url": url, "services": services, "port": 0, **settings}))
    running = asyncio.ensure_future(server.serve())
    await server.listens.wait()
    yield server
    server.should_exit = True
    await running


@asynccontextmanager
async def asking(server: Listening) -> AsyncIterator[Ask]:
    """Yield a client of the server over HTTP."""
    async with httpx.AsyncClient(base_url=f"http://{server.address.removesuffix('/graphql')}", timeout=60) as client:
        yield Ask(client)


class Socket:
    """A WebSocket."""

    def __init__(self, server: Listening, connection: ClientConnection) -> None:
        self.server = server
        self.connection = connection
        self.waiting: list[dict[str, Any]] = []

    async def say(self, message: Any) -> None:
        """Send a message of any type."""
        await self.connection.send(message if isinstance(message, str | bytes) else orjson.dumps(message).decode())

    async def hear(self) -> dict[str, Any]:
        """Return the next message."""
        async with asyncio.timeout(30):
            text = await self.connection.recv()
        assert isinstance(text, str)
        message: dict[str, Any] = orjson.loads(text)
        return message

    async def subscribe(self, document: str, key: str = "1", **variables: Any) -> "Subscription":
        """Start an operation."""
        await self.say({"type": "subscribe", "id": key, "payload": {"query": document, "variables": variables}})
        return Subscription(self, key)

    async def closed(self) -> int | None:
        """Return the close code of the socket; earlier messages are dropped."""
        async with asyncio.timeout(30):
            with suppress(websockets.ConnectionClosed):
                while True:
                    await self.connection.recv()
        return self.connection.close_code


class Subscription:
    """An operation on a socket."""

    def __init__(self, socket: Socket, key: str) -> None:
        self.socket = socket
        self.key = key

    async def message(self) -> dict[str, Any]:
        """Return its next message; those of other operations are kept."""
        for number, message in enumerate(self.socket.waiting):
            if message.get("id") == self.key:
                return self.socket.waiting.pop(number)
        while (message := await self.socket.hear()).get("id") != self.key:
            self.socket.waiting.append(message)
        return message

    async def next(self) -> Any:
        """Return the data of its next event."""
        message = await self.message()
        assert message["type"] == "next", message
        assert "errors" not in message["payload"], message
        return message["payload"]["data"]

    async def error(self) -> dict[str, Any]:
        """Return its first error."""
        message = await self.message()
        assert message["type"] == "error", message
        error: dict[str, Any] = message["payload"][0]
        return error

    async def completed(self) -> None:
        """Wait for its completion."""
        message = await self.message()
        assert message["type"] == "complete", message

    async def stop(self) -> None:
        """Complete it from the client."""
        await self.socket.say({"type": "complete", "id": self.key})


@asynccontextmanager
async def dialled(server: Listening, **options: Any) -> AsyncIterator[Socket]:
    """Yield a WebSocket before its initialization."""
    async with websockets.connect(f"ws://{server.address}", subprotocols=PROTOCOL, **options) as connection:
        yield Socket(server, connection)


@asynccontextmanager
async def connected(server: Listening, **options: Any) -> AsyncIterator[Socket]:
    """Yield an initialized WebSocket."""
    async with dialled(server, **options) as socket:
        await socket.say({"type": "connection_init"})
        assert await socket.hear() == {"type": "connection_ack"}
        yield socket
