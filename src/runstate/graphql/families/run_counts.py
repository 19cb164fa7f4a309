"""Numbers of runs, grouped; and how late flow runs are."""

from enum import Enum
from typing import Annotated, Any, Final

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.database.queries import counts, history
from runstate.documents.states import StateType
from runstate.errors import BadUserInput
from runstate.graphql.context import Info
from runstate.graphql.pagination.tallies import sums
from runstate.graphql.published import Deployment, Flow, FlowRun, Run, TaskRun
from runstate.graphql.types.derive import reference_field, register_type
from runstate.graphql.types.fields import object_type, query
from runstate.graphql.types.filters import Where

MOST_GROUPS: Final = 1000
Which = strawberry.argument(description="Which ones; all unless given.")


class CountBy(Enum):
    """What runs are grouped by when they are counted."""

    FLOW = "flow_id"
    """The flow; of task runs, that of the flow run."""
    DEPLOYMENT = "deployment_id"
    """The deployment; of task runs, that of the flow run."""
    STATE_TYPE = "state_type"
    """The type of the current state."""
    STATE_NAME = "state_name"
    """The name of the current state; beyond a hundred names of a type, the others may be counted as `…`."""


register_type(CountBy)
GroupBy = Annotated[
    list[CountBy], strawberry.argument(description=f"What they are grouped by; the {MOST_GROUPS} largest are answered.")
]


@object_type
class GroupCount:
    """A group of runs; null is what they have none of, and what was not asked for."""

    count: int = strawberry.field(description="How many runs.")
    flow_id: strawberry.ID | None = strawberry.field(default=None, description="Id of the flow.")
    deployment_id: strawberry.ID | None = strawberry.field(default=None, description="Id of the deployment.")
    state_type: StateType | None = strawberry.field(default=None, description="Type of the current state.")
    state_name: str | None = strawberry.field(default=None, description="Name of the current state.")

    @reference_field(Flow, "flow_id")
    async def flow(self, info: Info) -> Flow | None:
        """The flow."""
        return await info.context.load(info, Flow, self.flow_id)

    @reference_field(Deployment, "deployment_id")
    async def deployment(self, info: Info) -> Deployment | None:
        """The deployment."""
        return await info.context.load(info, Deployment, self.deployment_id)


@strawberry.type
class Query:
    """Numbers of runs."""

    @query
    async def flow_run_counts(
        self, info: Info, group_by: GroupBy, where: Annotated[Where[FlowRun] | None, Which] = UNSET
    ) -> list[GroupCount]:
        """How many flow runs there are in each group, most first."""
        return await _counts(info, FlowRun, where, group_by)

    @query
    async def task_run_counts(
        self, info: Info, group_by: GroupBy, where: Annotated[Where[TaskRun] | None, Which] = UNSET
    ) -> list[GroupCount]:
        """How many task runs there are in each group, most first."""
        return await _counts(info, TaskRun, where, group_by)

    @query
    async def flow_run_lateness(
        self, info: Info, where: Annotated[Where[FlowRun] | None, Which] = UNSET
    ) -> float | None:
        """By how many seconds flow runs started, or are about to start, late, on average; null: there are none."""
        clause = where.clause(FlowRun.__table__) if where else sa.true()
        ((average,),) = await info.context.fetch(history.lateness(FlowRun, clause, info.context.now))
        return None if average is None else float(average)


async def _counts(info: Info, run: type[Run], where: Any, group_by: list[CountBy]) -> list[GroupCount]:
    by = list(dict.fromkeys(each.value for each in group_by))
    if not by:
        raise BadUserInput("Say what runs are grouped by.")
    summed = sums(run, where or None)
    clause = where.clause(run.__table__) if where else sa.true()
    asked = summed.counted(by) if summed else counts.counts_in_groups(run, by, clause)
    found = await info.context.fetch(asked.order_by(sa.text("count DESC"), *asked.selected_columns).limit(MOST_GROUPS))
    return [GroupCount(count=count, **dict(zip(by, keys, strict=True))) for *keys, count in found]
