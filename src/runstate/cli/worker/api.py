"""GraphQL operations over one WebSocket that reconnects."""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

import orjson
import websockets
from websockets.asyncio.client import ClientConnection

from runstate.client.errors import LostError, RefusedError
from runstate.client.sockets import (
    LONGEST_SECONDS,
    PASSING,
    PROTOCOL,
    SHORTEST_SECONDS,
    Session,
    insist_on_coming_back,
)

LOST: Final = {"type": "lost"}
"""Message to waiting operations if the connection is lost."""

Message = dict[str, Any]


class ProblemError(Exception):
    """The server answered a mutation with a problem."""

    def __init__(self, problem: Message) -> None:
        super().__init__(problem["message"])
        self.code: str = problem["code"]


class Api:
    """Operations on a server over one WebSocket. An operation that was not answered is sent again."""

    def __init__(self, address: str, key: str | None, note: Callable[[str], None]) -> None:
        self.address, self.key, self.note = address, key, note
        self.socket: ClientConnection | None = None
        self.ready = asyncio.Event()
        self.numbers = itertools.count(1)
        self.waiting: dict[str, asyncio.Queue[Message]] = {}

    async def run(self) -> None:
        """Keep a connection. Raise RefusedError if the server refuses the client."""
        pause = SHORTEST_SECONDS
        while True:
            try:
                async with websockets.connect(self.address, subprotocols=[PROTOCOL], max_size=2**26) as socket:
                    await Session(socket).begin(self.key)
                    pause = SHORTEST_SECONDS
                    await self._receive(socket)
            except (OSError, websockets.WebSocketException, LostError) as error:
                insist_on_coming_back(error)
                self.note(f"No connection to {self.address}: {str(error) or type(error).__name__}")
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - not used for secrets
            pause = min(2 * pause, LONGEST_SECONDS)

    async def _receive(self, socket: ClientConnection) -> None:
        self.note(f"Connected to {self.address}")
        self.socket = socket
        self.ready.set()
        try:
            while True:
                message: Message = orjson.loads(await socket.recv())
                if message["type"] == "ping":
                    await socket.send(orjson.dumps({"type": "pong"}).decode())
                elif queue := self.waiting.get(message.get("id", "")):
                    queue.put_nowait(message)
        finally:
            self.socket = None
            self.ready.clear()
            for queue in self.waiting.values():
                queue.put_nowait(LOST)

    async def do(self, document: str, **variables: Any) -> Any:
        """Return the field `it` of the answer. Raise ProblemError for a problem, RefusedError for another error."""
        async with aclosing(self.follow(document, **variables)) as answers:
            async for answer in answers:
                if isinstance(answer, dict) and "code" in answer:
                    raise ProblemError(answer)
                return answer
        raise RefusedError("The server completed the operation without an answer.")

    async def follow(self, document: str, **variables: Any) -> AsyncGenerator[Any]:
        """Yield the field `it` of each event; the operation is started again on each new connection."""
        pause = SHORTEST_SECONDS
        while True:
            await self.ready.wait()
            try:
                async with aclosing(self._events(document, variables)) as events:
                    async for data in events:
                        yield data["it"]
                        pause = SHORTEST_SECONDS
            except LostError:
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - not used for secrets
                pause = min(2 * pause, LONGEST_SECONDS)
            else:
                return

    async def _events(self, document: str, variables: Message) -> AsyncGenerator[Message]:
        """Yield the data of each event on the present connection. Raise LostError if it should be tried again."""
        key, queue = str(next(self.numbers)), asyncio.Queue[Message]()
        self.waiting[key] = queue
        ended = False
        try:
            await self._send({"type": "subscribe", "id": key, "payload": {"query": document, "variables": variables}})
            while (message := await queue.get())["type"] == "next":
                if errors := message["payload"].get("errors"):
                    raise _failure(errors[0])
                yield message["payload"]["data"]
            ended = True
            if message["type"] == "error":
                raise _failure(message["payload"][0])
            if message is LOST:
                raise LostError("The connection was lost.")
        finally:
            del self.waiting[key]
            if not ended:
                with suppress(LostError):
                    await self._send({"type": "complete", "id": key})

    async def _send(self, message: Message) -> None:
        if self.socket is None:
            raise LostError("There is no connection.")
        try:
            await self.socket.send(orjson.dumps(message).decode())
        except websockets.ConnectionClosed as error:
            raise LostError(str(error)) from error


def _failure(error: Message) -> Exception:
    """Return the exception for an error of the server."""
    passing = error.get("extensions", {}).get("code") in PASSING
    return LostError(error["message"]) if passing else RefusedError(error["message"])
