"""Marks flow runs as Late that should have started."""

from datetime import datetime, timedelta
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import ProposeState
from runstate.core.policies import MARK_LATE
from runstate.core.states import late
from runstate.database.queries.due import Found, late_flow_runs
from runstate.documents.access import SERVICE
from runstate.documents.states import RunKind
from runstate.services.proposing import propose_all

LATE_AFTER: Final = timedelta(seconds=15)


async def run_once(batcher: Batcher, now: datetime, *, after: timedelta = LATE_AFTER) -> int:
    """Propose Late for Scheduled flow runs that are overdue by a period, and return how many changed their state."""

    def proposal(run: Found) -> ProposeState:
        return ProposeState(
            kind=RunKind.FLOW_RUN,
            run_id=run.id,
            state=late(now, run.next_scheduled_start_time),
            expected_version=run.version,
            actor=f"{SERVICE}late",
            policy=MARK_LATE,
            quirks=False,
        )

    return await propose_all(batcher, late_flow_runs(now - after), proposal)
