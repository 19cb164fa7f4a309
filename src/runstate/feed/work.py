"""Wakes the workers of work pools when runs can be claimed."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from typing_extensions import override

from runstate.database import Database
from runstate.database.queries.work import PoolWork, mark_polled, read_work
from runstate.errors import NotFound
from runstate.feed.notifications import Notifications
from runstate.feed.waiting import Waiter, Watch

WORK: Final = "runstate_work"
"""The channel that is notified of every transaction that schedules runs of queues or frees their slots."""
WOKEN_FOR_EACH_RUN: Final = 2
"""Workers that are woken for a due run. The next ones follow if it is not claimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkAvailable:
    """The due runs of a pool."""

    due: int
    """Number of runs that can be claimed now, counted up to 200."""
    next_due: datetime | None
    """Time at which the next run becomes due; null if none is known."""


class WorkWaiter(Waiter):
    """A worker that waits for runs."""

    def __init__(self, pool: str, queues: Sequence[str] | None) -> None:
        super().__init__()
        self.pool = pool
        self.queues = None if queues is None else frozenset(queues)
        self.news: WorkAvailable | None = None

    @override
    def take(self) -> WorkAvailable | None:
        news, self.news = self.news, None
        return news

    def wake(self, news: WorkAvailable) -> None:
        """Tell the subscriber about due runs."""
        self.news = news
        self.has_news.set()


class WorkWatch(Watch[WorkWaiter]):
    """Reads the pools whose workers wait, all together, and wakes workers if runs are due.

    The pools are read after each notification, at the time at which their next run becomes due, each second while due
    runs are not claimed, and otherwise every 30 seconds, whatever the number of workers. That reading also records
    that the queues were polled. Nothing is read while nobody waits.
    """

    name = "work"
    channel = WORK

    def __init__(
        self,
        database: Database,
        notifications: Notifications,
        *,
        rest_seconds: float = 30,
        interval_seconds: float = 1,
        pause_seconds: float = 0.05,
    ) -> None:
        super().__init__(database, notifications, wait_seconds=rest_seconds, pause_seconds=pause_seconds)
        self.rest_seconds = rest_seconds
        """Longest time between two events of a subscriber."""
        self.interval_seconds = interval_seconds
        """Time between two reads while due runs are not claimed."""
        self.rested = 0.0
        """Time of the loop at which everybody was told last."""

    async def follow(self, pool: str, queues: Sequence[str] | None) -> AsyncGenerator[WorkAvailable, None]:
        """Yield the due runs of a pool whenever runs can be claimed, and at least every 30 seconds.

        Raises NotFound for an unknown pool, and ServerRestarting at the end.
        """
        waiter = WorkWaiter(pool, queues)
        # The first reading tells whether the pool exists.
        (found,) = await self._read([pool])
        if found is None:
            raise NotFound(message=f"No work pool has the name `{pool}`.")
        self._tell(found, [waiter], everybody=False)
        # The next round counts the new waiter when it computes how long to wait.
        self.wait_seconds = 0
        async with aclosing(self.told(waiter)) as news:
            async for each in news:
                yield each

    @override
    async def look(self) -> None:
        """Read the pools whose workers wait, and wake workers."""
        pools = defaultdict[str, list[WorkWaiter]](list)
        for waiter in self.waiters:
            pools[waiter.pool].append(waiter)
        now = asyncio.get_running_loop().time()
        # From time to time everybody is told: those who were woken before may not have claimed the run.
        everybody = now - self.rested >= self.rest_seconds - self.pause_seconds
        self.rested = now if everybody else self.rested
        waits = [self.rested + self.rest_seconds - now]
        for found in await self._read(sorted(pools)):
            if found is not None:
                waits.append(self._tell(found, pools[found.name], everybody=everybody))
                if everybody:
                    await self._mark(found, pools[found.name])
        self.wait_seconds = max(0.0, min(waits))

    async def _read(self, pools: Sequence[str]) -> list[PoolWork | None]:
        if not pools:
            return []
        async with self.database.read() as connection:
            found = {each.name: each for each in await read_work(connection, pools)}
        return [found.get(each) for each in pools]

    def _tell(self, found: PoolWork, waiters: Sequence[WorkWaiter], *, everybody: bool) -> float:
        """Wake those whose runs can be claimed, at most some for each run; return the time until the next read."""
        soon = self.rest_seconds
        woken = 0
        for waiter in waiters:
            due, next_due = found.available(waiter.queues)
            # Waking a thousand workers for one run would make a thousand claims, all but one in vain.
            if due and woken < WOKEN_FOR_EACH_RUN * due:
                woken += 1
                self.rotate(waiter)
                waiter.wake(WorkAvailable(due=due, next_due=next_due))
            elif everybody:
                waiter.wake(WorkAvailable(due=due, next_due=next_due))
            until = (next_due - found.now).total_seconds() if next_due else soon
            soon = min(soon, self.interval_seconds if due else max(until, 0.0))
        return soon

    async def _mark(self, found: PoolWork, waiters: Sequence[WorkWaiter]) -> None:
        """Record that the queues of waiting workers were polled."""
        names = frozenset[str]().union(*(each.queues or found.names for each in waiters))
        async with self.database.write() as transaction:
            await mark_polled(transaction.connection, found.ids(names), found.now)
