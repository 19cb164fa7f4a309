"""Runs, limits, leases and proposals in memory: rules are tested without a database."""

import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from uuid_utils.compat import uuid7

from runstate.core.proposal import Decision, Proposal, R, Rule, Slot, Verdict, decide
from runstate.core.states import State
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import StateDetails, StateType
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, Deployment, FlowRun, TaskRun

A = TypeVar("A")
B = TypeVar("B")

NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOT_ASKED: Final = "not asked"
"""Result of a rule that does not apply to the proposal."""

THOROUGH: Final = os.environ.get("RUNSTATE_THOROUGH", "") not in ("", "0")


def examples(moderately: int, **more: Any) -> settings:
    """Return settings for hypothesis: always the same examples, or twenty times as many new ones in thorough runs."""
    return settings(
        max_examples=moderately * 20 if THOROUGH else moderately,
        derandomize=not THOROUGH,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        **more,
    )


def in_seconds(seconds: float) -> datetime:
    """Return the instant that is this many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def details(**values: Any) -> StateDetails:
    """Return details of a state."""
    return StateDetails(**values)


NO_STATE: Final = {"state_id": None, "state_type": None, "state_name": None, "state_timestamp": None, "version": 0}
NO_TIMES: Final = {
    "expected_start_time": None,
    "next_scheduled_start_time": None,
    "start_time": None,
    "end_time": None,
    "total_run_time_seconds": 0.0,
}


def _columns() -> dict[str, Any]:
    named = {"id": uuid7(), "created": NOW, "updated": NOW, "name": "a run", "tags": [], "labels": {}}
    return {**named, **NO_STATE, **NO_TIMES, "run_count": 0, "last_answer": None, "heartbeat_seconds": None}


def flow_run(**columns: Any) -> FlowRun:
    """Return a flow run without a state, except for the given columns."""
    own: dict[str, Any] = dict.fromkeys(
        ("deployment_id", "parent_task_run_id", "idempotency_key", "infrastructure_pid", "flow_version")
    )
    own |= {"flow_id": UUID(int=7), "parameters": {}, "context": {}, "work_queue_name": None, "policy": FlowRunPolicy()}
    own |= {"auto_scheduled": False, "created_by": None, "job_variables": {}}
    own |= dict.fromkeys(("deployment_schedule_id", "deployment_version", "work_queue_id", "claim_id"))
    own |= {"claim_count": 0, "expired_claims": 0, "cause": None}
    return FlowRun.of({**_columns(), **own, **columns})


def task_run(**columns: Any) -> TaskRun:
    """Return a task run without a state, except for the given columns."""
    own: dict[str, Any] = dict.fromkeys(("flow_run_id", "cache_key", "task_version"))
    own |= {"task_key": "task", "dynamic_key": str(uuid7()), "policy": TaskRunPolicy()}
    own |= {"task_inputs": {}, "flow_run_run_count": 0}
    return TaskRun.of({**_columns(), **own, **columns})


def limit(slots: int = 1, **columns: Any) -> ConcurrencyLimit:
    """Return a limit without occupied slots, except for the given columns."""
    identity = {"id": uuid7(), "created": NOW, "updated": NOW}
    named = {"name": f"limit-{uuid7()}", "limit": slots, "active": True, "occupied": 0}
    decay = {"slot_decay_per_second": 0.0, "drained": None, "average_slot_occupancy_seconds": 2.0}
    return ConcurrencyLimit.of({**identity, **named, **decay, **columns})


def lease(on: ConcurrencyLimit, **columns: Any) -> ConcurrencyLease:
    """Return a lease of one slot that is held until it is released."""
    identity = {"id": uuid7(), "created": NOW, "updated": NOW, "limit_id": on.id}
    held = {"slots": 1, "holder": None, "run_id": None, "automatic": True, "expires": None}
    return ConcurrencyLease.of({**identity, **held, **columns})


def slot(on: ConcurrencyLimit, held: ConcurrencyLease | None = None) -> Slot:
    """Return the slot of a run: its limit and its lease, if any."""
    return Slot(on, held, uuid7())


def deployment(on: ConcurrencyLimit | None = None, **columns: Any) -> Deployment:
    """Return a deployment, with or without a limit."""
    identity = {"id": uuid7(), "created": NOW, "updated": NOW, "name": f"deployment-{uuid7()}"}
    limited = {"concurrency_limit_id": on.id if on else None, "concurrency_options": None}
    own = {"flow_id": UUID(int=7), "paused": False, "parameters": {}, "tags": [], "work_queue_name": None}
    own |= {"labels": {}, "pull_steps": [], "parameter_schema": {}, "enforce_parameter_schema": True}
    own |= {"job_variables": {}} | dict.fromkeys(("entrypoint", "path", "version", "version_info"))
    own |= dict.fromkeys(("last_polled", "work_queue_id"))
    return Deployment.of({**identity, **limited, **own, "description": None, **columns})


def entered(state: State, at: datetime = NOW - timedelta(minutes=1)) -> State:
    """Return the state as entered by a run: with id, time and version."""
    return replace(state, id=state.id or uuid7(), timestamp=state.timestamp or at, version=state.version or 1)


def being_in(run: R, state: State | None) -> R:
    """Return the run with the columns that entering the state sets."""
    if state is None:
        return run
    current = {"state_id": state.id, "state_type": state.type, "state_name": state.name}
    return run.replace(**current, state_timestamp=state.timestamp, version=state.version)


def propose(run: R, initial: State | None, proposed: State, **facts: Any) -> Proposal[R]:
    """Return a proposal to a run: from its current state (None: no state) to another one."""
    current = entered(initial) if initial else None
    return Proposal(run=being_in(run, current), initial=current, proposed=proposed, **{"now": NOW, **facts})


def asked(
    rule: Rule[R], run: R, initial: State | None, proposed: State, **facts: Any
) -> Verdict | Literal["not asked"]:
    """Return the verdict of a rule on a proposal, or NOT_ASKED if the rule does not apply."""
    proposal = propose(run, initial, proposed, **facts)
    return rule(proposal) if rule.concerns(proposal.initial_type, proposal.proposed.type) else NOT_ASKED


def decided(policy: tuple[Rule[R], ...], run: R, initial: State | None, proposed: State, **facts: Any) -> Decision[R]:
    """Return the decision of a policy's rules."""
    return decide(propose(run, initial, proposed, **facts), policy)


def plain(kind: StateType) -> State:
    """Return a state of a type with defaults only."""
    return State(type=kind, details=StateDetails(scheduled_time=NOW if kind is StateType.SCHEDULED else None))


def all_but(*kinds: StateType) -> list[StateType]:
    """Return the other state types in their order."""
    return [kind for kind in StateType if kind not in kinds]


def pairs(first: Iterable[A], second: Iterable[B]) -> list[tuple[A, B]]:
    """Return the pairs of an item of the first with an item of the second."""
    return list(product(first, second))
