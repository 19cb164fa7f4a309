"""Runs that should have started by now become Late."""

from datetime import datetime, timedelta
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import ProposeState
from runstate.core.policies import MARK_LATE
from runstate.core.states import late
from runstate.database.queries.due import Found, late_flow_runs
from runstate.documents.access import SERVER
from runstate.documents.states import RunKind
from runstate.services.proposing import propose_all

AFTER: Final = timedelta(seconds=15)


async def run_once(batcher: Batcher, now: datetime, *, after: timedelta = AFTER) -> int:
    """Have Scheduled flow runs whose time passed so long ago become Late; how many did, or were cancelled instead."""

    def proposal(run: Found) -> ProposeState:
        return ProposeState(
            kind=RunKind.FLOW_RUN,
            run_id=run.id,
            state=late(now, run.next_scheduled_start_time),
            expected_version=run.version,
            actor=SERVER,
            policy=MARK_LATE,
        )

    return await propose_all(batcher, late_flow_runs(now - after), proposal)
