"""Numbers of runs by state, and over time."""

from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry import UNSET

from runstate.database.queries import history
from runstate.database.queries.counts import StateCount
from runstate.database.queries.history import HistoryInterval
from runstate.database.queries.intervals import Intervals
from runstate.documents import intervals
from runstate.graphql.context import Info
from runstate.graphql.families.run_counts import clause_of
from runstate.graphql.pagination.counts import count_query
from runstate.graphql.published import FlowRun, Run, TaskRun
from runstate.graphql.types.fields import query
from runstate.graphql.types.filters import Where
from runstate.graphql.types.inputs import Input

Which = strawberry.argument(description="The runs to count; all by default.")
Since = Annotated[datetime, strawberry.argument(description="Start of the first interval.")]
Until = Annotated[datetime, strawberry.argument(description="End: no interval starts here or later.")]
Length = Annotated[
    float, strawberry.argument(description="Length of an interval in seconds, at least 1. At most 500 intervals.")
]
Units = Annotated[
    Input[intervals.Interval] | None, strawberry.argument(description="Intervals in place of `intervalSeconds`.")
]


@strawberry.type
class Query:
    """Numbers of runs."""

    @query
    async def flow_run_count(self, info: Info, where: Annotated[Where[FlowRun] | None, Which] = UNSET) -> int:
        """Number of flow runs."""
        return await _count(info, FlowRun, where)

    @query
    async def task_run_count(self, info: Info, where: Annotated[Where[TaskRun] | None, Which] = UNSET) -> int:
        """Number of task runs."""
        return await _count(info, TaskRun, where)

    @query
    async def flow_run_counts_by_state(
        self, info: Info, where: Annotated[Where[FlowRun] | None, Which] = UNSET
    ) -> list[StateCount]:
        """Numbers of flow runs by type and name of their state, largest first."""
        return await _counts_by_state(info, FlowRun, where)

    @query
    async def task_run_counts_by_state(
        self, info: Info, where: Annotated[Where[TaskRun] | None, Which] = UNSET
    ) -> list[StateCount]:
        """Numbers of task runs by type and name of their state, largest first."""
        return await _counts_by_state(info, TaskRun, where)

    @query
    async def flow_run_history(
        self,
        info: Info,
        since: Since,
        until: Until,
        interval_seconds: Length,
        where: Annotated[Where[FlowRun] | None, Which] = UNSET,
        interval: Units = UNSET,
    ) -> list[HistoryInterval]:
        """Numbers of flow runs by expected start time and state, for each interval, including empty ones."""
        return await _history(info, FlowRun, where, _intervals(since, until, interval_seconds, interval))

    @query
    async def task_run_history(
        self,
        info: Info,
        since: Since,
        until: Until,
        interval_seconds: Length,
        where: Annotated[Where[TaskRun] | None, Which] = UNSET,
        interval: Units = UNSET,
    ) -> list[HistoryInterval]:
        """Numbers of task runs by expected start time and state, for each interval, including empty ones."""
        return await _history(info, TaskRun, where, _intervals(since, until, interval_seconds, interval))


async def _count(info: Info, run: type[Run], where: Any) -> int:
    ((number,),) = await info.context.fetch(count_query(run, where or None).counts(()))
    return int(number)


async def _counts_by_state(info: Info, run: type[Run], where: Any) -> list[StateCount]:
    groups = "state_type", "state_name"
    found = await info.context.fetch(count_query(run, where or None, groups).largest(groups))
    return [StateCount(*columns) for columns in found]


def _intervals(since: datetime, until: datetime, seconds: float, given: Any) -> Intervals:
    return Intervals.over(since, until, given.checked() if given else intervals.Interval(seconds=seconds))


async def _history(info: Info, run: type[Run], where: Any, over: Intervals) -> list[HistoryInterval]:
    found = await info.context.fetch(history.history(run, clause_of(run, where), over, info.context.now))
    return history.filled(over, found)
