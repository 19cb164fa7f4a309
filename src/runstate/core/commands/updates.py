"""What clients change of runs besides their states; and the deletion of states that runs have left."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.orchestrate import lock_limits, write_limits
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.commands.retry import again
from runstate.database.bulk import table_of
from runstate.database.queries import orchestration as sql
from runstate.documents import requests
from runstate.errors import InvalidInput, NotFound
from runstate.rows import FlowRun, FlowRunState, TaskRun, TaskRunState

NEVER_NULL = frozenset({"name", "tags", "labels", "parameters", "context", "policy", "task_inputs"})


@again
async def update_flow_run(batcher: Batcher, given: requests.UpdateFlowRun) -> UUID | NotFound:
    """Change what is given of a flow run."""
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        locked = await sql.lock_flow_runs(connection, [given.id], shared=False)
        if not locked:
            return NotFound(given.id)
        await _change(batcher, connection, locked[0].run, given)
    return given.id


@again
async def update_task_run(batcher: Batcher, given: requests.UpdateTaskRun) -> UUID | NotFound:
    """Change what is given of a task run; slots of limits on tags that it loses are given back."""
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        locked = await sql.lock_task_runs(connection, [given.id])
        if not locked:
            return NotFound(given.id)
        await _change(batcher, connection, locked[0].run, given)
        lost = set(locked[0].run.tags) - set(given.tags) if given.tags is not None else set()
        if lost:
            await _give_back(batcher, connection, given.id, {f"tag:{tag}" for tag in lost})
    return given.id


async def _change(batcher: Batcher, connection: AsyncConnection, run: FlowRun | TaskRun, given: BaseModel) -> None:
    said = {name: getattr(given, name) for name in given.model_fields_set - {"id"}}
    columns = {name: value for name, value in said.items() if value is not None or name not in NEVER_NULL}
    if "tags" in columns:
        columns["tags"] = list(dict.fromkeys(columns["tags"]))
    if "policy" in columns:
        new = columns["policy"]
        columns["policy"] = run.policy.model_copy(update={name: getattr(new, name) for name in new.model_fields_set})
    columns["updated"] = batcher.clock()
    table = table_of(type(run))
    await connection.execute(sa.update(table).where(table.c.id == run.id).values(columns))


async def _give_back(batcher: Batcher, connection: AsyncConnection, run_id: UUID, names: set[str]) -> None:
    """The slots of limits with these names that the run came to by entering a state."""
    unit, now = UnitOfWork(), batcher.clock()
    await lock_limits(connection, unit, now, holders=[run_id])
    for lease in unit.held_by(run_id):
        if lease.automatic and unit.limits[lease.limit_id].name in names:
            unit.give_back(lease, now)
    await write_limits(connection, unit, now)


@again
async def delete_flow_run_state(batcher: Batcher, state_id: UUID) -> bool:
    """Delete a state that a flow run has left; its version stays unused. InvalidInput: the run is in it."""
    return await _delete_state(batcher, FlowRunState, state_id)


@again
async def delete_task_run_state(batcher: Batcher, state_id: UUID) -> bool:
    """Delete a state that a task run has left; its version stays unused. InvalidInput: the run is in it."""
    return await _delete_state(batcher, TaskRunState, state_id)


async def _delete_state(batcher: Batcher, row: type[FlowRunState | TaskRunState], state_id: UUID) -> bool:
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        run_id = (await connection.execute(sa.select(row.run_id).where(row.id == state_id))).scalar()
        if run_id is None:
            return False
        locked = (
            await sql.lock_flow_runs(connection, [run_id], shared=False)
            if row is FlowRunState
            else await sql.lock_task_runs(connection, [run_id])
        )
        if any(each.run.state_id == state_id for each in locked):
            raise InvalidInput("The run is in this state.", ("id",))
        return bool((await connection.execute(sa.delete(row).where(row.id == state_id))).rowcount)
