"""States as clients have them: predicates, copies, constructors and results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from uuid import UUID, uuid4

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator
from pydantic.alias_generators import to_camel

from runstate.client.results import result_of
from runstate.client.storage import Storage
from runstate.documents import states as documents
from runstate.documents.states import FINAL_TYPES, RunKind, StateType
from runstate.documents.task_inputs import Result


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class StateDetails(documents.StateDetails):
    """Values of a state besides type, name and message."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    def to_run_result(self, run_type: RunKind | Literal["flow_run", "task_run"]) -> Result:
        """Return a reference to the result of the run, as an item of `task_inputs`. Raise ValueError if unset."""
        kind = RunKind.FLOW_RUN if run_type in {RunKind.FLOW_RUN, "flow_run"} else RunKind.TASK_RUN
        if kind is RunKind.FLOW_RUN and self.flow_run_id:
            return {"input_type": "flow_run", "id": self.flow_run_id}
        if kind is RunKind.TASK_RUN and self.task_run_id:
            return {"input_type": "task_run", "id": self.task_run_id}
        raise ValueError(f"The state does not belong to a {kind.value.lower().replace('_', ' ')}.")


class State(BaseModel):
    """A state of a run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID = Field(default_factory=uuid4)
    type: StateType
    name: str = ""
    timestamp: datetime = Field(default_factory=now)
    message: str | None = None
    data: Any = None
    state_details: StateDetails = Field(
        default_factory=StateDetails, validation_alias=AliasChoices("state_details", "details")
    )
    version: int | None = None
    _storage: Storage | None = PrivateAttr(default=None)

    @field_validator("state_details", mode="before")
    @classmethod
    def _details_are_read(cls, given: Any) -> Any:
        # The server answers null for members that are not set; the defaults of some are not null.
        return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="before")
    @classmethod
    def _defaults_are_derived(cls, given: Any) -> Any:
        """Set the name from the type, and the time of a SCHEDULED state to now."""
        if not isinstance(given, dict):
            return given
        kind = StateType(given["type"]) if "type" in given else None
        more: dict[str, Any] = {}
        if kind and not given.get("name"):
            more["name"] = kind.value.capitalize()
        if kind is StateType.SCHEDULED and not (given.get("state_details") or given.get("details")):
            more["state_details"] = StateDetails(scheduled_time=now())
        return {**given, **more}

    def result(
        self, *, raise_on_failure: bool = True, retry_result_failure: bool = True, allow_pickle: bool = False
    ) -> Any:
        """Return the value of the run, or raise its exception, with its traceback as a note.

        Raise UnfinishedRun, PausedRun, MissingResult, or, without an exception, FailedRun, CrashedRun, CancelledRun.
        Without *raise_on_failure* the value of a failed run is returned, or such an error. A stored result is read up
        to ten times in 2.25 s, unless *retry_result_failure* is false.
        """
        return result_of(
            self, self._storage, raises=raise_on_failure, retries=retry_result_failure, allow_pickle=allow_pickle
        )

    async def aresult(
        self, *, raise_on_failure: bool = True, retry_result_failure: bool = True, allow_pickle: bool = False
    ) -> Any:
        """Return what `result` returns, without blocking the loop."""
        return await asyncio.to_thread(
            self.result,
            raise_on_failure=raise_on_failure,
            retry_result_failure=retry_result_failure,
            allow_pickle=allow_pickle,
        )

    def with_storage(self, storage: Storage | None) -> Self:
        """Return the state, whose result is read from a storage."""
        # Private: a state is compared and copied without the place where its result is read.
        self._storage = storage
        return self

    def fresh_copy(self, **changes: Any) -> Self:
        """Return a deep copy with a new id and time."""
        return self.model_copy(update={"id": uuid4(), "version": None, **changes}, deep=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed members, and the time of now."""
        return super().model_copy(update={"timestamp": now(), **(update or {})}, deep=deep)

    def to_input(self) -> dict[str, Any]:
        """Return the StateInput that proposes the state."""
        details = self.state_details.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        given = {"message": self.message, "data": self.data, "details": details or None}
        return {
            "type": self.type.value,
            "name": self.name,
            **{key: each for key, each in given.items() if each is not None},
        }

    def is_scheduled(self) -> bool:
        """Return whether the type is SCHEDULED."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Return whether the type is PENDING."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Return whether the type is RUNNING."""
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        """Return whether the type is COMPLETED."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Return whether the type is FAILED."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Return whether the type is CRASHED."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Return whether the type is CANCELLED."""
        return self.type is StateType.CANCELLED

    def is_cancelling(self) -> bool:
        """Return whether the type is CANCELLING."""
        return self.type is StateType.CANCELLING

    def is_paused(self) -> bool:
        """Return whether the type is PAUSED."""
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Return whether the type ends a run."""
        return self.type in FINAL_TYPES

    def __eq__(self, other: object) -> bool:
        """Return whether another state is the same but for its id."""
        if not isinstance(other, State):
            return NotImplemented
        return self.model_dump(exclude={"id"}) == other.model_dump(exclude={"id"})

    def __hash__(self) -> int:
        details = self.state_details
        return hash((details.flow_run_id, details.task_run_id, self.timestamp, self.type))

    def __str__(self) -> str:
        parts = [repr(self.message)] if self.message else []
        if self.type.value != self.name.upper():
            parts.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(parts)})"

    def __repr__(self) -> str:
        return f"{self.name}(message={self.message!r}, type={self.type.value}, result={self.data!r})"


def Scheduled(cls: type[State] = State, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """Return a state that schedules a run, by default for now. Raise ValueError if the time is given twice."""
    details = _details(fields)
    if scheduled_time and details.scheduled_time:
        raise ValueError("Set scheduled_time as an argument or in state_details, not both.")
    when = scheduled_time or details.scheduled_time or now()
    details = details.model_copy(update={"scheduled_time": when})
    return cls(type=StateType.SCHEDULED, state_details=details, **fields)


def AwaitingRetry(cls: type[State] = State, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """Return a state that schedules a retry."""
    return Scheduled(cls, scheduled_time, name="AwaitingRetry", **fields)


def AwaitingConcurrencySlot(cls: type[State] = State, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """Return a state that schedules a run again because no slot was free."""
    return Scheduled(cls, scheduled_time, name="AwaitingConcurrencySlot", **fields)


def Late(cls: type[State] = State, scheduled_time: datetime | None = None, **fields: Any) -> State:
    """Return a state of a run whose time has passed."""
    return Scheduled(cls, scheduled_time, name="Late", **fields)


def Pending(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a claimed or submitted run."""
    return cls(type=StateType.PENDING, **fields)


