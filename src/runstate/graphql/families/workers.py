"""Workers: worker, workers, workerHeartbeat, deleteWorker."""

from typing import Annotated, Any

import strawberry

from runstate.core.commands import claims, workers
from runstate.documents.access import Scope
from runstate.documents.pools import WorkerMetadata, WorkerStatus, worker_status
from runstate.errors import InvalidInput, NotFound
from runstate.graphql.context import Context, Info
from runstate.graphql.families.claims import runs
from runstate.graphql.families.family import Delete, Family, by_id, deletion
from runstate.graphql.families.mutations import mutation, payload
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.published import FlowRun, Worker, WorkPool
from runstate.graphql.types.derive import computes, define_type, register_type
from runstate.graphql.types.inputs import Input

register_type(WorkerMetadata)
define_type(WorkerStatus)
FAMILY = Family(
    Worker,
    {"worker": by_id(Worker), "workers": rows_of(Worker, "Workers; latest heartbeat first by default.")},
    {
        "delete_worker": deletion(
            Worker, Delete(claims.delete_worker, "Delete a worker. Its claims expire at once."), Scope.ADMIN
        )
    },
)
WorkerHeartbeatPayload: Any = payload(
    "WorkerHeartbeatPayload",
    "Answer to a heartbeat.",
    cancelling=(list[FlowRun], "Runs held by this worker that are CANCELLING: stop them."),
    worker=(Worker, "The worker."),
    work_pool=(WorkPool, "Its pool: template, limit, paused."),
)
BEAT = strawberry.argument(description="The worker and its pool.")


@computes(Worker, needs={"last_heartbeat_time", "heartbeat_interval_seconds"})
def status(root: Worker, context: Context) -> WorkerStatus:
    """ONLINE for three intervals after a heartbeat, then OFFLINE."""
    return worker_status(root.last_heartbeat_time, root.heartbeat_interval_seconds, context.now)


@computes(Worker, needs={"reported"})
def metadata(root: Worker, context: Context) -> WorkerMetadata | None:
    """The properties that the worker reports about itself; null for none."""
    return root.reported


@strawberry.type
class Mutation:
    """Heartbeats of workers."""

    @mutation(Scope.PROPOSE, InvalidInput, NotFound, returns=WorkerHeartbeatPayload)
    async def worker_heartbeat(self, info: Info, input: Annotated[Input[workers.WorkerHeartbeat], BEAT]) -> Any:
        """Report that a worker is alive: creates or updates its row, and its pool is READY."""
        beat = await workers.heartbeat(info.context.commands, input.checked())
        held = await claims.cancelling_runs(info.context.commands, beat.worker.id)
        return WorkerHeartbeatPayload(cancelling=await runs(info, held), worker=beat.worker, work_pool=beat.pool)
