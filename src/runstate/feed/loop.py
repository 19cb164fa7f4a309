"""Background tasks that continue after errors."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from runstate.database.failures import is_temporary, reason

logger = structlog.get_logger(__name__)


async def repeat(
    work: Callable[[], Awaitable[None]], *, name: str, pause_seconds: float, retry_seconds: float
) -> NoReturn:
    """Call *work* forever, with a pause after each call. An error is followed by the longer retry pause.

    Unexpected errors are logged. Of successive temporary errors of the database, only the first one is.
    """
    is_failing = False
    while True:
        try:
            await work()
            pause, is_failing = pause_seconds, False
        except (Exception, asyncio.CancelledError) as error:
            if _is_cancelled(error):
                raise
            if not is_temporary(error):
                logger.exception("unexpected error in a background task", task=name)
            elif not is_failing:
                logger.warning("the database is unavailable", task=name, reason=reason(error))
            pause, is_failing = retry_seconds, True
        await asyncio.sleep(pause)


def _is_cancelled(error: BaseException) -> bool:
    """Return whether the task is to end; a future that it awaits may be cancelled by others."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
