"""Compacts the tallies of runs, so that a count sums few rows."""

from datetime import datetime

from runstate.core.batch.batcher import Batcher
from runstate.database.queries.tallies import fold


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Replace tallies with equal keys by their sum, and return by how many rows the table shrank."""
    async with batcher.database.write() as transaction:
        return await fold(transaction.connection)
