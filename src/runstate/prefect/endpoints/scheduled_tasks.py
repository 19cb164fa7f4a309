"""The socket on which processes get the background tasks that they run."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Final

import orjson
from pydantic import ValidationError
from starlette.websockets import WebSocket

from runstate.core.access.credentials import Principal
from runstate.core.batch.batcher import Batcher
from runstate.core.states import State
from runstate.documents.access import Scope
from runstate.feed import TRANSITIONS
from runstate.prefect import background, presentation
from runstate.prefect.bodies import Body
from runstate.prefect.sockets import close, received, socket
from runstate.rows import TaskRun

MISTAKEN: Final = 4001
"""Close code for a message that the protocol does not allow."""
POLL_SECONDS: Final = 1.0
"""Seconds between two looks at what other replicas have scheduled."""
PAUSE_SECONDS: Final = 0.1
"""Shortest time between two looks."""


class Subscribe(Body):
    """The first message: the tasks that the process runs."""

    type: str
    keys: list[str]


@socket("/task_runs/subscriptions/scheduled", Scope.PROPOSE)
async def deliver(websocket: WebSocket, principal: Principal) -> None:
    """Send task runs of background tasks, one after another, each when the one before was acknowledged."""
    try:
        subscribe = Subscribe.model_validate_json(await received(websocket))
    except ValidationError:
        await close(websocket, MISTAKEN, "The first message must be of type `subscribe`, with keys.")
        return
    await Deliveries(websocket, subscribe.keys).serve()


class Deliveries:
    """A socket of a process that runs background tasks."""

    def __init__(self, websocket: WebSocket, keys: list[str]) -> None:
        self.websocket = websocket
        self.keys = keys
        self.batcher: Batcher = websocket.app.state.batcher
        self.news = asyncio.Event()
        self.incoming: asyncio.Task[MutableMapping[str, Any]] = self._listen()

    async def serve(self) -> None:
        """Send task runs until the process leaves."""
        listeners = self.batcher.database.listeners
        listeners.append(self._hear)
        try:
            while not self.incoming.done():
                self.news.clear()
                if not await self._deliver():
                    await self._rest()
        finally:
            listeners.remove(self._hear)
            self.incoming.cancel()
            with suppress(asyncio.CancelledError, RuntimeError):
                await self.incoming

    async def _deliver(self) -> bool:
        """Send what is due. Return whether there was anything."""
        found = await background.waiting(self.batcher, self.keys, self.batcher.clock())
        for run, state in found:
            taken = await background.offer(self.batcher, run, state, self.batcher.clock())
            if taken is None:
                continue
            shown, offered = taken
            if not await self._acknowledged(shown, run, offered):
                return False
        return bool(found)

    async def _acknowledged(self, shown: dict[str, Any], run: TaskRun, offered: State) -> bool:
        """Send a task run and wait for the acknowledgement. Without one, the task run is scheduled again."""
        is_taken = False
        try:
            await self.websocket.send_text(presentation.as_json(shown).decode())
            is_taken = _is_acknowledgement(await self.incoming)
        finally:
            if not is_taken:
                await background.schedule_again(self.batcher, run, offered)
        if is_taken:
            self.incoming = self._listen()
        return is_taken

    async def _rest(self) -> None:
        """Wait for news, or for the end of the socket."""
        await asyncio.sleep(PAUSE_SECONDS)
        news = asyncio.create_task(self.news.wait())
        await asyncio.wait({news, self.incoming}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()

    def _hear(self, channel: str) -> None:
        if channel == TRANSITIONS.channel:
            self.news.set()

    def _listen(self) -> asyncio.Task[MutableMapping[str, Any]]:
        return asyncio.create_task(self.websocket.receive())


def _is_acknowledgement(message: MutableMapping[str, Any]) -> bool:
    with suppress(ValueError, AttributeError):
        return bool(orjson.loads(message.get("text") or "").get("type") == "ack")
    return False
