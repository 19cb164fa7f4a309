"""Deployments, each with a concurrency limit of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, Field
from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.announcements import announce
from runstate.core.commands.by_name import CREATE_FLOW, FLOW, deployment_id_of, flow_of, given
from runstate.core.commands.command import command
from runstate.core.commands.crud import Written, change, columns_of, fresh, insert, insert_or_find, remove
from runstate.core.commands.flow_runs import delete_flow_runs
from runstate.core.commands.parameters import check_parameters, check_schema
from runstate.core.commands.runs import find
from runstate.core.commands.schedules import SCHEDULES, Planned, plan, replace_schedules, set_paused, update_runs
from runstate.core.commands.work_pools import check_job_variables, find_pool, queue_columns
from runstate.core.context import CommandContext
from runstate.database import Transaction
from runstate.database.bulk import table_of
from runstate.database.driver import fetch
from runstate.documents.base import Name
from runstate.documents.deployments import origin
from runstate.documents.requests import DeploymentRef
from runstate.documents.states import StateType
from runstate.errors import InvalidInput, NotFound
from runstate.rows import ConcurrencyLimit, Deployment, DeploymentVersion, Flow, FlowRun, WorkPool, WorkQueue
from runstate.rows.documents import create_document, update_document

LIMIT: Final = (
    Annotated[int, Field(ge=1, le=2**31 - 1)] | None,
    Field(default=None, description="Maximum number of its runs that are claimed or running; null for no limit."),
)
POOL: Final = (
    Name | None,
    Field(
        default=None,
        description="Name of an existing work pool. With it, workQueueName names a queue of that pool, created if "
        "missing; default: the pool's default queue. Null: no queue.",
    ),
)
SHARED: Final = (
    UUID | None,
    Field(
        default=None,
        description="Id of a concurrency limit that it shares with others; not together with concurrencyLimit. "
        "Null: none.",
    ),
)
MORE: Final[dict[str, Any]] = {
    "concurrency_limit": LIMIT,
    "global_concurrency_limit_id": SHARED,
    "schedules": SCHEDULES,
    "work_pool": POOL,
}
"""Members of documents that are no columns of the row."""
CreateDeployment = create_document(Deployment, **MORE)
UpdateDeployment = update_document(Deployment, named=DeploymentRef, **MORE)
DeployFlow = create_document(
    Deployment,
    called="DeployFlow",
    doc="A new deployment of a flow that is named.",
    without=("flow_id",),
    flow=FLOW,
    create_flow=CREATE_FLOW,
    **MORE,
)
KEY: Final = ("flow_id", "name")
APART: Final = ("id", "by", *MORE)
INHERITED: Final = ("parameters", "tags", "labels", "work_queue_name", "work_queue_id", "version")
"""Columns that scheduled runs have from their deployment: a change of one changes the runs that wait."""
UNCHECKED: Final = Deployment.of(
    {"id": None, "enforce_parameter_schema": True, "parameter_schema": {}, "parameters": {}, "work_queue_id": None}
)
"""The defaults of a new deployment."""
NAMES: Final = table_of(Deployment).columns.keys()
NAMED: Final = sa.select(table_of(Deployment)).where(
    Deployment.flow_id == sa.bindparam("flow"), Deployment.name == sa.bindparam("called")
)
FLOW_LABELS: Final = sa.select(Flow.labels).where(Flow.id == sa.bindparam("flow"))


class DeploymentChange(NamedTuple):
    """A changed deployment, and the number of its scheduled runs that were deleted."""

    row: Deployment
    taken_back: int = 0


async def deploy_flow(context: CommandContext, document: Any) -> Written[Deployment]:
    """Create or update a deployment as `create_deployment` does, of a flow that is named and perhaps created."""
    columns = given(document, "flow", "create_flow")
    async with flow_of(context, document) as flow_id:
        written: Written[Deployment] = await create_deployment(context, CreateDeployment(**columns, flow_id=flow_id))
        return written


@command(Deployment)
async def create_deployment(context: CommandContext, document: Any) -> Written[Deployment]:
    """Create a deployment, or update the flow's deployment with this name."""
    # The limit and the schedules are rows of their own.
    columns = columns_of(document, without=APART)
    # Nothing of the existing deployment matters without these values, so it is not read.
    before = await _named(context, document) if _is_checked(document) else UNCHECKED
    pool = await _pool(context, document, before)
    planned = await _checked(context, document, before, pool)
    async with context.database.write() as transaction:
        connection = transaction.connection
        labels = await _labels(connection, document.flow_id, columns)
        columns |= await _queue(context, connection, document, pool)
        new = fresh(context) | columns | labels | {"created_by": (by := origin(context.actor)), "updated_by": by}
        found = await insert_or_find(connection, Deployment, new, KEY, lock=True, announced=False)
        if found.created and (document.concurrency_limit, document.global_concurrency_limit_id) == (None, None):
            await announce(connection, found.row, "created", found.row.created)
            if planned:
                paused = found.row.paused
                await replace_schedules(context, transaction, found.row.id, planned, paused=paused, new=True)
            return found
        # An insert has written the columns already, so only the limit and the schedules are left.
        given = {} if found.created else columns | (labels if "labels" in columns else {})
        what = "created" if found.created else "updated"
        changed = await _change(context, transaction, found.row, document, given, planned, what)
    return Written(changed.row, found.created)


