"""Background tasks that continue after errors."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import asyncpg
import sqlalchemy as sa
import structlog

DATABASE_ERRORS: Final = (
    sa.exc.SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
"""Errors of reading while the database is unavailable."""

logger = structlog.get_logger(__name__)


async def repeat(
    work: Callable[[], Awaitable[None]], *, name: str, pause_seconds: float, retry_seconds: float
) -> NoReturn:
    """Call *work* forever, with a pause after each call. An error is logged and followed by the longer retry pause."""
    while True:
        try:
            await work()
            pause = pause_seconds
        except DATABASE_ERRORS as error:
            logger.warning("the database is unavailable", task=name, error=repr(error))
            pause = retry_seconds
        except Exception:
            logger.exception("unexpected error in a background task", task=name)
            pause = retry_seconds
        await asyncio.sleep(pause)
