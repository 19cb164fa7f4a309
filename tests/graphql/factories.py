"""Rows for tests of queries, inserted directly and without orchestration."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.queries.tallies import recount
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import StateDetails, StateType
from runstate.rows import (
    ConcurrencyLimit,
    Deployment,
    Flow,
    FlowRun,
    FlowRunState,
    Row,
    Run,
    State,
    TaskRun,
    TaskRunState,
)

R = TypeVar("R", bound=Row)
S = TypeVar("S", bound=State)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NUMBERS = count(1)
RUN: dict[str, Any] = {
    "tags": [],
    "labels": {},
    "version": 0,
    "run_count": 0,
    "total_run_time_seconds": 0.0,
}


def at(seconds: float) -> datetime:
    """Return the time that is this many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def row(cls: type[R], **columns: Any) -> R:
    """Return a row whose id is greater than those of earlier rows; columns that are not given are null."""
    blank = dict.fromkeys(column.key for column in cls.__table__.columns)
    return cls.of({**blank, "id": UUID(int=2**120 + next(NUMBERS)), "created": NOON, "updated": NOON, **columns})


def make_flow(name: str = "etl", **columns: Any) -> Flow:
    """Return a flow."""
    return row(Flow, **{"name": name, "tags": [], "labels": {}, **columns})


def make_limit(name: str = "db", **columns: Any) -> ConcurrencyLimit:
    """Return a concurrency limit."""
    numbers = {"limit": 3, "occupied": 0, "slot_decay_per_second": 0.0, "average_slot_occupancy_seconds": 2.0}
    return row(ConcurrencyLimit, **{"name": name, "active": True, **numbers, **columns})


def make_deployment(flow: Flow, name: str = "nightly", **columns: Any) -> Deployment:
    """Return a deployment of a flow."""
    own = {"flow_id": flow.id, "name": name, "paused": False, "parameters": {}, "tags": [], "labels": {}}
    schema = {"parameter_schema": {}, "enforce_parameter_schema": True, "job_variables": {}, "pull_steps": []}
    return row(Deployment, **{**own, **schema, **columns})


def make_flow_run(flow: Flow, **columns: Any) -> FlowRun:
    """Return a run of a flow."""
    policy = FlowRunPolicy()
    own = {"name": "run", "flow_id": flow.id, "parameters": {}, "context": {}, "policy": policy}
    own |= {"auto_scheduled": False, "job_variables": {}, "claim_count": 0, "expired_claims": 0, "cause": None}
    return row(FlowRun, **{**RUN, **own, **columns})


def make_task_run(flow_run: FlowRun | None = None, **columns: Any) -> TaskRun:
    """Return a run of a task."""
    key = str(next(NUMBERS))
    own = {"name": "task", "task_key": "load", "dynamic_key": key, "task_inputs": {}, "flow_run_run_count": 0}
    return row(TaskRun, **{**RUN, **own, "flow_run_id": flow_run and flow_run.id, "policy": TaskRunPolicy(), **columns})


def make_state(run: Run, version: int = 1, type: StateType = StateType.PENDING, **columns: Any) -> Any:
    """Return a state of a run."""
    cls = FlowRunState if isinstance(run, FlowRun) else TaskRunState
    own = {"name": type.value.capitalize(), "timestamp": at(version), "details": StateDetails(), "persisted": False}
    own |= {"late": False}
    return row(cls, **{"run_id": run.id, "type": type, "version": version, "actor": "anonymous", **own, **columns})


async def store(database: Database, *rows: Row) -> None:
    """Insert rows in the given order, and count the runs among them."""
    async with database.write() as transaction:
        for each in rows:
            await transaction.connection.execute(sa.insert(type(each)).values(each.__dict__))
        await recount(transaction.connection)


def ids(found: Iterable[Any]) -> list[str]:
    """Return the ids of rows, or of objects in an answer, as texts."""
    return [str(each["id"] if isinstance(each, dict) else each.id) for each in found]
