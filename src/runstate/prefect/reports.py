"""Events by which clients report states of task runs, as requests to record them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import Field

from runstate.core.batch.requests import RecordState
from runstate.core.commands.runs import NEW
from runstate.core.states import State
from runstate.documents.policies import TaskRunPolicy
from runstate.documents.states import StateType
from runstate.documents.task_inputs import TaskInputs
from runstate.prefect.bodies import Body, Policy, Time, details_of
from runstate.rows import TaskRun

PREFIX: Final = "prefect.task-run"
FLOW_RUN: Final = "prefect.flow-run."
ORCHESTRATION: Final = "prefect.orchestration"
LONGEST: Final = 255
NEW_TASK_RUN: Final[dict[str, Any]] = NEW | {
    "name": "",
    "tags": [],
    "labels": {},
    "cache_key": None,
    "task_version": None,
    "task_inputs": {},
    "policy": TaskRunPolicy(),
    "heartbeat_seconds": None,
    "flow_run_run_count": 0,
}
"""Columns of a task run of which no state was reported."""


class ReportedState(Body):
    """The state in an event."""

    type: StateType
    name: str | None = None
    message: str | None = None
    data: Any = None
    state_details: dict[str, Any] | None = None


class ReportedRun(Body):
    """The task run in an event."""

    name: str | None = None
    task_key: str
    dynamic_key: str
    cache_key: str | None = None
    task_version: str | None = None
    empirical_policy: Policy | None = None
    tags: list[str] | None = None
    labels: dict[str, Any] | None = None
    task_inputs: TaskInputs | None = None
    run_count: int | None = Field(default=None, ge=0)
    flow_run_run_count: int | None = Field(default=None, ge=0)
    expected_start_time: Time | None = None
    next_scheduled_start_time: Time | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    total_run_time: float | None = Field(default=None, ge=0)

    def columns(self) -> dict[str, Any]:
        """Return the columns of the run that were sent."""
        found = self.members(COPIED)
        for name in found.keys() & TEXTS:
            # Cut off, not refused: the task has run, and its state must not be lost for a long name.
            found[name] = found[name][:LONGEST]
        if self.empirical_policy is not None:
            found["policy"] = self.empirical_policy.of_task_run()
        if self.total_run_time is not None:
            found["total_run_time_seconds"] = self.total_run_time
        return found


COPIED: Final = ReportedRun.model_fields.keys() - {"task_key", "dynamic_key", "empirical_policy", "total_run_time"}
TEXTS: Final = frozenset({"name", "cache_key", "task_version"})


class ReportedPayload(Body):
    """The payload of an event."""

    validated_state: ReportedState
    task_run: ReportedRun


class Report(Body):
    """An event that reports a state of a task run."""

    id: UUID
    occurred: Time
    follows: UUID | None = None
    resource: dict[str, str]
    related: list[dict[str, str]] = []
    payload: ReportedPayload

    def request(self, now: datetime, **who: Any) -> RecordState:
        """Return the request to record the state. Raise ValueError if an id is malformed."""
        flow_run_id, columns = self._flow_run_id(), self.payload.task_run.columns()
        kept = {"created": now, "updated": now, "flow_run_id": flow_run_id}
        keys = {name: getattr(self.payload.task_run, name)[:LONGEST] for name in ("task_key", "dynamic_key")}
        run = TaskRun.of({**NEW_TASK_RUN, **columns, **NEW, **kept, **keys, "id": self._run_id()})
        return RecordState(run=run, state=self._state(), columns=columns, follows=self.follows, holds=True, **who)

    def _run_id(self) -> UUID:
        return UUID(self.resource["prefect.resource.id"].removeprefix(f"{PREFIX}."))

    def _flow_run_id(self) -> UUID | None:
        for each in self.related:
            if each.get("prefect.resource.role") == "flow-run":
                return UUID(each["prefect.resource.id"].removeprefix(FLOW_RUN))
        return None

    def _state(self) -> State:
        given = self.payload.validated_state
        return State(
            type=given.type,
            name=(given.name or "")[:LONGEST],
            message=given.message,
            data=given.data,
            details=details_of(given.state_details),
            id=self.id,
            timestamp=self.occurred,
        )


def is_report(event: Any) -> bool:
    """Return whether an event reports a state of a task run that its client has decided."""
    resource = event.get("resource")
    named = str(event.get("event") or "").startswith(PREFIX)
    return named and isinstance(resource, dict) and resource.get(ORCHESTRATION) == "client"
