"""Shared parts of commands for flow runs and task runs: creation, updates, and cleanup before deletion."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.orchestrate import lock_limits, write_limits
from runstate.core.batch.requests import Answer, Created, CreateRun, ProposeState
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.commands.artifacts import CreateArtifact, delete_artifacts_of
from runstate.core.commands.command import TRIES
from runstate.core.commands.crud import Written, change, columns_of
from runstate.core.context import CommandContext
from runstate.core.states import NO_DETAILS, ArtifactOfState, State
from runstate.database import Transaction
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.queries import orchestration as sql
from runstate.documents import requests
from runstate.errors import InvalidInput, NotFound, Unavailable
from runstate.rows import ConcurrencyWaiter, FlowRun, Log, ProposalAnswer, Row, TaskRun, TaskRunState

R = TypeVar("R", bound=Row)

ARTIFACT: Final = ("artifact_key", "artifact_type", "artifact_description")
"""Members of a state's data that describe an artifact."""
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
    "last_answer": None,
}
"""Columns of a run that has not entered a state yet."""


def stated(given: requests.State | None) -> State:
    """Return the state of an input; PENDING if it is omitted."""
    if given is None:
        return states.pending()
    details = given.details or NO_DETAILS
    data, artifact = _artifact_of(given.data)
    return State(
        type=given.type, name=given.name or "", message=given.message, data=data, details=details, artifact=artifact
    )


def _artifact_of(data: Any) -> tuple[Any, ArtifactOfState | None]:
    """Return the data of a state without the members that describe its artifact, and that artifact, if there are any.

    Raise InvalidInput if one of them is not valid. The reference takes them out of the data, too.
    """
    described = {name: data[name] for name in ARTIFACT if data.get(name)} if isinstance(data, dict) else {}
    if not described or states.is_unpersisted(data):
        return data, None
    members = {name.removeprefix("artifact_"): value for name, value in described.items()}
    try:
        CreateArtifact(**members)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(first["msg"], ("state", "data", f"artifact_{first['loc'][0]}")) from None
    return {name: value for name, value in data.items() if name not in described}, ArtifactOfState(**members)


async def decided(batcher: Batcher, request: ProposeState) -> Answer:
    """Submit a proposal and return the answer. Raise the exception if the outcome is one."""
    (outcome,) = await batcher.submit([request])
    if isinstance(outcome, Exception):
        raise outcome
    return cast("Answer", outcome)


async def create_run(batcher: Batcher, request: CreateRun) -> Written[Any]:
    """Create a run, or find the existing run with its unique key. Raise the exception if the outcome is one.

    The existing run can be deleted before it is read. Its key is free then, so the request is retried.
    """
    for _ in range(TRIES):
        (outcome,) = await batcher.submit([request])
        if isinstance(outcome, Exception):
            raise outcome
        made = cast("Created", outcome)
        # A run that this request created needs no further statement.
        run = made.run or await find(batcher.context, type(request.run), made.run_id)
        if run is not None:
            return Written(run, made.created)
    raise Unavailable("Other clients created and deleted a run with this key at the same time; try again.")


async def find(context: CommandContext, row: type[R], id: UUID) -> R | None:
    """Return the row with an id; None if it is unknown."""
    async with context.database.read() as connection:
        query = sa.select(*table_of(row).columns).where(row.id == id)
        found = await sql.all_of(connection, row, query)
    return found[0] if found else None


async def change_run(
    context: CommandContext, connection: AsyncConnection, run: FlowRun | TaskRun, document: Any
) -> Any:
    """Update the given fields of a locked run. Omitted members of its policy keep their value."""
    columns = columns_of(document)
    if "policy" in columns:
        policy = columns["policy"]
        columns["policy"] = run.policy.model_copy(
            update={name: getattr(policy, name) for name in policy.model_fields_set}
        )
    row = type(run)
    changed = await change(connection, row, {"id": run.id}, columns, context.clock())
    if changed is None:
        raise NotFound(run.id)
    return changed


async def release_and_forget(transaction: Transaction, runs: Sequence[UUID], now: datetime) -> None:
    """Release the slots of runs, and delete rows that refer to them without a foreign key."""
    unit, connection = UnitOfWork(), transaction.connection
    await lock_limits(connection, unit, holders=runs)
    for lease in [lease for run_id in runs for lease in unit.held_by(run_id)]:
        # With decay, an earlier release has advanced this lease.
        unit.release(unit.leases[lease.id], now)
    await write_limits(transaction, unit, now)
    await delete_artifacts_of(connection, runs, now)
    await sql.forget_results(connection, among(TaskRunState.run_id, runs))
    for key in (ProposalAnswer.run_id, ConcurrencyWaiter.run_id, Log.flow_run_id, Log.task_run_id):
        await connection.execute(sa.delete(key.class_).where(among(key, runs)))
