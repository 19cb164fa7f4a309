"""Adding up what changed in the numbers of runs, so that there is little to sum when somebody asks."""

from datetime import datetime

from runstate.core.batch.batcher import Batcher
from runstate.database.queries.tallies import fold


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Replace changes that count the same by their sum; how many fewer there are."""
    async with batcher.database.write() as transaction:
        return await fold(transaction.connection)
