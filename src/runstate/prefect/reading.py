"""Statements that read rows as JSON objects of the client: by id, or as pages with offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from runstate.database.bulk import table_of
from runstate.database.driver import fetch
from runstate.errors import NotFound
from runstate.prefect import presentation
from runstate.prefect.endpoint import Call
from runstate.prefect.presentation import Object, Pool
from runstate.rows import Base, Flow, FlowRun, FlowRunState, TaskRun, TaskRunState, WorkPool, WorkQueue

B = TypeVar("B", bound=Base)
Condition = sa.ColumnElement[bool]
Order = Sequence[Any]


def _columns(row: type[Base], *without: str) -> list[sa.ColumnElement[Any]]:
    return [column for column in table_of(row).columns if column.key not in without]


def _row(row: type[B], columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Any]) -> B:
    return row.of({str(column.key): value for column, value in zip(columns, values, strict=True)})


FLOW = _columns(Flow)
FLOW_RUN = _columns(FlowRun)
FLOW_RUN_STATE = _columns(FlowRunState)
TASK_RUN = _columns(TaskRun)
TASK_RUN_STATE = _columns(TaskRunState)


async def flow_runs(
    call: Call, where: Condition, order: Order = (), limit: int | None = None, offset: int = 0
) -> list[Object]:
    """Return the flow runs that meet a condition, each with its state and its work pool."""
    asked = (
        _labelled(FLOW_RUN, FLOW_RUN_STATE, [WorkPool.id, WorkPool.name])
        .select_from(FlowRun)
        .outerjoin(FlowRunState, FlowRunState.id == FlowRun.state_id)
        .outerjoin(WorkQueue, WorkQueue.id == FlowRun.work_queue_id)
        .outerjoin(WorkPool, WorkPool.id == WorkQueue.work_pool_id)
        .where(where)
    )
    found = await _page(call, asked, order, limit, offset)
    return [
        presentation.flow_run(_row(FlowRun, FLOW_RUN, run), _state(FlowRunState, state), call.now, Pool(*pool))
        for run, state, pool in _parted(found, len(FLOW_RUN), len(FLOW_RUN_STATE))
    ]


async def task_runs(
    call: Call, where: Condition, order: Order = (), limit: int | None = None, offset: int = 0
) -> list[Object]:
    """Return the task runs that meet a condition, each with its state."""
    asked = (
        _labelled(TASK_RUN, TASK_RUN_STATE)
        .select_from(TaskRun)
        .outerjoin(TaskRunState, TaskRunState.id == TaskRun.state_id)
        .where(where)
    )
    found = await _page(call, asked, order, limit, offset)
    return [
        presentation.task_run(_row(TaskRun, TASK_RUN, run), _state(TaskRunState, state), call.now)
        for run, state, _ in _parted(found, len(TASK_RUN), len(TASK_RUN_STATE))
    ]


async def flows(
    call: Call, where: Condition, order: Order = (), limit: int | None = None, offset: int = 0
) -> list[Object]:
    """Return the flows that meet a condition."""
    asked = sa.select(*FLOW).where(where)
    return [presentation.flow(_row(Flow, FLOW, each)) for each in await _page(call, asked, order, limit, offset)]


async def states(call: Call, row: type[FlowRunState | TaskRunState], where: Condition) -> list[Object]:
    """Return the states that meet a condition in the order of their times."""
    columns = _columns(row)
    found = await _page(call, sa.select(*columns).where(where), (row.timestamp, row.version), None, 0)
    return [presentation.state(_row(row, columns, each)) for each in found]


def only(found: list[Object], what: str, name: UUID | str) -> Object:
    """Return the only object of a list. Raise NotFound if it is empty."""
    if not found:
        raise NotFound(message=f"No {what} has the id or name `{name}`.")
    return found[0]


async def flow_run(call: Call, id: UUID) -> Object:
    """Return the flow run with an id. Raise NotFound if it is unknown."""
    return only(await flow_runs(call, FlowRun.id == id), "flow run", id)


async def task_run(call: Call, id: UUID) -> Object:
    """Return the task run with an id. Raise NotFound if it is unknown."""
    return only(await task_runs(call, TaskRun.id == id), "task run", id)


async def _page(
    call: Call, asked: sa.Select[Any], order: Order, limit: int | None, offset: int
) -> Sequence[Sequence[Any]]:
    statement = asked.order_by(*order).limit(limit).offset(offset or None)
    # What was just written is read without waiting for queries: lists have a limit.
    reading = call.database.read() if limit is None else call.database.query(statement)
    async with reading as connection:
        return await fetch(connection, statement)


def _labelled(*parts: Sequence[Any]) -> sa.Select[Any]:
    """Return a selection of columns of several tables, whose names may be equal."""
    return sa.select(*(column.label(f"{place}_{column.key}") for place, part in enumerate(parts) for column in part))


def _parted(found: Sequence[Any], *sizes: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the values of each row by table."""
    first, second = sizes
    for values in found:
        yield values[:first], values[first : first + second], values[first + second :]


def _state(row: type[Any], values: Sequence[Any]) -> Any:
    """Return the state of a run; None if the outer join found none."""
    return _row(row, _columns(row), values) if values[0] is not None else None
