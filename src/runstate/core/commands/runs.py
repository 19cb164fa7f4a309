"""Runs: how they are made from what a client says, the verbs that propose a state for them, and their deletion."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.orchestrate import as_state, lock_limits, write_limits
from runstate.core.batch.requests import CreateRun, Outcome, ProposeState
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.commands.retry import again
from runstate.core.states import NO_DETAILS, State
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.queries import orchestration as sql
from runstate.database.queries import tallies
from runstate.documents import requests
from runstate.documents.access import ANONYMOUS
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import RunKind
from runstate.errors import InvalidInput, NotFound
from runstate.rows import Deployment, FlowRun, FlowRunInput, FlowRunState, ProposalAnswer, TaskRun

NEW: dict[str, Any] = {
    "state_id": None,
    "state_type": None,
    "state_name": None,
    "state_timestamp": None,
    "version": 0,
    "run_count": 0,
    "expected_start_time": None,
    "next_scheduled_start_time": None,
    "start_time": None,
    "end_time": None,
    "total_run_time_seconds": 0.0,
}
"""The columns of a run that has not entered a state yet."""


def stated(given: requests.State | None) -> State:
    """The state that a client means; none: PENDING."""
    if given is None:
        return states.pending()
    details = given.details or NO_DETAILS
    return State(type=given.type, name=given.name or "", message=given.message, data=given.data, details=details)


def new_flow_run(given: requests.CreateFlowRun, id: UUID, now: datetime, **who: Any) -> CreateRun:
    """The request that creates the flow run."""
    columns = {
        "id": id,
        "created": now,
        "updated": now,
        "name": given.name or f"flow-run-{id.hex[-8:]}",
        "tags": _unique(given.tags),
        "labels": given.labels or {},
        "flow_id": given.flow_id,
        "deployment_id": given.deployment_id,
        "parent_task_run_id": given.parent_task_run_id,
        "parameters": given.parameters or {},
        "context": given.context or {},
        "policy": given.policy or FlowRunPolicy(),
        "idempotency_key": given.idempotency_key,
        "infrastructure_pid": given.infrastructure_pid,
        "flow_version": given.flow_version,
        "work_queue_name": given.work_queue_name,
    }
    return CreateRun(run=FlowRun.of(NEW | columns), state=stated(given.state), **who)


def new_task_run(given: requests.CreateTaskRun, id: UUID, now: datetime, **who: Any) -> CreateRun:
    """The request that creates the task run."""
    columns = {
        "id": id,
        "created": now,
        "updated": now,
        "name": given.name or f"{given.task_key}-{id.hex[-8:]}"[:255],
        "tags": _unique(given.tags),
        "labels": given.labels or {},
        "flow_run_id": given.flow_run_id,
        "task_key": given.task_key,
        "dynamic_key": given.dynamic_key,
        "cache_key": given.cache_key,
        "task_version": given.task_version,
        "policy": given.policy or TaskRunPolicy(),
        "task_inputs": given.task_inputs or {},
        "flow_run_run_count": 0,
    }
    return CreateRun(run=TaskRun.of(NEW | columns), state=stated(given.state), **who)


def _unique(tags: Sequence[str] | None) -> list[str]:
    return list(dict.fromkeys(tags or ()))


async def run_deployment(batcher: Batcher, given: requests.RunDeployment, **who: Any) -> Outcome:
    """Create a SCHEDULED run of a deployment, with the deployment's parameters and tags under those given."""
    async with batcher.database.read() as connection:
        asked = sa.select(*table_of(Deployment).columns).where(Deployment.id == given.deployment_id)
        found = await sql.all_of(connection, Deployment, asked)
    if not found:
        return NotFound(given.deployment_id)
    (deployment,) = found
    now = batcher.clock()
    due = states.scheduled(now, given.scheduled_time)
    described = requests.CreateFlowRun(
        flow_id=deployment.flow_id,
        deployment_id=deployment.id,
        name=given.name,
        parameters=deployment.parameters | (given.parameters or {}),
        tags=_unique([*deployment.tags, *(given.tags or ())])[:100],
        policy=given.policy,
        idempotency_key=given.idempotency_key,
        parent_task_run_id=given.parent_task_run_id,
        work_queue_name=given.work_queue_name or deployment.work_queue_name,
        state=requests.State(type=due.type, details=due.details),
    )
    (outcome,) = await batcher.submit([new_flow_run(described, batcher.new_id(), now, **who)])
    return outcome


def proposed(given: requests.ProposeState, actor: str = ANONYMOUS, request_id: str | None = None) -> ProposeState:
    """The request that a client's proposal is."""
    kind, run_id = referred(given.run)
    return ProposeState(
        kind=kind,
        run_id=run_id,
        state=stated(given.state),
        force=given.force,
        expected_version=given.expected_version,
        idempotency_key=given.idempotency_key,
        dry_run=given.dry_run,
        actor=actor,
        request_id=request_id,
    )


def referred(run: requests.RunRef) -> tuple[RunKind, UUID]:
    """The run that is meant."""
    if run.flow_run_id is not None:
        return RunKind.FLOW_RUN, run.flow_run_id
    if run.task_run_id is not None:
        return RunKind.TASK_RUN, run.task_run_id
    raise InvalidInput("Say which run.", ("run",))


