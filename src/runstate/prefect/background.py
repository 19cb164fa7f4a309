"""Background tasks: scheduled task runs that are offered to one process at a time, and scheduled again if it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Recorded, RecordState
from runstate.core.states import State, scheduled
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.documents.access import SERVICE
from runstate.documents.states import StateType
from runstate.prefect import presentation
from runstate.prefect.presentation import Object
from runstate.rows import TaskRun, TaskRunState

ACTOR: Final = f"{SERVICE}background-tasks"
OFFERED: Final = "Offered"
"""Name of the state of a task run that a process was offered and has not begun."""
SCHEDULED: Final = "Scheduled"
PATIENCE: Final = timedelta(seconds=30)
"""Time after which a task run is offered again, if the server that offered it was killed."""
AT_ONCE: Final = 20

Offer = tuple[TaskRun, TaskRunState]


async def waiting(batcher: Batcher, keys: Sequence[str], now: datetime) -> list[Offer]:
    """Return task runs of tasks that are due and that no process was offered, with their states, oldest first."""
    runs, states = list(table_of(TaskRun).columns), list(table_of(TaskRunState).columns)
    asked = (
        sa.select(*(each.label(f"run_{each.key}") for each in runs), *states)
        .join(TaskRunState, TaskRunState.id == TaskRun.state_id)
        .where(_is_waiting(now), among(TaskRun.task_key, sorted(keys)))
        .order_by(TaskRun.expected_start_time, TaskRun.id)
        # Few at once, because other processes take some of them meanwhile.
        .limit(AT_ONCE)
    )
    async with batcher.database.read() as connection:
        found = (await connection.execute(asked)).all()
    offers = [(_row(TaskRun, runs, each[: len(runs)]), _row(TaskRunState, states, each[len(runs) :])) for each in found]
    # Others are scheduled by their flow, such as those that await a retry.
    return [(run, state) for run, state in offers if state.details.deferred]


def _is_waiting(now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that a task run is due, or was offered by a server that was killed."""
    is_due = (TaskRun.state_type == StateType.SCHEDULED) & (TaskRun.next_scheduled_start_time <= now)
    is_lost = (TaskRun.state_type == StateType.PENDING) & (TaskRun.updated < now - PATIENCE)
    return (is_due & (TaskRun.state_name == SCHEDULED)) | (is_lost & (TaskRun.state_name == OFFERED))


async def offer(batcher: Batcher, run: TaskRun, state: TaskRunState, now: datetime) -> tuple[Object, State] | None:
    """Take a task run for one process. Return it as it was scheduled, and its new state; None if another one has it."""
    # A recorded state, because no rule may refuse it; `replaces` makes sure that one process gets the run.
    offered = _state(batcher.new_id(), StateType.PENDING, OFFERED, state)
    if not await _entered(batcher, run, offered, state.id):
        return None
    # The client reads the parameters of the task from the state in which it was scheduled.
    shown = presentation.task_run(run, state, now)
    due = state.details.scheduled_time or state.timestamp
    details = {**shown["state"]["state_details"], "scheduled_time": due}
    before = shown["state"] | {"type": "SCHEDULED", "name": SCHEDULED, "state_details": details}
    return {**shown, "state_type": "SCHEDULED", "state_name": SCHEDULED, "state": before}, offered


async def schedule_again(batcher: Batcher, run: TaskRun, offered: State) -> None:
    """Schedule a task run again, unless it has been begun."""
    assert offered.timestamp  # noqa: S101 it was entered
    again = scheduled(offered.timestamp, details=offered.details, id=batcher.new_id(), timestamp=offered.timestamp)
    await _entered(batcher, run, again, offered.id)


def _state(id: UUID, type: StateType, name: str, before: TaskRunState) -> State:
    # At the time of the state before it: the clock of the process that begins the run may be behind.
    return State(type=type, name=name, details=before.details, id=id, timestamp=before.timestamp)


async def _entered(batcher: Batcher, run: TaskRun, state: State, replaces: UUID | None) -> bool:
    """Enter a state if the run is still in the one before; return whether it was."""
    (outcome,) = await batcher.submit([RecordState(run=run, state=state, columns={}, replaces=replaces, actor=ACTOR)])
    if isinstance(outcome, Exception):
        raise outcome
    return isinstance(outcome, Recorded) and outcome.written


def _row(row: Any, columns: Sequence[Any], values: Sequence[Any]) -> Any:
    return row.of({str(column.key): value for column, value in zip(columns, values, strict=True)})
