"""Heartbeats that this process has received. They are written together, in one statement at intervals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from runstate.database import Database
from runstate.database.failures import is_temporary
from runstate.database.queries import heartbeats as sql

log = structlog.get_logger(__name__)

WRITE_SECONDS: Final = 0.5
"""Time between two writes. A process that is killed loses the heartbeats since the last one: clients send others."""


class Heartbeats:
    """Collects heartbeats and writes them together. Without heartbeats, nothing is written."""

    def __init__(self, database: Database, *, write_seconds: float = WRITE_SECONDS) -> None:
        self.database = database
        self.write_seconds = write_seconds
        self.received: dict[UUID, tuple[int, float]] = {}
        """Version of the run and time by the loop's clock, by id of the run."""
        self.task: asyncio.Task[None] | None = None

    def note(self, heard: Mapping[UUID, int]) -> None:
        """Note that the clients of runs are alive; *heard* has the version of each run."""
        if not heard:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for run_id, version in heard.items():
            known, _ = self.received.get(run_id, (0, 0.0))
            self.received[run_id] = max(version, known), now
        # The task ends when nothing is left to write.
        if self.task is None or self.task.done():
            # The task serves all requests, so it must not inherit the context of the first one.
            self.task = loop.create_task(self._write_at_intervals(), context=Context())

    async def close(self) -> None:
        """Write what is left."""
        if self.task:
            self.task.cancel()
            # The task ends with CancelledError, which is expected.
            with suppress(asyncio.CancelledError):
                await self.task
        await self.write()

    async def _write_at_intervals(self) -> None:
        while self.received:
            await asyncio.sleep(self.write_seconds)
            await self.write()

    async def write(self) -> None:
        """Write the heartbeats that were received; if that fails, they are kept for the next write."""
        if not self.received:
            return
        received, self.received = self.received, {}
        now = asyncio.get_running_loop().time()
        # Ages in place of times, because the clock of the database decides.
        heard = [(run_id, version, timedelta(seconds=now - at)) for run_id, (version, at) in received.items()]
        try:
            async with self.database.write() as transaction:
                await sql.record(transaction.connection, heard)
        except Exception as error:
            if not is_temporary(error):
                log.exception("heartbeats could not be written", runs=len(heard))
            # Heartbeats that arrived meanwhile are newer.
            self.received = received | self.received
