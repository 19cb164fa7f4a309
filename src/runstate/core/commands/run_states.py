"""Deletion of states that runs have left."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.command import command
from runstate.core.commands.crud import remove
from runstate.core.context import CommandContext
from runstate.database.queries import orchestration as sql
from runstate.errors import InvalidInput, NotFound
from runstate.rows import FlowRunState, TaskRunState


@command(FlowRunState)
async def delete_flow_run_state(context: CommandContext, state_id: UUID) -> None:
    """Delete a state that a flow run has left; its version stays unused. Raise InvalidInput if the run is in it."""
    await _delete_state(context, FlowRunState, state_id)


@command(TaskRunState)
async def delete_task_run_state(context: CommandContext, state_id: UUID) -> None:
    """Delete a state that a task run has left; its version stays unused. Raise InvalidInput if the run is in it."""
    await _delete_state(context, TaskRunState, state_id)


async def _delete_state(context: CommandContext, row: type[FlowRunState | TaskRunState], state_id: UUID) -> None:
    async with context.database.write() as transaction:
        connection = transaction.connection
        run_id = (await connection.execute(sa.select(row.run_id).where(row.id == state_id))).scalar()
        if run_id is None:
            raise NotFound(state_id)
        # Under the lock, the run cannot change its state before the deletion.
        if await _current(connection, row, run_id) == state_id:
            raise InvalidInput("The run is in this state; only states that it has left can be deleted.", ["id"])
        if row is TaskRunState:
            await sql.forget_results(connection, TaskRunState.id == state_id)
        await remove(connection, row, state_id, context.clock())


async def _current(connection: AsyncConnection, row: type[FlowRunState | TaskRunState], run_id: UUID) -> UUID | None:
    """Lock a run, and return the id of its state."""
    if row is FlowRunState:
        locked = await sql.lock_flow_runs(connection, [run_id], shared=False)
    else:
        locked = await sql.lock_task_runs(connection, [run_id])
    return locked[0].run.state_id if locked else None
