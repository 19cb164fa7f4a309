"""Artifacts that the data of states make."""

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.batch.unit_of_work import Entered
from runstate.core.states import ArtifactOfState
from runstate.database import bulk
from runstate.database.bulk import inserted, table_of
from runstate.database.dialects import insert_or_replace
from runstate.rows import Artifact, ArtifactCollection, TaskRun

COPIED: Final = ("type", "data", "description", "metadata_", "flow_run_id", "task_run_id")
"""Columns of the latest artifact in its collection."""


async def write_artifacts(connection: AsyncConnection, transitions: Iterable[Entered]) -> None:
    """Insert the artifacts of entered states. Each becomes the latest of its collection."""
    made = [_columns(each, each.state.artifact) for each in transitions if each.state.artifact]
    # Collections are locked in one order, so that batches do not deadlock.
    made.sort(key=lambda artifact: artifact["key"] or "")
    for artifact in made:
        artifact["collection_id"] = await _collected(connection, artifact) if artifact["key"] else None
    await bulk.write(connection, [inserted(Artifact, made)])


def _columns(entered: Entered, artifact: ArtifactOfState) -> dict[str, Any]:
    run, now = entered.run, entered.state.timestamp
    is_task = isinstance(run, TaskRun)
    return {
        "id": artifact.id,
        "created": now,
        "updated": now,
        "key": artifact.key,
        "type": artifact.type,
        "data": entered.state.data,
        "description": artifact.description,
        "metadata_": None,
        "flow_run_id": run.flow_run_id if isinstance(run, TaskRun) else run.id,
        "task_run_id": run.id if is_task else None,
    }


async def _collected(connection: AsyncConnection, artifact: dict[str, Any]) -> UUID:
    """Return the id of the collection of an artifact, which becomes its latest. A new one gets the artifact's id."""
    copy = {"latest_id": artifact["id"], **{name: artifact[name] for name in COPIED}}
    own = {name: artifact[name] for name in ("id", "created", "updated", "key")}
    table = table_of(ArtifactCollection)
    statement = insert_or_replace(connection.dialect.name, table, ("key",), ("updated", *copy)).returning(table.c.id)
    found: UUID = (await connection.execute(statement, own | copy)).scalar_one()
    return found
