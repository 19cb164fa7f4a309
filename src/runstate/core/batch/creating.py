"""The creation of runs in a batch: insert what is missing, and skip what exists or is not asked for any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.batch.decide import references
from runstate.core.batch.requests import CreateRun, RecordState
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.database.bulk import insert_missing
from runstate.database.queries import orchestration as sql
from runstate.rows import Deployment, Flow, FlowRun, TaskRun, WorkQueue


async def create(
    connection: AsyncConnection,
    creations: Sequence[CreateRun | RecordState],
    unit: UnitOfWork,
    known: sql.Existing | None = None,
) -> None:
    """Insert new runs. Skip runs that exist already and runs that refer to unknown rows."""
    made = [each for each in creations if isinstance(each, CreateRun)]
    scheduled = {each.run.id: each for each in made if each.schedule_revision is not None}
    for runs in _waves([each.run for each in creations]):
        flow_runs = [run for run in runs if isinstance(run, FlowRun)]
        task_runs = [run for run in runs if isinstance(run, TaskRun)]
        # The locks have shown already which flow runs exist.
        there = known or await sql.existing(
            connection,
            {
                Flow: {run.flow_id for run in flow_runs},
                Deployment: {run.deployment_id for run in flow_runs if run.deployment_id},
                WorkQueue: {run.work_queue_id for run in flow_runs if run.work_queue_id},
                FlowRun: {run.flow_run_id for run in task_runs if run.flow_run_id},
                TaskRun: {run.parent_task_run_id for run in flow_runs if run.parent_task_run_id},
            },
        )
        unit.dangling |= {run.id: each for run in runs for each in references(run) if each not in there.ids}
        unit.dangling |= await _outdated(connection, [scheduled[run.id] for run in runs if run.id in scheduled])
        await _insert(connection, FlowRun, _insertable(flow_runs, unit), unit)
        await _insert(connection, TaskRun, _insertable(task_runs, unit), unit)
        await _find_existing(connection, flow_runs, task_runs, unit)
        unit.flow_run_refs |= {
            run.id: there.flow_run_refs[run.flow_run_id] for run in task_runs if run.flow_run_id in there.flow_run_refs
        }


async def _outdated(connection: AsyncConnection, creations: Sequence[CreateRun]) -> dict[UUID, UUID]:
    """Return the runs that their schedule does not ask for any more, with the id of the schedule.

    The schedule was changed or deleted since they were planned, or a client deleted the run of the date.
    """
    wanted = {
        each.run.id: (each.run.deployment_schedule_id, each.schedule_revision, each.state.details.scheduled_time)
        for each in creations
        if isinstance(each.run, FlowRun) and each.run.deployment_schedule_id and each.schedule_revision is not None
    }
    schedules = {schedule for schedule, _, _ in wanted.values()}
    present = await sql.revisions(connection, schedules)
    # Under the locks of the schedules, which deletions take, too.
    gone = await sql.deleted_dates(connection, schedules)
    return {
        run: schedule
        for run, (schedule, revision, date) in wanted.items()
        if present.get(schedule) != revision or (schedule, date) in gone
    }


def _waves(runs: Sequence[FlowRun | TaskRun]) -> Iterator[list[FlowRun | TaskRun]]:
    """Split runs, in order, before each run that refers to an earlier one of the part; usually there is one part."""
    wave, ids = list[FlowRun | TaskRun](), set[UUID]()
    for run in runs:
        if not ids.isdisjoint(references(run)):
            yield wave
            wave, ids = [], set()
        wave.append(run)
        ids.add(run.id)
    if wave:
        yield wave


def _insertable(runs: Sequence[Any], unit: UnitOfWork) -> list[Any]:
    """Return the runs whose references exist, ordered by unique key so that transactions do not deadlock."""
    possible = [run for run in runs if run.id not in unit.dangling]
    return sorted(possible, key=lambda run: [str(part) for part in unique_key(run)])


def unique_key(run: FlowRun | TaskRun) -> tuple[UUID | str | None, ...]:
    """Return the unique key of a run; the id for a flow run without an idempotency key."""
    if isinstance(run, TaskRun):
        return (run.flow_run_id, run.task_key, run.dynamic_key)
    return (run.flow_id, run.idempotency_key) if run.idempotency_key is not None else (run.id,)


async def _insert(connection: AsyncConnection, row: type[FlowRun | TaskRun], runs: list[Any], unit: UnitOfWork) -> None:
    created = await insert_missing(connection, row, [vars(run) for run in runs])
    unit.created |= created
    unit.runs |= {run.id: run for run in runs if run.id in created}


async def _find_existing(
    connection: AsyncConnection, flow_runs: list[FlowRun], task_runs: list[TaskRun], unit: UnitOfWork
) -> None:
    """Look up the runs that have the unique keys of runs that were not inserted."""
    keyed = {(run.flow_id, run.idempotency_key): run.id for run in flow_runs if run.idempotency_key is not None}
    known: dict[Any, UUID] = {}
    known |= await sql.flow_runs_by_key(connection, keyed.keys() if not unit.created.issuperset(keyed.values()) else ())
    taken = {(run.flow_run_id, run.task_key, run.dynamic_key) for run in task_runs if run.id not in unit.created}
    known |= await sql.task_runs_by_key(connection, taken)
    everything: list[FlowRun | TaskRun] = [*flow_runs, *task_runs]
    skipped = [run for run in everything if run.id not in unit.created]
    # A flow run without an idempotency key can only exist under its own id.
    unit.existing |= {run.id: known.get(unique_key(run), run.id) for run in skipped}


def mirrors(creations: Sequence[CreateRun], unit: UnitOfWork) -> set[UUID]:
    """Return the ids of the task runs that represent the subflow runs that this batch creates."""
    made = [each.run for each in creations if isinstance(each.run, FlowRun) and each.run.id in unit.created]
    return {run.parent_task_run_id for run in made if run.parent_task_run_id}
