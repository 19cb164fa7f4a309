"""Notification of subscribers that wait for free slots of concurrency limits."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from typing_extensions import override

from runstate.database import Database
from runstate.database.queries.slots import read_limits
from runstate.feed.notifications import Notifications
from runstate.feed.waiting import Waiter, Watch

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


class SlotWaiter(Waiter):
    """A subscription to limits."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = frozenset(names)
        self.told: dict[str, datetime | None] = {}
        """Times of the changes after which the subscriber was told of free slots, by name of the limit."""
        self.news: dict[str, FreeSlots] = {}

    @override
    def take(self) -> list[FreeSlots]:
        news, self.news = list(self.news.values()), {}
        return news

    def wake(self, free: FreeSlots, changed: datetime | None) -> None:
        """Tell the subscriber about free slots."""
        self.told[free.name] = changed
        self.news[free.name] = free
        self.has_news.set()

    def needs(self, name: str, changed: datetime | None) -> bool:
        """Whether the subscriber waits for a limit, and was not told of free slots since its last change."""
        return name in self.names and (name not in self.told or self.told[name] != changed)


class SlotWatch(Watch[SlotWaiter]):
    """Reads the limits that subscriptions wait for, all together, and wakes waiters of limits with free slots.

    The limits are read at each notification, and at intervals, because notifications can be lost and slots with decay
    become free by themselves. Nothing is read without subscriptions.
    """

    name = "slots"
    channel = SLOTS

    def __init__(
        self, database: Database, notifications: Notifications, *, wait_seconds: float = 1, pause_seconds: float = 0.05
    ) -> None:
        super().__init__(database, notifications, wait_seconds=wait_seconds, pause_seconds=pause_seconds)

    def follow(self, names: Sequence[str]) -> AsyncGenerator[list[FreeSlots], None]:
        """Yield the limits that have free slots now, and then each that has some after a change.

        Raises ServerRestarting at the end.
        """
        return self.told(SlotWaiter(names))

    @override
    async def look(self) -> None:
        names = sorted(set[str]().union(*(each.names for each in self.waiters)))
        # A page of names for each statement, so that none of them has a parameter without bounds.
        for place in range(0, len(names), MAX_NAMES):
            await self._look(names[place : place + MAX_NAMES])

    async def _look(self, names: list[str]) -> None:
        """Read limits. Wake the waiters of those that have free slots or that are not active."""
        async with self.database.read() as connection:
            found = {each.name: each for each in await read_limits(connection, names)}
        for name in names:
            limit = found.get(name)
            if limit is None:
                # A limit that was deleted or switched off holds nobody back.
                self._wake(FreeSlots(name=name, slots=None), None)
            elif limit.free > 0:
                self._wake(FreeSlots(name=name, slots=limit.free), limit.changed)

    def _wake(self, free: FreeSlots, changed: datetime | None) -> None:
        """Wake waiters: at most two for each free slot, beginning with the one that was woken least recently."""
        waiting = [each for each in self.waiters if each.needs(free.name, changed)]
        # Without an active limit, all of them can go on.
        most = len(waiting) if free.slots is None else WOKEN_FOR_EACH_SLOT * free.slots
        for waiter in waiting[:most]:
            self.rotate(waiter)
            waiter.wake(free, changed)
