"""Lanes: the number of connections that each kind of work may use at once, so that no kind waits for another."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from runstate.errors import Overloaded

BATCHES: Final = 3
"""Connections for batches of proposals."""
FEED: Final = 1
HEALTH: Final = 1
KEYS: Final = 1
SUBSCRIPTIONS: Final = 2
"""Connections for reads of subscribers: pages of the log, live queries, fields of events."""
COMMANDS: Final = 4
"""Connections for commands and services."""
SLOW_QUERIES: Final = min(3, max(1, (os.cpu_count() or 1) // 4))
"""Connections for queries that are known to be slow. More would occupy all processors of the database."""
RESERVED: Final = BATCHES + FEED + HEALTH + KEYS + SUBSCRIPTIONS + COMMANDS + SLOW_QUERIES
FEWEST_QUERIES: Final = 2
"""Minimum number of connections for queries of clients."""

WAITING_QUERIES: Final = 200
"""Maximum number of queries that wait for a connection."""
QUERY_PATIENCE_SECONDS: Final = 2.0
"""Time that a query waits for a connection before it is refused."""
SLOW_SECONDS: Final = 0.25
"""Typical time above which a kind of query counts as slow."""
LEAST_SECONDS: Final = 1e-4
"""Lower bound of measured times: a geometric mean needs positive values."""
LEARNING: Final = 0.3
"""Weight of the newest execution in the typical time."""


class Lane:
    """A number of connections for one kind of work, with a fair queue."""

    def __init__(self, connections: int, *, waiting: int | None = None, patience_seconds: float | None = None) -> None:
        self.slots = asyncio.Semaphore(connections)
        self.most_waiting = waiting
        self.patience_seconds = patience_seconds
        self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a free connection. Raise Overloaded if too many wait, or if the wait takes too long."""
        if self.slots.locked():
            await self._wait()
        else:
            await self.slots.acquire()
        try:
            yield
        finally:
            self.slots.release()

    async def _wait(self) -> None:
        if self.most_waiting is not None and self.waiting >= self.most_waiting:
            raise Overloaded("Too many queries are waiting for the database; try again.")
        self.waiting += 1
        try:
            async with asyncio.timeout(self.patience_seconds):
                await self.slots.acquire()
        except TimeoutError:
            raise Overloaded("The query waited too long for the database; try again.") from None
        finally:
            self.waiting -= 1


class Pace:
    """The typical execution time of queries of one kind: they differ only in parameter values."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        """A geometric mean of execution times, so that one long wait for a lock has little weight; None if unknown."""
        self.lane = query_lane(1)
        """The connections that queries of this kind may use at once: one until the first execution was measured."""

    @property
    def is_slow(self) -> bool:
        """Whether queries of this kind are known to be slow."""
        return self.seconds is not None and self.seconds > SLOW_SECONDS

    def note(self, seconds: float) -> None:
        """Add the time of one execution to the mean."""
        seconds = max(seconds, LEAST_SECONDS)
        self.seconds = seconds if self.seconds is None else self.seconds ** (1 - LEARNING) * seconds**LEARNING


class QueryLanes:
    """The lanes for queries of clients: few connections for slow ones, and at most half for one kind of fast ones."""

    def __init__(self, connections: int) -> None:
        self.fast = query_lane(connections)
        self.slow = query_lane(SLOW_QUERIES)
        self.most_of_kind = (connections + 1) // 2

    @asynccontextmanager
    async def turn(self, pace: Pace) -> AsyncIterator[None]:
        """Wait for a connection for a query of a kind, and measure its time."""
        # The kind comes first: queries that wait for it must not occupy connections of other kinds.
        async with pace.lane.turn(), self.lane_of(pace).turn():
            # The wait for a connection is not part of the query's own time.
            began = time.monotonic()
            try:
                yield
            finally:
                if pace.seconds is None:  # its cost is known now, so more of them may run at once
                    pace.lane = query_lane(self.most_of_kind)
                pace.note(time.monotonic() - began)

    def lane_of(self, pace: Pace) -> Lane:
        """Return the lane for a kind of query."""
        return self.slow if pace.is_slow else self.fast


def query_lane(connections: int) -> Lane:
    """Return a lane for queries of clients; a long queue or a long wait is refused."""
    return Lane(connections, waiting=WAITING_QUERIES, patience_seconds=QUERY_PATIENCE_SECONDS)
