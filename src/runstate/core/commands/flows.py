"""Flows and deployments: making, changing and deleting them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.batch.batcher import Batcher
from runstate.core.commands.retry import again
from runstate.core.commands.runs import delete_flow_runs
from runstate.database.bulk import table_of
from runstate.database.dialects import among, insert_or_skip
from runstate.database.queries import orchestration as sql
from runstate.documents import requests
from runstate.documents.states import StateType
from runstate.errors import NotFound
from runstate.rows import Base, ConcurrencyLimit, Deployment, Flow, FlowRun

NO_SLOTS: dict[str, Any] = {
    "active": True,
    "occupied": 0,
    "slot_decay_per_second": 0.0,
    "drained": None,
    "average_slot_occupancy_seconds": 2.0,
}
"""The columns of a limit that nobody holds a slot of."""


@again
async def create_flow(batcher: Batcher, given: requests.CreateFlow) -> tuple[UUID, bool]:
    """Id of the flow with the name, and whether it is new."""
    now = batcher.clock()
    columns = {"name": given.name, "tags": list(dict.fromkeys(given.tags or ())), "labels": given.labels or {}}
    async with batcher.database.write() as transaction:
        made = await put(transaction.connection, Flow, fresh(batcher, now) | columns)
        if made is not None:
            return made, True
        asked = sa.select(Flow.id).where(Flow.name == given.name)
        return (await transaction.connection.execute(asked)).scalar_one(), False


def fresh(batcher: Batcher, now: datetime) -> dict[str, Any]:
    """The columns that every new row has."""
    return {"id": batcher.new_id(), "created": now, "updated": now}


async def put(connection: AsyncConnection, row: type[Base], columns: dict[str, Any]) -> UUID | None:
    """Insert a row unless its unique key is taken; its id if it was inserted."""
    table = table_of(row)
    insert = insert_or_skip(connection.dialect.name, table).returning(table.c.id)
    return (await connection.execute(insert, columns)).scalar()


@again
async def create_deployment(batcher: Batcher, given: requests.CreateDeployment) -> tuple[UUID, bool] | NotFound:
    """Id of the flow's deployment with the name, and whether it is new; one that was there has what is given now."""
    now = batcher.clock()
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        if await sql.missing(connection, Flow, {given.flow_id}):
            return NotFound(given.flow_id)
        blank = {"paused": False, "parameters": {}, "tags": []}
        keys = {"flow_id": given.flow_id, "name": given.name}
        made = await put(connection, Deployment, fresh(batcher, now) | blank | keys)
        asked = sa.select(Deployment.id).where(Deployment.flow_id == given.flow_id, Deployment.name == given.name)
        deployment_id = made or (await connection.execute(asked)).scalar_one()
        await _change(batcher, connection, deployment_id, given, now)
    return deployment_id, made is not None


@again
async def update_deployment(batcher: Batcher, given: requests.UpdateDeployment) -> UUID | NotFound:
    """Change what is given of a deployment."""
    async with batcher.database.write() as transaction:
        if await sql.missing(transaction.connection, Deployment, {given.id}):
            return NotFound(given.id)
        await _change(batcher, transaction.connection, given.id, given, batcher.clock())
    return given.id


async def _change(
    batcher: Batcher,
    connection: AsyncConnection,
    deployment_id: UUID,
    given: requests.CreateDeployment | requests.UpdateDeployment,
    now: datetime,
) -> None:
    columns: dict[str, Any] = {
        name: getattr(given, name) for name in given.model_fields_set - {"id", "flow_id", "name"}
    }
    emptied = {"paused": False, "parameters": {}, "tags": []}
    columns |= {name: empty for name, empty in emptied.items() if name in columns and columns[name] is None}
    if "tags" in columns:
        columns["tags"] = list(dict.fromkeys(columns["tags"]))
    if "concurrency_limit" in columns:
        columns["concurrency_limit_id"] = await _limit(
            batcher, connection, deployment_id, columns.pop("concurrency_limit"), now
        )
    change = sa.update(Deployment).where(Deployment.id == deployment_id).values(**columns, updated=now)
    await connection.execute(change)


async def _limit(
    batcher: Batcher, connection: AsyncConnection, deployment_id: UUID, limit: int | None, now: datetime
) -> UUID | None:
    """The limit of a deployment's own, made, changed or deleted."""
    own = ConcurrencyLimit.name == limit_name(deployment_id)
    if limit is None:
        await connection.execute(sa.delete(ConcurrencyLimit).where(own))
        return None
    columns = {"name": limit_name(deployment_id), "limit": limit}
    made = await put(connection, ConcurrencyLimit, fresh(batcher, now) | NO_SLOTS | columns)
    if made is None:
        await connection.execute(sa.update(ConcurrencyLimit).where(own).values(limit=limit, updated=now))
    return made or (await connection.execute(sa.select(ConcurrencyLimit.id).where(own))).scalar_one()


def limit_name(deployment_id: UUID) -> str:
    """Name of the limit on a deployment's runs."""
    return f"deployment:{deployment_id}"


@again
async def delete_deployment(batcher: Batcher, deployment_id: UUID) -> bool:
    """Delete a deployment with its limit and its runs that are still SCHEDULED; its other runs stay."""
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        scheduled = (FlowRun.deployment_id == deployment_id) & (FlowRun.state_type == StateType.SCHEDULED)
        await delete_flow_runs(connection, scheduled, batcher.clock())
        deleted = await connection.execute(sa.delete(Deployment).where(Deployment.id == deployment_id))
        await connection.execute(sa.delete(ConcurrencyLimit).where(ConcurrencyLimit.name == limit_name(deployment_id)))
    return bool(deleted.rowcount)


@again
async def update_flow(batcher: Batcher, given: requests.UpdateFlow) -> UUID | NotFound:
    """Change what is given of a flow."""
    columns: dict[str, Any] = {"updated": batcher.clock()}
    if given.tags is not None:
        columns["tags"] = list(dict.fromkeys(given.tags))
    if given.labels is not None:
        columns["labels"] = given.labels
    async with batcher.database.write() as transaction:
        change = sa.update(Flow).where(Flow.id == given.id).values(columns)
        changed = (await transaction.connection.execute(change)).rowcount
    return given.id if changed else NotFound(given.id)


@again
async def delete_flow(batcher: Batcher, flow_id: UUID) -> bool:
    """Delete a flow with its runs, and its deployments with their limits. Nobody gives it new runs meanwhile."""
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        locked = sa.select(Flow.id).where(Flow.id == flow_id).with_for_update()
        if (await connection.execute(locked)).scalar() is None:
            return False
        await delete_flow_runs(connection, FlowRun.flow_id == flow_id, batcher.clock())
        gone = sa.delete(Deployment).where(Deployment.flow_id == flow_id).returning(Deployment.id)
        names = sorted(limit_name(each) for each in (await connection.execute(gone)).scalars())
        await connection.execute(sa.delete(ConcurrencyLimit).where(among(ConcurrencyLimit.name, names)))
        await connection.execute(sa.delete(Flow).where(Flow.id == flow_id))
    return True
