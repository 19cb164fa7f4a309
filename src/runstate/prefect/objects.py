"""Rows of deployments, pools and stores as JSON objects of the client."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel

from runstate.core.slots import occupied
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.driver import fetch
from runstate.database.queries.claimable import HOLDS
from runstate.documents.deployments import polled
from runstate.documents.pools import pool_status, queue_status, worker_status
from runstate.errors import NotFound
from runstate.prefect.automations import automation, is_known
from runstate.prefect.endpoint import Call
from runstate.prefect.presentation import Object
from runstate.prefect.rules import rule
from runstate.rows import (
    Artifact,
    ArtifactCollection,
    Automation,
    BlockType,
    ConcurrencyLimit,
    Deployment,
    DeploymentSchedule,
    Flow,
    FlowRun,
    Log,
    Row,
    Worker,
    WorkPool,
    WorkQueue,
)
from runstate.rows.base import PRIVATE, is_marked
from runstate.rows.variables import Variable

R = TypeVar("R", bound=Row)
Present = Callable[[Call, Sequence[Any]], Awaitable[list[Object]]]

NAMES: Final[dict[type[Row], dict[str, str]]] = {
    Deployment: {"parameter_schema": "parameter_openapi_schema"},
    Log: {"logger": "name"},
    WorkPool: {"paused": "is_paused"},
    WorkQueue: {"paused": "is_paused"},
}
"""The members of objects whose names differ from those of the columns."""


@functools.cache
def _names(row: type[Row]) -> Mapping[str, str]:
    """Return the member of an object for each column that clients may read."""
    public = (str(column.key) for column in table_of(row).columns if not is_marked(column, PRIVATE))
    return {name: NAMES.get(row, {}).get(name, name) for name in public}


def plain(row: Row) -> Object:
    """Return the columns of a row as an object of the client."""
    values = vars(row)
    return {known: _as_json(values[name]) for name, known in _names(type(row)).items()}


def _as_json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


async def rows(call: Call, row: type[R], asked: sa.Select[Any]) -> list[R]:
    """Return the rows of a statement that selects all columns of a table."""
    names = [str(column.key) for column in table_of(row).columns]
    async with call.database.query(asked) as connection:
        found = await fetch(connection, asked)
    return [row.of(dict(zip(names, values, strict=True))) for values in found]


async def where(call: Call, row: type[R], *conditions: sa.ColumnElement[bool], order: Sequence[Any] = ()) -> list[R]:
    """Return the rows that meet conditions."""
    return await rows(call, row, sa.select(*table_of(row).columns).where(*conditions).order_by(*order))


async def only(call: Call, row: type[R], what: str, named: object, *conditions: sa.ColumnElement[bool]) -> R:
    """Return the only row that meets conditions. Raise NotFound without one."""
    found = await where(call, row, *conditions)
    if not found:
        raise NotFound(message=f"No {what} has the id or name `{named}`.")
    return found[0]


async def by_id(call: Call, row: type[R], ids: Iterable[UUID | None]) -> dict[UUID | None, R]:
    """Return rows by their ids, read with one statement; with none if there is no id."""
    known = sorted({each for each in ids if each is not None})
    return {each.id: each for each in await where(call, row, among(table_of(row).c.id, known))} if known else {}


async def as_they_are(call: Call, found: Sequence[Row]) -> list[Object]:
    """Return objects with the columns of rows."""
    return [plain(row) for row in found]


async def deployments(call: Call, found: Sequence[Deployment]) -> list[Object]:
    """Return deployments with their schedules, limits and pools: four statements for a page."""
    queues = await by_id(call, WorkQueue, (each.work_queue_id for each in found))
    pools = await by_id(call, WorkPool, (each.work_pool_id for each in queues.values()))
    limits = await by_id(call, ConcurrencyLimit, (each.concurrency_limit_id for each in found))
    mine = among(DeploymentSchedule.deployment_id, sorted(each.id for each in found))
    schedules = await where(call, DeploymentSchedule, mine, order=[DeploymentSchedule.id])
    return [
        _deployment(
            call,
            each,
            queues.get(each.work_queue_id),
            pools,
            limits.get(each.concurrency_limit_id),
            [schedule(one) for one in schedules if one.deployment_id == each.id],
        )
        for each in found
    ]


def _deployment(
    call: Call,
    row: Deployment,
    queue: WorkQueue | None,
    pools: Mapping[UUID | None, WorkPool],
    limit: ConcurrencyLimit | None,
    schedules: list[Object],
) -> Object:
    times = [each for each in (row.last_polled, queue.last_polled if queue else None) if each]
    pool = pools.get(queue.work_pool_id) if queue else None
    return {
        **plain(row),
        "schedules": schedules,
        "concurrency_limit": None,
        "global_concurrency_limit": limit and global_limit(limit, call),
        "version_info": row.version_info and _version(row.version_info),
        "pull_steps": row.pull_steps or [],
        "storage_document_id": None,
        "infrastructure_document_id": None,
        "work_pool_name": pool.name if pool else None,
        "status": polled(max(times, default=None), call.now).value,
    }


def _version(info: Any) -> Object:
    return {"type": info.type, "version": info.version, **info.extra}


def schedule(row: DeploymentSchedule) -> Object:
    """Return a schedule of a deployment."""
    return {**plain(row), "schedule": rule(row.schedule)}


async def pools(call: Call, found: Sequence[WorkPool]) -> list[Object]:
    """Return work pools, each with its default queue and its status."""
    mine = among(WorkQueue.work_pool_id, sorted(each.id for each in found))
    defaults = {
        each.work_pool_id: each.id for each in await where(call, WorkQueue, mine, WorkQueue.is_default.is_(True))
    }
    return [
        {
            **plain(each),
            "default_queue_id": defaults.get(each.id),
            "status": pool_status(each.online_until, call.now, paused=each.paused).value,
        }
        for each in found
    ]


async def queues(call: Call, found: Sequence[WorkQueue]) -> list[Object]:
    """Return work queues, each with the name of its pool and its status."""
    named = await by_id(call, WorkPool, (each.work_pool_id for each in found))
    return [
        {
            **plain(each),
            "work_pool_name": pool.name if (pool := named.get(each.work_pool_id)) else None,
            "status": queue_status(each.last_polled, call.now, paused=each.shows_pause).value,
        }
        for each in found
    ]


async def workers(call: Call, found: Sequence[Worker]) -> list[Object]:
    """Return workers with their status."""
    return [
        {
            **plain(each),
            "heartbeat_interval_seconds": int(each.heartbeat_interval_seconds),
            "status": worker_status(each.last_heartbeat_time, each.heartbeat_interval_seconds, call.now).value,
        }
        for each in found
    ]


def queues_of(pool: WorkPool) -> sa.Select[Any]:
    """Return the query for the ids of the queues of a pool."""
    return sa.select(WorkQueue.id).where(WorkQueue.work_pool_id == pool.id)


async def slots_in_use(call: Call, which: sa.ColumnElement[bool]) -> int:
    """Return the number of runs that meet a condition and hold slots of pools and queues."""
    counted = sa.select(sa.func.count()).select_from(FlowRun).where(HOLDS, which)
    async with call.database.query(counted) as connection:
        ((number,),) = await fetch(connection, counted)
    return int(number)


async def logs(call: Call, found: Sequence[Log]) -> list[Object]:
    """Return lines of logs."""
    return [line(each) for each in found]


def line(row: Log) -> Object:
    """Return a line of a log."""
    return {**plain(row), "updated": row.created}


def global_limit(row: ConcurrencyLimit, call: Call) -> Object:
    """Return a limit by its name."""
    return {**plain(row), "active_slots": int(occupied(row, call.now))}


async def automations(call: Call, found: Sequence[Automation]) -> list[Object]:
    """Return automations, without those whose triggers the client does not know."""
    return [automation(each) for each in found if is_known(each.trigger)]


PRESENTED: Final[dict[type[Row], Present]] = {
    Artifact: as_they_are,
    ArtifactCollection: as_they_are,
    Automation: automations,
    BlockType: as_they_are,
    Deployment: deployments,
    Flow: as_they_are,
    Log: logs,
    Variable: as_they_are,
    WorkPool: pools,
    WorkQueue: queues,
    Worker: workers,
}
"""The presentation of each kind of row."""
