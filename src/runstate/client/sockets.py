"""The WebSocket to a server: operations on it, and subscriptions that resume when the connection is lost."""

import asyncio
import random
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

import orjson
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from runstate.client.errors import INTERNAL, LostError, RefusedError

PROTOCOL: Final = Subprotocol("graphql-transport-ws")

PASSING: Final = {"SLOW_CONSUMER", "RESTARTING", "OVERLOADED", "UNAVAILABLE", "TIMEOUT", INTERNAL}
"""Codes of errors after which the subscription is resumed."""
FATAL_CLOSES: Final = range(4400, 4500)
"""Close codes of graphql-transport-ws for errors of the client."""
UNWELCOME: Final = 4403
"""Close code if the key is missing or invalid."""
FATAL_ANSWERS: Final = range(400, 500)
"""HTTP statuses of the handshake for errors of the client."""
NOT_THERE: Final = {403, 404}
"""HTTP statuses of the handshake at a path that is not that of the API."""
SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
"""Schemes of WebSockets by the scheme of the server's URL."""
SHORTEST_SECONDS: Final = 0.2
LONGEST_SECONDS: Final = 10.0
"""Bounds of the pause before a reconnection; it doubles with each failure."""

Entry = dict[str, Any]


class Subscription(Protocol):
    """A subscription and its position."""

    document: str

    async def variables(self, session: "Session") -> dict[str, Any]:
        """Return the variables that subscribe at the position."""

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the entries of an event, and advance the position past them."""

    def resume(self, cursor: str) -> None:
        """Set the position to a cursor of the server."""


def authorization(key: str) -> str:
    """Return the Authorization header for an API key or for `user:password`."""
    return f"Basic {b64encode(key.encode()).decode()}" if ":" in key else f"Bearer {key}"


class Session:
    """A WebSocket to the server."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def begin(self, key: str | None = None) -> None:
        """Send `connection_init` with the key, if any, and wait for the acknowledgement."""
        await self._send({"type": "connection_init", "payload": {"Authorization": authorization(key)} if key else {}})
        if (await self._receive())["type"] != "connection_ack":
            raise LostError("The server did not acknowledge the connection.")

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """Execute a query and return its data."""
        # Read up to `complete`, after which the id can be used again.
        answers = [data async for data in self.listen(document, variables)]
        return answers[0]

    async def listen(self, document: str, variables: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the data of each event. Raise SubscriptionError if the server ends the operation with an error."""
        await self._send({"type": "subscribe", "id": "1", "payload": {"query": document, "variables": variables}})
        while (message := await self._receive())["type"] != "complete":
            if message["type"] == "ping":
                await self._send({"type": "pong"})
            elif message["type"] == "error":
                raise SubscriptionError(message["payload"][0])
            elif message["type"] == "next" and message["payload"].get("errors"):
                raise SubscriptionError(message["payload"]["errors"][0])
            elif message["type"] == "next":
                yield message["payload"]["data"]

    async def _send(self, message: dict[str, Any]) -> None:
        await self.socket.send(orjson.dumps(message).decode())

    async def _receive(self) -> dict[str, Any]:
        return cast("dict[str, Any]", orjson.loads(await self.socket.recv()))


class SubscriptionError(Exception):
    """The server ended an operation with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message"))
        self.extensions: dict[str, Any] = error.get("extensions") or {}


async def following(
    address: str, subscription: Subscription, note: Callable[[str], None], key: str | None = None
) -> AsyncGenerator[Entry, None]:
    """Yield the entries of a subscription until it completes; reconnect when the connection is lost.

    Raise RefusedError if the server rejects the subscription.
    """
    pause = SHORTEST_SECONDS
    while True:
        try:
            # Otherwise the socket of an abandoned generator would be closed when that is collected: too late.
            async with aclosing(_entries(address, subscription, note, key)) as entries:
                async for entry in entries:
                    # The connection works, so the next reconnection need not wait long.
                    pause = SHORTEST_SECONDS
                    yield entry
        except (OSError, TimeoutError, LostError, websockets.WebSocketException) as lost:
            insist_on_coming_back(lost)
            note(f"{lost}: reconnecting")
            # Random, so that the clients of a restarted server do not reconnect at the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - not used for secrets
            pause = min(2 * pause, LONGEST_SECONDS)
        else:
            return


async def _entries(
    address: str, subscription: Subscription, note: Callable[[str], None], key: str | None
) -> AsyncGenerator[Entry, None]:
    async with websockets.connect(address, subprotocols=[PROTOCOL], max_size=2**24) as socket:
        session = Session(socket)
        await session.begin(key)
        note(f"Connected to {address}")
        try:
            async for data in session.listen(subscription.document, await subscription.variables(session)):
                for entry in subscription.take(data):
                    yield entry
        except SubscriptionError as error:
            if error.extensions.get("code") not in PASSING:
                raise RefusedError(_message_of(error)) from error
            # The server's position can be later, because transitions that do not match advance it too.
            if "cursor" in error.extensions:
                subscription.resume(error.extensions["cursor"])
            raise LostError(str(error)) from error


def _message_of(error: SubscriptionError) -> str:
    oldest = error.extensions.get("oldest")
    return f"{error} The oldest valid cursor: --after {oldest}" if oldest else str(error)


def insist_on_coming_back(lost: Exception) -> None:
    """Raise RefusedError if reconnecting after this error would fail again."""
    if isinstance(lost, websockets.ConnectionClosed) and lost.rcvd and lost.rcvd.code in FATAL_CLOSES:
        if lost.rcvd.code == UNWELCOME:
            raise RefusedError(
                f"The server requires a valid key: set --key or RUNSTATE_API_KEY ({lost.rcvd.reason})."
            ) from lost
        raise RefusedError(
            lost.rcvd.reason or f"The server closed the connection with code {lost.rcvd.code}."
        ) from lost
    if isinstance(lost, websockets.InvalidStatus) and lost.response.status_code in FATAL_ANSWERS:
        raise RefusedError(refusal(lost.response.status_code, bytes(lost.response.body))) from lost
    if isinstance(lost, websockets.InvalidURI):
        raise RefusedError(str(lost)) from lost


def refusal(status: int, body: bytes) -> str:
    """Return what an HTTP response to the handshake means."""
    if status in NOT_THERE:
        return f"The server has no GraphQL API at this path (HTTP status {status}); its path is /graphql by default."
    return f"The server answered with HTTP status {status}: {body[:200].decode(errors='replace')}"


def socket_address(url: str) -> str:
    """Return the URL of the WebSocket for a server URL with http or ws, with or without a path."""
    scheme, place, path, query, _ = urlsplit(url if "://" in url else f"http://{url}")
    if scheme not in SCHEMES:
        raise RefusedError(f"The URL of a server begins with http:// or https://, not with {scheme}://.")
    return urlunsplit((SCHEMES[scheme], place, path if path not in ("", "/") else "/graphql", query, ""))
