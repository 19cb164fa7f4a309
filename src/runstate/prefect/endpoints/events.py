"""Events of clients: by a socket, or in a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.websockets import WebSocket

from runstate.core.access.credentials import Principal
from runstate.documents.access import Scope
from runstate.errors import InvalidInput
from runstate.prefect.bodies import parsed, without_nul
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.recorder import Recorder
from runstate.prefect.sockets import socket


@endpoint("POST", "/events/", Scope.PROPOSE, status=204)
async def create(call: Call, body: list[dict[str, Any]]) -> None:
    """Write events, and answer when they are committed."""
    recorder: Recorder = call.request.app.state.recorder
    size = call.body_bytes // max(len(body), 1)
    try:
        done = [await recorder.take(each, size, **call.who) for each in body]
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    if done:
        await asyncio.wait(done)


@socket("/events/in", Scope.PROPOSE, is_subscription=False)
async def receive(websocket: WebSocket, principal: Principal) -> None:
    """Take events. A ping is answered when all events before it are committed."""
    await Incoming(websocket, principal).serve()


class Incoming:
    """A socket of a client that sends events."""

    def __init__(self, websocket: WebSocket, principal: Principal) -> None:
        self.websocket = websocket
        self.actor = principal.name
        self.recorder: Recorder = websocket.app.state.recorder
        self.unwritten: set[asyncio.Future[None]] = set()
        self.acknowledgements: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Take events until the client leaves."""
        hold = self.websocket.scope.get("extensions", {}).get("runstate.hold_pongs")
        if hold:
            hold()
        while (message := await self.websocket.receive())["type"] == "websocket.receive":
            if answer := message.get("pong"):
                self._acknowledge(answer)
            else:
                await self._take(message.get("text"))

    async def _take(self, text: str | None) -> None:
        body = without_nul((text or "").encode())
        try:
            done = await self.recorder.take(parsed(body), len(body), actor=self.actor)
        except (ValueError, InvalidInput) as error:
            # If the socket were closed, the client would send the same event again.
            self.recorder.drop("invalid", error=str(error)[:200])
            return
        self.unwritten.add(done)
        done.add_done_callback(self.unwritten.discard)

    def _acknowledge(self, answer: Callable[[], None]) -> None:
        """Answer a ping when the events before it are committed."""
        if not self.unwritten:
            answer()
            return
        task = asyncio.create_task(self._when_written(set(self.unwritten), answer))
        self.acknowledgements.add(task)
        task.add_done_callback(self.acknowledgements.discard)

    async def _when_written(self, unwritten: set[asyncio.Future[None]], answer: Callable[[], None]) -> None:
        await asyncio.wait(unwritten)
        answer()