def paused(given: requests.PauseFlowRun, now: datetime) -> State:
    """Waits in its process."""
    return states.paused(now, **_pause(given))


def suspended(given: requests.PauseFlowRun, now: datetime) -> State:
    """Waits without a process."""
    return states.suspended(now, **_pause(given))


def _pause(given: requests.PauseFlowRun) -> dict[str, Any]:
    if given.timeout_seconds is not None and given.expiration_time is not None:
        raise InvalidInput("A pause ends after a number of seconds or at a time, not both.", ("expirationTime",))
    return {
        "timeout_seconds": given.timeout_seconds,
        "pause_expiration_time": given.expiration_time,
        "pause_key": given.pause_key,
        "message": given.message,
        "details": NO_DETAILS.model_copy(update={"run_input_keyset": given.run_input_keyset}),
    }


def retried(given: requests.RetryFlowRun, now: datetime) -> State:
    """Awaits its next run."""
    return states.awaiting_retry(now, now + timedelta(seconds=given.delay_seconds), message=given.message)


async def current_state(batcher: Batcher, flow_run_id: UUID) -> State | None:
    """The state that a flow run is in; null when there is no such run, or it has none."""
    asked = (
        sa.select(*sql.columns(FlowRunState, sql.STATE))
        .join(FlowRun, FlowRun.state_id == FlowRunState.id)
        .where(FlowRun.id == flow_run_id)
    )
    async with batcher.database.read() as connection:
        found = await sql.all_of(connection, FlowRunState, asked)
    return as_state(found[0]) if found else None


async def input_of(batcher: Batcher, flow_run_id: UUID, key: str) -> FlowRunInput | None:
    """The value that a flow run has under a key."""
    asked = sa.select(*table_of(FlowRunInput).columns).where(
        FlowRunInput.flow_run_id == flow_run_id, FlowRunInput.key == key
    )
    async with batcher.database.read() as connection:
        found = await sql.all_of(connection, FlowRunInput, asked)
    return found[0] if found else None


@again
async def delete_flow_run(batcher: Batcher, flow_run_id: UUID) -> bool:
    """Delete a flow run with its states, task runs and inputs; the slots that they hold are given back."""
    return bool(await delete_flow_runs_of(batcher, [flow_run_id]))


@again
async def delete_flow_runs_of(batcher: Batcher, ids: Collection[UUID]) -> list[UUID]:
    """Delete the flow runs with these ids as one is deleted; the ids of those that were there."""
    async with batcher.database.write() as transaction:
        return await delete_flow_runs(transaction.connection, among(FlowRun.id, sorted(ids)), batcher.clock())


async def delete_flow_runs(connection: AsyncConnection, which: sa.ColumnElement[bool], now: datetime) -> list[UUID]:
    """Delete flow runs with all that is theirs; their ids. Their subflow runs, which stay, are locked with them."""
    chosen = sa.select(FlowRun.id).where(which)
    their_tasks = sa.select(TaskRun.id).where(TaskRun.flow_run_id.in_(chosen))
    touched = sa.select(FlowRun.id, which).where(which | FlowRun.parent_task_run_id.in_(their_tasks))
    locked = list(await connection.execute(touched.order_by(FlowRun.id).with_for_update()))
    runs = [run for run, is_chosen in locked if is_chosen]
    if not runs:
        return []
    asked = sa.select(TaskRun.id).where(among(TaskRun.flow_run_id, runs)).order_by(TaskRun.id).with_for_update()
    tasks = list((await connection.execute(asked)).scalars())
    await _forget(connection, [*runs, *tasks], now)
    await tallies.subtract(connection, flow_runs=runs, task_runs=tasks)
    await connection.execute(sa.delete(FlowRun).where(among(FlowRun.id, runs)))
    return runs


@again
async def delete_task_run(batcher: Batcher, task_run_id: UUID) -> bool:
    """Delete a task run with its states; its slots are given back. A subflow run that it stands for stays."""
    return bool(await delete_task_runs(batcher, [task_run_id]))


@again
async def delete_task_runs(batcher: Batcher, ids: Collection[UUID]) -> list[UUID]:
    """Delete the task runs with these ids as one is deleted; the ids of those that were there."""
    async with batcher.database.write() as transaction:
        connection, now = transaction.connection, batcher.clock()
        wanted = sorted(ids)
        subflows = sa.select(FlowRun.id).where(among(FlowRun.parent_task_run_id, wanted)).order_by(FlowRun.id)
        await connection.execute(subflows.with_for_update())
        runs = [each.run.id for each in await sql.lock_task_runs(connection, wanted)]
        if runs:
            await _forget(connection, runs, now)
            await tallies.subtract(connection, task_runs=runs)
            await connection.execute(sa.delete(TaskRun).where(among(TaskRun.id, runs)))
    return runs


async def _forget(connection: AsyncConnection, runs: Sequence[UUID], now: datetime) -> None:
    """What is kept about runs without a foreign key."""
    unit = UnitOfWork()
    await lock_limits(connection, unit, now, holders=runs)
    for lease in [lease for run_id in runs for lease in unit.held_by(run_id)]:
        unit.give_back(unit.leases[lease.id], now)
    await write_limits(connection, unit, now)
    await connection.execute(sa.delete(ProposalAnswer).where(among(ProposalAnswer.run_id, runs)))
