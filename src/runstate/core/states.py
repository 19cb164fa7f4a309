"""States as values, with constructors that validate them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from runstate.documents.decisions import StateDecision
from runstate.documents.states import FINAL_TYPES, Json, StateDetails, StateType
from runstate.errors import InvalidInput

NO_DETAILS = StateDetails()


@dataclass(frozen=True, slots=True)
class ArtifactOfState:
    """An artifact that the data of a state makes, with these data."""

    key: str | None = None
    type: str | None = None
    description: str | None = None
    id: UUID | None = None
    """Id, from the time at which the state is entered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state. A proposed one has no id, timestamp and version."""

    type: StateType
    """Type of the state."""
    name: str = ""
    """Name, by default that of the type."""
    message: str | None = None
    """Free text for people."""
    data: Json = None
    details: StateDetails = NO_DETAILS
    """Structured data for rules and clients."""
    id: UUID | None = None
    timestamp: datetime | None = None
    version: int | None = None
    persisted: bool | None = None
    """Whether `data` refers to a persisted result; derived from it by default."""
    decision: StateDecision | None = None
    """The decision that wrote it; null for an acceptance without changes. Loaded states do not have it."""
    artifact: ArtifactOfState | None = None
    """The artifact that the data makes."""
    copied_from: UUID | None = None
    """Id of the stored state whose data is copied inside the database."""
    late: bool = False
    """Whether it was reported when the run was in a newer state already."""

    def __post_init__(self) -> None:
        """Set the defaults of the name and of `persisted`."""
        if not self.name:
            # Attributes of a frozen dataclass cannot be assigned otherwise.
            object.__setattr__(self, "name", self.type.value.capitalize())
        if self.persisted is None:
            object.__setattr__(self, "persisted", is_persisted(self.data))

    @property
    def is_final(self) -> bool:
        """Whether the type ends a run."""
        return self.type in FINAL_TYPES

    @property
    def is_scheduled(self) -> bool:
        """Whether the type is SCHEDULED."""
        return self.type is StateType.SCHEDULED

    @property
    def is_pending(self) -> bool:
        """Whether the type is PENDING."""
        return self.type is StateType.PENDING

    @property
    def is_running(self) -> bool:
        """Whether the type is RUNNING."""
        return self.type is StateType.RUNNING

    @property
    def is_paused(self) -> bool:
        """Whether the type is PAUSED."""
        return self.type is StateType.PAUSED

    @property
    def is_cancelling(self) -> bool:
        """Whether the type is CANCELLING."""
        return self.type is StateType.CANCELLING

    @property
    def is_completed(self) -> bool:
        """Whether the type is COMPLETED."""
        return self.type is StateType.COMPLETED

    @property
    def is_failed(self) -> bool:
        """Whether the type is FAILED."""
        return self.type is StateType.FAILED

    @property
    def is_cancelled(self) -> bool:
        """Whether the type is CANCELLED."""
        return self.type is StateType.CANCELLED

    @property
    def is_crashed(self) -> bool:
        """Whether the type is CRASHED."""
        return self.type is StateType.CRASHED

    def __str__(self) -> str:
        """Return the name, the message, and the type if the name differs from it."""
        parts = [repr(self.message)] if self.message else []
        if self.type.value != self.name.upper():
            parts.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(parts)})"

    def fresh_copy(self, **changes: Any) -> State:
        """Return a copy for a new proposal, without id, timestamp and version."""
        # They belong to the entry into a state, not to the state that is proposed again.
        without = dict.fromkeys(("id", "timestamp", "version", "decision", "artifact"))
        return replace(self, **{**without, **changes})

    def with_details(self, **changes: Any) -> State:
        """Return a copy with changed details."""
        return replace(self, details=self.details.model_copy(update=changes))

    def due(self, now: datetime) -> State:
        """Return the state; a SCHEDULED one without a time gets the current time."""
        if self.is_scheduled and self.details.scheduled_time is None:
            return self.with_details(scheduled_time=now)
        return self


def is_persisted(data: Json) -> bool:
    """Return whether data refers to a persisted result: an object whose `type` is not `unpersisted`."""
    return isinstance(data, dict) and not is_unpersisted(data)


def is_unpersisted(data: Json) -> bool:
    """Return whether data is marked as not persisted. Such data is returned in the answer and not stored."""
    return isinstance(data, dict) and data.get("type") == "unpersisted"


def scheduled(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED for a time, by default now. The time is an argument or in the details, not both."""
    details = fields.pop("details", NO_DETAILS)
    if scheduled_time is not None and details.scheduled_time is not None:
        raise InvalidInput(
            "Set the scheduled time as an argument or in the details, not both.", ("details", "scheduledTime")
        )
    when = scheduled_time or details.scheduled_time or now
    return State(type=StateType.SCHEDULED, details=details.model_copy(update={"scheduled_time": when}), **fields)


