"""Flow runs, task runs and their states: queries, and fields that no column holds."""

from datetime import datetime
from typing import Annotated, Any, Final

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.database.queries import counts, estimates, history
from runstate.database.queries.counts import StateCount
from runstate.database.queries.history import HistoryInterval, Intervals
from runstate.graphql.context import Context, Info
from runstate.graphql.pagination.connection import Connection, rows_of
from runstate.graphql.pagination.keyset import DEFAULT_SIZE, LARGEST_SIZE, PageArguments
from runstate.graphql.pagination.tallies import sums
from runstate.graphql.published import FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState
from runstate.graphql.types.comparisons import Clause, is_set
from runstate.graphql.types.derive import ReferenceLookup, computes, extends
from runstate.graphql.types.fields import Id, query
from runstate.graphql.types.filters import Where

Which = strawberry.argument(description="Which ones; all unless given.")
Last = strawberry.argument(description=f"How many: {DEFAULT_SIZE} unless given, from 1 to {LARGEST_SIZE}.")
Since = Annotated[datetime, strawberry.argument(description="Where the first interval starts.")]
Until = Annotated[datetime, strawberry.argument(description="No interval starts here or later.")]
Length = Annotated[
    float, strawberry.argument(description="How long an interval is: a second at least. There are 500 at most.")
]

STATES: Final[dict[type[Run], type[State]]] = {FlowRun: FlowRunState, TaskRun: TaskRunState}


@computes(State, needs={"type"})
def is_final(root: State, _: Context) -> bool:
    """Whether the state ends the run: COMPLETED, FAILED, CANCELLED or CRASHED."""
    return root.is_final


@extends(Run, name="state", needs={"state_id"})
async def state_of_run(root: strawberry.Parent[Run], info: Info) -> State | None:
    """The state that the run is in; null: none yet."""
    return await info.context.load(info, STATES[type(root)], root.state_id)


@extends(FlowRun, name="state", needs={"state_id"}, lookup=ReferenceLookup(FlowRunState, "state_id"))
async def state_of_flow_run(root: strawberry.Parent[FlowRun], info: Info) -> FlowRunState | None:
    """The state that the run is in; null: none yet."""
    return await info.context.load(info, FlowRunState, root.state_id)


@extends(TaskRun, name="state", needs={"state_id"}, lookup=ReferenceLookup(TaskRunState, "state_id"))
async def state_of_task_run(root: strawberry.Parent[TaskRun], info: Info) -> TaskRunState | None:
    """The state that the run is in; null: none yet."""
    return await info.context.load(info, TaskRunState, root.state_id)


@extends(Run, name="history", needs=())
async def history_of_run(
    root: strawberry.Parent[Run], info: Info, last: Annotated[int | None, Last] = UNSET
) -> list[State]:
    """The last states, oldest first: `states` for those who hold any kind of run."""
    asked: PageArguments[State] = PageArguments(last=last if is_set(last) else DEFAULT_SIZE)
    return await info.context.children(info, STATES[type(root)], asked, "run_id", root.id)


@computes(Run, needs={"total_run_time_seconds", "state_type", "state_timestamp"})
def estimated_run_time_seconds(root: Run, context: Context) -> float:
    """Seconds spent in RUNNING, up to now."""
    return estimates.run_time(root, context.now)


@computes(Run, needs={"expected_start_time", "start_time", "state_type"})
def estimated_start_time_delta_seconds(root: Run, context: Context) -> float:
    """By how many seconds the run started later than expected; or is late by now, if it can still start."""
    return estimates.start_time_delta(root, context.now)


@extends(TaskRun, needs=())
async def child_flow_run(root: strawberry.Parent[TaskRun], info: Info) -> FlowRun | None:
    """The subflow run that the task run stands for; the newest if there are several."""
    found = await info.context.children(info, FlowRun, PageArguments(first=1), "parent_task_run_id", root.id)
    return found[0] if found else None


