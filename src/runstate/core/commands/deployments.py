"""Deployments, each with a concurrency limit of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.by_name import CREATE_FLOW, FLOW, deployment_id_of, flow_id_of, given
from runstate.core.commands.command import command
from runstate.core.commands.crud import Written, change, columns_of, fresh, insert, insert_or_find, remove
from runstate.core.commands.flow_runs import delete_flow_runs
from runstate.core.context import CommandContext
from runstate.documents.base import NonNegativeInt
from runstate.documents.requests import DeploymentRef
from runstate.documents.states import StateType
from runstate.errors import InvalidInput, NotFound
from runstate.rows import ConcurrencyLimit, Deployment, FlowRun
from runstate.rows.documents import create_document, update_document

LIMIT: Final = (
    NonNegativeInt | None,
    Field(default=None, description="Maximum number of its runs that are claimed or running; null for no limit."),
)
CreateDeployment = create_document(Deployment, concurrency_limit=LIMIT)
UpdateDeployment = update_document(Deployment, named=DeploymentRef, concurrency_limit=LIMIT)
DeployFlow = create_document(
    Deployment,
    called="DeployFlow",
    doc="A new deployment of a flow that is named.",
    without=("flow_id",),
    flow=FLOW,
    create_flow=CREATE_FLOW,
    concurrency_limit=LIMIT,
)
KEY: Final = ("flow_id", "name")


async def deploy_flow(context: CommandContext, document: Any) -> Written[Deployment]:
    """Create or update a deployment as `create_deployment` does, of a flow that is named and perhaps created."""
    flow_id = await flow_id_of(context, document.flow, create=document.create_flow)
    columns = given(document, "flow", "create_flow")
    written: Written[Deployment] = await create_deployment(context, CreateDeployment(**columns, flow_id=flow_id))
    return written


@command(Deployment)
async def create_deployment(context: CommandContext, document: Any) -> Written[Deployment]:
    """Create a deployment, or update the flow's deployment with this name."""
    # The limit is a row of its own.
    columns = columns_of(document, without=("concurrency_limit",))
    async with context.database.write() as transaction:
        connection = transaction.connection
        found = await insert_or_find(connection, Deployment, fresh(context) | columns, KEY, lock=True)
        if found.created and document.concurrency_limit is None:
            return found
        # An insert has written the columns already, so only the limit is left.
        row = await _change(context, connection, found.row.id, document, {} if found.created else columns)
    return Written(row, found.created)


async def update_deployment(context: CommandContext, document: Any) -> Deployment:
    """Update the given fields of a deployment, which is named by its id or by the names of its flow and itself."""
    if (document.id is None) is (document.by is None):
        raise InvalidInput("Give `id` or `by`.", ["by"])
    key = document.id or await deployment_id_of(context, document.by)
    changed: Deployment = await _update(context, document.model_copy(update={"id": key, "by": None}))
    return changed


@command(Deployment)
async def _update(context: CommandContext, document: Any) -> Deployment:
    async with context.database.write() as transaction:
        connection = transaction.connection
        # Updates of a deployment take turns, because each may create or delete its limit.
        locked = sa.select(Deployment.id).where(Deployment.id == document.id).with_for_update()
        if (await connection.execute(locked)).scalar() is None:
            raise NotFound(document.id)
        columns = columns_of(document, without=("id", "by", "concurrency_limit"))
        return await _change(context, connection, document.id, document, columns)


async def _change(
    context: CommandContext, connection: AsyncConnection, id: UUID, document: Any, columns: dict[str, Any]
) -> Deployment:
    """Update a locked deployment, and its limit if the document sets one."""
    now = context.clock()
    if "concurrency_limit" in document.model_fields_set:
        limit_id = await _set_limit(context, connection, id, document.concurrency_limit, now)
        columns = columns | {"concurrency_limit_id": limit_id}
    changed = await change(connection, Deployment, Deployment.id == id, columns, now)
    if changed is None:
        raise NotFound(id)
    return changed


async def _set_limit(
    context: CommandContext, connection: AsyncConnection, deployment_id: UUID, slots: int | None, now: datetime
) -> UUID | None:
    """Create, update or delete the limit that a deployment owns; return its id, or None without a limit."""
    own = ConcurrencyLimit.deployment_id == deployment_id
    if slots is None:
        await connection.execute(sa.delete(ConcurrencyLimit).where(own))
        return None
    # The deployment is locked, so no other transaction inserts its limit meanwhile.
    if (changed := await change(connection, ConcurrencyLimit, own, {"limit": slots}, now)) is not None:
        return changed.id
    owned = {"name": f"deployment:{deployment_id}", "deployment_id": deployment_id, "limit": slots}
    return (await insert(connection, ConcurrencyLimit, fresh(context) | owned)).id


@command(Deployment)
async def delete_deployment(context: CommandContext, deployment_id: UUID) -> None:
    """Delete a deployment with its limit and its SCHEDULED runs; all other runs are kept.

    The deployment is locked first. A run that is created at the same time is either deleted too, or refused because the
    deployment is unknown.
    """
    async with context.database.write() as transaction:
        connection = transaction.connection
        locked = sa.select(Deployment.id).where(Deployment.id == deployment_id).with_for_update()
        if (await connection.execute(locked)).scalar() is None:
            raise NotFound(deployment_id)
        scheduled = (FlowRun.deployment_id == deployment_id) & (FlowRun.state_type == StateType.SCHEDULED)
        await delete_flow_runs(transaction, scheduled, context.clock())
        await remove(connection, Deployment, deployment_id)
