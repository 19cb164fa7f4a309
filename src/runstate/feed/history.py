"""The history of one run: transitions from the log; pruned transitions are derived from the states of the run."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from runstate.database import Database
from runstate.documents.states import FINAL_TYPES, RunKind
from runstate.errors import InvalidInput, NotFound
from runstate.feed.log import TRANSITIONS
from runstate.feed.reader import PAGE_SIZE
from runstate.rows import FlowRun, FlowRunState, Run, TaskRun, TaskRunState, Transition
from runstate.rows.runs import STATE_TYPE

ROWS: Final[dict[RunKind, tuple[type[Run], type[FlowRunState | TaskRunState]]]] = {
    RunKind.FLOW_RUN: (FlowRun, FlowRunState),
    RunKind.TASK_RUN: (TaskRun, TaskRunState),
}


@dataclass(frozen=True, slots=True)
class RunHistoryPage:
    """Transitions of one run, in the order of their versions."""

    transitions: list[Transition]
    version: int
    """The version of the last transition; without transitions, the version after which the page was requested."""
    is_final: bool
    """Whether the run was in a final state, or deleted, at that version."""
    complete: bool = True
    """Whether there are no further transitions."""


async def run_history_page(database: Database, kind: RunKind, run_id: UUID, version: int) -> RunHistoryPage:
    """Return a page of the transitions of a run after a version.

    Raises NotFound if the run is unknown, and InvalidInput if its version is lower.
    """
    async with database.read() as connection:
        entries = await _logged(connection, run_id, version)
        if not entries or entries[0].version > version + 1:  # the log does not reach back far enough
            entries = await _from_states(connection, kind, run_id, version, before=entries) + entries
        if entries:
            return _page(entries)
        return RunHistoryPage([], version, await _is_final(connection, kind, run_id, version))


def _page(entries: list[Transition]) -> RunHistoryPage:
    complete = len(entries) <= PAGE_SIZE
    last = entries[:PAGE_SIZE][-1]
    return RunHistoryPage(entries[:PAGE_SIZE], last.version, complete and last.state_type in FINAL_TYPES, complete)


async def _is_final(connection: AsyncConnection, kind: RunKind, run_id: UUID, version: int) -> bool:
    run, _ = ROWS[kind]
    now = (await connection.execute(sa.select(run.version, run.state_type).where(run.id == run_id))).one_or_none()
    # A deleted run stays in the log until its entries expire.
    is_logged = sa.select(sa.exists().where(Transition.run_id == run_id))
    if now is None and not await connection.scalar(is_logged):
        raise NotFound(run_id)
    if now and now.version < version:
        raise InvalidInput(f"The run has only reached version {now.version}.", ("afterVersion",))
    return now is None or (now.version == version and now.state_type in FINAL_TYPES)


async def _logged(connection: AsyncConnection, run_id: UUID, version: int) -> list[Transition]:
    rows = (
        sa.select(*TRANSITIONS.columns)
        .where(Transition.run_id == run_id, Transition.version > version)
        .order_by(Transition.version)
        .limit(PAGE_SIZE + 1)
    )
    return [TRANSITIONS.entry(row) for row in await connection.execute(rows)]


async def _from_states(
    connection: AsyncConnection, kind: RunKind, run_id: UUID, version: int, before: list[Transition]
) -> list[Transition]:
    """Return the transitions before those in the log, with the current tags and references of the run."""
    entries = _entries_of_states(kind).subquery()
    # The conditions are outside of the subquery: inside, they would hide the previous state from lag().
    rows = sa.select(entries).where(entries.c.run_id == run_id, entries.c.version > version)
    if before:
        rows = rows.where(entries.c.version < before[0].version)
    rows = rows.order_by(entries.c.version).limit(PAGE_SIZE + 1)
    # The version alone orders these transitions.
    return [Transition.of({"seq": 0, "run_kind": kind, **row}) for row in (await connection.execute(rows)).mappings()]


def _entries_of_states(kind: RunKind) -> sa.Select[Any]:
    run, state = ROWS[kind]
    columns: list[Any] = [
        state.run_id,
        state.id.label("state_id"),
        FlowRun.id.label("flow_run_id"),
        FlowRun.flow_id,
        FlowRun.deployment_id,
        state.version,
        state.timestamp.label("occurred"),
        _previous(state, state.type, STATE_TYPE).label("previous_state_type"),
        _previous(state, state.name, sa.Text()).label("previous_state_name"),
        state.type.label("state_type"),
        state.name.label("state_name"),
        state.message,
        run.tags,
    ]
    entries = sa.select(*columns).select_from(state).join(run, run.id == state.run_id)
    return entries if run is FlowRun else entries.outerjoin(FlowRun, FlowRun.id == TaskRun.flow_run_id)


def _previous(state: type[FlowRunState | TaskRunState], column: Any, kind: TypeEngine[Any]) -> sa.Over[Any]:
    return sa.func.lag(column, type_=kind).over(partition_by=state.run_id, order_by=state.version)
