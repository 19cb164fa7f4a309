"""Forgetting what nobody will look at again. The log of transitions is swept by the feed."""

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from runstate.core.batch.batcher import Batcher
from runstate.database import Database
from runstate.database.queries.due import delete_some, expired_rows
from runstate.rows import Base

ANSWERS_KEPT: Final = timedelta(days=1)
AT_ONCE: Final = 1_000


async def run_once(batcher: Batcher, now: datetime, *, answers_kept: timedelta = ANSWERS_KEPT) -> int:
    """Delete cached results that have expired, and answers older than they are remembered for; how many."""
    return sum([await _sweep(batcher.database, row, clause) for row, clause in expired_rows(now, now - answers_kept)])


async def _sweep(database: Database, row: type[Base], clause: sa.ColumnElement[bool]) -> int:
    deleted, some = 0, AT_ONCE
    while some >= AT_ONCE:
        async with database.write() as transaction:
            some = await delete_some(transaction.connection, row, clause, AT_ONCE)
        deleted += some
    return deleted