async def update_deployment(context: CommandContext, document: Any) -> Deployment:
    """Update the given fields of a deployment, which is named by its id or by the names of its flow and itself."""
    if (document.id is None) is (document.by is None):
        raise InvalidInput("Give `id` or `by`.", ["by"])
    key = document.id or await deployment_id_of(context, document.by)
    changed: DeploymentChange = await _update(context, document.model_copy(update={"id": key, "by": None}))
    return changed.row


@command(Deployment)
async def _update(context: CommandContext, document: Any) -> DeploymentChange:
    before = await find(context, Deployment, document.id)
    if before is None:
        raise NotFound(document.id)
    pool = await _pool(context, document, before)
    planned = await _checked(context, document, before, pool)
    async with context.database.write() as transaction:
        # The pool is locked before the deployment, as everywhere.
        columns = columns_of(document, without=APART) | await _queue(context, transaction.connection, document, pool)
        # Updates of a deployment take turns, because each may create or delete its limit.
        row = await _lock(transaction.connection, document.id)
        if "labels" in columns:
            columns |= await _labels(transaction.connection, row.flow_id, columns)
        return await _change(context, transaction, row, document, columns, planned)


@command(Deployment)
async def pause_deployment(context: CommandContext, deployment_id: UUID) -> DeploymentChange:
    """Pause a deployment, and delete all its scheduled runs that have not started."""
    return await _set_paused(context, deployment_id, paused=True)


@command(Deployment)
async def resume_deployment(context: CommandContext, deployment_id: UUID) -> DeploymentChange:
    """Resume a deployment; the scheduler creates its runs again."""
    return await _set_paused(context, deployment_id, paused=False)


async def _set_paused(context: CommandContext, deployment_id: UUID, *, paused: bool) -> DeploymentChange:
    async with context.database.write() as transaction:
        row = await _lock(transaction.connection, deployment_id)
        # A deployment that is paused already is not written, and no event tells of it.
        columns = {"paused": paused} if row.paused != paused else {}
        return await _change(context, transaction, row, UpdateDeployment(id=deployment_id), columns, None)


