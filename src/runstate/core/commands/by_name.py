"""Flows and deployments that an input names instead of giving their id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, Field

from runstate.core.commands import crud
from runstate.core.commands.command import command
from runstate.core.commands.crud import Existing
from runstate.core.context import CommandContext
from runstate.documents.requests import DeploymentRef
from runstate.errors import InvalidInput, NotFound, RunstateError
from runstate.rows import Deployment, Flow, FlowRun
from runstate.rows.documents import create_document, reference_document

FlowRef: Any = reference_document(Flow)
CreateFlow: Any = create_document(Flow)
create_flow = crud.create(Flow, existing=Existing.RETURN)

FLOW: Final = (FlowRef, Field(description="The flow, by id or by name."))
CREATE_FLOW: Final = (
    bool,
    Field(default=False, description="True to create the flow if no flow has the name; by default that is a NotFound."),
)
DEPLOYMENT: Final = (
    DeploymentRef | None,
    Field(default=None, description="The deployment, by id or by the names of its flow and itself."),
)


def given(document: BaseModel, *without: str) -> dict[str, Any]:
    """Return the members that a client gave."""
    return {name: getattr(document, name) for name in document.model_fields_set if name not in without}


@asynccontextmanager
async def flow_of(context: CommandContext, document: Any) -> AsyncIterator[UUID]:
    """Yield the id of the flow that a document names, which is created if the document says so.

    If the block raises a problem, a flow that was created for it is deleted again. Raise NotFound for an unknown flow.
    """
    found, is_new = document.flow.id, False
    if found is None:
        found = await _id(context, sa.select(Flow.id).where(Flow.name == document.flow.name))
    if found is None and not document.create_flow:
        raise NotFound(message=f"No flow has the name `{document.flow.name}`.")
    if found is None:
        made = await create_flow(context, CreateFlow(name=document.flow.name))
        found, is_new = made.row.id, made.created
    try:
        yield found
    except RunstateError:
        # The flow and its run have transactions of their own, so the flow is deleted by hand.
        if is_new:
            await _delete_unused(context, found)
        raise


@command(Flow)
async def _delete_unused(context: CommandContext, flow_id: UUID) -> None:
    """Delete a flow unless it has runs or deployments. The lock keeps others from creating one meanwhile."""
    async with context.database.write() as transaction:
        connection = transaction.connection
        await connection.execute(sa.select(Flow.id).where(Flow.id == flow_id).with_for_update())
        used = sa.or_(*(sa.exists().where(row.flow_id == flow_id) for row in (FlowRun, Deployment)))
        await connection.execute(sa.delete(Flow).where(Flow.id == flow_id, ~used))


async def deployment_id_of(context: CommandContext, reference: DeploymentRef) -> UUID:
    """Return the id of the deployment that a reference names. Raise NotFound if it does not exist."""
    if reference.id is not None and reference.flow is None and reference.name is None:
        return reference.id
    if reference.id is not None or reference.flow is None or reference.name is None:
        raise InvalidInput("Give the id of the deployment, or the names of its flow and itself.", ["deployment"])
    if (found := await found_deployment(context, reference)) is None:
        raise NotFound(message=f"The flow `{reference.flow}` has no deployment with the name `{reference.name}`.")
    return found


async def found_deployment(context: CommandContext, reference: Any) -> UUID | None:
    """Return the id of the deployment with the names of its flow and itself; None if it does not exist."""
    # PostgreSQL rejects texts with NUL, so no object has such a name.
    if "\0" in reference.flow + reference.name:
        return None
    flow = sa.select(Flow.id).where(Flow.name == reference.flow).scalar_subquery()
    return await _id(
        context, sa.select(Deployment.id).where(Deployment.flow_id == flow, Deployment.name == reference.name)
    )


async def _id(context: CommandContext, query: sa.Select[Any]) -> UUID | None:
    async with context.database.read() as connection:
        found: UUID | None = (await connection.execute(query)).scalar()
    return found
