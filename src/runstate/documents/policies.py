"""How runs are retried and how a deployment's runs collide."""

from enum import Enum

from pydantic import Field

from runstate.documents.base import Document, NonNegativeInt, Seconds


class FlowRunPolicy(Document):
    """How a flow run is retried, and what pausing and retrying noted on it."""

    retries: NonNegativeInt | None = Field(default=None, description="How often a FAILED run is started again.")
    retry_delay_seconds: Seconds | None = Field(default=None, description="Seconds to wait before a retry; null: none.")
    pause_keys: tuple[str, ...] = Field(default=(), description="Pauses that the run has gone through, sorted.")
    resuming: bool = Field(default=False, description="The run was resumed and has not entered RUNNING since.")
    retry_type: str | None = Field(
        default=None, description="`in_process` while the process retries by itself, `reschedule` when run anew."
    )


class TaskRunPolicy(Document):
    """How a task run is retried."""

    retries: NonNegativeInt | None = Field(default=None, description="How often a FAILED run is started again.")
    retry_delays_seconds: tuple[Seconds, ...] | None = Field(
        default=None,
        max_length=50,
        description="Seconds to wait before each retry; the last one counts for all further retries.",
    )
    retry_jitter_factor: float | None = Field(
        default=None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="Delays are drawn at random up to this share around their value; null: exact.",
    )


class CollisionStrategy(Enum):
    """What happens to a run for which its deployment has no slot."""

    ENQUEUE = "ENQUEUE"
    """It is scheduled again in 30 seconds."""
    CANCEL_NEW = "CANCEL_NEW"
    """It is cancelled."""


class ConcurrencyOptions(Document):
    """How a deployment's runs share its concurrency limit."""

    collision_strategy: CollisionStrategy = Field(description="What happens to a run that finds no slot.")
    grace_period_seconds: int | None = Field(
        default=None,
        ge=60,
        le=86_400,
        description="Seconds that a run may stay PENDING before its slot is taken back; null: 300.",
    )
