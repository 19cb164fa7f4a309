"""One reader of the log for a whole process, and those whom it tells what it has read."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

import asyncpg
import sqlalchemy as sa
import structlog

from runstate.database import Database
from runstate.errors import CursorExpired, InvalidInput, Unavailable
from runstate.feed.cursor import Cursor, Position
from runstate.feed.installation import identify
from runstate.feed.live_queries import LiveQueries
from runstate.feed.notifications import Notifications
from runstate.feed.reader import Page, Reader
from runstate.feed.subscriber import Subscriber
from runstate.rows import Transition

T = TypeVar("T")

FAILURES = (sa.exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What reading fails with while the database is away."""

logger = structlog.get_logger(__name__)


class Hub:
    """Reads the log as it grows and tells each subscriber what it wants, in order and once."""

    reader: Reader
    cursor: Cursor
    """What was told last."""

    def __init__(
        self,
        database: Database,
        *,
        poll_seconds: float = 0.25,
        pause_seconds: float = 0.005,
        heartbeat_seconds: float = 20,
        patience_seconds: float = 60,
        farewell_seconds: float = 5,
        wakeups: bool = True,
        told: Callable[[Transition], None] = lambda _: None,
    ) -> None:
        self.database = database
        self.poll_seconds = poll_seconds
        """How often the log is looked at though nobody said that there is news."""
        self.pause_seconds = pause_seconds
        """How long news is gathered before the next look."""
        self.heartbeat_seconds = heartbeat_seconds
        """How often a subscriber hears where the log ends though there is nothing for it."""
        self.patience_seconds = patience_seconds
        """How long a subscriber that is behind may stand still."""
        self.farewell_seconds = farewell_seconds
        """How long subscribers get, at the end, to take what waits for them."""
        self.told = told
        """Called with the last transition of a page when a subscriber that keeps up is told it."""
        self.looked = 0.0
        """When the log was last read to its end."""
        self.wakeup = None if database.is_sqlite or not wakeups else Notifications(database, self._wake)
        self.news = asyncio.Event()
        self.live = LiveQueries(database, lambda: self.reader.snapshot)
        self.changed = False
        """Whether something was committed since live queries were told so."""
        self.closing = False
        self.followers: set[Subscriber] = set()
        """Everyone who is still to be told something."""
        self.deserted = asyncio.Event()
        self.everything: set[Subscriber] = set()
        self.by_key: defaultdict[UUID, set[Subscriber]] = defaultdict(set)
        self.joining: list[tuple[Subscriber | None, asyncio.Future[Position]]] = []
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to read, from now on."""
        self.reader = Reader(self.database, await identify(self.database))
        self.cursor = Cursor(await self.reader.position())
        self.looked = asyncio.get_running_loop().time()
        self.task = asyncio.create_task(self._run())
        if self.wakeup:
            self.wakeup.start()

    @property
    def age(self) -> float:
        """For how many seconds the log was not read to its end."""
        return asyncio.get_running_loop().time() - self.looked

    async def stop(self) -> None:
        """Tell what was committed so far, let the subscribers go, end."""
        if self.task is None or self.closing:
            return
        await self._within_the_farewell(self.join())
        self.closing = True
        self.live.close()
        for follower in self.followers:
            follower.news.set()
        if self.followers:
            await self._within_the_farewell(self.deserted.wait())
        await self._end(self.task)

    async def _within_the_farewell(self, awaited: Awaitable[object]) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(awaited, self.farewell_seconds)

    async def _end(self, task: asyncio.Task[None]) -> None:
        if self.wakeup:
            await self.wakeup.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def notify(self) -> None:
        """Something was committed here: look at once, and have other replicas look soon."""
        self._wake()
        if self.wakeup:
            self.wakeup.tell()

    def _wake(self) -> None:
        """Look at once, if there is anybody to be told."""
        if self.followers or self.live.queries:
            self.changed = True
            self.news.set()

    async def end(self) -> str:
        """Where the log ends now, as clients keep it."""
        return self.written(Cursor(await self.with_timeout(self.reader.position)))

    def written(self, cursor: Cursor) -> str:
        """A cursor as clients keep it."""
        return cursor.encode(self.reader.installation)

    def follow(self, subscriber: Subscriber) -> None:
        """Count a subscriber among those to be told before the end."""
        self.followers.add(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber."""
        self.followers.discard(subscriber)
        self.everything.discard(subscriber)
        for key in subscriber.wanted.keys or ():
            self.by_key[key].discard(subscriber)
            if not self.by_key[key]:
                del self.by_key[key]
        if self.closing and not self.followers:
            self.deserted.set()

    async def join(self, subscriber: Subscriber | None = None) -> Position:
        """Where a look at the log that begins from now on ends; from there on the subscriber is told what is new."""
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self.joining.append((subscriber, future))
        self.news.set()
        return await future

    async def retry_until_available(self, read: Callable[[], Awaitable[T]]) -> T:
        """What reading gives, as soon as the database is there."""
        while True:
            try:
                return await read()
            except FAILURES as error:
                logger.warning("the log cannot be read", error=repr(error))
                await asyncio.sleep(self.poll_seconds)

    async def with_timeout(self, read: Callable[[], Awaitable[T]], seconds: float = 10) -> T:
        """What reading gives; Unavailable: the database stays away."""
        try:
            async with asyncio.timeout(seconds):
                return await self.retry_until_available(read)
        except TimeoutError as error:
            raise Unavailable from error

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.poll_seconds):
                    await self.news.wait()
            self.news.clear()
            await self.retry_until_available(self._look)
            await asyncio.sleep(self.pause_seconds)

    async def _look(self) -> None:
        """Read what is new and tell it; then let in who asked for that before."""
        asked = len(self.joining)
        try:
            await (self._tell_all() if self.followers else self._go_on())
        except (CursorExpired, InvalidInput):
            await self._start_over()
        self.looked = asyncio.get_running_loop().time()
        if self.changed:
            self.changed = False
            self.live.refresh()
        joining, self.joining = self.joining[:asked], self.joining[asked:]
        for subscriber, future in joining:
            self._let_in(subscriber, future)

    async def _tell_all(self) -> None:
        while not self._tell(await self.reader.page(self.cursor)):
            pass

    async def _go_on(self) -> None:
        """Go to the end of the log: what is new is told to nobody, so it is not read."""
        end = Cursor(await self.reader.position())
        self.changed |= end.seen.top != self.cursor.seen.top
        self.cursor = end

    def _tell(self, page: Page) -> bool:
        told: defaultdict[Subscriber, list[Transition]] = defaultdict(list)
        for entry in page.transitions:
            for subscriber in self._interested(entry):
                told[subscriber].append(entry)
        self.cursor = page.cursor
        for subscriber, entries in told.items():
            subscriber.offer(Page(entries, page.cursor))
        self.changed |= bool(page.transitions)
        return page.complete

    def _interested(self, entry: Transition) -> list[Subscriber]:
        keys = {entry.run_id, entry.flow_run_id or entry.run_id}
        keyed = {each for key in keys for each in self.by_key.get(key, ())}
        return [each for each in (*self.everything, *keyed) if each.wanted.match(entry)]

    async def _start_over(self) -> None:
        """The log was swept or replaced while nobody could read it: whoever missed something is to find out."""
        logger.error("the feed lost its place in the log")
        self.reader = Reader(self.database, await identify(self.database))
        self.cursor = Cursor(await self.reader.position())
        for follower in self.followers:
            follower.fall_behind()

    def _let_in(self, subscriber: Subscriber | None, future: asyncio.Future[Position]) -> None:
        if future.done():
            return
        if subscriber:
            subscriber.join()
            if subscriber.wanted.keys is None:
                self.everything.add(subscriber)
            for key in subscriber.wanted.keys or ():
                self.by_key[key].add(subscriber)
        future.set_result(self.cursor.seen)
