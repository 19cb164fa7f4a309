"""Background work: it goes on whatever fails, and ends when it is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from runstate.feed.loop import repeat


async def cancelled_by_others() -> None:
    """Wait for what somebody else cancels."""
    waiting = asyncio.get_running_loop().create_future()
    waiting.cancel()
    await waiting


async def broken() -> None:
    raise LookupError


async def away() -> None:
    raise ConnectionRefusedError


class Work:
    """Work that fails three times in one way, and then does something."""

    def __init__(self, fail: Callable[[], Awaitable[None]]) -> None:
        self.fail = fail
        self.rounds = 0
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        """One round."""
        self.rounds += 1
        if self.rounds <= 3:
            await self.fail()
        self.done.set()


@pytest.mark.parametrize(("fail", "events"), [(broken, 3), (cancelled_by_others, 3), (away, 1)])
async def test_work_goes_on_after_any_failure_and_each_is_logged_but_those_of_a_database_that_is_away_once(
    fail: Callable[[], Awaitable[None]], events: int
) -> None:
    work = Work(fail)
    with capture_logs() as logs:
        task = asyncio.create_task(repeat(work, name="work", pause_seconds=0, retry_seconds=0))
        async with asyncio.timeout(10):
            await work.done.wait()

    assert len(logs) == events
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
