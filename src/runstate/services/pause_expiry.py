"""Fails paused flow runs whose pause has expired."""

from datetime import datetime
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.core.states import failed
from runstate.database.queries.due import expired_pauses
from runstate.documents.states import RunKind
from runstate.services.proposing import forced, propose_all

NEVER_RESUMED: Final = failed(message="The flow was paused and never resumed.")


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Fail paused flow runs whose pause has expired, and return how many failed."""
    return await propose_all(
        batcher, expired_pauses(now), lambda run: forced("pause-expiry", RunKind.FLOW_RUN, run, NEVER_RESUMED)
    )
