"""What a state is made of besides its row."""

from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

from pydantic import Field

from runstate.documents.base import Document, LongText, Name


class StateType(Enum):
    """What a run is doing; the rules look at the type, people at the name."""

    __hash__ = object.__hash__
    """There is one of each: rules look states up by their type all the time."""

    SCHEDULED = "SCHEDULED"
    """Will start at the scheduled time of its details."""
    PENDING = "PENDING"
    """Claimed or submitted, waiting for infrastructure or preconditions."""
    RUNNING = "RUNNING"
    """User code is executing."""
    COMPLETED = "COMPLETED"
    """Finished well. Final."""
    FAILED = "FAILED"
    """User code raised or timed out. Final."""
    CANCELLED = "CANCELLED"
    """Cancelled before or during execution. Final."""
    CRASHED = "CRASHED"
    """The infrastructure died or was interrupted. Final."""
    PAUSED = "PAUSED"
    """Stopped by request; waits to be resumed or to time out."""
    CANCELLING = "CANCELLING"
    """Cancellation was requested; infrastructure is being torn down."""


FINAL_TYPES: Final = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})


class StateDetails(Document):
    """What rules and clients know about a state besides its type, name and message."""

    scheduled_time: datetime | None = Field(
        default=None, description="When a SCHEDULED run is due; carried over to PENDING."
    )
    cache_key: LongText | None = Field(default=None, description="Under which key the result is cached or looked up.")
    cache_expiration: datetime | None = Field(
        default=None, description="Until when the cached result may be used; null: for ever."
    )
    refresh_cache: bool | None = Field(default=None, description="True: run although a cached result exists.")
    retriable: bool | None = Field(default=None, description="False on FAILED: the task run is not retried.")
    transition_id: UUID | None = Field(
        default=None, description="Minted by the client: a proposal that repeats the current state's is rejected."
    )
    pause_timeout: datetime | None = Field(default=None, description="When a pause ends by itself; null: never.")
    pause_reschedule: bool = Field(
        default=False, description="Suspended: the process exits and the run is scheduled again on resume."
    )
    pause_key: Name | None = Field(default=None, description="Names a place in the code that pauses only once.")
    run_input_keyset: dict[Name, Name] | None = Field(
        default=None, description="Names of the inputs a paused run waits for: `schema`, `response`, `description`."
    )
    flow_run_id: UUID | None = Field(default=None, description="The flow run that the state belongs to.")
    task_run_id: UUID | None = Field(
        default=None, description="The task run that the state belongs to; on a subflow run: its parent task run."
    )
    child_flow_run_id: UUID | None = Field(
        default=None, description="On the states of a subflow's parent task run: the subflow run they mirror."
    )
    deferred: bool | None = Field(default=None, description="Marks the states of background task runs.")
    untrackable_result: bool = Field(
        default=False, description="The result cannot be used to track dependencies between task runs."
    )
    task_parameters_id: UUID | None = Field(
        default=None, description="Where the parameters of a background task run are stored."
    )
    traceparent: Name | None = Field(default=None, description="W3C trace context of the span that made the state.")
    deployment_concurrency_lease_id: UUID | None = Field(
        default=None, description="The lease on the deployment's concurrency limit that the run holds."
    )


Json = Any
"""Any JSON value: null, a boolean, number, string, list or object."""


class RunKind(Enum):
    """The two kinds of runs."""

    __hash__ = object.__hash__

    FLOW_RUN = "FLOW_RUN"
    """A run of a flow."""
    TASK_RUN = "TASK_RUN"
    """A run of a task, inside a flow run or on its own."""
