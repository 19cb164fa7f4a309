"""The hub of a log: it reads new entries once per process and delivers them to all subscribers."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

import structlog

from runstate.database import Database
from runstate.database.failures import is_temporary
from runstate.errors import CursorExpired, InvalidInput, Unavailable
from runstate.feed.cursor import Cursor, Position
from runstate.feed.live_queries import LiveQueries
from runstate.feed.log import EVERYTHING, Log, LogFilter, T
from runstate.feed.loop import repeat
from runstate.feed.notifications import Notifications
from runstate.feed.reader import Page, Reader
from runstate.feed.subscriber import Subscriber

R = TypeVar("R")

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Intervals and timeouts of a hub."""

    poll_seconds: float = 0.25
    """Longest time between two polls of the log; a notification causes an earlier poll."""
    pause_seconds: float = 0.005
    """Shortest time between two polls. Entries that are committed meanwhile are read together."""
    rest_seconds: float = 0.0003
    """Pause after a poll for each subscriber to which it has offered entries, so that serving them leaves time."""
    longest_rest_seconds: float = 0.25
    retry_seconds: float = 1
    """Pause after an unexpected error."""
    heartbeat_seconds: float = 20
    """Longest time between two pages for a subscriber; without entries, it receives an empty page."""
    slow_subscriber_timeout_seconds: float = 60
    """Time after which the stream of a subscriber ends that is behind and takes no page."""
    shutdown_grace_seconds: float = 5
    """Time for which subscribers may take their buffered pages when the hub stops."""


DEFAULTS: Final = HubSettings()


