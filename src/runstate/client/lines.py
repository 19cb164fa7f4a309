"""Lines of logs, sent in batches."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from runstate.client.connection import Connection
from runstate.client.errors import ClientError, RefusedError

WRITE: Final = """mutation($input: WriteLogsInput!) { it: writeLogs(input: $input) {
  ... on WriteLogsPayload { written } ... on Problem { code message } } }"""
MOST: Final = 200
"""Lines of a batch."""
LONGEST_TEXT: Final = 20_000
INTERVAL_SECONDS: Final = 1.0
KEPT: Final = 10_000
"""Lines that are kept while the server is away; the oldest are dropped."""

log = logging.getLogger(__name__)


class Lines:
    """Sends lines at intervals. Belongs to one event loop."""

    def __init__(self, connection: Connection, server_id: Callable[[str], str | None]) -> None:
        self.connection, self.server_id = connection, server_id
        self.waiting = deque[dict[str, Any]](maxlen=KEPT)
        self.task: asyncio.Task[None] | None = None
        self.lock = asyncio.Lock()

    async def add(self, line: dict[str, Any]) -> None:
        """Send a line soon."""
        self.waiting.append(line)
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._send_soon())

    async def flush(self) -> None:
        """Send all lines. Raise UnreachableError if the server is away."""
        async with self.lock:
            while self.waiting:
                batch = [self.waiting[each] for each in range(min(MOST, len(self.waiting)))]
                await self._send([line for each in batch if (line := self._known(each))])
                for line in batch:
                    # New lines of a full queue can have dropped it.
                    if self.waiting and self.waiting[0] is line:
                        self.waiting.popleft()

    async def _send_soon(self) -> None:
        while self.waiting:
            await asyncio.sleep(INTERVAL_SECONDS if len(self.waiting) < MOST else 0)
            with suppress(ClientError):
                await self.flush()

    async def _send(self, lines: list[dict[str, Any]]) -> None:
        if not lines:
            return
        try:
            await self.connection.execute(WRITE, {"input": {"logs": lines}})
        except RefusedError:
            # Lines that the server does not take must not stop those after them.
            log.debug("%s lines were rejected", len(lines), exc_info=True)

    def _known(self, line: dict[str, Any]) -> dict[str, Any] | None:
        """Return a line with the ids of the server; None if the server does not know its run."""
        ids = {key: self.server_id(line[key]) for key in ("flowRunId", "taskRunId") if line.get(key)}
        return {**line, **ids} if all(ids.values()) else None
