"""Flows."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from runstate.core.commands import crud
from runstate.core.commands.by_name import CreateFlow, FlowRef, create_flow
from runstate.core.commands.command import command
from runstate.core.commands.flow_runs import delete_flow_runs
from runstate.core.context import CommandContext
from runstate.errors import NotFound
from runstate.rows import Flow, FlowRun
from runstate.rows.documents import update_document

__all__ = ["CreateFlow", "FlowRef", "UpdateFlow", "create_flow", "delete_flow", "update_flow"]

UpdateFlow = update_document(Flow, named=FlowRef)
update_flow = crud.update(Flow)


@command(Flow)
async def delete_flow(context: CommandContext, flow_id: UUID) -> None:
    """Delete a flow with its runs, and its deployments with their limits.

    The lock on the flow prevents the creation of further runs meanwhile.
    """
    async with context.database.write() as transaction:
        connection = transaction.connection
        locked = sa.select(Flow.id).where(Flow.id == flow_id).with_for_update()
        if (await connection.execute(locked)).scalar() is None:
            raise NotFound(flow_id)
        # A cascade of the database would neither release slots nor change the tallies.
        await delete_flow_runs(transaction, FlowRun.flow_id == flow_id, context.clock())
        await crud.remove(connection, Flow, flow_id, context.clock())
