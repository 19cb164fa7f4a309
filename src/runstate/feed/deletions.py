"""Callbacks for the deletion of single rows."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.dialects import among
from runstate.feed.loop import repeat
from runstate.feed.notifications import Notifications
from runstate.rows import Row

DELETIONS: Final = "runstate_deletions"
"""The channel for deletions: commands that delete watchable rows notify it."""
MAX_ROWS: Final = 1_000
"""Maximum number of rows that one statement checks."""

Callback = Callable[[], None]


class DeletionWatch:
    """Calls callbacks when watched rows are deleted.

    All watched rows of a table are checked together: after each notification of a deletion, and at intervals, because
    notifications can be lost. While no row is watched, nothing is read.
    """

    def __init__(
        self,
        database: Database,
        notifications: Notifications,
        *,
        interval_seconds: float = 20,
        pause_seconds: float = 0.25,
    ) -> None:
        self.database = database
        self.interval_seconds = interval_seconds
        """Longest time between two checks."""
        self.pause_seconds = pause_seconds
        """Shortest time between two checks."""
        self.callbacks: defaultdict[type[Row], dict[UUID, set[Callback]]] = defaultdict(dict)
        self.has_news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        notifications.subscribe(DELETIONS, self.has_news.set)

    def start(self) -> None:
        """Start checking."""
        check = repeat(self._check, name="deletions", pause_seconds=self.pause_seconds, retry_seconds=1)
        self.task = asyncio.create_task(check)

    async def stop(self) -> None:
        """Stop checking."""
        if self.task:
            self.task.cancel()
            # The task ends with CancelledError, which is expected.
            await asyncio.gather(self.task, return_exceptions=True)

    @contextmanager
    def watch(self, row: type[Row], key: UUID, callback: Callback) -> Iterator[None]:
        """Have *callback* called after the deletion of a row. Watch a row before reading it, to miss no deletion."""
        callbacks = self.callbacks[row].setdefault(key, set())
        callbacks.add(callback)
        try:
            yield
        finally:
            callbacks.discard(callback)
            if not callbacks:
                self.callbacks[row].pop(key, None)

    async def _check(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.interval_seconds):
                await self.has_news.wait()
        # Cleared before the reads: a deletion during them causes another check.
        self.has_news.clear()
        try:
            for row, watched in list(self.callbacks.items()):  # a copy, because watches begin and end during reads
                keys = iter(list(watched))
                while some := list(islice(keys, MAX_ROWS)):
                    await self._check_some(row, some)
        except Exception:
            self.has_news.set()  # the next round repeats the check
            raise

    async def _check_some(self, row: type[Row], keys: Sequence[UUID]) -> None:
        async with self.database.read() as connection:
            existing = set(await connection.scalars(sa.select(row.id).where(among(row.id, keys))))
        for key in set(keys) - existing:
            # Watches can have ended during the read.
            for callback in list(self.callbacks[row].get(key, ())):
                callback()
