"""Task runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.orchestrate import lock_limits, write_limits
from runstate.core.batch.requests import CreateRun
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.commands.command import command
from runstate.core.commands.crud import Written, new_columns
from runstate.core.commands.flow_runs import RUN_NAME, STATE
from runstate.core.commands.runs import NEW, change_run, create_run, release_and_forget, stated
from runstate.core.context import CommandContext
from runstate.database import Transaction
from runstate.database.dialects import among
from runstate.database.queries import orchestration as sql
from runstate.database.queries import tallies
from runstate.errors import NotFound
from runstate.feed import DELETIONS
from runstate.rows import FlowRun, TaskRun
from runstate.rows.documents import create_document, update_document

CreateTaskRun = create_document(TaskRun, name=RUN_NAME, state=STATE)
UpdateTaskRun = update_document(TaskRun)


def new_task_run(document: Any, id: UUID, now: datetime, **actor: Any) -> CreateRun:
    """Return the request that creates a task run."""
    columns = new_columns(TaskRun, document) | {"id": id, "created": now, "updated": now}
    # A task key can be as long as a name, so the generated name is cut.
    columns["name"] = document.name or f"{document.task_key}-{id.hex[-8:]}"[:255]
    return CreateRun(run=TaskRun.of(NEW | {"flow_run_run_count": 0} | columns), state=stated(document.state), **actor)


async def create_task_run(batcher: Batcher, document: Any, now: datetime, **actor: Any) -> Written[TaskRun]:
    """Create a task run, or return the one with the same flow run, task key and dynamic key."""
    return await create_run(batcher, new_task_run(document, batcher.new_id(), now, **actor))


@command(TaskRun)
async def update_task_run(context: CommandContext, document: Any) -> TaskRun:
    """Update the given fields of a task run. Slots of removed tags are released."""
    async with context.database.write() as transaction:
        connection = transaction.connection
        locked = await sql.lock_task_runs(connection, [document.id])
        if not locked:
            raise NotFound(document.id)
        changed: TaskRun = await change_run(context, connection, locked[0].run, document)
        # Otherwise the run would hold slots of limits that no longer apply to it.
        lost = set(locked[0].run.tags) - set(changed.tags)
        if lost:
            await _release(context, transaction, document.id, {f"tag:{tag}" for tag in lost})
    return changed


async def _release(context: CommandContext, transaction: Transaction, run_id: UUID, names: set[str]) -> None:
    """Release the slots of limits with these names that a state of the run acquired."""
    unit, now = UnitOfWork(), context.clock()
    await lock_limits(transaction.connection, unit, holders=[run_id])
    for lease in unit.held_by(run_id):
        if lease.automatic and unit.limits[lease.limit_id].name in names:
            unit.release(lease, now)
    await write_limits(transaction, unit, now)


@command(TaskRun)
async def delete_task_run(context: CommandContext, task_run_id: UUID) -> None:
    """Delete a task run with its states, and release its slots. A subflow run that it represents is kept."""
    if not await delete_many_task_runs(context, [task_run_id]):
        raise NotFound(task_run_id)


@command(TaskRun)
async def delete_many_task_runs(context: CommandContext, ids: Collection[UUID]) -> list[UUID]:
    """Delete task runs, each as `delete_task_run` does; return the ids that existed."""
    async with context.database.write() as transaction:
        return await _delete(transaction, sorted(ids), sa.true(), context.clock())


@command(TaskRun)
async def delete_matching_task_runs(context: CommandContext, which: sa.ColumnElement[bool]) -> list[UUID]:
    """Delete the task runs that meet a condition, each as `delete_task_run` does; return their ids."""
    async with context.database.write() as transaction:
        found = await transaction.connection.execute(sa.select(TaskRun.id).where(which).order_by(TaskRun.id))
        return await _delete(transaction, list(found.scalars()), which, context.clock())


async def _delete(
    transaction: Transaction, ids: Sequence[UUID], which: sa.ColumnElement[bool], now: datetime
) -> list[UUID]:
    """Lock task runs and the subflow runs that they stand for, and delete those that meet a condition."""
    connection = transaction.connection
    subflows = sa.select(FlowRun.id).where(among(FlowRun.parent_task_run_id, ids)).order_by(FlowRun.id)
    # Flow runs are locked before task runs, and the deletion changes their `parent_task_run_id`.
    await connection.execute(subflows.with_for_update())
    locked = [each.run.id for each in await sql.lock_task_runs(connection, ids)]
    runs = list((await connection.execute(sa.select(TaskRun.id).where(among(TaskRun.id, locked), which))).scalars())
    if runs:
        await release_and_forget(transaction, runs, now)
        await tallies.subtract(connection, task_runs=runs)
        await connection.execute(sa.delete(TaskRun).where(among(TaskRun.id, runs)))
        transaction.notify(DELETIONS)
    return runs
