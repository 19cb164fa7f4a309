"""The buffer of one subscriber."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final, Generic

from runstate.feed.log import LogFilter, T
from runstate.feed.reader import Page

BUFFER_SIZE: Final = 256
"""Entries buffered for one subscriber. A subscriber whose buffer overflowed reads from the log."""


class Subscriber(Generic[T]):
    """A subscriber of a hub, with the pages that it has not taken yet."""

    def __init__(self, filter: LogFilter[T], buffer_size: int = BUFFER_SIZE) -> None:
        self.filter = filter
        self.buffer_size = buffer_size
        self.pages: deque[Page[T]] = deque()
        self.buffered = 0
        """Number of entries in the pages."""
        self.is_behind = True
        """Whether entries were not offered, because the subscriber has not joined yet or its buffer overflowed."""
        self.overflowed_at = 0.0
        """Time of the first overflow since the subscriber joined, by the loop's clock; 0 if there was none."""
        self.has_news = asyncio.Event()

    def join(self) -> None:
        """Accept every matching entry from now on."""
        self.is_behind = False
        self.overflowed_at = 0.0

    def fall_behind(self) -> None:
        """Accept no more entries: the subscriber must read them from the log."""
        if not self.is_behind:
            self.is_behind = True
            self.overflowed_at = asyncio.get_running_loop().time()
        self.has_news.set()

    def offer(self, page: Page[T]) -> None:
        """Buffer new matching entries. The subscriber falls behind if they do not fit."""
        if self.is_behind:
            return
        if self.buffered + len(page.entries) > self.buffer_size:
            # Buffered pages are kept: they precede the entries that are read from the log.
            self.fall_behind()
            return
        self.pages.append(page)
        self.buffered += len(page.entries)
        self.has_news.set()

    def take(self) -> Page[T]:
        """Return the oldest page and remove it from the buffer."""
        page = self.pages.popleft()
        self.buffered -= len(page.entries)
        return page

    @property
    def is_idle(self) -> bool:
        """Whether the subscriber has taken every matching entry that the hub has read."""
        return not self.is_behind and not self.pages

    def stalled_for(self, since: float) -> float:
        """Return the seconds for which it has been behind, if it has taken nothing since a time; 0 if not behind."""
        return asyncio.get_running_loop().time() - max(since, self.overflowed_at) if self.is_behind else 0

    async def wait(self, seconds: float) -> None:
        """Wait until there may be news, or for a number of seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.has_news.wait()
        self.has_news.clear()
