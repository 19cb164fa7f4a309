"""Proposals of clients, as requests to the batcher."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from runstate.core import states
from runstate.core.batch.orchestrate import as_state
from runstate.core.batch.requests import ProposeState
from runstate.core.commands.runs import stated
from runstate.core.context import CommandContext
from runstate.core.states import NO_DETAILS, State
from runstate.database.bulk import table_of
from runstate.database.queries import orchestration as sql
from runstate.documents import requests
from runstate.documents.access import ANONYMOUS
from runstate.documents.states import RunKind
from runstate.errors import InvalidInput
from runstate.rows import FlowRun, FlowRunInput, FlowRunState


def proposed(given: requests.ProposeState, actor: str = ANONYMOUS, request_id: str | None = None) -> ProposeState:
    """Return the request for a proposal of a client."""
    kind, run_id = referred(given.run)
    return ProposeState(
        kind=kind,
        run_id=run_id,
        state=stated(given.state),
        force=given.force,
        expected_version=given.expected_version,
        idempotency_key=given.idempotency_key,
        dry_run=given.dry_run,
        claim_id=given.claim_id,
        actor=actor,
        request_id=request_id,
    )


def referred(run: requests.RunRef) -> tuple[RunKind, UUID]:
    """Return the kind and id of the referenced run. Raise InvalidInput if the reference is empty."""
    if run.flow_run_id is not None:
        return RunKind.FLOW_RUN, run.flow_run_id
    if run.task_run_id is not None:
        return RunKind.TASK_RUN, run.task_run_id
    raise InvalidInput("Set `flowRunId` or `taskRunId`.", ("run",))


def paused(given: requests.PauseFlowRun, now: datetime) -> State:
    """Return the state of a run that is paused in its process."""
    return states.paused(now, **_pause(given))


def suspended(given: requests.PauseFlowRun, now: datetime) -> State:
    """Return the state of a run that is paused without a process."""
    return states.suspended(now, **_pause(given))


def _pause(given: requests.PauseFlowRun) -> dict[str, Any]:
    if given.timeout_seconds is not None and given.expiration_time is not None:
        raise InvalidInput("Set `timeoutSeconds` or `expirationTime`, not both.", ("expirationTime",))
    return {
        "timeout_seconds": given.timeout_seconds,
        "pause_expiration_time": given.expiration_time,
        "pause_key": given.pause_key,
        "message": given.message,
        "details": NO_DETAILS.model_copy(update={"run_input_keyset": given.run_input_keyset}),
    }


def retried(given: requests.RetryFlowRun, now: datetime) -> State:
    """Return the state of a run that waits for a retry."""
    return states.awaiting_retry(now, now + timedelta(seconds=given.delay_seconds), message=given.message)


async def current_state(context: CommandContext, flow_run_id: UUID) -> State | None:
    """Return the current state of a flow run; None if the run is unknown or has no state."""
    asked = (
        sa.select(*sql.columns(FlowRunState, sql.STATE))
        .join(FlowRun, FlowRun.state_id == FlowRunState.id)
        .where(FlowRun.id == flow_run_id)
    )
    async with context.database.read() as connection:
        found = await sql.all_of(connection, FlowRunState, asked)
    return as_state(found[0]) if found else None


async def input_of(context: CommandContext, flow_run_id: UUID, key: str) -> FlowRunInput | None:
    """Return the input of a flow run with a key, or None."""
    asked = sa.select(*table_of(FlowRunInput).columns).where(
        FlowRunInput.flow_run_id == flow_run_id, FlowRunInput.key == key
    )
    async with context.database.read() as connection:
        found = await sql.all_of(connection, FlowRunInput, asked)
    return found[0] if found else None
