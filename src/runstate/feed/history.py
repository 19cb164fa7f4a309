"""What has happened to one run: from the log, and what is no longer there from the states."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from runstate.database import Database
from runstate.documents.states import FINAL_TYPES, RunKind
from runstate.errors import InvalidInput, NotFound
from runstate.feed.reader import PAGE, TOLD, entry_of
from runstate.feed.visibility import log
from runstate.rows import FlowRun, FlowRunState, Run, TaskRun, TaskRunState, Transition
from runstate.rows.runs import STATE_TYPE

ROWS: Final[dict[RunKind, tuple[type[Run], type[FlowRunState | TaskRunState]]]] = {
    RunKind.FLOW_RUN: (FlowRun, FlowRunState),
    RunKind.TASK_RUN: (TaskRun, TaskRunState),
}


@dataclass(frozen=True, slots=True)
class RunHistoryPage:
    """Some transitions of one run, in the order of their versions."""

    transitions: list[Transition]
    version: int
    """The last of them, or the one that was asked for."""
    over: bool
    """Whether the run had ended by then."""
    complete: bool = True
    """Whether there were no more."""


async def run_history_page(database: Database, kind: RunKind, run_id: UUID, version: int) -> RunHistoryPage:
    """The transitions of a run after a version, as many as are read at once.

    NotFound: nothing is known of the run. InvalidInput: it has not come as far as that version.
    """
    async with database.read() as connection:
        entries = await _logged(connection, run_id, version)
        if not entries or entries[0].version > version + 1:
            entries = await _from_states(connection, kind, run_id, version, before=entries) + entries
        if entries:
            return _past(entries)
        return RunHistoryPage([], version, over=await _is_over(connection, kind, run_id, version))


def _past(entries: list[Transition]) -> RunHistoryPage:
    complete = len(entries) <= PAGE
    last = entries[:PAGE][-1]
    return RunHistoryPage(entries[:PAGE], last.version, complete and last.state_type in FINAL_TYPES, complete)


async def _is_over(connection: AsyncConnection, kind: RunKind, run_id: UUID, version: int) -> bool:
    run, _ = ROWS[kind]
    now = (await connection.execute(sa.select(run.version, run.state_type).where(run.id == run_id))).one_or_none()
    if now is None and not await connection.scalar(sa.select(sa.exists().where(log.c.run_id == run_id))):
        raise NotFound(run_id)
    if now and now.version < version:
        raise InvalidInput(f"The run is at version {now.version} now.", ("afterVersion",))
    return now is None or (now.version == version and now.state_type in FINAL_TYPES)


async def _logged(connection: AsyncConnection, run_id: UUID, version: int) -> list[Transition]:
    rows = (
        sa.select(*TOLD).where(log.c.run_id == run_id, log.c.version > version).order_by(log.c.version).limit(PAGE + 1)
    )
    return [entry_of(row) for row in await connection.execute(rows)]


async def _from_states(
    connection: AsyncConnection, kind: RunKind, run_id: UUID, version: int, before: list[Transition]
) -> list[Transition]:
    """What the log no longer says, up to where it begins; tags and references are those that the run has now."""
    told = _told_by_states(kind).subquery()
    rows = sa.select(told).where(told.c.run_id == run_id, told.c.version > version)
    if before:
        rows = rows.where(told.c.version < before[0].version)
    rows = rows.order_by(told.c.version).limit(PAGE + 1)
    return [Transition.of({"seq": 0, "run_kind": kind, **row}) for row in (await connection.execute(rows)).mappings()]


def _told_by_states(kind: RunKind) -> sa.Select[Any]:
    run, state = ROWS[kind]
    columns: list[Any] = [
        state.run_id,
        state.id.label("state_id"),
        FlowRun.id.label("flow_run_id"),
        FlowRun.flow_id,
        FlowRun.deployment_id,
        state.version,
        state.timestamp.label("occurred"),
        _earlier(state, state.type, STATE_TYPE).label("previous_state_type"),
        _earlier(state, state.name, sa.Text()).label("previous_state_name"),
        state.type.label("state_type"),
        state.name.label("state_name"),
        state.message,
        run.tags,
    ]
    told = sa.select(*columns).select_from(state).join(run, run.id == state.run_id)
    return told if run is FlowRun else told.outerjoin(FlowRun, FlowRun.id == TaskRun.flow_run_id)


def _earlier(state: type[FlowRunState | TaskRunState], column: Any, kind: TypeEngine[Any]) -> sa.Over[Any]:
    return sa.func.lag(column, type_=kind).over(partition_by=state.run_id, order_by=state.version)
