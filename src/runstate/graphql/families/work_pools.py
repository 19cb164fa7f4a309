"""Work pools: workPool, workPools, createWorkPool, updateWorkPool, deleteWorkPool."""

from datetime import datetime
from typing import cast

import sqlalchemy as sa
import strawberry

from runstate.core.commands import claims, work_pools
from runstate.documents.access import Scope
from runstate.documents.pools import WorkPoolStatus, pool_status
from runstate.errors import InvalidInput, NameTaken, NotFound
from runstate.graphql.context import Context, Info
from runstate.graphql.families.family import Command, Delete, family
from runstate.graphql.families.work_queues import slots_in
from runstate.graphql.published import FlowRun, WorkPool, WorkQueue
from runstate.graphql.types.derive import computes, define_type, extends

define_type(WorkPoolStatus)
FAMILY = family(
    WorkPool,
    scope=Scope.ADMIN,
    lookup="name",
    create=Command(
        work_pools.create_pool,
        work_pools.CreateWorkPool,
        (InvalidInput, NameTaken),
        "Create a work pool together with its queue `default` (priority 1).",
    ),
    update=Command(work_pools.update_pool, work_pools.UpdateWorkPool, (InvalidInput, NameTaken, NotFound)),
    delete=Delete(
        claims.delete_pool,
        "Delete a work pool with its queues, workers and claims. Deployments and runs stay, without a queue.",
    ),
)


@computes(WorkPool, needs={"paused", "online_until"})
def status(root: WorkPool, context: Context) -> WorkPoolStatus:
    """PAUSED, READY if a worker is online, or NOT_READY."""
    return pool_status(root.online_until, context.now, paused=root.paused)


@computes(WorkPool, needs={"paused", "online_until"})
def status_name(root: WorkPool, context: Context) -> str:
    """The status in words, for example Not Ready."""
    return status(root, context).value.replace("_", " ").title()


@computes(WorkPool, needs={"online_until", "status_changed"})
def last_transitioned_status_at(root: WorkPool, context: Context) -> datetime | None:
    """Time at which `status` last changed; null if it never did."""
    ended = root.online_until if root.online_until and root.online_until < context.now else None
    return max((each for each in (root.status_changed, ended) if each), default=None)


@extends(WorkPool, needs=())
async def default_queue(root: strawberry.Parent[WorkPool], info: Info) -> WorkQueue:
    """Queue of runs that name no other."""
    asked = sa.select(WorkQueue.id).where(WorkQueue.work_pool_id == root.id, WorkQueue.is_default)
    found = await info.context.fetch(asked)
    queue = await info.context.load(info, WorkQueue, found[0][0]) if found else None
    # A pool that was deleted meanwhile is null.
    return cast("WorkQueue", queue)


@extends(WorkPool, needs=())
async def slots_in_use(root: strawberry.Parent[WorkPool], info: Info) -> int:
    """Number of its runs that are PENDING or RUNNING."""
    queues = sa.select(WorkQueue.id).where(WorkQueue.work_pool_id == root.id)
    return await slots_in(info, FlowRun.work_queue_id.in_(queues))