def late(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED for a time that has passed."""
    return scheduled(now, scheduled_time, name="Late", **fields)


def awaiting_retry(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED for a retry."""
    return scheduled(now, scheduled_time, name="AwaitingRetry", **fields)


def awaiting_concurrency_slot(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED again because the deployment had no free slot."""
    return scheduled(now, scheduled_time, name="AwaitingConcurrencySlot", **fields)


def resuming(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED after a suspension."""
    return scheduled(now, scheduled_time, name="Resuming", **fields)


def pending(**fields: Any) -> State:
    """PENDING: the run is claimed or submitted."""
    return State(type=StateType.PENDING, **fields)


def submitting(**fields: Any) -> State:
    """PENDING: infrastructure is about to be submitted."""
    return pending(name="Submitting", **fields)


def infrastructure_pending(**fields: Any) -> State:
    """PENDING: infrastructure was submitted and is not running yet."""
    return pending(name="InfrastructurePending", **fields)


def running(**fields: Any) -> State:
    """RUNNING: user code is executing."""
    return State(type=StateType.RUNNING, **fields)


def retrying(**fields: Any) -> State:
    """RUNNING after AwaitingRetry, or in a retry of the flow run."""
    return running(name="Retrying", **fields)


def rerunning(**fields: Any) -> State:
    """RUNNING again, without AwaitingRetry before it."""
    return running(name="Rerunning", **fields)


def completed(**fields: Any) -> State:
    """COMPLETED: the run ended successfully."""
    return State(type=StateType.COMPLETED, **fields)


def failed(**fields: Any) -> State:
    """FAILED: user code raised an exception."""
    return State(type=StateType.FAILED, **fields)


def timed_out(**fields: Any) -> State:
    """FAILED because of a timeout."""
    return failed(name="TimedOut", **fields)


def crashed(**fields: Any) -> State:
    """CRASHED: the infrastructure failed."""
    return State(type=StateType.CRASHED, **fields)


def cancelling(**fields: Any) -> State:
    """CANCELLING: cancellation was requested."""
    return State(type=StateType.CANCELLING, **fields)


def cancelled(**fields: Any) -> State:
    """CANCELLED: the run was cancelled."""
    return State(type=StateType.CANCELLED, **fields)


def paused(
    now: datetime,
    *,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    reschedule: bool = False,
    pause_key: str | None = None,
    **fields: Any,
) -> State:
    """PAUSED until the run is resumed. The pause can expire after some seconds or at a time; by default it does not."""
    details = fields.pop("details", NO_DETAILS)
    if timeout_seconds is not None and pause_expiration_time is not None:
        raise InvalidInput(
            "Set the timeout of the pause in seconds or its expiration time, not both.", ("timeoutSeconds",)
        )
    until = pause_expiration_time
    if timeout_seconds is not None:
        until = now + timedelta(seconds=timeout_seconds)
    if until is not None and details.pause_timeout is not None:
        raise InvalidInput(
            "Set the expiration of the pause as an argument or in the details, not both.", ("details", "pauseTimeout")
        )
    changes = {
        "pause_timeout": until or details.pause_timeout,
        "pause_reschedule": reschedule or details.pause_reschedule,
        "pause_key": pause_key or details.pause_key,
    }
    return State(type=StateType.PAUSED, details=details.model_copy(update=changes), **fields)


def suspended(now: datetime, **fields: Any) -> State:
    """PAUSED without a process: the run is scheduled again when it is resumed."""
    return paused(now, reschedule=True, name="Suspended", **fields)
