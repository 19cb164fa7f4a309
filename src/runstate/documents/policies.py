"""Policies: retries of runs, and concurrency of a deployment's runs."""

from enum import Enum

from pydantic import Field

from runstate.documents.base import Document, NonNegativeInt, Seconds


class FlowRunPolicy(Document):
    """The retry policy of a flow run, with the marks that pausing and retrying leave."""

    retries: NonNegativeInt | None = Field(
        default=None, description="Maximum number of retries after FAILED; null for none."
    )
    retry_delay_seconds: Seconds | None = Field(
        default=None, description="Seconds to wait before a retry; null for none."
    )
    pause_keys: tuple[str, ...] = Field(default=(), description="Keys of the pauses that the run has passed, sorted.")
    resuming: bool = Field(default=False, description="True from resuming until the run enters RUNNING.")
    retry_type: str | None = Field(
        default=None,
        description="`in_process` if the process retries itself, `reschedule` if a new process is started.",
    )


class TaskRunPolicy(Document):
    """The retry policy of a task run."""

    retries: NonNegativeInt | None = Field(
        default=None, description="Maximum number of retries after FAILED; null for none."
    )
    retry_delays_seconds: tuple[Seconds, ...] | None = Field(
        default=None,
        max_length=50,
        description="Seconds to wait before each retry; the last value applies to all further retries.",
    )
    retry_jitter_factor: float | None = Field(
        default=None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="Random variation of the delays, as a share of their value; null for none.",
    )


class CollisionStrategy(Enum):
    """Handling of a run for which its deployment has no free slot."""

    ENQUEUE = "ENQUEUE"
    """It is scheduled again in 30 seconds."""
    CANCEL_NEW = "CANCEL_NEW"
    """It is cancelled."""


class ConcurrencyOptions(Document):
    """Options of a deployment's concurrency limit."""

    collision_strategy: CollisionStrategy = Field(description="Handling of a run for which no slot is free.")
    grace_period_seconds: int | None = Field(
        default=None,
        ge=60,
        le=86_400,
        description="Seconds that a run may stay PENDING before its slot is released; null for 300.",
    )
