"""Rows as JSON objects of the client."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from runstate.documents import exact_json
from runstate.documents.deployments import Actor
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import StateDetails
from runstate.rows import Flow, FlowRun, FlowRunState, TaskRun, TaskRunState

Object = dict[str, Any]

RUN: Final = (
    "id",
    "created",
    "updated",
    "name",
    "tags",
    "labels",
    "state_id",
    "state_name",
    "run_count",
    "expected_start_time",
    "next_scheduled_start_time",
    "start_time",
    "end_time",
)
FLOW_RUN: Final = (
    "flow_id",
    "deployment_id",
    "deployment_version",
    "work_queue_id",
    "work_queue_name",
    "flow_version",
    "parameters",
    "idempotency_key",
    "context",
    "parent_task_run_id",
    "auto_scheduled",
    "infrastructure_pid",
    "job_variables",
)
TASK_RUN: Final = (
    "flow_run_id",
    "task_key",
    "dynamic_key",
    "cache_key",
    "task_version",
    "task_inputs",
    "flow_run_run_count",
)
OLD: Final = {"max_retries": 0, "retry_delay_seconds": 0.0}
"""Members of policies by their old names, which must not be missing."""


class Pool(NamedTuple):
    """The work pool of a flow run."""

    id: UUID | None = None
    name: str | None = None


NO_POOL: Final = Pool()


def flow(row: Flow) -> Object:
    """Return a flow."""
    return {
        "id": row.id,
        "created": row.created,
        "updated": row.updated,
        "name": row.name,
        "tags": row.tags,
        "labels": row.labels,
    }


def flow_run(row: FlowRun, entered: FlowRunState | None, now: datetime, pool: Pool = NO_POOL) -> Object:
    """Return a flow run with its state."""
    return {
        **_run(row, entered, now),
        **{name: getattr(row, name) for name in FLOW_RUN},
        "empirical_policy": _flow_run_policy(row.policy),
        "infrastructure_document_id": None,
        "created_by": _creator(row.created_by),
        "work_pool_id": pool.id,
        "work_pool_name": pool.name,
    }


def task_run(row: TaskRun, entered: TaskRunState | None, now: datetime) -> Object:
    """Return a task run with its state."""
    return {
        **_run(row, entered, now),
        **{name: getattr(row, name) for name in TASK_RUN},
        "cache_expiration": entered.details.cache_expiration if entered else None,
        "empirical_policy": _task_run_policy(row.policy),
    }


def state(row: FlowRunState | TaskRunState) -> Object:
    """Return a state."""
    return {
        "id": row.id,
        "type": row.type.value,
        "name": row.name,
        "timestamp": row.timestamp,
        "message": row.message,
        "data": row.data,
        "state_details": details(row.details),
    }


def details(given: StateDetails) -> Object:
    """Return the details of a state."""
    # Not dumped: the serializer of the answer knows all its values, and a page has hundreds of details.
    return dict(given)


def _run(row: FlowRun | TaskRun, entered: FlowRunState | TaskRunState | None, now: datetime) -> Object:
    running = entered is not None and entered.type.value == "RUNNING"
    # The row has the time up to the last change of state only.
    since = (now - entered.timestamp).total_seconds() if entered and running else 0.0
    return {
        **{name: getattr(row, name) for name in RUN},
        "state_type": row.state_type.value if row.state_type else None,
        "total_run_time": row.total_run_time_seconds,
        "estimated_run_time": row.total_run_time_seconds + max(since, 0.0),
        "estimated_start_time_delta": _delay(row, now),
        "state": state(entered) if entered else None,
    }


def _delay(row: FlowRun | TaskRun, now: datetime) -> float:
    """Return the seconds from the time at which a run was expected to start to its start, or to now."""
    if row.expected_start_time is None or (row.start_time is None and row.end_time is not None):
        return 0.0
    return max(((row.start_time or now) - row.expected_start_time).total_seconds(), 0.0)


def _flow_run_policy(policy: FlowRunPolicy) -> Object:
    return {
        **OLD,
        "retries": policy.retries,
        # The client expects whole seconds.
        "retry_delay": None if policy.retry_delay_seconds is None else int(policy.retry_delay_seconds),
        "pause_keys": policy.pause_keys,
        "resuming": policy.resuming,
        "retry_type": policy.retry_type,
    }


def _task_run_policy(policy: TaskRunPolicy) -> Object:
    delays = policy.retry_delays_seconds
    return {
        **OLD,
        "retries": policy.retries,
        # As the client sent it: a number, or a list of several.
        "retry_delay": delays[0] if delays and len(delays) == 1 else delays,
        "retry_jitter_factor": policy.retry_jitter_factor,
    }


def _creator(actor: Actor | None) -> Object | None:
    return None if actor is None else {"id": actor.id, "type": actor.type, "display_value": actor.display_value}


def as_json(value: Any) -> bytes:
    """Return an answer as JSON: times in UTC with `Z`."""
    return exact_json.dumps(value, default=_as_text, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def _as_text(value: Any) -> Any:
    """Return what orjson writes for a value that it does not know: ids of asyncpg, and numbers with many digits."""
    return str(value) if isinstance(value, UUID) else exact_json.written(value)
