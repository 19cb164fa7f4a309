"""Values of work pools, work queues and workers."""

from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, Field

from runstate.documents.base import Document, JsonObject, LongText, Name, Text, storable_json
from runstate.documents.deployments import RECENT
from runstate.documents.schedules import Instant

MISSED: Final = 3
"""Number of heartbeat intervals after which a worker is offline."""
FORBIDDEN = frozenset("/%&<>")
RESERVED = "prefect"


def _named(name: str) -> str:
    if not name.strip(" '\""):
        raise ValueError("the name must not be blank")
    if FORBIDDEN & set(name):
        raise ValueError("the name must not contain / % & < >")
    return name


def _unreserved(name: str) -> str:
    if name.lower().startswith(RESERVED):
        raise ValueError(f"names that begin with `{RESERVED}` are reserved")
    return name


def _not_blank(name: str) -> str:
    if not name.strip():
        raise ValueError("the name must not be blank")
    return name


WorkerName = Annotated[Name, AfterValidator(_not_blank)]
LongName = Annotated[Text, Field(min_length=1, max_length=500)]
QueueName = Annotated[LongName, AfterValidator(_named)]
PoolName = Annotated[LongName, AfterValidator(_named), AfterValidator(_unreserved)]


def _step(value: Any) -> Any:
    if not isinstance(value, dict) or len(value) > 1:
        raise ValueError("a step is an object with one key, the step")
    return storable_json(value)


Step = Annotated[Any, AfterValidator(_step)]


class WorkPoolStorageConfiguration(Document):
    """Storage for code and results of a pool's runs."""

    bundle_execution_step: Step | None = Field(
        default=None,
        description="Step that runs code from storage: an object with one key, the step, whose value holds its inputs.",
    )
    bundle_upload_step: Step | None = Field(
        default=None, description="Step that uploads code to storage, in the same form."
    )
    default_result_storage_block_id: UUID | None = Field(
        default=None, description="Id of the block document for results."
    )


class QueueFilter(Document):
    """Filter of a legacy queue."""

    deployment_ids: list[UUID] | None = Field(default=None, description="Runs of one of these deployments.")
    tags: list[Name] | None = Field(default=None, description="Runs that have all of these tags.")


class WorkPoolStatus(Enum):
    """Status of a work pool."""

    NOT_READY = "NOT_READY"
    """No worker is online."""
    PAUSED = "PAUSED"
    """The pool is paused; none of its runs are claimed."""
    READY = "READY"
    """At least one worker is online."""


class WorkQueueStatus(Enum):
    """Status of a work queue."""

    NOT_READY = "NOT_READY"
    """Not polled within the last 60 seconds."""
    PAUSED = "PAUSED"
    """The queue is paused; none of its runs are claimed."""
    READY = "READY"
    """Polled within the last 60 seconds."""


class WorkerStatus(Enum):
    """Status of a worker."""

    OFFLINE = "OFFLINE"
    """No heartbeat for more than three heartbeat intervals."""
    ONLINE = "ONLINE"
    """Heartbeats arrive."""


def pool_status(online_until: datetime | None, now: datetime, *, paused: bool) -> WorkPoolStatus:
    """Return the status of a pool whose workers are online until some time."""
    if paused:
        return WorkPoolStatus.PAUSED
    return WorkPoolStatus.READY if online_until and online_until >= now else WorkPoolStatus.NOT_READY


def queue_status(last_polled: datetime | None, now: datetime, *, paused: bool) -> WorkQueueStatus:
    """Return the status of a queue that was last polled at some time."""
    if paused:
        return WorkQueueStatus.PAUSED
    return WorkQueueStatus.READY if last_polled and now - last_polled <= RECENT else WorkQueueStatus.NOT_READY


def worker_status(last_heartbeat: datetime, interval_seconds: float, now: datetime) -> WorkerStatus:
    """Return the status of a worker whose last heartbeat arrived at some time."""
    until = last_heartbeat + MISSED * timedelta(seconds=interval_seconds)
    return WorkerStatus.ONLINE if until >= now else WorkerStatus.OFFLINE


class WorkQueueHealthPolicy(Document):
    """Conditions for a healthy queue; all must hold."""

    maximum_late_runs: int | None = Field(default=0, description="Maximum number of late runs; null for any.")
    maximum_seconds_since_last_polled: float | None = Field(
        default=60, description="Maximum time since the last poll in seconds; null for any."
    )


class HeldBackReason(Enum):
    """Reason for which a due run cannot be claimed."""

    DEPLOYMENT_LIMIT = "DEPLOYMENT_LIMIT"
    """The deployment's concurrency limit has no free slot."""
    POOL_LIMIT = "POOL_LIMIT"
    """The pool's concurrency limit has no free slot."""
    POOL_PAUSED = "POOL_PAUSED"
    """The pool is paused."""
    QUEUE_LIMIT = "QUEUE_LIMIT"
    """The queue's concurrency limit has no free slot."""
    QUEUE_PAUSED = "QUEUE_PAUSED"
    """The queue is paused."""


class ClaimableFlowRuns(Document):
    """A pool, its queues, and the time at which runs are due."""

    work_pool: str = Field(description="Name of the pool.")
    work_queues: list[str] | None = Field(
        default=None, description="Names of queues; default: all. An unknown name is NotFound."
    )
    due_before: Instant | None = Field(
        default=None, description="Runs due at or before this instant; default: now; at most one hour ahead."
    )
    first: Annotated[int, Field(ge=1, le=200)] = Field(default=10, description="Maximum number of runs, 1 to 200.")


LeaseSeconds = Annotated[float, Field(ge=10, le=3600, allow_inf_nan=False)]
ClaimIds = Annotated[list[UUID], Field(min_length=1, max_length=200)]


class ClaimFlowRuns(ClaimableFlowRuns):
    """A request of a worker for due runs."""

    worker: WorkerName = Field(description="Name of the worker; its row is created or updated as by a heartbeat.")
    lease_seconds: LeaseSeconds = Field(default=60, description="Length of the lease in seconds, 10 to 3600.")
    idempotency_key: Name | None = Field(
        default=None,
        description="The same key of the same worker within a day returns the claims that it got, as far as they live.",
    )


class RenewClaims(Document):
    """Claims to extend."""

    claim_ids: ClaimIds = Field(description="Ids of claims, 1 to 200.")
    lease_seconds: LeaseSeconds = Field(
        default=60, description="New length of the leases from now in seconds, 10 to 3600."
    )


class ReleaseClaims(Document):
    """Claims to end."""

    claim_ids: ClaimIds = Field(description="Ids of claims, 1 to 200.")
    failed: bool = Field(
        default=False,
        description="False if PENDING runs become SCHEDULED again at their original time. True if they, and RUNNING "
        "runs, become CRASHED, because they could not be started or died.",
    )
    message: LongText | None = Field(default=None, description="Message of the new state.")


class Integration(Document):
    """A package that is installed where a worker runs."""

    name: str = Field(description="Its name.")
    version: str = Field(description="Its version.")


class WorkerMetadata(Document):
    """Properties that a worker reports about itself."""

    integrations: list[Integration] = Field(default=[], description="Packages that are installed where it runs.")
    other: JsonObject = Field(default={}, description="Further properties: an object.")
