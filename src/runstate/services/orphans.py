"""Service that ends the runs that a crashed or failed flow run left behind: their process is gone."""

from datetime import datetime, timedelta
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.core.states import crashed
from runstate.database.queries.due import DueQuery, orphaned_subflow_runs, orphaned_task_runs
from runstate.documents.states import RunKind
from runstate.services.proposing import forced, propose_all

FOLLOWED_FOR: Final = timedelta(days=1)
GRACE: Final = timedelta(seconds=10)
"""Time in which the client can still tell how the runs ended."""
ORPHANED: Final = crashed(
    message="The flow run that it is a part of crashed or failed, and nothing has ended it since."
)


async def run_once(
    batcher: Batcher, now: datetime, *, followed_for: timedelta = FOLLOWED_FOR, grace: timedelta = GRACE
) -> int:
    """Have the runs crash that such flow runs left unfinished, which releases their slots; return how many did."""
    since, until = now - followed_for, now - grace
    return await _end(batcher, RunKind.FLOW_RUN, orphaned_subflow_runs(since, until)) + await _end(
        batcher, RunKind.TASK_RUN, orphaned_task_runs(since, until)
    )


async def _end(batcher: Batcher, kind: RunKind, due: DueQuery) -> int:
    return await propose_all(batcher, due, lambda run: forced(kind, run, ORPHANED))
