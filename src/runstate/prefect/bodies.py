"""Bodies of requests. Members that are not known are ignored: other versions of the client send others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runstate.core.commands.runs import stated
from runstate.core.states import State
from runstate.documents import exact_json, requests
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import StateDetails, StateType
from runstate.errors import InvalidInput
from runstate.rows import Row


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("The time is outside the years 1 to 9999 in UTC.") from None


Time = Annotated[datetime, AfterValidator(_in_utc)]
"""A time in UTC, in which it is if it has no offset."""
LARGEST_PAGE: Final = 200


NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def has_nul(body: bytes) -> bool:
    """Return whether a text in JSON has a NUL."""
    return rb"\u0000" in body and NUL.search(body) is not None


def without_nul(body: bytes) -> bytes:
    """Return JSON with U+FFFD for each NUL, which PostgreSQL cannot store.

    The message of a failure, which a program does not choose, must not keep a state from being stored.
    """
    return NUL.sub(rb"\1\\ufffd", body) if has_nul(body) else body


def parsed(body: bytes) -> Any:
    """Return the value of a body. Raise InvalidInput if it is not JSON."""
    try:
        return exact_json.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The body is not JSON: {error}.") from None


class Body(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @property
    def given(self) -> dict[str, Any]:
        """The members that the client sent with a value."""
        return {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}


class Page(Body):
    """The part of a list that is wanted."""

    limit: Annotated[int, Field(ge=0, le=LARGEST_PAGE)] = LARGEST_PAGE
    offset: Annotated[int, Field(ge=0, lt=2**31)] = 0
    sort: str | None = None


class StateBody(Body):
    """A state that the client proposes."""

    type: StateType
    name: str | None = None
    message: str | None = None
    data: Any = None
    state_details: dict[str, Any] | None = None

    def state(self) -> State:
        """Return it as a value for rules."""
        return stated(self.document())

    def document(self) -> requests.State:
        """Return it as the document of commands."""
        return requests.State(
            type=self.type,
            name=self.name or None,
            message=self.message,
            data=self.data,
            details=details_of(self.state_details),
        )


def details_of(given: dict[str, Any] | None) -> StateDetails:
    """Return the details of a state, without nulls and members that are not known."""
    known = StateDetails.model_fields.keys()
    return StateDetails(**{name: each for name, each in (given or {}).items() if name in known and each is not None})


class Policy(Body):
    """The policy of a run: its retries, and the marks that pausing and retrying leave."""

    retries: int | None = None
    retry_delay: float | list[float] | None = None
    retry_jitter_factor: float | None = None
    pause_keys: list[str] | None = None
    resuming: bool | None = None
    retry_type: str | None = None

    def of_flow_run(self) -> FlowRunPolicy:
        """Return it as the policy of a flow run."""
        marks = {name: each for name, each in self.given.items() if name in ("pause_keys", "resuming", "retry_type")}
        if "pause_keys" in marks:
            marks["pause_keys"] = tuple(sorted(marks["pause_keys"]))
        delay = self.retry_delay
        seconds = next(iter(delay), None) if isinstance(delay, list) else delay
        return FlowRunPolicy(retries=self.retries, retry_delay_seconds=seconds, **marks)

    def of_task_run(self) -> TaskRunPolicy:
        """Return it as the policy of a task run."""
        delay = self.retry_delay
        delays = None if delay is None else tuple(delay) if isinstance(delay, list) else (delay,)
        return TaskRunPolicy(
            retries=self.retries, retry_delays_seconds=delays, retry_jitter_factor=self.retry_jitter_factor
        )


class SetState(Body):
    """A proposal of a state."""

    state: StateBody
    force: bool = False


def changes(body: Body, row: type[Row], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns that a client changes, by the names of members that differ.

    Null is a value of nullable columns only; for others it counts as omitted.
    """
    given = {names.get(name, name): getattr(body, name) for name in body.model_fields_set}
    nullable = {column.key for column in row.__table__.columns if column.nullable}
    return {name: value for name, value in given.items() if value is not None or name in nullable}
