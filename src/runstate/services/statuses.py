"""Tells of work pools, queues and deployments whose status has changed because time went by."""

from datetime import datetime

from runstate.core.batch.batcher import Batcher
from runstate.core.commands.statuses import PAGE, tell_statuses
from runstate.rows import Deployment, WorkPool, WorkQueue


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Tell of all changed statuses, each once, and return their number."""
    number = 0
    for row in (WorkPool, WorkQueue, Deployment):
        some = PAGE
        while some == PAGE:
            async with batcher.database.write() as transaction:
                some = len(await tell_statuses(transaction, row, now))
            number += some
    return number
