"""Transactions that concurrent callers share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

MOST_TOGETHER: Final = 8
"""Largest number of callers in one transaction: other writers wait for its end."""
Work = Callable[[Any], Awaitable[None]]
"""The work of one caller in a transaction."""


class Grouping:
    """Work that waits for a transaction. It is executed together, in the order of its submission.

    There is no timer: what is submitted while a transaction is running belongs to the next one.
    """

    def __init__(self, execute: Callable[[list[Work]], Awaitable[None]]) -> None:
        self.execute = execute
        self.waiting: list[tuple[Work, asyncio.Future[None]]] = []
        self.running: asyncio.Task[None] | None = None

    async def submit(self, work: Work) -> None:
        """Execute work in a transaction, and return after its commit. Raise what the work or the commit raises."""
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((work, done))
        if self.running is None:
            self.running = asyncio.ensure_future(self._run())
        await done

    async def _run(self) -> None:
        try:
            while self.waiting:
                # A bound, so that the first caller does not wait for the work of many others.
                taken, self.waiting = self.waiting[:MOST_TOGETHER], self.waiting[MOST_TOGETHER:]
                if not await self._try(taken, last=len(taken) == 1):
                    # One of them fails, but not the others.
                    for each in taken:
                        await self._try([each], last=True)
        finally:
            self.running = None

    async def _try(self, taken: list[tuple[Work, asyncio.Future[None]]], *, last: bool) -> bool:
        """Execute work, and tell its callers. Return False, and tell nobody, if it fails and can be tried again."""
        failure: BaseException | None = None
        try:
            await self.execute([work for work, _ in taken])
        except BaseException as error:  # noqa: BLE001 it is raised where the caller waits
            failure = error
        if isinstance(failure, Exception) and not last:
            return False
        for _, done in taken:
            if done.done():  # the caller has gone
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)
        return True
