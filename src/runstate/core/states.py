"""States as rules see them: values, made by constructors that check what belongs together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from runstate.documents.states import FINAL_TYPES, Json, StateDetails, StateType
from runstate.errors import InvalidInput

NO_DETAILS = StateDetails()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One state; proposed ones have no id, timestamp and version yet."""

    type: StateType
    """What the run would be doing."""
    name: str = ""
    """The type in words, or a more telling name."""
    message: str | None = None
    """Free text for people."""
    data: Json = None
    details: StateDetails = NO_DETAILS
    """What rules and clients would know about it besides."""
    id: UUID | None = None
    timestamp: datetime | None = None
    version: int | None = None
    persisted: bool | None = None
    """Whether data refers to a result that is kept; read off the data unless given."""
    copied_from: UUID | None = None
    """The stored state whose data this one takes over, without anybody reading it."""

    def __post_init__(self) -> None:
        """Name a nameless state after its type."""
        if not self.name:
            object.__setattr__(self, "name", self.type.value.capitalize())
        if self.persisted is None:
            object.__setattr__(self, "persisted", is_persisted(self.data))

    @property
    def is_final(self) -> bool:
        """Whether the run ends with it."""
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
        """Name, message and type, as far as they say something new."""
        parts = [repr(self.message)] if self.message else []
        if self.type.value != self.name.upper():
            parts.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(parts)})"

    def fresh_copy(self, **changes: Any) -> State:
        """The same state, not entered yet: without id, timestamp and version."""
        return replace(self, **{"id": None, "timestamp": None, "version": None, **changes})

    def with_details(self, **changes: Any) -> State:
        """The same state with other values in some details."""
        return replace(self, details=self.details.model_copy(update=changes))

    def due(self, now: datetime) -> State:
        """The same state; a SCHEDULED one without a time is due now."""
        if self.is_scheduled and self.details.scheduled_time is None:
            return self.with_details(scheduled_time=now)
        return self


def is_persisted(data: Json) -> bool:
    """Whether data refers to a result that is kept: an object whose `type` is not `unpersisted`."""
    return isinstance(data, dict) and not is_unpersisted(data)


def is_unpersisted(data: Json) -> bool:
    """Whether data only says that there is no result; such data is answered once and not stored."""
    return isinstance(data, dict) and data.get("type") == "unpersisted"


def scheduled(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """Due at a time, or now. The time is given here or in the details, not in both."""
    details = fields.pop("details", NO_DETAILS)
    if scheduled_time is not None and details.scheduled_time is not None:
        raise InvalidInput("The scheduled time is given twice.", ("details", "scheduledTime"))
    when = scheduled_time or details.scheduled_time or now
    return State(type=StateType.SCHEDULED, details=details.model_copy(update={"scheduled_time": when}), **fields)


def late(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED, and its time has passed."""
    return scheduled(now, scheduled_time, name="Late", **fields)


def awaiting_retry(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED for a further attempt."""
    return scheduled(now, scheduled_time, name="AwaitingRetry", **fields)


def awaiting_concurrency_slot(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED again because its deployment had no slot."""
    return scheduled(now, scheduled_time, name="AwaitingConcurrencySlot", **fields)


def resuming(now: datetime, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """SCHEDULED after having been suspended."""
    return scheduled(now, scheduled_time, name="Resuming", **fields)


def pending(**fields: Any) -> State:
    """Claimed or submitted."""
    return State(type=StateType.PENDING, **fields)


def submitting(**fields: Any) -> State:
    """PENDING: infrastructure is about to be submitted."""
    return pending(name="Submitting", **fields)


def infrastructure_pending(**fields: Any) -> State:
    """PENDING: infrastructure was submitted and is not up yet."""
    return pending(name="InfrastructurePending", **fields)


def running(**fields: Any) -> State:
    """User code is executing."""
    return State(type=StateType.RUNNING, **fields)


def retrying(**fields: Any) -> State:
    """RUNNING after AwaitingRetry, or in a later attempt of the flow run."""
    return running(name="Retrying", **fields)


def rerunning(**fields: Any) -> State:
    """RUNNING once more."""
    return running(name="Rerunning", **fields)


def completed(**fields: Any) -> State:
    """Finished well."""
    return State(type=StateType.COMPLETED, **fields)


def failed(**fields: Any) -> State:
    """User code raised."""
    return State(type=StateType.FAILED, **fields)


def timed_out(**fields: Any) -> State:
    """FAILED because it took too long."""
    return failed(name="TimedOut", **fields)


def crashed(**fields: Any) -> State:
    """The infrastructure died."""
    return State(type=StateType.CRASHED, **fields)


def cancelling(**fields: Any) -> State:
    """Cancellation was requested."""
    return State(type=StateType.CANCELLING, **fields)


def cancelled(**fields: Any) -> State:
    """Cancelled."""
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
    """Waits to be resumed: for some seconds, until a time, or for ever. Only one of the three may be said."""
    details = fields.pop("details", NO_DETAILS)
    if timeout_seconds is not None and pause_expiration_time is not None:
        raise InvalidInput("A pause ends after a number of seconds or at a time, not both.", ("timeoutSeconds",))
    until = pause_expiration_time
    if timeout_seconds is not None:
        until = now + timedelta(seconds=timeout_seconds)
    if until is not None and details.pause_timeout is not None:
        raise InvalidInput("When the pause ends is given twice.", ("details", "pauseTimeout"))
    said = {
        "pause_timeout": until or details.pause_timeout,
        "pause_reschedule": reschedule or details.pause_reschedule,
        "pause_key": pause_key or details.pause_key,
    }
    return State(type=StateType.PAUSED, details=details.model_copy(update=said), **fields)


def suspended(now: datetime, **fields: Any) -> State:
    """PAUSED, and the process exits: the run is scheduled again on resume."""
    return paused(now, reschedule=True, name="Suspended", **fields)
