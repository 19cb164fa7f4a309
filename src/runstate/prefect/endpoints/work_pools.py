"""Work pools, their queues and workers, and the polls of workers."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from runstate.core.commands import claims, workers
from runstate.core.commands import work_pools as commands
from runstate.core.commands.polls import poll_pool
from runstate.database.dialects import among
from runstate.documents.access import Scope
from runstate.documents.pools import ClaimableFlowRuns, WorkPoolStorageConfiguration
from runstate.prefect import objects, reading
from runstate.prefect.bodies import LARGEST_PAGE, Body, Time, changes
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.endpoints.lists import listed
from runstate.prefect.pages import BODIES
from runstate.prefect.presentation import Object
from runstate.rows import FlowRun, Worker, WorkPool, WorkQueue

NAMES: Final = {"is_paused": "paused"}
"""The names of members that columns have by others."""
QueuePage: Any = BODIES[WorkQueue]
WorkerPage: Any = BODIES[Worker]
POOL: Final = "/work_pools/{pool}"
QUEUE: Final = f"{POOL}/queues/{{name}}"


class PoolChanges(Body):
    """Changes to a work pool."""

    description: str | None = None
    base_job_template: dict[str, Any] | None = None
    is_paused: bool | None = None
    concurrency_limit: int | None = None
    storage_configuration: WorkPoolStorageConfiguration | None = None


class NewPool(PoolChanges):
    """A work pool to create."""

    name: str
    type: str | None = None


class QueueChanges(Body):
    """Changes to a work queue."""

    name: str | None = None
    description: str | None = None
    is_paused: bool | None = None
    concurrency_limit: int | None = None
    priority: int | None = None


class NewQueue(QueueChanges):
    """A work queue to create."""

    name: str


class Beat(Body):
    """A heartbeat of a worker."""

    name: str
    heartbeat_interval_seconds: float | None = None
    metadata: dict[str, Any] | None = None


class Poll(Body):
    """Queues of a pool whose due runs are wanted; without names, all."""

    work_queue_names: list[str] | None = None
    scheduled_before: Time | None = None
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] | None = None


async def pool_of(call: Call) -> WorkPool:
    """Return the work pool that the path names. Raise NotFound if it is unknown."""
    name = call.text("pool")
    return await objects.only(call, WorkPool, "work pool", name, WorkPool.name == name)


async def _queue(call: Call) -> WorkQueue:
    pool, name = await pool_of(call), call.text("name")
    mine = (WorkQueue.work_pool_id == pool.id, WorkQueue.name == name)
    return await objects.only(call, WorkQueue, "work queue", name, *mine)


async def queue_by_id(call: Call) -> WorkQueue:
    """Return the work queue whose id is in the path. Raise NotFound if it is unknown."""
    return await objects.only(call, WorkQueue, "work queue", call.id(), WorkQueue.id == call.id())


@endpoint("POST", "/work_pools/", Scope.ADMIN, status=201)
async def create(call: Call, body: NewPool) -> Any:
    """Create a work pool with its default queue."""
    made = await commands.create_pool(call.context, commands.CreateWorkPool(**changes(body, WorkPool, NAMES)))
    return (await objects.pools(call, [made.row]))[0]


@endpoint("GET", POOL, Scope.READ)
async def read(call: Call) -> Any:
    """Return a work pool."""
    pool = await pool_of(call)
    in_use = await objects.slots_in_use(call, FlowRun.work_queue_id.in_(objects.queues_of(pool)))
    return {**(await objects.pools(call, [pool]))[0], "active_slots": in_use}


@endpoint("PATCH", POOL, Scope.ADMIN, status=204)
async def update(call: Call, body: PoolChanges) -> None:
    """Change a work pool."""
    document = commands.UpdateWorkPool(id=(await pool_of(call)).id, **changes(body, WorkPool, NAMES))
    await commands.update_pool(call.context, document)


@endpoint("DELETE", POOL, Scope.ADMIN, status=204)
async def delete(call: Call) -> None:
    """Delete a work pool with its queues and workers."""
    await claims.delete_pool(call.context, (await pool_of(call)).id)


@endpoint("POST", f"{POOL}/get_scheduled_flow_runs", Scope.PROPOSE)
async def due_runs(call: Call, body: Poll) -> Any:
    """Return the due runs of a pool, in the order in which they are to be started."""
    pool = await pool_of(call)
    wanted = ClaimableFlowRuns(
        work_pool=pool.name,
        work_queues=body.work_queue_names or None,
        due_before=body.scheduled_before,
        first=body.limit or LARGEST_PAGE,
    )
    runs = await due(call, wanted)
    return [{"work_pool_id": pool.id, "work_queue_id": each["work_queue_id"], "flow_run": each} for each in runs]


async def due(call: Call, wanted: ClaimableFlowRuns) -> list[Object]:
    """Return the due runs of a pool, in the order in which they are to be started."""
    found = await poll_pool(call.context, wanted)
    runs = {each["id"]: each for each in await reading.flow_runs(call, among(FlowRun.id, found))} if found else {}
    return [runs[each] for each in found if each in runs]


@endpoint("POST", f"{POOL}/queues/", Scope.ADMIN, status=201)
async def create_queue(call: Call, body: NewQueue) -> Any:
    """Create a work queue in a pool."""
    document = commands.CreateWorkQueue(work_pool_id=(await pool_of(call)).id, **changes(body, WorkQueue, NAMES))
    made = await commands.create_queue(call.context, document)
    return (await objects.queues(call, [made.row]))[0]


@endpoint("POST", f"{POOL}/queues/filter", Scope.READ)
async def list_queues(call: Call, body: QueuePage) -> Any:
    """Return a page of the queues of a pool."""
    return await listed(call, WorkQueue, body, WorkQueue.work_pool_id == (await pool_of(call)).id)


@endpoint("GET", QUEUE, Scope.READ)
async def read_queue(call: Call) -> Any:
    """Return a work queue of a pool."""
    return await _shown(call, await _queue(call))


@endpoint("PATCH", QUEUE, Scope.ADMIN, status=204)
async def update_queue(call: Call, body: QueueChanges) -> None:
    """Change a work queue of a pool."""
    await _update(call, await _queue(call), body)


@endpoint("DELETE", QUEUE, Scope.ADMIN, status=204)
async def delete_queue(call: Call) -> None:
    """Delete a work queue of a pool."""
    await commands.delete_queue(call.context, (await _queue(call)).id)


@endpoint("GET", "/work_queues/{id}", Scope.READ)
async def read_queue_by_id(call: Call) -> Any:
    """Return a work queue."""
    return await _shown(call, await queue_by_id(call))


@endpoint("PATCH", "/work_queues/{id}", Scope.ADMIN, status=204)
async def update_queue_by_id(call: Call, body: QueueChanges) -> None:
    """Change a work queue."""
    await _update(call, await queue_by_id(call), body)


@endpoint("DELETE", "/work_queues/{id}", Scope.ADMIN, status=204)
async def delete_queue_by_id(call: Call) -> None:
    """Delete a work queue."""
    await commands.delete_queue(call.context, call.id())


async def _update(call: Call, queue: WorkQueue, body: QueueChanges) -> None:
    document = commands.UpdateWorkQueue(id=queue.id, **changes(body, WorkQueue, NAMES))
    await commands.update_queue(call.context, document)


async def _shown(call: Call, queue: WorkQueue) -> Any:
    in_use = await objects.slots_in_use(call, FlowRun.work_queue_id == queue.id)
    return {**(await objects.queues(call, [queue]))[0], "active_slots": in_use}


@endpoint("POST", f"{POOL}/workers/heartbeat", Scope.PROPOSE, status=204)
async def beat(call: Call, body: Beat) -> None:
    """Record a heartbeat of a worker."""
    seconds = body.heartbeat_interval_seconds
    named: dict[str, Any] = {"work_pool": call.text("pool"), "worker": body.name, "metadata": body.metadata}
    given: dict[str, Any] = {"interval_seconds": seconds} if seconds else {}
    await workers.heartbeat(call.context, workers.WorkerHeartbeat(**named, **given))


@endpoint("POST", f"{POOL}/workers/filter", Scope.READ)
async def list_workers(call: Call, body: WorkerPage) -> Any:
    """Return a page of the workers of a pool."""
    return await listed(call, Worker, body, Worker.work_pool_id == (await pool_of(call)).id)


@endpoint("DELETE", f"{POOL}/workers/{{name}}", Scope.ADMIN, status=204)
async def delete_worker(call: Call) -> None:
    """Delete a worker of a pool."""
    pool, name = await pool_of(call), call.text("name")
    mine = (Worker.work_pool_id == pool.id, Worker.name == name)
    found = await objects.only(call, Worker, "worker", name, *mine)
    await claims.delete_worker(call.context, found.id)
