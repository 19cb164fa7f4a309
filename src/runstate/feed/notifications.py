"""Notifications between the replicas on one database: hints that a channel has news, so that receivers poll at once.

On PostgreSQL, NOTIFY acquires a lock that delays every commit. Writing transactions therefore never use it: their
notifications are combined and sent a moment later over a separate connection. Notifications can be lost, so receivers
also poll at intervals.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from runstate.database import Database
from runstate.database.postgresql import quoted_name
from runstate.feed.loop import repeat

log = structlog.get_logger(__name__)


class Notifications:
    """Notifies subscribers of channels in this process, and on PostgreSQL in every other replica."""

    def __init__(self, database: Database, *, interval_seconds: float = 0.015, retry_seconds: float = 2) -> None:
        self.database = database
        self.interval_seconds = interval_seconds
        """Shortest time between two notifications to other replicas."""
        self.retry_seconds = retry_seconds
        """Pause before a lost connection is opened again."""
        self.callbacks: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self.pending: set[str] = set()
        self.has_pending = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while notifications of other replicas are received."""
        self.own_pid = 0
        self.tasks: list[asyncio.Task[None]] = []
        database.listeners.append(self.notify)

    def subscribe(self, channel: str, callback: Callable[[], None]) -> None:
        """Have *callback* called for each notification of a channel. Subscribe before `start`."""
        self.callbacks[channel].append(callback)

    def start(self) -> None:
        """Connect to the other replicas. SQLite has a single process, and a pooler has no session to listen in."""
        direct = self.database.direct
        if direct and direct.is_pooled:
            # Nothing is lost without them: readers poll, only later.
            log.info("notifications_off", reason="a pooler", setting="RUNSTATE_DATABASE_DIRECT_URL")
        elif direct:
            work = {"notification listener": self._listen, "notification sender": self._send}
            self.tasks = [asyncio.create_task(self._repeat(name, each)) for name, each in work.items()]

    async def stop(self) -> None:
        """Disconnect."""
        self.database.listeners.remove(self.notify)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def notify(self, channel: str) -> None:
        """Notify the subscribers in this process at once, and the other replicas soon."""
        self._deliver(channel)
        if self.tasks:
            # A set: a channel that was notified a hundred times since the last message is sent once.
            self.pending.add(channel)
            self.has_pending.set()

    def _deliver(self, channel: str) -> None:
        for callback in self.callbacks.get(channel, ()):
            callback()

    async def _repeat(self, name: str, work: Callable[[], Any]) -> None:
        await repeat(work, name=name, pause_seconds=self.retry_seconds, retry_seconds=self.retry_seconds)

    async def _listen(self) -> None:
        async with self._connection() as connection:
            closed = asyncio.Event()
            # While no statement is executed, asyncpg reports a lost connection only here.
            connection.add_termination_listener(lambda _: closed.set())
            for channel in self.callbacks:
                await connection.add_listener(self.database.channel(channel), self._receive)
            self.listening.set()
            for channel in self.callbacks:
                self._deliver(channel)  # notifications may have been lost while there was no connection
            try:
                await closed.wait()
            finally:
                self.listening.clear()

    def _receive(self, _connection: Any, sender_pid: int, channel: str, _payload: object) -> None:
        if sender_pid != self.own_pid:  # this process has delivered its own notifications already
            self._deliver(channel.partition(".")[0])  # subscribers know channels without the schema

    async def _send(self) -> None:
        async with self._connection() as connection:
            self.own_pid = connection.get_server_pid()
            await connection.execute("SET synchronous_commit = off")  # NOTIFY writes nothing that must survive a crash
            while True:
                await self.has_pending.wait()
                # Cleared first: a notification after this line sets the event again.
                self.has_pending.clear()
                pending, self.pending = self.pending, set()
                channels = [quoted_name(self.database.channel(each)) for each in sorted(pending)]
                await connection.execute("; ".join(f"NOTIFY {each}" for each in channels))
                # Channels that are notified meanwhile are sent together.
                await asyncio.sleep(self.interval_seconds)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        assert self.database.direct  # noqa: S101 `start` has checked it
        connection = await self.database.direct.connect()
        try:
            yield connection
        finally:
            # `close` would wait for the server, which may be gone.
            connection.terminate()