async def _lock(connection: AsyncConnection, deployment_id: UUID) -> Deployment:
    table = table_of(Deployment)
    found = await connection.execute(sa.select(table).where(table.c.id == deployment_id).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise NotFound(deployment_id)
    return Deployment.of(row._mapping)  # type: ignore[arg-type] # noqa: SLF001 the columns by name


async def _named(context: CommandContext, document: Any) -> Deployment:
    """Return the flow's deployment with this name, or the defaults of a new one."""
    async with context.database.read() as connection:
        for row in await fetch(connection, NAMED, {"flow": document.flow_id, "called": document.name}):
            return Deployment.of(zip(NAMES, row, strict=True))
    return UNCHECKED


def _is_checked(document: Any) -> bool:
    """Return whether the document has values that the schema or the pool of the existing deployment concerns."""
    given = (document.parameters, document.schedules, document.parameter_schema, document.job_variables)
    return any(given) or "work_queue_name" in document.model_fields_set


async def _pool(context: CommandContext, document: Any, before: Deployment) -> WorkPool | None:
    """Return the pool of a deployment after the change. Raise NotFound if the document names an unknown one."""
    if "work_pool" not in document.model_fields_set:
        return await find_pool(context, WorkQueue.id == before.work_queue_id) if before.work_queue_id else None
    if document.work_pool is None:
        return None
    pool = await find_pool(context, WorkPool.name == document.work_pool)
    if pool is None:
        raise NotFound(message=f"No work pool has the name `{document.work_pool}`.")
    return pool


async def _queue(
    context: CommandContext, connection: AsyncConnection, document: Any, pool: WorkPool | None
) -> dict[str, Any]:
    """Return the changes of the queue, which is created if the document names an unknown one."""
    given = document.model_fields_set & {"work_pool", "work_queue_name"}
    if pool is not None and given:
        return await queue_columns(context, connection, pool, document.work_queue_name)
    return {"work_queue_id": None, "work_queue_name": None} if "work_pool" in given else {}


async def _checked(
    context: CommandContext, document: Any, before: Deployment, pool: WorkPool | None
) -> list[Planned] | None:
    """Check the schema, the parameters, the job variables and the schedules; return the schedules, None if they stay.

    No transaction waits for the process that checks. Runs are checked again when they are created.
    """
    given = document.model_fields_set
    names = ("parameter_schema", "parameters", "enforce_parameter_schema")
    after = Deployment.of({name: getattr(document if name in given else before, name) for name in names})
    await check_schema(context, document.parameter_schema)
    if document.parameters and after.enforce_parameter_schema:
        await check_parameters(context, after.parameter_schema, after.parameters, ("parameters",), complete=False)
    if document.job_variables and pool:
        path = ("jobVariables",)
        await check_job_variables(context, pool.base_job_template, document.job_variables, path, complete=False)
    if document.schedules is None:
        return None
    return await plan(context, document.schedules, ("schedules",), after, before.id)


async def _labels(connection: AsyncConnection, flow_id: UUID, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the labels of a deployment: its own over those of the flow."""
    found = await fetch(connection, FLOW_LABELS, {"flow": flow_id})
    return {"labels": (found[0][0] if found else {}) | columns.get("labels", {})}


async def _change(
    context: CommandContext,
    transaction: Transaction,
    before: Deployment,
    document: Any,
    columns: dict[str, Any],
    planned: list[Planned] | None,
    what: str = "updated",
) -> DeploymentChange:
    """Update a locked deployment, its limit and its schedules, with the event that it was created or updated."""
    now, connection = context.clock(), transaction.connection
    columns = columns | await _limit(context, connection, before, document)
    # Before the update, which overwrites the form that is kept.
    await _keep_version(context, connection, before, columns)
    if columns:
        columns |= {"updated_by": origin(context.actor)}
    changed = await change(connection, Deployment, {"id": before.id}, columns, now, announced=False)
    if changed is None:
        raise NotFound(before.id)
    if columns or what == "created":
        await announce(connection, changed, what, now, columns)
    return DeploymentChange(changed, await _reschedule(context, transaction, before, changed, planned))


async def _reschedule(
    context: CommandContext,
    transaction: Transaction,
    before: Deployment,
    after: Deployment,
    planned: list[Planned] | None,
) -> int:
    """Have schedules and their runs follow a change; return the number of runs that were deleted."""
    now, taken = context.clock(), 0
    if planned is not None:
        done = await replace_schedules(context, transaction, after.id, planned, paused=after.paused)
        taken += done.taken_back
    if before.paused != after.paused:
        taken += await set_paused(transaction, after.id, now, paused=after.paused)
    if any(getattr(before, name) != getattr(after, name) for name in INHERITED):
        await update_runs(transaction, after.id, now)
    return taken


async def _keep_version(
    context: CommandContext, connection: AsyncConnection, before: Deployment, columns: dict[str, Any]
) -> None:
    """Store the present form of a deployment if its version is about to change."""
    versions = [
        (getattr(before, name), columns.get(name, getattr(before, name))) for name in ("version", "version_info")
    ]
    if any(old is not None and old != new for old, new in versions):
        kept = {"version": before.version, "version_info": before.version_info, "snapshot": snapshot(before)}
        await insert(connection, DeploymentVersion, fresh(context) | kept | {"deployment_id": before.id})


def snapshot(deployment: Deployment) -> dict[str, Any]:
    """Return the columns of a deployment as JSON, by their GraphQL names."""
    return {to_camel(name): _as_json(value) for name, value in vars(deployment).items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


async def _limit(
    context: CommandContext, connection: AsyncConnection, before: Deployment, document: Any
) -> dict[str, Any]:
    """Return the change of the limit: one of its own, or one that it shares."""
    given, slots, shared = document.model_fields_set, document.concurrency_limit, document.global_concurrency_limit_id
    if slots is not None and shared is not None:
        raise InvalidInput("Give `concurrencyLimit` or `globalConcurrencyLimitId`.", ["globalConcurrencyLimitId"])
    if shared is not None:
        await _check_shared(connection, shared)
        await _set_limit(context, connection, before.id, None)
        return {"concurrency_limit_id": shared}
    if "concurrency_limit" in given:
        return {"concurrency_limit_id": await _set_limit(context, connection, before.id, slots)}
    # A null ends the sharing of a limit, but does not delete one of its own: `concurrencyLimit` does that.
    own = sa.exists().where(ConcurrencyLimit.deployment_id == before.id)
    if "global_concurrency_limit_id" in given and not (await connection.execute(sa.select(own))).scalar():
        return {"concurrency_limit_id": None}
    return {}


async def _check_shared(connection: AsyncConnection, limit_id: UUID) -> None:
    """Raise a problem unless clients made the limit."""
    asked = sa.select(ConcurrencyLimit.deployment_id).where(ConcurrencyLimit.id == limit_id)
    found = (await connection.execute(asked)).one_or_none()
    if found is None:
        raise NotFound(limit_id)
    if found.deployment_id is not None:
        raise InvalidInput(f"The limit belongs to deployment {found.deployment_id}.", ["globalConcurrencyLimitId"])


async def _set_limit(
    context: CommandContext, connection: AsyncConnection, deployment_id: UUID, slots: int | None
) -> UUID | None:
    """Create, update or delete the limit that a deployment owns; return its id, or None without a limit."""
    own = ConcurrencyLimit.deployment_id == deployment_id
    if slots is None:
        await connection.execute(sa.delete(ConcurrencyLimit).where(own))
        return None
    # The deployment is locked, so no other transaction inserts its limit meanwhile.
    of_deployment = {"deployment_id": deployment_id}
    changed = await change(connection, ConcurrencyLimit, of_deployment, {"limit": slots}, context.clock())
    if changed is not None:
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
        await remove(connection, Deployment, deployment_id, context.clock())
