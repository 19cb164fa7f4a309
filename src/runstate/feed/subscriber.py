"""What waits for one listener."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from runstate.feed.filter import TransitionFilter
from runstate.feed.reader import Page

HELD: Final = 256
"""Transitions that wait in memory for one listener; what does not fit it reads again."""


class Subscriber:
    """One listener: the pages that wait for it, as many as fit."""

    def __init__(self, wanted: TransitionFilter, held: int = HELD) -> None:
        self.wanted = wanted
        self.held = held
        self.pages: deque[Page] = deque()
        self.waiting = 0
        self.behind = True
        """Whether there is more in the log than waits here: it has not joined yet, or something did not fit."""
        self.missed_since = 0.0
        """When something did not fit for the first time since it joined; 0: all did."""
        self.news = asyncio.Event()

    def join(self) -> None:
        """From here on, all that is wanted is offered."""
        self.behind = False
        self.missed_since = 0.0

    def fall_behind(self) -> None:
        """From here on, what is wanted must be read again."""
        if not self.behind:
            self.behind = True
            self.missed_since = asyncio.get_running_loop().time()
        self.news.set()

    def offer(self, page: Page) -> None:
        """What was read just now and is wanted."""
        if self.behind:
            return
        if self.waiting + len(page.transitions) > self.held:
            self.fall_behind()
            return
        self.pages.append(page)
        self.waiting += len(page.transitions)
        self.news.set()

    def take(self) -> Page:
        """The page that waits longest."""
        page = self.pages.popleft()
        self.waiting -= len(page.transitions)
        return page

    @property
    def is_idle(self) -> bool:
        """Whether it was told all that it wants."""
        return not self.behind and not self.pages

    def stalled_for(self, since: float) -> float:
        """For how many seconds it was behind and took nothing, if it has taken nothing since then."""
        return asyncio.get_running_loop().time() - max(since, self.missed_since) if self.behind else 0

    async def wait(self, seconds: float) -> None:
        """Until there may be something to do, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.news.wait()
        self.news.clear()
