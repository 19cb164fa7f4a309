"""Types and details of states."""

from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

from pydantic import Field

from runstate.documents.base import Document, LongText, Name


class StateType(Enum):
    """Type of a state. Rules depend on the type; the name is for people."""

    __hash__ = object.__hash__
    """The hash by identity: members are unique, and rules look states up by type all the time."""

    SCHEDULED = "SCHEDULED"
    """Will start at the scheduled time of its details."""
    PENDING = "PENDING"
    """Claimed or submitted, waiting for infrastructure or preconditions."""
    RUNNING = "RUNNING"
    """User code is executing."""
    COMPLETED = "COMPLETED"
    """Ended successfully. Final."""
    FAILED = "FAILED"
    """User code raised an exception or timed out. Final."""
    CANCELLED = "CANCELLED"
    """Cancelled before or during execution. Final."""
    CRASHED = "CRASHED"
    """The infrastructure failed or was interrupted. Final."""
    PAUSED = "PAUSED"
    """Stopped on request until it is resumed or times out."""
    CANCELLING = "CANCELLING"
    """Cancellation was requested; the infrastructure is being stopped."""


FINAL_TYPES: Final = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})
MONITORED_TYPES: Final = frozenset({StateType.RUNNING, StateType.CANCELLING})
"""Types of the states in which the client of a run with `heartbeat_seconds` sends heartbeats."""


class StateDetails(Document):
    """Values of a state that rules and clients read, besides type, name and message."""

    scheduled_time: datetime | None = Field(
        default=None, description="Time at which a SCHEDULED run is due; copied to PENDING."
    )
    cache_key: LongText | None = Field(default=None, description="Key under which the result is cached and looked up.")
    cache_expiration: datetime | None = Field(
        default=None, description="Time at which the cached result expires; null for never."
    )
    refresh_cache: bool | None = Field(default=None, description="True to run although a cached result exists.")
    retriable: bool | None = Field(
        default=None, description="False on a FAILED state if the task run must not be retried."
    )
    transition_id: UUID | None = Field(
        default=None, description="Id that the client generates: a proposal with the current state's id is rejected."
    )
    pause_timeout: datetime | None = Field(
        default=None, description="Time at which a paused run fails; null for no timeout."
    )
    pause_reschedule: bool = Field(
        default=False,
        description="True if the run is suspended: its process exits, and resuming schedules the run again.",
    )
    pause_key: Name | None = Field(
        default=None, description="Key of the place in the code; a run pauses at most once for a key."
    )
    run_input_keyset: dict[Name, Name] | None = Field(
        default=None, description="Keys of the inputs that a paused run waits for: `schema`, `response`, `description`."
    )
    flow_run_id: UUID | None = Field(default=None, description="Id of the flow run that the state belongs to.")
    task_run_id: UUID | None = Field(
        default=None,
        description="Id of the task run that the state belongs to; for a subflow run, of its parent task run.",
    )
    child_flow_run_id: UUID | None = Field(
        default=None, description="Id of the subflow run that the state mirrors, on states of its parent task run."
    )
    deferred: bool | None = Field(default=None, description="True on the states of background task runs.")
    untrackable_result: bool = Field(
        default=False, description="True if the result cannot be used to track dependencies between task runs."
    )
    task_parameters_id: UUID | None = Field(
        default=None, description="Id of the stored parameters of a background task run."
    )
    traceparent: Name | None = Field(default=None, description="W3C trace context of the span that created the state.")
    deployment_concurrency_lease_id: UUID | None = Field(
        default=None, description="Id of the run's lease on its deployment's concurrency limit."
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
