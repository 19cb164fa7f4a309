"""Notification of subscribers that wait for free slots of concurrency limits."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runstate.database import Database
from runstate.database.queries.slots import read_limits
from runstate.errors import ServerRestarting
from runstate.feed.loop import repeat
from runstate.feed.notifications import Notifications

SLOTS: Final = "runstate_slots"
"""The channel that is notified of every transaction that releases slots, and of every changed limit."""
WOKEN_FOR_EACH_SLOT: Final = 2
"""Waiters that are woken for a free slot. The next ones follow if the slot stays free."""
MAX_NAMES: Final = 1_000
"""Names that one statement reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSlots:
    """The free slots of a limit."""

    name: str
    """Name of the limit."""
    slots: int | None
    """Number of free slots; null if no active limit has this name."""


class SlotWaiter:
    """One subscription."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.told: dict[str, datetime | None] = {}
        """Times of the changes after which the subscriber was told of free slots, by name of the limit."""
        self.news: dict[str, FreeSlots] = {}
        self.has_news = asyncio.Event()

    def wake(self, free: FreeSlots, changed: datetime | None) -> None:
        """Tell the subscriber about free slots."""
        self.told[free.name] = changed
        self.news[free.name] = free
        self.has_news.set()

    def needs(self, name: str, changed: datetime | None) -> bool:
        """Whether the subscriber waits for a limit, and was not told of free slots since its last change."""
        return name in self.names and (name not in self.told or self.told[name] != changed)


class SlotWatch:
    """Reads the limits that subscriptions wait for, all together, and wakes waiters of limits with free slots.

    The limits are read at each notification, and at intervals, because notifications can be lost and slots with decay
    become free by themselves. Nothing is read without subscriptions.
    """

    def __init__(
        self,
        database: Database,
        notifications: Notifications,
        *,
        interval_seconds: float = 1,
        pause_seconds: float = 0.05,
    ) -> None:
        self.database = database
        self.interval_seconds = interval_seconds
        """Longest time between two reads."""
        self.pause_seconds = pause_seconds
        """Shortest time between two reads."""
        self.waiters: deque[SlotWaiter] = deque()
        """Subscriptions, in the order in which they were last woken."""
        self.has_news = asyncio.Event()
        self.closing = False
        self.task: asyncio.Task[None] | None = None
        notifications.subscribe(SLOTS, self.has_news.set)

    def start(self) -> None:
        """Begin to read."""
        read = repeat(self._round, name="slots", pause_seconds=self.pause_seconds, retry_seconds=1)
        self.task = asyncio.create_task(read)

    async def stop(self) -> None:
        """End all streams, and stop."""
        self.closing = True
        # They must notice that the server stops.
        for waiter in self.waiters:
            waiter.has_news.set()
        if self.task:
            self.task.cancel()
            # The task ends with CancelledError, which is expected.
            await asyncio.gather(self.task, return_exceptions=True)

    async def follow(self, names: Sequence[str]) -> AsyncGenerator[list[FreeSlots], None]:
        """Yield the limits that have free slots now, and then each that has some after a change.

        Raises ServerRestarting at the end.
        """
        waiter = SlotWaiter(names)
        self.waiters.append(waiter)
        self.has_news.set()
        try:
            while not self.closing:
                await waiter.has_news.wait()
                waiter.has_news.clear()
                news, waiter.news = list(waiter.news.values()), {}
                if news:
                    yield news
        finally:
            self.waiters.remove(waiter)
        raise ServerRestarting("")

    async def _round(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.interval_seconds if self.waiters else None):
                await self.has_news.wait()
        self.has_news.clear()
        await self.read()

    async def read(self) -> None:
        """Read all limits that subscriptions wait for, and wake waiters."""
        names = sorted(set[str]().union(*(each.names for each in self.waiters)))
        for place in range(0, len(names), MAX_NAMES):
            await self._look(names[place : place + MAX_NAMES])

    async def _look(self, names: list[str]) -> None:
        """Read limits. Wake the waiters of those that have free slots or that are not active."""
        async with self.database.read() as connection:
            found = {each.name: each for each in await read_limits(connection, names)}
        for name in names:
            limit = found.get(name)
            if limit is None:
                self._wake(FreeSlots(name=name, slots=None), None)
            elif limit.free > 0:
                self._wake(FreeSlots(name=name, slots=limit.free), limit.changed)

    def _wake(self, free: FreeSlots, changed: datetime | None) -> None:
        """Wake waiters: at most two for each free slot, beginning with the one that was woken least recently."""
        waiting = [each for each in self.waiters if each.needs(free.name, changed)]
        # Without an active limit, all of them can go on.
        most = len(waiting) if free.slots is None else WOKEN_FOR_EACH_SLOT * free.slots
        for waiter in waiting[:most]:
            self.waiters.remove(waiter)
            self.waiters.append(waiter)
            waiter.wake(free, changed)
