"""What a cancelled flow run leaves behind is cancelled too, and no cancellation takes for ever."""

from datetime import datetime, timedelta
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import ProposeState
from runstate.core.states import cancelled, cancelling
from runstate.database.queries.due import Found, stuck_cancellations, subflow_runs_left_over, task_runs_left_over
from runstate.documents.states import RunKind
from runstate.services.proposing import forced, propose_all

FOLLOWED_FOR: Final = timedelta(days=1)
PATIENCE: Final = timedelta(seconds=300)
WITH_ITS_FLOW_RUN: Final = "The flow run that it belongs to was cancelled."
WITH_ITS_PARENT: Final = "The flow run that it is a part of was cancelled."
TOO_LONG: Final = "Nothing told within {:.0f} seconds that the run has ended: it counts as cancelled."


async def run_once(
    batcher: Batcher, now: datetime, *, followed_for: timedelta = FOLLOWED_FOR, patience: timedelta = PATIENCE
) -> int:
    """Cancel what cancelled flow runs left unfinished, and what has been cancelling for too long; how many runs."""
    return (
        await propose_all(batcher, subflow_runs_left_over(), _end_subflow)
        + await propose_all(batcher, task_runs_left_over(now - followed_for), _end_task)
        + await _end_stuck(batcher, now, patience)
    )


def _end_subflow(run: Found) -> ProposeState:
    """A subflow run of a deployment has infrastructure of its own to be torn down; another ends with its parent."""
    end = cancelling if run.deployment_id else cancelled
    return forced(RunKind.FLOW_RUN, run, end(message=WITH_ITS_PARENT))


def _end_task(run: Found) -> ProposeState:
    return forced(RunKind.TASK_RUN, run, cancelled(message=WITH_ITS_FLOW_RUN))


async def _end_stuck(batcher: Batcher, now: datetime, patience: timedelta) -> int:
    end = cancelled(message=TOO_LONG.format(patience.total_seconds()))
    return await propose_all(
        batcher, stuck_cancellations(now - patience), lambda run: forced(RunKind.FLOW_RUN, run, end)
    )
