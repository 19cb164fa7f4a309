"""Processes that compute for clients with bounded time and memory: what clients send can take exponential time."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import ClassVar, Final

from runstate.errors import Overloaded

WAITING: Final = 32
"""Maximum number of requests that wait for a process."""
PATIENCE_SECONDS: Final = 10.0
"""Timeout of an answer. The process is killed after it, even if it used little processor time."""

LONGEST_ANSWER: Final = 2**22
"""Maximum size of an answer, in bytes."""


class BoundedProcess:
    """A process that answers one request after another, a line each. It is started on first use."""

    module: ClassVar[str]
    """The module that the process executes; it calls `serve` of `serving.py`."""

    def __init__(self) -> None:
        self.process: Process | None = None
        # The process answers one request after another.
        self.turn = asyncio.Lock()
        self.waiting = 0

    async def ask(self, request: bytes) -> bytes:
        """Return the answer to a line; empty if it takes too much time or memory. Raise Overloaded if too many wait."""
        if self.waiting >= WAITING:
            raise Overloaded("Too many values are waiting for validation; try again.")
        self.waiting += 1
        try:
            async with self.turn:
                return await self._answer(request + b"\n")
        finally:
            self.waiting -= 1

    async def close(self) -> None:
        """End the process."""
        # Cleared before the wait, so that the next caller starts another process.
        process, self.process = self.process, None
        if process:
            # The process may have ended already: it ends itself when a request uses too much.
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _running(self) -> Process:
        if self.process is None or self.process.returncode is not None:
            self.process = await _started(self.module)
        return self.process

    async def _answer(self, request: bytes) -> bytes:
        """Return the answer line of the process; empty if the process ended or was killed."""
        answer = b""
        try:
            process = await self._running()
            assert process.stdin and process.stdout  # noqa: PT018, S101 both are pipes
            async with asyncio.timeout(PATIENCE_SECONDS):
                process.stdin.write(request)
                await process.stdin.drain()
                answer = await process.stdout.readline()
        # The process is killed below, so that it cannot keep the next request waiting.
        except (TimeoutError, ConnectionError):
            answer = b""
        finally:
            if not answer:  # also if the caller was cancelled: the next caller would read its answer
                await self.close()
        return answer


async def _started(module: str) -> Process:
    """Start the process in its own session, so that signals of a terminal reach the server only."""
    # `-P` keeps the working directory out of the search path of modules.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", module, stdin=PIPE, stdout=PIPE, limit=LONGEST_ANSWER, start_new_session=True
    )
