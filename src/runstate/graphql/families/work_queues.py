"""Work queues: workQueue, workQueues, and the mutations that change them."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import sqlalchemy as sa
import strawberry
from pydantic import Field

from runstate.core.commands import work_pools
from runstate.database.queries.claimable import HOLDING
from runstate.documents.access import Scope
from runstate.documents.base import Document, Name
from runstate.documents.deployments import RECENT
from runstate.documents.pools import (
    ClaimableFlowRuns,
    HeldBackReason,
    WorkQueueHealthPolicy,
    WorkQueueStatus,
    queue_status,
)
from runstate.documents.states import StateType
from runstate.errors import InvalidInput, NameTaken, NotFound
from runstate.graphql.context import Context, Info
from runstate.graphql.families.family import Command, Delete, Family, change, creation, deletion
from runstate.graphql.families.mutations import mutation, payload, query_with_problems
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.pagination.selection import every
from runstate.graphql.published import Deployment, FlowRun, WorkPool, WorkQueue
from runstate.graphql.types.derive import computes, define_type, extends, register_type
from runstate.graphql.types.fields import field, object_type, query
from runstate.graphql.types.inputs import Input, register_input

POLICY: Final = WorkQueueHealthPolicy()
REFUSED: Final = (InvalidInput, NameTaken, NotFound)

register_type(WorkQueueHealthPolicy)
define_type(WorkQueueStatus)
define_type(HeldBackReason)


class WorkQueuePath(Document):
    """Names of a pool and one of its queues."""

    work_pool: Name = Field(description="Name of the pool.")
    name: Name = Field(default="default", description="Name of the queue.")


class WorkQueueRef(Document):
    """A work queue, by id or by path. Exactly one is given."""

    id: UUID | None = Field(default=None, description="The queue with this id.")
    path: WorkQueuePath | None = Field(default=None, description="The queue with these names.")


register_input(WorkQueuePath, name="WorkQueuePath")
register_input(WorkQueueRef, name="WorkQueueRef", one_of=True)
FAMILY = Family(
    WorkQueue,
    {"work_queues": rows_of(WorkQueue, "Work queues; by priority, then by id, by default.")},
    {
        "create_work_queue": creation(
            WorkQueue, Command(work_pools.create_queue, work_pools.CreateWorkQueue, REFUSED), Scope.ADMIN
        ),
        "update_work_queue": change(
            WorkQueue, Command(work_pools.update_queue, work_pools.UpdateWorkQueue, REFUSED), Scope.ADMIN
        ),
        "delete_work_queue": deletion(
            WorkQueue,
            Delete(
                work_pools.delete_queue,
                "Delete a work queue. Deployments and runs stay, without a queue. The default queue stays.",
                (InvalidInput, NotFound),
                "DeleteProtectableResult",
            ),
            Scope.ADMIN,
        ),
    },
)
SetWorkQueuePrioritiesPayload: Any = payload(
    "SetWorkQueuePrioritiesPayload",
    "The queues of the pool.",
    work_queues=(list[WorkQueue], "All queues of the pool, by priority."),
)
BY = strawberry.argument(description="Id, or pool and name.")
DUE = strawberry.argument(description="Pool, queues and time.")
PRIORITIES = strawberry.argument(description="The pool and the priorities.")


async def slots_in(info: Info, which: sa.ColumnElement[bool]) -> int:
    """Return the number of runs that meet a condition and are PENDING or RUNNING."""
    held = sa.select(sa.func.count()).select_from(FlowRun).where(FlowRun.state_type.in_(HOLDING), which)
    ((number,),) = await info.context.fetch(held)
    return int(number)


@extends(WorkQueue, needs=())
async def slots_in_use(root: strawberry.Parent[WorkQueue], info: Info) -> int:
    """Number of its runs that are PENDING or RUNNING."""
    return await slots_in(info, FlowRun.work_queue_id == root.id)


@computes(WorkQueue, needs={"shows_pause", "last_polled"})
def status(root: WorkQueue, context: Context) -> WorkQueueStatus:
    """PAUSED by an update, READY if polled within 60 seconds, or NOT_READY."""
    return queue_status(root.last_polled, context.now, paused=root.shows_pause)


def _is_polled(queue: WorkQueue, context: Context) -> bool:
    return queue.last_polled is not None and context.now - queue.last_polled <= RECENT


@object_type
class WorkQueueStatusDetail:
    """Health of a work queue."""

    late_runs_count: int = strawberry.field(description="Number of its runs in state Late.")
    last_polled: datetime | None = strawberry.field(description="Time at which a worker last asked for its runs.")
    healthy: bool = strawberry.field(description="True if the policy is met.")

    @field
    def health_check_policy(self) -> WorkQueueHealthPolicy:
        """The policy."""
        return POLICY


@extends(WorkQueue, needs={"last_polled"})
async def health(root: strawberry.Parent[WorkQueue], info: Info) -> WorkQueueStatusDetail:
    """Whether its runs start in time: no late runs, and polled within 60 seconds."""
    # By type too: the index of due runs holds SCHEDULED runs only.
    mine = (FlowRun.work_queue_id == root.id) & (FlowRun.state_type == StateType.SCHEDULED)
    late = sa.select(sa.func.count()).select_from(FlowRun).where(mine, FlowRun.state_name == "Late")
    ((number,),) = await info.context.fetch(late)
    healthy = _is_polled(root, info.context) and not number
    return WorkQueueStatusDetail(late_runs_count=number, last_polled=root.last_polled, healthy=healthy)


async def _pool(queue_id: UUID | None, info: Info) -> WorkPool | None:
    queue = await info.context.row(WorkQueue, queue_id, frozenset({"work_pool_id"}))
    return await info.context.load(info, WorkPool, queue.work_pool_id) if queue else None


@extends(Deployment, name="work_pool", needs={"work_queue_id"})
async def pool_of_deployment(root: strawberry.Parent[Deployment], info: Info) -> WorkPool | None:
    """Work pool of its queue."""
    return await _pool(root.work_queue_id, info)


@extends(FlowRun, name="work_pool", needs={"work_queue_id"})
async def pool_of_run(root: strawberry.Parent[FlowRun], info: Info) -> WorkPool | None:
    """Work pool of its queue."""
    return await _pool(root.work_queue_id, info)


@object_type
class HeldBack:
    """Due runs that cannot be claimed for one reason."""

    queue_id: strawberry.Private[UUID | None]
    count: int = strawberry.field(description="Number of runs.")
    reason: HeldBackReason = strawberry.field(description="The reason.")

    @field
    async def work_queue(self, info: Info) -> WorkQueue | None:
        """Their queue; null if they are in several."""
        return await info.context.load(info, WorkQueue, self.queue_id) if self.queue_id else None


@object_type
class ClaimableFlowRunsPayload:
    """Due runs."""

    flow_runs: list[FlowRun] = strawberry.field(
        description="By priority of the queue, then by scheduled time, then by id."
    )
    held: list[HeldBack] = strawberry.field(description="Due runs that cannot be claimed, by reason.")


@strawberry.type
class Query:
    """Work queues by id or by names."""

    @query_with_problems(InvalidInput, NotFound)
    async def claimable_flow_runs(
        self, info: Info, input: Annotated[Input[ClaimableFlowRuns], DUE]
    ) -> ClaimableFlowRunsPayload:
        """The due runs of a pool within the limits of pool and queues, and why other due runs are held.

        Claims nothing, and does not count as a poll.
        """
        found = await work_pools.claimable_runs(info.context.commands, input.checked())
        held = [HeldBack(queue_id=each.queue_id, count=each.runs, reason=each.reason) for each in found.held]
        runs: Any = await info.context.rows(FlowRun, found.runs, every(FlowRun))
        return ClaimableFlowRunsPayload(flow_runs=list(runs), held=held)

    @query
    async def work_queue(self, info: Info, by: Annotated[Input[WorkQueueRef], BY]) -> WorkQueue | None:
        """The work queue with this id, or with this pool and name; null if it is unknown."""
        given = by.member_values()
        if (path := given.get("path")) is None:
            return await info.context.load(info, WorkQueue, given["id"])
        asked = sa.select(WorkQueue.id).join(WorkPool).where(WorkPool.name == path["work_pool"])
        found = await info.context.fetch(asked.where(WorkQueue.name == path["name"]))
        return await info.context.load(info, WorkQueue, found[0][0]) if found else None


@strawberry.type
class Mutation:
    """Priorities of queues."""

    @mutation(Scope.ADMIN, InvalidInput, NotFound, returns=SetWorkQueuePrioritiesPayload)
    async def set_work_queue_priorities(
        self, info: Info, input: Annotated[Input[work_pools.SetWorkQueuePriorities], PRIORITIES]
    ) -> Any:
        """Set the priorities of several queues of a pool at once.

        Other queues move as little as possible so that priorities stay unique.
        """
        found = await work_pools.set_priorities(info.context.commands, input.checked())
        return SetWorkQueuePrioritiesPayload(work_queues=found)
