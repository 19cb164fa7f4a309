"""The base of watches: subscribers that wait for something in the database, which is read for all of them together."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, ClassVar, Generic, TypeVar

from runstate.database import Database
from runstate.errors import ServerRestarting
from runstate.feed.loop import repeat
from runstate.feed.notifications import Notifications


class Waiter(ABC):
    """One subscription."""

    def __init__(self) -> None:
        self.has_news = asyncio.Event()

    @abstractmethod
    def take(self) -> Any:
        """Return what the subscriber was told since the last call; None or empty if that is nothing."""


W = TypeVar("W", bound=Waiter)


class Watch(ABC, Generic[W]):
    """Reads at each notification of its channel, and at intervals, and wakes waiters. Nothing is read without waiters.

    A subclass reads in `look` and wakes by setting `has_news` of a waiter.
    """

    name: ClassVar[str]
    """Name of the task."""
    channel: ClassVar[str]

    def __init__(
        self, database: Database, notifications: Notifications, *, wait_seconds: float, pause_seconds: float
    ) -> None:
        self.database = database
        self.wait_seconds = wait_seconds
        """Longest time until the next read without a notification."""
        self.pause_seconds = pause_seconds
        """Shortest time between two reads."""
        self.waiters: deque[W] = deque()
        """Those who were woken last are at the end."""
        self.has_news = asyncio.Event()
        self.closing = False
        self.task: asyncio.Task[None] | None = None
        notifications.subscribe(self.channel, self.has_news.set)

    def start(self) -> None:
        """Begin to read."""
        read = repeat(self._round, name=self.name, pause_seconds=self.pause_seconds, retry_seconds=1)
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

    @abstractmethod
    async def look(self) -> None:
        """Read what waiters wait for, and wake them."""

    async def told(self, waiter: W) -> AsyncGenerator[Any, None]:
        """Yield what a waiter is told. Raise ServerRestarting at the end."""
        self.waiters.append(waiter)
        self.has_news.set()
        try:
            while not self.closing:
                await waiter.has_news.wait()
                waiter.has_news.clear()
                if news := waiter.take():
                    yield news
        finally:
            self.waiters.remove(waiter)
        raise ServerRestarting("")

    def rotate(self, waiter: W) -> None:
        """Put a waiter that is woken behind the others."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
            self.waiters.append(waiter)

    async def _round(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.wait_seconds if self.waiters else None):
                await self.has_news.wait()
        # Cleared before the read: a notification during it causes another one.
        self.has_news.clear()
        await self.look()