class Hub(Generic[T]):
    """Polls one log and delivers its new entries to each subscriber, in order and once."""

    reader: Reader[T]
    past: Reader[T]
    """Reads entries for subscribers that are behind; its connections are separate from those of the hub."""
    cursor: Cursor
    """The end of the delivered entries."""

    def __init__(
        self,
        database: Database,
        log: Log[T],
        notifications: Notifications,
        settings: HubSettings = DEFAULTS,
        delivered: Callable[[T], None] = lambda _: None,
    ) -> None:
        self.database = database
        self.log = log
        self.settings = settings
        self.delivered = delivered
        """Called with the last entry of a page that a subscriber takes from its buffer."""
        self.polled_at = 0.0
        """Time of the last poll that reached the end of the log, by the loop's clock."""
        self.has_news = asyncio.Event()
        self.live = LiveQueries(database.subscriptions, lambda: self.reader.snapshot)
        self.has_changed = False
        """Whether something was committed since the live queries were refreshed."""
        self.closing = False
        self.subscribers: set[Subscriber[T]] = set()
        """All subscribers that must be served before the hub stops."""
        self.drained = asyncio.Event()
        self.audiences: dict[LogFilter[T], set[Subscriber[T]]] = {}
        """Subscribers to which new entries are offered, by their filters."""
        self.unkeyed: set[LogFilter[T]] = set()
        self.by_key: defaultdict[UUID | None, set[LogFilter[T]]] = defaultdict(set)
        self.rest_seconds = 0.0
        """Pause before the next poll, besides the shortest one: subscribers take time to serve."""
        self.joining: list[tuple[Subscriber[T] | None, asyncio.Future[Position]]] = []
        self.task: asyncio.Task[None] | None = None
        notifications.subscribe(log.channel, self.wake)

    async def start(self) -> None:
        """Start polling, from the current end of the log."""
        await self._seek_end()
        self.polled_at = asyncio.get_running_loop().time()
        pauses = {"pause_seconds": self.settings.pause_seconds, "retry_seconds": self.settings.retry_seconds}
        self.task = asyncio.create_task(repeat(self._round, name=f"feed of {self.log.name}", **pauses))

    async def _seek_end(self) -> None:
        self.reader = await Reader.open(self.database.feed, self.log)
        # A thousand clients that reconnect and read old entries must not take the hub's connection.
        self.past = Reader(self.database.subscriptions, self.log, self.reader.installation)
        self.cursor = Cursor(await self.reader.position())

    @property
    def age(self) -> float:
        """Seconds since the log was last read to its end."""
        return asyncio.get_running_loop().time() - self.polled_at

    async def stop(self) -> None:
        """Deliver all committed entries, end all streams, and stop."""
        if self.task is None or self.closing:
            return
        # One more poll, so that everything committed so far is delivered.
        await self._within_grace(self.join())
        # After the last poll: streams end when this is set and their buffer is empty.
        self.closing = True
        self.live.close()
        for subscriber in self.subscribers:
            subscriber.has_news.set()
        if self.subscribers:
            await self._within_grace(self.drained.wait())
        # The grace period is over, or all have been served.
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _within_grace(self, awaited: Awaitable[object]) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(awaited, self.settings.shutdown_grace_seconds)

    def wake(self) -> None:
        """Poll now if there are subscribers or live queries."""
        # Otherwise every commit would cause a poll that delivers nothing.
        if self.subscribers or self.live.queries:
            self.has_changed = True
            self.has_news.set()

    async def end_cursor(self) -> str:
        """Return a cursor at the current end of the log, as clients store it."""
        return self.reader.encode(Cursor(await self.with_timeout(self.reader.position)))

    def add(self, subscriber: Subscriber[T]) -> None:
        """Add a subscriber. The hub waits for it before it stops."""
        self.subscribers.add(subscriber)

    def remove(self, subscriber: Subscriber[T]) -> None:
        """Remove a subscriber."""
        self.subscribers.discard(subscriber)
        audience = self.audiences.get(subscriber.filter, set())
        audience.discard(subscriber)
        if not audience and self.audiences.pop(subscriber.filter, None) is not None:
            self._forget(subscriber.filter)
        if self.closing and not self.subscribers:
            self.drained.set()

    def _forget(self, filter: LogFilter[T]) -> None:
        self.unkeyed.discard(filter)
        for key in filter.keys or ():
            self.by_key[key].discard(filter)
            # An empty set would stay in memory for each key.
            if not self.by_key[key]:
                del self.by_key[key]

    async def join(self, subscriber: Subscriber[T] | None = None) -> Position:
        """Return the end of the next poll. From there on, the hub offers every matching entry to the subscriber."""
        # Joined by the task of the hub, between two deliveries: otherwise entries could be missed or offered twice.
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self.joining.append((subscriber, future))
        self.has_news.set()
        return await future

    async def retry_until_available(self, read: Callable[[], Awaitable[R]]) -> R:
        """Return the result of a read. Retry it while the database is unavailable."""
        while True:
            try:
                return await read()
            except Exception as error:
                if not is_temporary(error):
                    raise
                # Streams outlive a restart of the database; only reads with a deadline give up.
                await asyncio.sleep(self.settings.poll_seconds)

    async def with_timeout(self, read: Callable[[], Awaitable[R]], seconds: float = 10) -> R:
        """Return the result of a read. Raise Unavailable if the database does not become available in time."""
        try:
            async with asyncio.timeout(seconds):
                return await self.retry_until_available(read)
        except TimeoutError as error:
            raise Unavailable from error

    async def _round(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.poll_seconds):
                await self.has_news.wait()
        rest, self.rest_seconds = min(self.rest_seconds, self.settings.longest_rest_seconds), 0.0
        if rest and not self.closing:
            await asyncio.sleep(rest)
        # Cleared before the read: news that arrives during it causes another poll.
        self.has_news.clear()
        try:
            await self.retry_until_available(self._poll)
        except Exception:
            self.has_news.set()  # the next round must poll at once: the entries of this one were not delivered
            raise

    async def _poll(self) -> None:
        """Read and deliver new entries, then register the subscribers that joined before the read."""
        # A subscriber that joins during the read waits for the next poll: this one may have passed its entries.
        number = len(self.joining)
        try:
            await (self._deliver_new() if self.subscribers else self._skip_to_end())
        except (CursorExpired, InvalidInput):
            await self._start_over()
        self.polled_at = asyncio.get_running_loop().time()
        if self.has_changed:
            self.has_changed = False
            self.live.refresh()
        joining, self.joining = self.joining[:number], self.joining[number:]
        for subscriber, future in joining:
            self._register(subscriber, future)

    async def _deliver_new(self) -> None:
        while not self._deliver(await self.reader.page(self.cursor)):
            pass

    async def _skip_to_end(self) -> None:
        """Move to the end of the log without reading entries, because there are no subscribers."""
        end = Cursor(await self.reader.position())
        self.has_changed |= end.seen.top != self.cursor.seen.top
        self.cursor = end

    def _deliver(self, page: Page[T]) -> bool:
        """Offer the entries of a page to matching subscribers; return whether the page was the last one."""
        matching: defaultdict[LogFilter[T], list[T]] = defaultdict(list)
        for entry in page.entries:
            for condition in self._matching(entry):
                # Once for each filter, not for each subscriber: many subscribers of a page have the same one.
                matching[condition].append(entry)
        self.cursor = page.cursor
        for condition, entries in matching.items():
            # One page for all of them, so that memory does not grow with their number.
            offered, audience = Page(entries, page.cursor), self.audiences[condition]
            for subscriber in audience:
                subscriber.offer(offered)
            self.rest_seconds += len(audience) * self.settings.rest_seconds
        self.has_changed |= bool(page.entries)
        return page.complete

    def is_awaited(self, entry: T) -> bool:
        """Return whether a subscriber will be offered a new entry."""
        # Before the others, of which there may be many.
        return EVERYTHING in self.audiences or bool(self._matching(entry))

    def _matching(self, entry: T) -> list[LogFilter[T]]:
        keyed: set[LogFilter[T]] = set()
        # The keys of an entry are only needed while a subscriber selects by them.
        if self.by_key:
            keyed.update(*(self.by_key.get(key, ()) for key in self.log.keys(entry)))
        return [each for each in (*self.unkeyed, *keyed) if each.match(entry)]

    async def _start_over(self) -> None:
        """Continue at the end of a log that was pruned or replaced before it was read.

        All subscribers read from the log again. Their read raises an error if their entries are missing.
        """
        logger.error("the feed lost its position in the log", log=self.log.name)
        await self._seek_end()
        for subscriber in self.subscribers:
            subscriber.fall_behind()

    def _register(self, subscriber: Subscriber[T] | None, future: asyncio.Future[Position]) -> None:
        if future.done():  # cancelled: the subscriber is gone
            return
        if subscriber:
            subscriber.join()
            self._admit(subscriber)
        future.set_result(self.cursor.seen)

    def _admit(self, subscriber: Subscriber[T]) -> None:
        condition = subscriber.filter
        if condition not in self.audiences:
            self.audiences[condition] = set()
            # A filter without keys is tried for each entry; with keys, only for entries that have one of them.
            if condition.keys is None:
                self.unkeyed.add(condition)
            for key in condition.keys or ():
                self.by_key[key].add(condition)
        self.audiences[condition].add(subscriber)
