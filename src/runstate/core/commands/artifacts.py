"""Artifacts. A collection is locked before its artifacts are written, and always copies its latest artifact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.batch.artifacts import COPIED
from runstate.core.commands.command import command
from runstate.core.commands.crud import Written, change, columns_of, fresh, insert, insert_or_find, new_columns, remove
from runstate.core.context import CommandContext
from runstate.database.dialects import among
from runstate.database.driver import fetch
from runstate.errors import NotFound
from runstate.rows import Artifact, ArtifactCollection, FlowRunState, TaskRunState
from runstate.rows.documents import create_document, update_document

CreateArtifact = create_document(Artifact)
UpdateArtifact = update_document(Artifact)


@command(Artifact)
async def create_artifact(context: CommandContext, document: Any) -> Written[Artifact]:
    """Create an artifact. With a key, it becomes the latest of its collection, which is created if necessary."""
    columns = new_columns(Artifact, document)
    async with context.database.write() as transaction:
        return Written(await _create(context, transaction.connection, columns))


async def _create(context: CommandContext, connection: AsyncConnection, columns: dict[str, Any]) -> Artifact:
    own: dict[str, Any] = fresh(context)
    if columns["key"] is None:
        return await insert(connection, Artifact, {**columns, **own, "collection_id": None})
    copy = _copy({**columns, **own})
    made = {**fresh(context), "key": columns["key"], **copy}
    # The lock gives artifacts of one key an order, by which the latest is known.
    collection = await insert_or_find(connection, ArtifactCollection, made, ("key",), lock=True)
    if not collection.created:
        # Read under the lock, so that the latest artifact is also the newest.
        own = fresh(context)
        await _adopt(connection, collection.row.id, {**copy, "latest_id": own["id"]}, own["updated"])
    return await insert(connection, Artifact, {**columns, **own, "collection_id": collection.row.id})


def _copy(artifact: dict[str, Any]) -> dict[str, Any]:
    return {"latest_id": artifact["id"], **{name: artifact[name] for name in COPIED}}


async def _adopt(connection: AsyncConnection, id: UUID, copy: dict[str, Any], now: Any) -> None:
    await change(connection, ArtifactCollection, {"id": id}, copy, now)


@command(Artifact)
async def update_artifact(context: CommandContext, document: Any) -> Artifact:
    """Update the given fields of an artifact, and of its collection if it is the latest."""
    columns = columns_of(document)
    async with context.database.write() as transaction:
        connection = transaction.connection
        await _lock(connection, [document.id])
        now = context.clock()
        changed = await change(connection, Artifact, {"id": document.id}, columns, now)
        if changed is None:
            raise NotFound(document.id)
        if changed.collection_id and columns:
            await change(connection, ArtifactCollection, {"latest_id": document.id}, columns, now)
    return changed


@command(Artifact)
async def delete_artifact(context: CommandContext, artifact_id: UUID) -> None:
    """Delete an artifact. The newest remaining one becomes the latest of its collection, which else is deleted.

    A state whose data made the artifact loses its data.
    """
    async with context.database.write() as transaction:
        connection = transaction.connection
        locked = await _lock(connection, [artifact_id])
        await remove(connection, Artifact, artifact_id, context.clock())
        for state in (FlowRunState, TaskRunState):
            made_it = sa.update(state).where(state.artifact_id == artifact_id)
            await connection.execute(made_it.values(data=None, artifact_id=None))
        await _renew(connection, locked, context.clock())


async def delete_artifacts_of(connection: AsyncConnection, runs: Sequence[UUID], now: Any) -> None:
    """Delete the artifacts of flow runs and task runs."""
    wanted = sa.or_(among(Artifact.flow_run_id, runs), among(Artifact.task_run_id, runs))
    ids = list((await connection.execute(sa.select(Artifact.id).where(wanted))).scalars())
    if ids:
        locked = await _lock(connection, ids)
        await connection.execute(sa.delete(Artifact).where(among(Artifact.id, ids)))
        await _renew(connection, locked, now)


async def _lock(connection: AsyncConnection, artifacts: Sequence[UUID]) -> dict[UUID, UUID]:
    """Lock the collections of artifacts, in the order of their ids; return the latest artifact of each."""
    of = sa.select(Artifact.collection_id).where(among(Artifact.id, artifacts))
    rows = sa.select(ArtifactCollection.id, ArtifactCollection.latest_id).where(ArtifactCollection.id.in_(of))
    return dict(await fetch(connection, rows.order_by(ArtifactCollection.id).with_for_update()))


async def _renew(connection: AsyncConnection, locked: dict[UUID, UUID], now: Any) -> None:
    """Give collections whose latest artifact was deleted the newest remaining one. Delete empty collections."""
    for collection, latest in locked.items():
        artifacts = sa.select(*Artifact.__table__.columns).where(Artifact.collection_id == collection)
        newest = artifacts.order_by(Artifact.created.desc(), Artifact.id.desc()).limit(1)
        found = (await connection.execute(newest)).mappings().one_or_none()
        if found is None:
            await remove(connection, ArtifactCollection, collection, now)
        elif found["id"] != latest:
            await _adopt(connection, collection, _copy(dict(found)), now)
