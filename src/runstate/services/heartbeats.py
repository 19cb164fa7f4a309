"""Service that crashes runs whose client is not heard of any more, which releases their slots."""

from datetime import datetime
from functools import partial
from math import inf
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import ProposeState
from runstate.core.states import State, cancelled, crashed
from runstate.database.queries.due import Found
from runstate.database.queries.heartbeats import MISSED, database_time, silent_runs
from runstate.documents.access import SERVICE
from runstate.documents.states import RunKind, StateType
from runstate.rows import FlowRun, TaskRun
from runstate.services.proposing import propose_all

SILENT: Final = "Not heard of for {:.0f} s."
RUNS: Final[tuple[tuple[RunKind, type[FlowRun | TaskRun]], ...]] = (
    (RunKind.FLOW_RUN, FlowRun),
    (RunKind.TASK_RUN, TaskRun),
)
SHORTEST_SECONDS: Final = 1.0
"""The shortest interval of heartbeats; shorter gaps do not matter."""


class Attention:
    """The gaps between the rounds of this process, in which clients may have been unable to send heartbeats.

    Times are those of the database. A process that slept, a database that was away and a clock that jumped are gaps.
    """

    def __init__(self, interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self.last: datetime | None = None
        self.gaps: list[tuple[datetime, float]] = []
        """End and length in seconds of each gap, without the interval; longer ones before shorter ones."""

    def begin_round(self, now: datetime) -> None:
        """Note that a round begins."""
        passed = (now - self.last).total_seconds() if self.last else -1
        # In the first round, or if the clock went back, any time may have passed.
        gap = passed - self.interval_seconds if passed >= 0 else inf
        if gap >= SHORTEST_SECONDS:
            # An older gap that is not longer than this one decides nothing any more.
            self.gaps = [*((end, seconds) for end, seconds in self.gaps if seconds > gap), (now, gap)]
        self.last = now

    def covers(self, interval: float) -> bool:
        """Whether a run with this interval of heartbeats had its full time since the last gap that is as long."""
        last = self.last
        return last is None or all(
            gap < interval or (last - end).total_seconds() > MISSED * interval for end, gap in self.gaps
        )


async def run_once(batcher: Batcher, now: datetime, *, attention: Attention | None = None) -> int:
    """Propose CRASHED for silent runs, and return how many changed their state.

    A CANCELLING flow run is CANCELLED instead. Without *attention*, gaps between rounds are not considered.
    """
    if attention:
        async with batcher.database.read() as connection:
            attention.begin_round(await database_time(connection))
    return sum(
        [await propose_all(batcher, silent_runs(row), partial(_end, batcher, kind, attention)) for kind, row in RUNS]
    )


def _end(batcher: Batcher, kind: RunKind, attention: Attention | None, run: Found) -> ProposeState | None:
    """Return the proposal that ends a silent run; None if the run gets more time."""
    if run.silent is None:
        # The run entered its state without a request of its client, which gets the full time from now on.
        batcher.heartbeats.note({run.id: run.version})
        return None
    if attention and not attention.covers(run.heartbeat_seconds):
        return None
    return ProposeState(
        kind=kind,
        run_id=run.id,
        state=_end_of(kind, run),
        # Replicas propose the version that they have read, so a run crashes once.
        expected_version=run.version,
        actor=f"{SERVICE}heartbeats",
        quirks=False,
    )


def _end_of(kind: RunKind, run: Found) -> State:
    # A CANCELLING run whose process is gone has reached what its cancellation was for.
    is_cancelled = kind is RunKind.FLOW_RUN and run.state_type is StateType.CANCELLING
    return (cancelled if is_cancelled else crashed)(message=SILENT.format(run.silent))
