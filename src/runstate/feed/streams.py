"""Streams of subscriptions: existing entries from the log, then new entries from the hub."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from functools import partial
from typing import Generic, TypeVar

from typing_extensions import override

from runstate.errors import ServerRestarting, SlowConsumer
from runstate.feed.cursor import Cursor, Position
from runstate.feed.hub import Hub
from runstate.feed.log import LogFilter, T
from runstate.feed.reader import Page
from runstate.feed.subscriber import Subscriber

Part = TypeVar("Part")


async def follow(
    hub: Hub[T], filter: LogFilter[T], after: str | None = None, *, tail: int = 0
) -> AsyncGenerator[Page[T], None]:
    """Return a stream of matching entries after a cursor; without one, of the last *tail* entries and new ones.

    The first page is sent at once and may be empty. Raises InvalidInput or CursorExpired before the stream is returned.
    """
    cursor = None if after is None else hub.reader.decode(after)
    if cursor is None and tail > 0:
        cursor = await hub.with_timeout(partial(hub.past.tail, tail, filter))
    return await opened(LogStream(hub, filter), cursor)


async def opened(stream: "LogStream[T]", cursor: Cursor | None) -> AsyncGenerator[Page[T], None]:
    """Open a stream: return its pages after a cursor, by default new ones. Raises CursorExpired."""
    hub, matching = stream.hub, stream.subscriber.filter
    # Joined before the read: what is committed during it is offered by the hub.
    end = await hub.with_timeout(hub.join)
    if cursor is None:
        return stream.after(Page([], Cursor(end)))
    return stream.after(await hub.with_timeout(partial(hub.past.page, cursor, end, matching)))


async def read_log(hub: Hub[T], filter: LogFilter[T], after: str | None, size: int) -> Page[T]:
    """Return a page of matching entries after a cursor, by default from the beginning of the log.

    Raises InvalidInput or CursorExpired.
    """
    cursor = await hub.with_timeout(hub.past.beginning) if after is None else hub.reader.decode(after)
    return await hub.with_timeout(partial(hub.past.limited_page, cursor, size, filter))


class Stream(ABC, Generic[T, Part]):
    """One subscription: parts from the log, then parts from the hub, and from the log again if it falls behind."""

    def __init__(self, hub: Hub[T], filter: LogFilter[T]) -> None:
        self.hub = hub
        self.subscriber = Subscriber(filter)
        self.catching_up = False
        """Whether entries that the hub did not offer are being read from the log."""

    async def after(self, first: Part) -> AsyncGenerator[Part, None]:
        """Yield the first part and all further parts."""
        part: Part | None = first
        # Added before the first part, so that a stopping hub waits for this stream.
        self.hub.add(self.subscriber)
        try:
            while part is not None:
                self._advance(part)
                yielded_at = asyncio.get_running_loop().time()
                yield part
                if self.subscriber.stalled_for(yielded_at) > self.hub.settings.slow_subscriber_timeout_seconds:
                    # The client comes back with the cursor; meanwhile nothing is held for it.
                    raise SlowConsumer(self._resume_point())
                part = await self._next()
        finally:
            self.hub.remove(self.subscriber)

    async def _next(self) -> Part | None:
        """Return the next part with entries, an empty one as a heartbeat, or None at the end."""
        deadline = asyncio.get_running_loop().time() + self.hub.settings.heartbeat_seconds
        while not self._is_over():
            part = await self._step(deadline)
            if part is not None:
                self._advance(part)
                if self._has_entries(part) or asyncio.get_running_loop().time() >= deadline:
                    return part
        return None

    async def _step(self, deadline: float) -> Part | None:
        if self.catching_up:
            return await self.hub.retry_until_available(self._read)
        if self.subscriber.pages:
            page = self.subscriber.take()
            self.hub.delivered(page.entries[-1])
            return self._part(page)
        # After the buffered pages, which a stopping server still delivers.
        if self.hub.closing:
            raise ServerRestarting(self._resume_point())
        if self.subscriber.is_behind:
            self.catching_up = self._catch_up(await self.hub.join(self.subscriber))
            return None
        await self.subscriber.wait(deadline - asyncio.get_running_loop().time())
        # An idle subscriber gets the newest cursor from time to time, so that its cursor stays valid.
        return self._part(Page([], self.hub.cursor)) if self.subscriber.is_idle else None

    @abstractmethod
    def _advance(self, part: Part) -> None:
        """Record the end of a part as the progress of the stream."""

    @abstractmethod
    def _resume_point(self) -> str:
        """Return the value with which a client resumes the subscription."""

    @abstractmethod
    def _has_entries(self, part: Part) -> bool:
        """Return whether a part has entries."""

    @abstractmethod
    def _is_over(self) -> bool:
        """Return whether the stream has ended."""

    @abstractmethod
    def _catch_up(self, end: Position) -> bool:
        """Return whether entries up to a position must be read from the log. The hub offers all later entries."""

    @abstractmethod
    async def _read(self) -> Part:
        """Return the next part from the log, and clear `catching_up` if it is the last."""

    @abstractmethod
    def _part(self, page: Page[T]) -> Part:
        """Return the part for a page from the hub."""


class LogStream(Stream[T, Page[T]]):
    """The entries of a log that match a filter."""

    cursor: Cursor
    target: Position

    @override
    def _advance(self, part: Page[T]) -> None:
        self.cursor = part.cursor

    @override
    def _resume_point(self) -> str:
        return self.hub.reader.encode(self.cursor)

    @override
    def _has_entries(self, part: Page[T]) -> bool:
        return bool(part.entries)

    @override
    def _is_over(self) -> bool:
        return False

    @override
    def _catch_up(self, end: Position) -> bool:
        self.target = end
        return self.cursor != Cursor(end)

    @override
    async def _read(self) -> Page[T]:
        page = await self.hub.past.page(self.cursor, self.target, self.subscriber.filter)
        self.catching_up = not page.complete
        return page

    @override
    def _part(self, page: Page[T]) -> Page[T]:
        return page
