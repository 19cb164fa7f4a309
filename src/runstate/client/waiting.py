"""Waiting for slots, and heartbeats."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any, Final, Protocol

from runstate.client.connection import Connection
from runstate.client.errors import ClientError
from runstate.client.sockets import Entry, Session, following, socket_address

FREED: Final = "subscription($names: [String!]!) { slotsFreed(names: $names) { name slots } }"
BEAT: Final = """mutation($runs: [RunRef!]!) { heartbeat(runs: $runs) {
  ... on HeartbeatPayload { runs { runId stateType version } } } }"""
MOST_BEATS: Final = 1_000
LINGER_SECONDS: Final = 5.0
"""Time for which a subscription without waiting runs is kept."""


class FreedSlots:
    """The subscription to slots of some limits. It has no position: the first event has the free slots of now."""

    document = FREED

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(names)

    async def variables(self, _: Session) -> dict[str, Any]:
        """Return the variables that subscribe."""
        return {"names": self.names}

    def take(self, data: dict[str, Any]) -> list[Entry]:
        """Return the limits of an event."""
        limits: list[Entry] = data["slotsFreed"]
        return limits

    def resume(self, cursor: str) -> None:
        """Do nothing: there is no position."""


class Queue:
    """Runs that wait for slots of the same limits."""

    def __init__(self) -> None:
        self.waiting = deque[asyncio.Future[None]]()
        self.surplus = 0
        self.task: asyncio.Task[None] | None = None

    def free(self, slots: int) -> None:
        """Wake as many runs as there are slots, first those that wait longest."""
        self.surplus = max(self.surplus, slots)
        while self.surplus and self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(None)
                self.surplus -= 1


class Slots:
    """Wakes runs when slots become free."""

    def __init__(self, url: str, key: str | None) -> None:
        self.address, self.key, self.queues = socket_address(url), key, dict[frozenset[str], Queue]()

    async def wait(self, names: frozenset[str], seconds: float) -> None:
        """Return after some seconds, or when the limits with these names have a free slot."""
        queue = self.queues.setdefault(names, Queue())
        if queue.surplus:
            # It became free between the answer and now.
            queue.surplus -= 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.waiting.append(future)
        if queue.task is None or queue.task.done():
            # One subscription for all runs that wait for the same limits.
            queue.task = asyncio.create_task(self._follow(names, queue))
        with suppress(TimeoutError):
            await asyncio.wait_for(future, seconds)

    async def close(self) -> None:
        """End the subscriptions."""
        tasks = [queue.task for queue in self.queues.values() if queue.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, names: frozenset[str], queue: Queue) -> None:
        events = asyncio.create_task(self._events(names, queue))
        try:
            while any(not each.done() for each in queue.waiting):
                await asyncio.sleep(LINGER_SECONDS)
        finally:
            events.cancel()
            # The socket is closed before the loop is.
            await asyncio.gather(events, return_exceptions=True)
            # What was free may be taken when the next run waits.
            queue.surplus = 0

    async def _events(self, names: frozenset[str], queue: Queue) -> None:
        free = dict.fromkeys(names, 0)
        # Without the subscription, runs wait for as long as they were told.
        with suppress(ClientError):
            async for limit in following(self.address, FreedSlots(names), lambda _: None, self.key):
                # A name without an active limit has as many slots as anybody needs.
                free[limit["name"]] = 1 if limit["slots"] is None else limit["slots"]
                queue.free(min(free.values()))


class Beating(Protocol):
    """A run whose client is alive."""

    id: str
    beat_seconds: float

    @property
    def ref(self) -> dict[str, str]:
        """The RunRef of the run."""

    def heard(self, state_type: str | None) -> None:
        """Take note of the type of the state that the run is in; None if it was deleted."""


class Beats:
    """Sends heartbeats for runs."""

    def __init__(self, connection: Connection, server_id: Callable[[str], str | None]) -> None:
        self.connection, self.server_id = connection, server_id
        self.runs = dict[str, Beating]()
        self.task: asyncio.Task[None] | None = None

    def add(self, run: Beating) -> None:
        """Send heartbeats for a run from now on."""
        if not run.beat_seconds:
            return
        self.runs[run.id] = run
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._beat())

    def remove(self, run: Beating) -> None:
        """Send no more heartbeats for a run."""
        self.runs.pop(run.id, None)

    async def close(self) -> None:
        """Send no more heartbeats."""
        self.runs.clear()
        if self.task:
            self.task.cancel()

    async def _beat(self) -> None:
        while self.runs:
            await asyncio.sleep(min(each.beat_seconds for each in self.runs.values()))
            # The server may not have been told of a run yet.
            known = {ours: run for run in self.runs.values() if (ours := self.server_id(run.id))}
            for start in range(0, len(known), MOST_BEATS):
                # A heartbeat that is lost is followed by the next one.
                with suppress(ClientError):
                    await self._send(dict(islice(known.items(), start, start + MOST_BEATS)))

    async def _send(self, runs: dict[str, Beating]) -> None:
        refs = [dict.fromkeys(run.ref, known) for known, run in runs.items()]
        answer = await self.connection.execute(BEAT, {"runs": refs})
        for heard in answer["heartbeat"].get("runs", ()):
            if heard["runId"] in runs:
                runs[heard["runId"]].heard(heard["stateType"])
