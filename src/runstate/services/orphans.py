"""Service that ends the runs that a crashed or failed flow run left behind: their process is gone."""

from datetime import datetime, timedelta
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.core.states import crashed
from runstate.database.queries.due import DueQuery, orphaned_subflow_runs, orphaned_task_runs
from runstate.documents.states import RunKind
from runstate.services.proposing import forced, propose_all

FOLLOW_UP_PERIOD: Final = timedelta(days=1)
"""For how long after its end a flow run is looked at."""
GRACE: Final = timedelta(seconds=10)
"""Time in which the client can still report how its runs ended."""
ORPHANED: Final = crashed(message="The flow run of this run crashed or failed, and the run did not end.")


async def run_once(
    batcher: Batcher, now: datetime, *, follow_up: timedelta = FOLLOW_UP_PERIOD, grace: timedelta = GRACE
) -> int:
    """Have the runs crash that such flow runs left unfinished, which releases their slots; return how many did."""
    # The lower bound keeps the query to an index range of recent ends.
    since, until = now - follow_up, now - grace
    # Subflow runs come first: the task runs that represent them end with them.
    return await _end(batcher, RunKind.FLOW_RUN, orphaned_subflow_runs(since, until)) + await _end(
        batcher, RunKind.TASK_RUN, orphaned_task_runs(since, until)
    )


async def _end(batcher: Batcher, kind: RunKind, due: DueQuery) -> int:
    return await propose_all(batcher, due, lambda run: forced("orphans", kind, run, ORPHANED))