def Submitting(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a run whose infrastructure is about to be submitted."""
    return Pending(cls, name="Submitting", **fields)


def InfrastructurePending(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a run whose infrastructure was submitted."""
    return Pending(cls, name="InfrastructurePending", **fields)


def Running(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a run whose code is executing."""
    return cls(type=StateType.RUNNING, **fields)


def Retrying(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a run that runs again."""
    return Running(cls, name="Retrying", **fields)


def Completed(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a run that ended successfully."""
    return cls(type=StateType.COMPLETED, **fields)


def Failed(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a run whose code raised an exception."""
    return cls(type=StateType.FAILED, **fields)


def Crashed(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a run whose infrastructure failed."""
    return cls(type=StateType.CRASHED, **fields)


def Cancelling(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a run that is being stopped."""
    return cls(type=StateType.CANCELLING, **fields)


def Cancelled(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a cancelled run."""
    return cls(type=StateType.CANCELLED, **fields)


def Paused(
    cls: type[State] = State,
    *,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    reschedule: bool = False,
    pause_key: str | None = None,
    **fields: Any,
) -> State:
    """Return a state of a paused run; by default it never expires. Raise ValueError if its end is given twice."""
    details = _details(fields)
    if details.pause_timeout or (timeout_seconds is not None and pause_expiration_time):
        raise ValueError("Set the end of the pause once: timeout_seconds, pause_expiration_time or state_details.")
    until = now() + timedelta(seconds=timeout_seconds) if timeout_seconds is not None else pause_expiration_time
    changes = {"pause_timeout": until, "pause_reschedule": reschedule, "pause_key": pause_key}
    return cls(type=StateType.PAUSED, state_details=details.model_copy(update=changes), **fields)


def Suspended(cls: type[State] = State, **fields: Any) -> State:
    """Return a state of a paused run whose process ends."""
    return Paused(cls, reschedule=True, name="Suspended", **fields)


def _details(fields: dict[str, Any]) -> StateDetails:
    given = fields.pop("state_details", None)
    return StateDetails.model_validate(given or {}) if isinstance(given, dict) or given is None else given
