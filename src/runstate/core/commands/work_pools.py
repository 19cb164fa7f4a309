"""Work pools and their queues. The lock of a pool guards the priorities of its queues."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.command import command
from runstate.core.commands.crud import Written, change, columns_of, fresh, insert, remove
from runstate.core.commands.statuses import tell_statuses
from runstate.core.context import CommandContext
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.queries.claimable import Claimable, claimable
from runstate.documents.base import Document
from runstate.documents.pools import ClaimableFlowRuns
from runstate.errors import InvalidInput, NotFound
from runstate.feed import WORK
from runstate.rows import Deployment, FlowRun, RunClaim, Worker, WorkPool, WorkQueue
from runstate.rows.documents import create_document, update_document
from runstate.rows.pools import LOWEST_PRIORITY, Priority

PLACEHOLDER: Final = re.compile(r"\{\{([^{}]*)\}\}")  # takes linear time, whatever the text
DEFAULT_QUEUE: Final = "default"
FARTHEST: Final = timedelta(hours=1)
"""Longest time from now until a run is due that workers ask for."""
TEMPLATE: Final = ("baseJobTemplate",)
RUNS_AT_ONCE: Final = 1000
"""Runs that one transaction changes when their queue is renamed or deleted."""

CreateWorkPool = create_document(WorkPool)
UpdateWorkPool = update_document(WorkPool)
CreateWorkQueue = create_document(
    WorkQueue,
    priority=(
        Priority | None,
        Field(
            default=None, description="At least 1; other queues move if it is taken. Default: the lowest free number."
        ),
    ),
)
UpdateWorkQueue = update_document(WorkQueue)


class WorkQueuePriority(Document):
    """Priority of a queue."""

    priority: Priority = Field(description="At least 1.")
    work_queue_id: UUID = Field(description="Id of the queue.")


class SetWorkQueuePriorities(Document):
    """Priorities of queues of a pool."""

    work_pool_id: UUID = Field(description="Id of the pool.")
    priorities: Annotated[list[WorkQueuePriority], Field(max_length=1000)] = Field(
        description="Each queue and each priority at most once."
    )


async def check_template(context: CommandContext, template: Mapping[str, Any]) -> None:
    """Raise InvalidInput unless a base job template is empty or complete, with a valid schema and valid defaults."""
    if not template:
        return
    configuration, variables = template.get("job_configuration"), template.get("variables")
    if configuration is None or not isinstance(variables, dict):
        raise InvalidInput("The template needs both `job_configuration` and `variables`, or neither.", TEMPLATE)
    properties = variables.get("properties", {})
    if not isinstance(properties, dict):
        raise InvalidInput("`properties` must be an object.", (*TEMPLATE, "variables", "properties"))
    if unknown := sorted(set(_placeholders(configuration)) - properties.keys()):
        raise InvalidInput(f"The placeholder `{unknown[0]}` is not among the variables.", TEMPLATE)
    await context.json_schemas.check(variables, (*TEMPLATE, "variables"))
    defaults = {name: each["default"] for name, each in properties.items() if _has_default(each)}
    await check_job_variables(context, template, defaults, (*TEMPLATE, "variables"), complete=False)


def _has_default(schema: Any) -> bool:
    return isinstance(schema, dict) and "default" in schema


def _placeholders(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from map(str.strip, PLACEHOLDER.findall(value))
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _placeholders(each)


async def check_job_variables(
    context: CommandContext,
    template: Mapping[str, Any],
    given: dict[str, Any],
    path: tuple[str, ...],
    *,
    complete: bool,
) -> None:
    """Raise InvalidInput unless job variables conform to the variables of a template.

    Required ones may be missing unless `complete`. Null stands for the default of a variable that has one.
    """
    variables = template.get("variables")
    if not variables:
        return
    properties = variables.get("properties", {})
    values = {
        name: value for name, value in given.items() if value is not None or not _has_default(properties.get(name))
    }
    defaults = {name: each["default"] for name, each in properties.items() if complete and _has_default(each)}
    asked = variables if complete else {key: value for key, value in variables.items() if key != "required"}
    await context.json_schemas.validate(defaults | values, asked, path)


def arranged(priorities: Mapping[UUID, int], queue: UUID, priority: int) -> dict[UUID, int]:
    """Return the priorities of queues after one of them gets a priority; the others move as little as possible."""
    others = sorted((each for each in priorities.items() if each[0] != queue), key=lambda each: each[1])
    place = next((number for number, (_, taken) in enumerate(others) if taken >= priority), len(others))
    found, last = dict[UUID, int](), 0
    for key, wanted in [*others[:place], (queue, priority), *others[place:]]:
        found[key] = last = max(wanted, last + 1)
    return found


@command(WorkPool)
async def create_pool(context: CommandContext, document: Any) -> Written[WorkPool]:
    """Create a work pool with its queue `default`."""
    columns = columns_of(document)
    await check_template(context, columns.get("base_job_template") or {})
    async with context.database.write() as transaction:
        pool = await insert(transaction.connection, WorkPool, fresh(context) | columns)
        queue = {"work_pool_id": pool.id, "name": DEFAULT_QUEUE, "priority": 1, "is_default": True}
        await insert(transaction.connection, WorkQueue, fresh(context) | queue)
    return Written(pool)


@command(WorkPool)
async def update_pool(context: CommandContext, document: Any) -> WorkPool:
    """Update the given fields of a work pool."""
    columns = columns_of(document)
    await check_template(context, columns.get("base_job_template") or {})
    async with context.database.write() as transaction:
        pool = await lock_pool(transaction.connection, WorkPool.id == document.id, document.id)
        now = context.clock()
        changed = columns.get("paused", pool.paused) != pool.paused
        written = columns | ({"status_changed": now} if changed else {})
        transaction.notify(WORK)
        pool = await change(transaction.connection, WorkPool, {"id": pool.id}, written, now) or pool
        if changed:
            await tell_statuses(transaction, WorkPool, now, WorkPool.id == pool.id)
        return pool


async def lock_pool(connection: AsyncConnection, which: sa.ColumnElement[bool], name: UUID | str) -> WorkPool:
    """Return a locked pool. Raise NotFound if it is unknown."""
    found = (await connection.execute(sa.select(table_of(WorkPool)).where(which).with_for_update())).one_or_none()
    if found is None:
        raise NotFound(name) if isinstance(name, UUID) else NotFound(message=f"No work pool has the name `{name}`.")
    return WorkPool.of(found._mapping)  # type: ignore[arg-type] # noqa: SLF001 the columns by name


@command(WorkPool)
async def remove_pool(context: CommandContext, pool_id: UUID) -> bool:
    """Delete a work pool with its queues and workers unless they hold claims, and return whether it is deleted.

    Deployments and runs stay, without a queue.
    """
    async with context.database.read() as connection:
        queues = await queues_of(connection, pool_id)
    # Before the transaction that locks the pool: millions of runs take longer than claims may wait.
    await _detach_runs(context, [each.id for each in queues])
    async with context.database.write() as transaction:
        connection = transaction.connection
        # Nobody claims runs of a locked pool.
        await lock_pool(connection, WorkPool.id == pool_id, pool_id)
        workers = sa.select(Worker.id).where(Worker.work_pool_id == pool_id)
        if await connection.scalar(sa.select(RunClaim.id).where(RunClaim.worker_id.in_(workers)).limit(1)):
            return False
        # The few runs that were created meanwhile.
        await _detach(connection, [queue.id for queue in await queues_of(connection, pool_id)], context.clock())
        await remove(connection, WorkPool, pool_id, context.clock())
        return True


async def _detach_runs(context: CommandContext, queues: Sequence[UUID]) -> None:
    """Take the runs of queues that are about to be deleted from them, in batches; deployments first, that make runs."""
    async with context.database.write() as transaction:
        await _detach_from(transaction.connection, Deployment, queues, context.clock())
    for queue_id in queues:
        await _update_runs(context, queue_id, {"work_queue_id": None, "work_queue_name": None})


async def _update_runs(context: CommandContext, queue_id: UUID, values: dict[str, Any]) -> None:
    """Update the runs of a queue, some in each transaction, in order of their ids."""
    mine = sa.select(FlowRun.id).where(FlowRun.work_queue_id == queue_id).order_by(FlowRun.id).limit(RUNS_AT_ONCE)
    some, number = mine, RUNS_AT_ONCE
    while number == RUNS_AT_ONCE:
        async with context.database.write() as transaction:
            connection = transaction.connection
            # Locked in order of ids like in batches, because an UPDATE locks rows in any order.
            locked = list((await connection.execute(some.with_for_update(key_share=True))).scalars())
            changed = sa.update(FlowRun).where(among(FlowRun.id, locked)).values(**values, updated=context.clock())
            await connection.execute(changed)
        number, some = len(locked), mine.where(FlowRun.id > locked[-1]) if locked else mine


async def _detach(connection: AsyncConnection, queues: Sequence[UUID], now: datetime) -> None:
    for row in (Deployment, FlowRun):
        await _detach_from(connection, row, queues, now)


async def _detach_from(
    connection: AsyncConnection, row: type[Deployment | FlowRun], queues: Sequence[UUID], now: datetime
) -> None:
    detached = sa.update(row).where(among(row.work_queue_id, sorted(queues)))
    await connection.execute(detached.values(work_queue_id=None, work_queue_name=None, updated=now))


async def queues_of(connection: AsyncConnection, pool_id: UUID) -> list[WorkQueue]:
    """Return the queues of a pool by priority."""
    table = table_of(WorkQueue)
    asked = sa.select(table).where(table.c.work_pool_id == pool_id).order_by(table.c.priority, table.c.id)
    return [WorkQueue.of(row._mapping) for row in await connection.execute(asked)]  # type: ignore[arg-type] # noqa: SLF001


@command(WorkQueue)
async def create_queue(context: CommandContext, document: Any) -> Written[WorkQueue]:
    """Create a work queue in a pool."""
    async with context.database.write() as transaction:
        # Priorities are unique within the pool, so its queues change one at a time.
        await lock_pool(transaction.connection, WorkPool.id == document.work_pool_id, document.work_pool_id)
        columns = columns_of(document, without=("priority",))
        return Written(await add_queue(context, transaction.connection, columns, document.priority))


async def add_queue(
    context: CommandContext, connection: AsyncConnection, columns: Mapping[str, Any], priority: int | None = None
) -> WorkQueue:
    """Insert a queue into a locked pool, by default with the lowest free priority."""
    queues = await queues_of(connection, columns["work_pool_id"])
    taken = {each.id: each.priority for each in queues}
    free = next(number for number in range(1, len(taken) + 2) if number not in taken.values())
    new = fresh(context)
    await _arrange(connection, queues, arranged(taken, new["id"], priority or free), context.clock())
    return await insert(connection, WorkQueue, new | dict(columns) | {"priority": priority or free})


async def _arrange(
    connection: AsyncConnection, queues: Sequence[WorkQueue], priorities: Mapping[UUID, int], now: datetime
) -> None:
    if max(priorities.values()) > LOWEST_PRIORITY:
        raise InvalidInput(f"The priority of another queue would be greater than {LOWEST_PRIORITY}.", ["priority"])
    for queue in queues:
        if priorities[queue.id] != queue.priority:
            await change(connection, WorkQueue, {"id": queue.id}, {"priority": priorities[queue.id]}, now)


async def update_queue(context: CommandContext, document: Any) -> WorkQueue:
    """Update the given fields of a work queue. Its runs get a new name afterwards, in batches."""
    queue = await _update_queue(context, document)
    if "name" in document.model_fields_set:
        await _update_runs(context, queue.id, {"work_queue_name": queue.name})
    return queue


@command(WorkQueue)
async def _update_queue(context: CommandContext, document: Any) -> WorkQueue:
    async with context.database.write() as transaction:
        connection, now = transaction.connection, context.clock()
        transaction.notify(WORK)
        queue = await _lock_queue(connection, document.id)
        columns = columns_of(document, without=("id", "priority"))
        if "paused" in columns:
            columns["shows_pause"] = columns["paused"]
        if document.priority is not None:
            queues = await queues_of(connection, queue.work_pool_id)
            taken = {each.id: each.priority for each in queues}
            await _arrange(connection, queues, arranged(taken, queue.id, document.priority), now)
        if "name" in columns:
            renamed = sa.update(Deployment).where(Deployment.work_queue_id == queue.id)
            await connection.execute(renamed.values(work_queue_name=document.name))
        return await change(connection, WorkQueue, {"id": queue.id}, columns, now) or queue


async def _lock_queue(connection: AsyncConnection, queue_id: UUID) -> WorkQueue:
    """Return a queue whose pool is locked."""
    asked = sa.select(WorkQueue.work_pool_id).where(WorkQueue.id == queue_id)
    pool_id = (await connection.execute(asked)).scalar()
    if pool_id is None:
        raise NotFound(queue_id)
    await lock_pool(connection, WorkPool.id == pool_id, queue_id)
    for queue in await queues_of(connection, pool_id):
        if queue.id == queue_id:
            return queue
    raise NotFound(queue_id)


async def delete_queue(context: CommandContext, queue_id: UUID) -> None:
    """Delete a work queue; deployments and runs stay, without a queue. Raise InvalidInput for a default queue."""
    async with context.database.write() as transaction:
        queue = await _lock_queue(transaction.connection, queue_id)
    if queue.is_default:
        raise InvalidInput("The default queue of a pool cannot be deleted.", ["id"])
    await _detach_runs(context, [queue_id])
    await _remove_queue(context, queue_id)


@command(WorkQueue)
async def _remove_queue(context: CommandContext, queue_id: UUID) -> None:
    async with context.database.write() as transaction:
        await _lock_queue(transaction.connection, queue_id)
        await _detach(transaction.connection, [queue_id], context.clock())
        await remove(transaction.connection, WorkQueue, queue_id, context.clock())


@command(WorkQueue)
async def set_priorities(context: CommandContext, document: SetWorkQueuePriorities) -> list[WorkQueue]:
    """Set the priorities of several queues at once; return all queues of the pool by priority."""
    wanted = {each.work_queue_id: each.priority for each in document.priorities}
    if len(wanted) < len(document.priorities) or len(set(wanted.values())) < len(wanted):
        raise InvalidInput("Each queue and each priority may occur once.", ["priorities"])
    async with context.database.write() as transaction:
        connection = transaction.connection
        await lock_pool(connection, WorkPool.id == document.work_pool_id, document.work_pool_id)
        queues = await queues_of(connection, document.work_pool_id)
        taken = {each.id: each.priority for each in queues}
        if unknown := wanted.keys() - taken.keys():
            raise NotFound(min(unknown))
        found = {key: priority for key, priority in taken.items() if key not in wanted}
        # By priority, so that a queue that was placed already is not moved by a later one.
        for key, priority in sorted(wanted.items(), key=lambda each: each[1]):
            found = arranged(found, key, priority)
        await _arrange(connection, queues, found, context.clock())
        return await queues_of(connection, document.work_pool_id)


async def find_pool(context: CommandContext, which: sa.ColumnElement[bool]) -> WorkPool | None:
    """Return the pool that meets a condition on the pool or its queues; None if it is unknown."""
    table = table_of(WorkPool)
    asked = sa.select(table).join(WorkQueue, WorkQueue.work_pool_id == table.c.id).where(which).limit(1)
    async with context.database.read() as connection:
        found = (await connection.execute(asked)).one_or_none()
    return None if found is None else WorkPool.of(found._mapping)  # type: ignore[arg-type] # noqa: SLF001


async def queue_columns(
    context: CommandContext, connection: AsyncConnection, pool: WorkPool, name: str | None
) -> dict[str, Any]:
    """Return the columns of a deployment in a queue of a pool: its default queue, or a named one, which is created."""
    locked = await lock_pool(connection, WorkPool.id == pool.id, pool.id)
    queues = await queues_of(connection, locked.id)
    found = next((each for each in queues if (each.is_default if name is None else each.name == name)), None)
    queue = found or await add_queue(context, connection, {"work_pool_id": locked.id, "name": name})
    return {"work_queue_id": queue.id, "work_queue_name": queue.name}


def check_time(before: datetime, now: datetime) -> None:
    """Raise InvalidInput for a time of due runs that is too far ahead."""
    if before > now + FARTHEST:
        raise InvalidInput("The time is more than an hour ahead.", ["dueBefore"])


async def claimable_runs(context: CommandContext, document: ClaimableFlowRuns) -> Claimable:
    """Return the due runs of a pool that can be claimed, and why others are held."""
    now = context.clock()
    before = document.due_before or now
    check_time(before, now)
    pool = await find_pool(context, WorkPool.name == document.work_pool)
    if pool is None:
        raise NotFound(message=f"No work pool has the name `{document.work_pool}`.")
    async with context.database.read() as connection:
        queues = _chosen(await queues_of(connection, pool.id), document.work_queues)
        return await claimable(connection, pool, queues, before, document.first)


def _chosen(queues: Sequence[WorkQueue], names: Sequence[str] | None) -> list[WorkQueue]:
    if names is None:
        return list(queues)
    if unknown := set(names) - {each.name for each in queues}:
        raise NotFound(message=f"The pool has no queue `{min(unknown)}`.")
    return [each for each in queues if each.name in names]
