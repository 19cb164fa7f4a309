"""What subscriptions are made of: the transitions that are wanted, or those of one run, then and from now on."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from functools import partial
from typing import Generic, TypeVar
from uuid import UUID

from typing_extensions import override

from runstate.documents.states import FINAL_TYPES, RunKind
from runstate.errors import ServerRestarting, SlowConsumer
from runstate.feed.cursor import Cursor, Position
from runstate.feed.filter import TransitionFilter
from runstate.feed.history import RunHistoryPage, run_history_page
from runstate.feed.hub import Hub
from runstate.feed.reader import Page
from runstate.feed.subscriber import Subscriber

T = TypeVar("T")


async def follow(hub: Hub, wanted: TransitionFilter, after: str | None = None) -> AsyncGenerator[Page, None]:
    """The transitions that are wanted after a cursor, or from now on: pages, the first of them at once.

    InvalidInput and CursorExpired are raised before there is a stream.
    """
    cursor = None if after is None else Cursor.decode(after, hub.reader.installation)
    end = await hub.with_timeout(hub.join)
    if cursor is None:
        return Following(hub, wanted).after(Page([], Cursor(end)))
    return Following(hub, wanted).after(await hub.with_timeout(partial(hub.reader.page, cursor, end, wanted)))


async def follow_run(
    hub: Hub, kind: RunKind, run_id: UUID, version: int = 0, *, until_final: bool = False
) -> AsyncGenerator[RunHistoryPage, None]:
    """The transitions of one run after a version, for ever or until it has ended: some at a time, none or more at once.

    NotFound is raised before there is a stream.
    """
    past = await hub.with_timeout(partial(run_history_page, hub.database, kind, run_id, version))
    return FollowingRun(hub, kind, run_id, until_final=until_final).after(past)


class Stream(ABC, Generic[T]):
    """How one subscription goes on: what is in the log, then what is told; and again when it fell behind."""

    def __init__(self, hub: Hub, wanted: TransitionFilter) -> None:
        self.hub = hub
        self.subscriber = Subscriber(wanted)
        self.reading = False
        """Whether something that was not told is being read from the log."""

    async def after(self, first: T) -> AsyncGenerator[T, None]:
        """The first piece, then all that follow."""
        part: T | None = first
        self.hub.follow(self.subscriber)
        try:
            while part is not None:
                self._bookmark(part)
                handed_over = asyncio.get_running_loop().time()
                yield part
                if self.subscriber.stalled_for(handed_over) > self.hub.patience_seconds:
                    raise SlowConsumer(self._where())
                part = await self._next()
        finally:
            self.hub.leave(self.subscriber)

    async def _next(self) -> T | None:
        """The next piece that says something; an empty one when there is nothing to say for long; none at the end."""
        deadline = asyncio.get_running_loop().time() + self.hub.heartbeat_seconds
        while not self._ended():
            part = await self._step(deadline)
            if part is not None:
                self._bookmark(part)
                if self._is_worth_sending(part) or asyncio.get_running_loop().time() >= deadline:
                    return part
        return None

    async def _step(self, deadline: float) -> T | None:
        if self.reading:
            return await self.hub.retry_until_available(self._read_on)
        if self.subscriber.pages:
            page = self.subscriber.take()
            self.hub.told(page.transitions[-1])
            return self._told(page)
        if self.hub.closing:
            raise ServerRestarting(self._where())
        if self.subscriber.behind:
            self.reading = self._missed(await self.hub.join(self.subscriber))
            return None
        await self.subscriber.wait(deadline - asyncio.get_running_loop().time())
        return self._told(Page([], self.hub.cursor)) if self.subscriber.is_idle else None

    @abstractmethod
    def _bookmark(self, part: T) -> None:
        """Remember where a piece ends."""

    @abstractmethod
    def _where(self) -> str:
        """What a client that comes back says to go on from here."""

    @abstractmethod
    def _is_worth_sending(self, part: T) -> bool:
        """Whether there is a transition in it."""

    @abstractmethod
    def _ended(self) -> bool:
        """Whether nothing more is wanted."""

    @abstractmethod
    def _missed(self, end: Position) -> bool:
        """Whether the log must be read up to this position; from there on everything is told."""

    @abstractmethod
    async def _read_on(self) -> T:
        """A piece from the log; `reading` is false when it was the last."""

    @abstractmethod
    def _told(self, page: Page) -> T:
        """A piece of what was told."""


class Following(Stream[Page]):
    """The transitions that are wanted."""

    cursor: Cursor
    goal: Position

    @override
    def _bookmark(self, part: Page) -> None:
        self.cursor = part.cursor

    @override
    def _where(self) -> str:
        return self.hub.written(self.cursor)

    @override
    def _is_worth_sending(self, part: Page) -> bool:
        return bool(part.transitions)

    @override
    def _ended(self) -> bool:
        return False

    @override
    def _missed(self, end: Position) -> bool:
        self.goal = end
        return self.cursor != Cursor(end)

    @override
    async def _read_on(self) -> Page:
        page = await self.hub.reader.page(self.cursor, self.goal, self.subscriber.wanted)
        self.reading = not page.complete
        return page

    @override
    def _told(self, page: Page) -> Page:
        return page


class FollowingRun(Stream[RunHistoryPage]):
    """The transitions of one run."""

    version: int
    over: bool

    def __init__(self, hub: Hub, kind: RunKind, run_id: UUID, *, until_final: bool) -> None:
        super().__init__(hub, TransitionFilter(run_ids=frozenset({run_id})))
        self.kind = kind
        self.run_id = run_id
        self.until_final = until_final

    @override
    def _bookmark(self, part: RunHistoryPage) -> None:
        self.version = part.version
        self.over = part.over

    @override
    def _where(self) -> str:
        return str(self.version)

    @override
    def _is_worth_sending(self, part: RunHistoryPage) -> bool:
        return bool(part.transitions)

    @override
    def _ended(self) -> bool:
        return self.until_final and self.over and not self.subscriber.pages and not self.subscriber.missed_since

    @override
    def _missed(self, end: Position) -> bool:
        return True

    @override
    async def _read_on(self) -> RunHistoryPage:
        past = await run_history_page(self.hub.database, self.kind, self.run_id, self.version)
        self.reading = not past.complete
        return past

    @override
    def _told(self, page: Page) -> RunHistoryPage:
        news = [entry for entry in page.transitions if entry.version > self.version]
        if not news:
            return RunHistoryPage([], self.version, self.over)
        return RunHistoryPage(news, news[-1].version, news[-1].state_type in FINAL_TYPES)
