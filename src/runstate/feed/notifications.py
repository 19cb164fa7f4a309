"""Telling other replicas that there is news: a hint that saves them the wait for their next look, nothing more.

NOTIFY takes a lock that holds up every commit, so it is never said in a transaction that writes: what many of them have
to tell is said once, a little later, on a connection of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from runstate.database import Database

CHANNEL = "runstate_transitions"
UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

logger = structlog.get_logger(__name__)


class Notifications:
    """Says and hears, between the replicas on one PostgreSQL database, that something was committed."""

    def __init__(
        self,
        database: Database,
        heard: Callable[[], None],
        *,
        every_seconds: float = 0.015,
        patience_seconds: float = 2,
    ) -> None:
        self.database = database
        self.heard = heard
        self.every_seconds = every_seconds
        self.patience_seconds = patience_seconds
        self.news = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while news from others is heard."""
        self.own = 0
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen and to tell."""
        self.tasks = [asyncio.create_task(self._again(each)) for each in (self._listen, self._tell)]

    async def stop(self) -> None:
        """End both."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def tell(self) -> None:
        """Have the other replicas told, soon."""
        self.news.set()

    async def _again(self, work: Callable[[], Any]) -> None:
        while True:
            try:
                await work()
            except UNREACHABLE as error:
                logger.info("wake-ups between replicas are interrupted", error=repr(error))
            self.listening.clear()
            await asyncio.sleep(self.patience_seconds)

    async def _listen(self) -> None:
        async with self._connection() as connection:
            closed = asyncio.Event()
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(CHANNEL, self._hear)
            self.listening.set()
            self.heard()
            await closed.wait()

    def _hear(self, _connection: Any, sender: int, _channel: str, _payload: object) -> None:
        if sender != self.own:
            self.heard()

    async def _tell(self) -> None:
        async with self._connection() as connection:
            self.own = connection.get_server_pid()
            await connection.execute("SET synchronous_commit = off")
            while True:
                await self.news.wait()
                self.news.clear()
                await connection.execute(f"NOTIFY {CHANNEL}")
                await asyncio.sleep(self.every_seconds)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        _, address = self.database.writer.dialect.create_connect_args(self.database.url)
        connection = await asyncpg.connect(**address, timeout=5)
        try:
            yield connection
        finally:
            connection.terminate()
