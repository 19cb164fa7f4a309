"""Compaction of tallies, so that a query has few changes to sum."""

from datetime import datetime

from runstate.core.batch.batcher import Batcher
from runstate.database.queries.tallies import compact


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Replace changes by their sum; return how many fewer there are."""
    async with batcher.database.write() as transaction:
        return await compact(transaction.connection)
