"""The tasks of a flow."""

from typing import Annotated, Final

import strawberry

from runstate.database.queries.tasks import tasks_of
from runstate.graphql.context import Info
from runstate.graphql.pagination.sizes import checked_size
from runstate.graphql.published import Flow, TaskRun
from runstate.graphql.types.derive import extends, reference_field
from runstate.graphql.types.fields import object_type

MOST_RUNS: Final = 500
Runs = Annotated[int, strawberry.argument(description=f"Number of latest flow runs to look at, at most {MOST_RUNS}.")]


@object_type
class FlowTask:
    """A task of a flow."""

    key: str = strawberry.field(description="Task key.")
    latest_run_id: strawberry.ID = strawberry.field(description="Id of its newest task run.")

    @reference_field(TaskRun, "latest_run_id")
    async def latest_run(self, info: Info) -> TaskRun | None:
        """Its newest task run."""
        return await info.context.load(info, TaskRun, self.latest_run_id)


@extends(Flow, needs=())
async def tasks(root: strawberry.Parent[Flow], info: Info, in_latest_runs: Runs = 100) -> list[FlowTask]:
    """The tasks in the latest runs of the flow by expected start time, sorted by key."""
    runs = checked_size(in_latest_runs, MOST_RUNS, "inLatestRuns")
    found = await info.context.fetch(tasks_of(root.id, runs))
    return [FlowTask(key=key, latest_run_id=run) for key, run in found]