@strawberry.type
class Query:
    """Runs and their states."""

    flow_runs: Connection[FlowRun] = rows_of(FlowRun, "Flow runs; newest first unless asked.")
    task_runs: Connection[TaskRun] = rows_of(TaskRun, "Task runs; newest first unless asked.")

    @query
    async def flow_run(self, info: Info, id: Id) -> FlowRun | None:
        """The flow run with an id."""
        return await info.context.load(info, FlowRun, id)

    @query
    async def task_run(self, info: Info, id: Id) -> TaskRun | None:
        """The task run with an id."""
        return await info.context.load(info, TaskRun, id)

    @query
    async def flow_run_state(self, info: Info, id: Id) -> FlowRunState | None:
        """The state of a flow run with an id."""
        return await info.context.load(info, FlowRunState, id)

    @query
    async def task_run_state(self, info: Info, id: Id) -> TaskRunState | None:
        """The state of a task run with an id."""
        return await info.context.load(info, TaskRunState, id)

    @query
    async def flow_run_count(self, info: Info, where: Annotated[Where[FlowRun] | None, Which] = UNSET) -> int:
        """How many flow runs there are."""
        return await _count(info, FlowRun, where)

    @query
    async def task_run_count(self, info: Info, where: Annotated[Where[TaskRun] | None, Which] = UNSET) -> int:
        """How many task runs there are."""
        return await _count(info, TaskRun, where)

    @query
    async def flow_run_counts_by_state(
        self, info: Info, where: Annotated[Where[FlowRun] | None, Which] = UNSET
    ) -> list[StateCount]:
        """How many flow runs are in states of each type and name, most first."""
        return await _counts_by_state(info, FlowRun, where)

    @query
    async def task_run_counts_by_state(
        self, info: Info, where: Annotated[Where[TaskRun] | None, Which] = UNSET
    ) -> list[StateCount]:
        """How many task runs are in states of each type and name, most first."""
        return await _counts_by_state(info, TaskRun, where)

    @query
    async def flow_run_history(
        self,
        info: Info,
        since: Since,
        until: Until,
        interval_seconds: Length,
        where: Annotated[Where[FlowRun] | None, Which] = UNSET,
    ) -> list[HistoryInterval]:
        """How flow runs are spread over time, by when they were expected to start; every interval is there."""
        return await _history(info, FlowRun, where, Intervals.over(since, until, interval_seconds))

    @query
    async def task_run_history(
        self,
        info: Info,
        since: Since,
        until: Until,
        interval_seconds: Length,
        where: Annotated[Where[TaskRun] | None, Which] = UNSET,
    ) -> list[HistoryInterval]:
        """How task runs are spread over time, by when they were expected to start; every interval is there."""
        return await _history(info, TaskRun, where, Intervals.over(since, until, interval_seconds))


def _clause(run: type[Run], where: Any) -> Clause:
    return where.clause(run.__table__) if where else sa.true()


async def _count(info: Info, run: type[Run], where: Any) -> int:
    summed = sums(run, where or None)
    ((number,),) = await info.context.fetch(summed.counted(()) if summed else counts.count(run, _clause(run, where)))
    return int(number or 0)


async def _counts_by_state(info: Info, run: type[Run], where: Any) -> list[StateCount]:
    summed = sums(run, where or None)
    if summed is None:
        found = await info.context.fetch(counts.counts_by_state(run, _clause(run, where)))
    else:
        asked = summed.counted(("state_type", "state_name"))
        found = await info.context.fetch(asked.order_by(sa.text("count DESC"), "state_type", "state_name"))
    return [StateCount(*columns) for columns in found]


async def _history(info: Info, run: type[Run], where: Any, intervals: Intervals) -> list[HistoryInterval]:
    found = await info.context.fetch(history.history(run, _clause(run, where), intervals, info.context.now))
    return intervals.filled(found)
