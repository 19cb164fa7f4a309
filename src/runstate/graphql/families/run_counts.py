"""Numbers of runs by group, as a query and as a subscription; and the lateness of flow runs."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated, Any, Final

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.database.queries import history
from runstate.database.queries.counts import RUN_KINDS, counted_table
from runstate.documents.states import RunKind, StateType
from runstate.feed import Feed
from runstate.graphql.context import Info
from runstate.graphql.pagination.counts import count_query
from runstate.graphql.pagination.sizes import checked_size
from runstate.graphql.published import Deployment, Flow, FlowRun, Run, TaskRun
from runstate.graphql.types.derive import reference_field, register_type
from runstate.graphql.types.fields import object_type, query, subscription
from runstate.graphql.types.filters import Where

DEFAULT_GROUPS: Final = 200
MOST_GROUPS: Final = 1000


class RunGrouping(StrEnum):
    """Columns by which runs can be grouped. Each is a field of `RunCount` and `RunStatistics`."""

    FLOW = "flow_id"
    """Flow; of a task run, the flow of its flow run."""
    DEPLOYMENT = "deployment_id"
    """Deployment; of a task run, the deployment of its flow run."""
    STATE_TYPE = "state_type"
    """Type of the current state."""
    STATE_NAME = "state_name"
    """Name of the current state; names beyond the first hundred of a type can be counted as `…`."""
    TASK_KEY = "task_key"
    """Task key of a task run; flow runs have none."""
    TAG = "tag"
    """Tag: a run is in the group of each of its tags."""
    WORK_QUEUE = "work_queue_name"
    """Work queue; of a task run, the work queue of its flow run."""
    ACTOR = "actor"
    """Actor of the current state."""


register_type(RunGrouping)

BY_STATE: Final = [RunGrouping.STATE_TYPE, RunGrouping.STATE_NAME]
GroupBy = Annotated[
    list[RunGrouping],
    strawberry.argument(description="Columns to group by; an empty list counts all runs together."),
]
First = Annotated[
    int, strawberry.argument(description=f"Maximum number of groups, from 1 to {MOST_GROUPS}; the largest ones.")
]
Which = strawberry.argument(description="Condition on the runs; all runs if omitted.")
WhichFlowRuns = Annotated[Where[FlowRun] | None, Which]
WhichTaskRuns = Annotated[Where[TaskRun] | None, Which]


@object_type
class RunGroup:
    """Number of runs in a group. A column is null if the runs have no value in it or are not grouped by it."""

    run_kind: RunKind = strawberry.field(description="Kind of the runs.")
    count: int = strawberry.field(description="Number of runs.")
    flow_id: strawberry.ID | None = strawberry.field(default=None, description="Id of the flow.")
    deployment_id: strawberry.ID | None = strawberry.field(default=None, description="Id of the deployment.")
    state_type: StateType | None = strawberry.field(default=None, description="Type of the current state.")
    state_name: str | None = strawberry.field(default=None, description="Name of the current state.")
    task_key: str | None = strawberry.field(default=None, description="Task key.")
    tag: str | None = strawberry.field(default=None, description="Tag.")
    work_queue_name: str | None = strawberry.field(default=None, description="Name of the work queue.")
    actor: str | None = strawberry.field(default=None, description="Actor of the current state.")

    @reference_field(Flow, "flow_id")
    async def flow(self, info: Info) -> Flow | None:
        """The flow."""
        return await info.context.load(info, Flow, self.flow_id)

    @reference_field(Deployment, "deployment_id")
    async def deployment(self, info: Info) -> Deployment | None:
        """The deployment."""
        return await info.context.load(info, Deployment, self.deployment_id)


@object_type
class RunCount(RunGroup):
    """Number of runs in a group. A column is null if the runs have no value in it or are not grouped by it."""


def columns_of(run: type[Run], group_by: Sequence[RunGrouping]) -> list[str]:
    """Return the columns that runs of a kind can be grouped by, each once."""
    known = counted_table(run).columns
    # A column that this kind of run does not have is null in every group.
    return [name for name in dict.fromkeys(each.value for each in group_by) if name in known]


def clause_of(run: type[Run], where: Any) -> sa.ColumnElement[bool]:
    """Return the condition on runs; without one, all runs meet it."""
    clause: sa.ColumnElement[bool] = where.clause(run.__table__) if where else sa.true()
    return clause


class RunCounting:
    """The statement that counts runs in groups, and the answer to it."""

    def __init__(self, run: type[Run], where: Any, group_by: Sequence[RunGrouping], first: int) -> None:
        most = checked_size(first, MOST_GROUPS)
        self.kind = RUN_KINDS[run]
        self.groups = columns_of(run, group_by)
        # UNSET is false, so it counts as omitted.
        self.statement = count_query(run, where or None, self.groups).largest(self.groups, most)

    def counts(self, rows: Sequence[Sequence[Any]]) -> list[RunCount]:
        """Return a count for each row of the statement."""
        return [
            RunCount(run_kind=self.kind, count=count, **dict(zip(self.groups, values, strict=True)))
            for *values, count in rows
        ]


@strawberry.type
class Query:
    """Numbers of runs."""

    @query
    async def flow_run_counts(
        self, info: Info, group_by: GroupBy = BY_STATE, where: WhichFlowRuns = UNSET, first: First = DEFAULT_GROUPS
    ) -> list[RunCount]:
        """The number of flow runs in each group, largest groups first."""
        return await _counts(info, RunCounting(FlowRun, where, group_by, first))

    @query
    async def task_run_counts(
        self, info: Info, group_by: GroupBy = BY_STATE, where: WhichTaskRuns = UNSET, first: First = DEFAULT_GROUPS
    ) -> list[RunCount]:
        """The number of task runs in each group, largest groups first."""
        return await _counts(info, RunCounting(TaskRun, where, group_by, first))

    @query
    async def flow_run_lateness(self, info: Info, where: WhichFlowRuns = UNSET) -> float | None:
        """Mean lateness of flow runs in seconds: their start, or the present time, minus the expected start.

        Null if no flow run matches.
        """
        lateness = history.lateness(FlowRun, clause_of(FlowRun, where), info.context.now)
        ((average,),) = await info.context.fetch(lateness)
        return None if average is None else round(float(average), 6)


@strawberry.type
class Subscription:
    """Numbers of runs as they change."""

    @subscription
    async def run_counts(
        self, info: Info, group_by: GroupBy = BY_STATE, where: WhichFlowRuns = UNSET, first: First = DEFAULT_GROUPS
    ) -> AsyncGenerator[list[RunCount], None]:
        """The number of flow runs in each group, largest groups first: now, and after each change."""
        return _live_counts(info, RunCounting(FlowRun, where, group_by, first))


async def _counts(info: Info, counting: RunCounting) -> list[RunCount]:
    return counting.counts(await info.context.fetch(counting.statement))


async def _live_counts(info: Info, counting: RunCounting) -> AsyncGenerator[list[RunCount], None]:
    feed: Feed = info.context.feed
    async with aclosing(feed.transitions.live.rows(counting.statement)) as results:
        async for rows in results:
            # Each event reads anew, at its own time.
            info.context.forget()
            yield counting.counts(rows)
