"""Cancels what cancelled flow runs left unfinished, and ends cancellations that take too long."""

from datetime import datetime, timedelta
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import ProposeState
from runstate.core.states import cancelled, cancelling
from runstate.database.queries.due import Found, stuck_cancellations, subflow_runs_left_over, task_runs_left_over
from runstate.documents.states import RunKind
from runstate.services.proposing import forced, propose_all

FOLLOW_UP_PERIOD: Final = timedelta(days=1)
"""For how long after the cancellation of a flow run its task runs are cancelled."""
STUCK_AFTER: Final = timedelta(seconds=300)
"""Time for which a run may be CANCELLING."""
WITH_ITS_FLOW_RUN: Final = "The flow run of this task run was cancelled."
WITH_ITS_PARENT: Final = "The parent flow run was cancelled."
TOO_LONG: Final = "The cancellation did not end within {:.0f} seconds."


async def run_once(
    batcher: Batcher,
    now: datetime,
    *,
    follow_up: timedelta = FOLLOW_UP_PERIOD,
    stuck_after: timedelta = STUCK_AFTER,
) -> int:
    """Cancel unfinished runs of cancelled flow runs and overdue cancellations, and return the number of runs."""
    return (
        # Subflow runs come first: the task runs that represent them end with them.
        await propose_all(batcher, subflow_runs_left_over(), _end_subflow)
        # A bound in time, so that the query reads an index range and not all task runs of all cancelled flow runs.
        + await propose_all(batcher, task_runs_left_over(now - follow_up), _end_task)
        + await _end_stuck(batcher, now, stuck_after)
    )


def _end_subflow(run: Found) -> ProposeState:
    """Propose CANCELLING if the subflow run has infrastructure of its own to stop, else CANCELLED."""
    # A worker has to stop the process of a run of a deployment; another subflow run was a part of its parent's process.
    end = cancelling if run.deployment_id else cancelled
    return forced("cancellation", RunKind.FLOW_RUN, run, end(message=WITH_ITS_PARENT))


def _end_task(run: Found) -> ProposeState:
    return forced("cancellation", RunKind.TASK_RUN, run, cancelled(message=WITH_ITS_FLOW_RUN))


async def _end_stuck(batcher: Batcher, now: datetime, stuck_after: timedelta) -> int:
    end = cancelled(message=TOO_LONG.format(stuck_after.total_seconds()))
    return await propose_all(
        batcher, stuck_cancellations(now - stuck_after), lambda run: forced("cancellation", RunKind.FLOW_RUN, run, end)
    )
