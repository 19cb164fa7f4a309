"""Schedules of deployments. A change deletes the runs that the schedule has created and no longer asks for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from pydantic import BeforeValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.command import command
from runstate.core.commands.crud import change, columns_of, fresh, insert, remove
from runstate.core.commands.flow_runs import delete_flow_runs
from runstate.core.commands.parameters import check_parameters
from runstate.core.commands.runs import find
from runstate.core.context import CommandContext
from runstate.database import Transaction
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.documents.base import Document, JsonObject, Name, not_null
from runstate.documents.schedules import IntervalSchedule, Schedule
from runstate.documents.states import StateType
from runstate.errors import InvalidInput, NotFound
from runstate.rows import Deployment, DeploymentSchedule, FlowRun
from runstate.rows.documents import update_document
from runstate.rows.schedules import MaxScheduledRuns

SCHEDULED_TAG: Final = "auto-scheduled"
MOST_DATES: Final = 1000
"""Dates of a changed schedule whose runs are kept."""
UNSTARTED: Final = (
    FlowRun.auto_scheduled
    & (FlowRun.state_type == StateType.SCHEDULED)
    & (FlowRun.run_count == 0)
    # Such a run was claimed and goes back for lack of a slot: a change of its schedule must not lose it.
    & (FlowRun.state_name != "AwaitingConcurrencySlot")
)
"""Condition on the runs of schedules that have not started."""


class ScheduleFields(Document):
    """A schedule of a deployment."""

    schedule: Schedule = Field(description="Rule by which runs are created.")
    active: bool | None = Field(
        default=None,
        description="False to create no runs. Default: true for a new schedule, unchanged for a matched one.",
    )
    max_scheduled_runs: MaxScheduledRuns | None = Field(
        default=None, description="Maximum number of unstarted future runs, 1 to 50; default: as the settings say."
    )
    parameters: JsonObject | None = Field(
        default=None,
        description="Parameters of its runs; default {}. They must conform to the deployment's parameterSchema if that "
        "is enforced.",
    )
    replaces: Name | None = Field(
        default=None, description="Only in setDeploymentSchedules: slug of the existing schedule that this one renames."
    )
    slug: Name | None = Field(default=None, description="Name, unique within the deployment.")


Schedules = Annotated[list[ScheduleFields], Field(max_length=200)]
SCHEDULES: Final = (
    Annotated[Schedules, BeforeValidator(not_null)],
    Field(default=None, description="All its schedules, as in setDeploymentSchedules; omitted: unchanged."),
)


class CreateDeploymentSchedule(Document):
    """A new schedule of a deployment."""

    deployment_id: UUID = Field(description="Id of the deployment.")
    schedule: ScheduleFields = Field(description="The schedule.")


class SetDeploymentSchedules(Document):
    """All schedules of a deployment."""

    deployment_id: UUID = Field(description="Id of the deployment.")
    schedules: Schedules = Field(description="The schedules; an empty list deletes all.")


UpdateDeploymentSchedule = update_document(DeploymentSchedule)


class Planned(NamedTuple):
    """A checked schedule with its next dates."""

    fields: ScheduleFields
    dates: frozenset[datetime]


class ScheduleChange(NamedTuple):
    """A changed schedule, and the number of its runs that were deleted."""

    row: DeploymentSchedule
    taken_back: int


class SchedulesSet(NamedTuple):
    """Numbers of schedules that were created, deleted and kept, and of runs that were deleted."""

    created: int = 0
    deleted: int = 0
    kept: int = 0
    taken_back: int = 0


async def plan(
    context: CommandContext,
    items: Sequence[ScheduleFields],
    path: tuple[str, ...],
    deployment: Any,
    deployment_id: UUID | None = None,
) -> list[Planned]:
    """Check schedules and compute their next dates, before a transaction. `path` is where the input has the list.

    Only a schedule whose rule changes needs its dates. If another client changes it meanwhile, its runs are deleted and
    created again.
    """
    _check_slugs([each.slug for each in items], path)
    left, planned = await _schedules_of(context, deployment_id) if deployment_id else [], []
    for place, fields in enumerate(items):
        await check_fields(context, fields, (*path, str(place)), deployment)
        row = _match(fields, left)
        changes = row is not None and not _is_same(fields.schedule, row.schedule)
        at = (*path, str(place), "schedule")
        planned.append(Planned(fields, await _next_dates(context, fields.schedule, at) if changes else frozenset()))
    return planned


async def _schedules_of(context: CommandContext, deployment_id: UUID) -> list[DeploymentSchedule]:
    async with context.database.read() as connection:
        return await _rows(connection, _of_deployment(deployment_id))


def _of_deployment(deployment_id: UUID) -> sa.Select[Any]:
    table = table_of(DeploymentSchedule)
    return sa.select(table).where(table.c.deployment_id == deployment_id).order_by(table.c.id)


async def _rows(connection: AsyncConnection, asked: sa.Select[Any]) -> list[DeploymentSchedule]:
    return [DeploymentSchedule.of(row._mapping) for row in await connection.execute(asked)]  # noqa: SLF001


async def check_fields(context: CommandContext, fields: Any, path: tuple[str, ...], deployment: Any) -> None:
    """Raise InvalidInput if the schedule is invalid or its parameters do not conform to the deployment's schema."""
    # Checked before the transaction: the process that computes dates may take a second.
    if getattr(fields, "schedule", None):
        await context.calendar.check(fields.schedule, (*path, "schedule"), context.clock())
    if fields.parameters and deployment.enforce_parameter_schema:
        merged = deployment.parameters | fields.parameters
        await check_parameters(context, deployment.parameter_schema, merged, (*path, "parameters"), complete=False)


def _check_slugs(slugs: Sequence[str | None], path: tuple[str, ...]) -> None:
    seen = set[str]()
    for place, slug in enumerate(slugs):
        if slug is not None and slug in seen:
            raise InvalidInput(f"The slug `{slug}` occurs twice.", (*path, str(place), "slug"))
        seen |= {slug} if slug else set()


async def _next_dates(context: CommandContext, schedule: Schedule, path: tuple[str, ...]) -> frozenset[datetime]:
    found = await context.calendar.dates(schedule, path, context.clock(), first=MOST_DATES)
    return frozenset(each.date for each in found.dates)


@command(DeploymentSchedule)
async def create_schedule(context: CommandContext, document: Any) -> DeploymentSchedule:
    """Add a schedule to a deployment. The document has the columns of the row."""
    async with context.database.write() as transaction:
        paused = await _is_paused(transaction, document.deployment_id)
        columns = _columns(document) | {"deployment_id": document.deployment_id}
        columns |= _passes(columns.get("active", True), paused, context.clock())
        return await insert(transaction.connection, DeploymentSchedule, fresh(context) | columns)


class _NewSchedule(ScheduleFields):
    """The fields of a schedule and its deployment: its constraints are those of the row."""

    deployment_id: UUID


async def create_checked(context: CommandContext, document: CreateDeploymentSchedule) -> DeploymentSchedule:
    """Check a schedule and add it to its deployment."""
    deployment = await find(context, Deployment, document.deployment_id)
    if deployment is None:
        raise NotFound(document.deployment_id)
    await check_fields(context, document.schedule, ("schedule",), deployment)
    given = {name: getattr(document.schedule, name) for name in document.schedule.model_fields_set}
    return await create_schedule(context, _NewSchedule(deployment_id=deployment.id, **given))


@command(DeploymentSchedule)
async def update_schedule(context: CommandContext, document: Any) -> ScheduleChange:
    """Update the given fields of a schedule, and delete its future runs that have not started and no longer match."""
    before = await find(context, DeploymentSchedule, document.id)
    deployment = before and await find(context, Deployment, before.deployment_id)
    if before is None or deployment is None:
        raise NotFound(document.id)
    await check_fields(context, document, (), deployment)
    columns = columns_of(document)
    dates = await _next_dates(context, document.schedule, ("schedule",)) if "schedule" in columns else None
    async with context.database.write() as transaction:
        paused = await _is_paused(transaction, before.deployment_id)
        row = await _locked(transaction, document.id)
        if not columns:
            return ScheduleChange(row, 0)
        return await _change(context, transaction, row, columns, dates, paused=paused)


async def _change(
    context: CommandContext,
    transaction: Transaction,
    row: DeploymentSchedule,
    columns: dict[str, Any],
    dates: Collection[datetime] | None,
    *,
    paused: bool,
) -> ScheduleChange:
    """Update a locked schedule; `dates` are those of its new rule, None if the rule stays."""
    now = context.clock()
    active = columns.get("active", row.active)
    # The new revision makes the scheduler drop a pass that it began with the former rule.
    written = columns | {"revision": row.revision + 1} | _passes(active, paused, now)
    which = DeploymentSchedule.id == row.id
    changed = await change(transaction.connection, DeploymentSchedule, {"id": row.id}, written, now)
    assert changed is not None  # noqa: S101 it is locked
    # An inactive schedule keeps no run; None means that the rule, and so every date, stays.
    keep = frozenset[datetime]() if not active else dates
    most = changed.max_scheduled_runs if changed.max_scheduled_runs != row.max_scheduled_runs else None
    taken = await _take_back(transaction, changed, keep, most, now)
    if changed.parameters != row.parameters:
        await _follow(transaction, changed.deployment_id, which, now)
    return ScheduleChange(changed, taken)


async def _take_back(
    transaction: Transaction,
    schedule: DeploymentSchedule,
    keep: Collection[datetime] | None,
    most: int | None,
    now: datetime,
) -> int:
    """Delete the future runs of a schedule that have not started, except those at some dates, and at most so many."""
    if keep is None and most is None:
        return 0
    mine = (FlowRun.deployment_schedule_id == schedule.id) & UNSTARTED & (FlowRun.next_scheduled_start_time > now)
    asked = sa.select(FlowRun.id, FlowRun.expected_start_time).where(mine)
    found = (await transaction.connection.execute(asked.order_by(FlowRun.expected_start_time, FlowRun.id))).all()
    kept = {run for run, _ in [each for each in found if keep is None or each[1] in keep][:most]}
    ids = [run for run, _ in found if run not in kept]
    # The condition again: a run may have started since it was read.
    return len(await delete_flow_runs(transaction, among(FlowRun.id, sorted(ids)) & UNSTARTED, now)) if ids else 0


async def update_runs(transaction: Transaction, deployment_id: UUID, now: datetime) -> None:
    """Update the runs of schedules that have not started to the present columns of their deployment."""
    await _follow(transaction, deployment_id, DeploymentSchedule.deployment_id == deployment_id, now)
    # Runs that are being created with the former columns are not created, and planned again.
    again = _time_if(DeploymentSchedule.next_pass.is_not(None), now)
    mine = sa.update(DeploymentSchedule).where(DeploymentSchedule.deployment_id == deployment_id)
    await transaction.connection.execute(mine.values(revision=DeploymentSchedule.revision + 1, next_pass=again))


async def _follow(transaction: Transaction, deployment_id: UUID, which: sa.ColumnElement[bool], now: datetime) -> None:
    """Update the runs of some schedules of a deployment that have not started."""
    connection, table = transaction.connection, table_of(Deployment)
    deployment = (await connection.execute(sa.select(table).where(table.c.id == deployment_id))).one()
    for schedule in await connection.execute(sa.select(table_of(DeploymentSchedule)).where(which)):
        mine = (FlowRun.deployment_schedule_id == schedule.id) & UNSTARTED
        # One update for each schedule, because the parameters of a schedule go over those of the deployment.
        values = run_columns(deployment, schedule)
        await connection.execute(sa.update(FlowRun).where(mine).values(**values, updated=now))


def run_columns(deployment: Any, schedule: Any) -> dict[str, Any]:
    """Return the columns that a scheduled run has from its deployment and its schedule."""
    return {
        "parameters": deployment.parameters | schedule.parameters,
        "tags": [SCHEDULED_TAG, *(tag for tag in deployment.tags if tag != SCHEDULED_TAG)],
        "labels": deployment.labels,
        "work_queue_id": deployment.work_queue_id,
        "work_queue_name": deployment.work_queue_name,
        "deployment_version": deployment.version,
    }


@command(DeploymentSchedule)
async def delete_schedule(context: CommandContext, schedule_id: UUID) -> None:
    """Delete a schedule with all its runs that have not started."""
    before = await find(context, DeploymentSchedule, schedule_id)
    if before is None:
        raise NotFound(schedule_id)
    async with context.database.write() as transaction:
        await _is_paused(transaction, before.deployment_id)
        await _delete(transaction, await _locked(transaction, schedule_id), context.clock())


async def _delete(transaction: Transaction, schedule: DeploymentSchedule, now: datetime) -> int:
    mine = (FlowRun.deployment_schedule_id == schedule.id) & UNSTARTED
    deleted = await delete_flow_runs(transaction, mine, now)
    await remove(transaction.connection, DeploymentSchedule, schedule.id, now)
    return len(deleted)


@command(DeploymentSchedule)
async def set_schedules(context: CommandContext, document: SetDeploymentSchedules) -> SchedulesSet:
    """Replace all schedules of a deployment."""
    deployment = await find(context, Deployment, document.deployment_id)
    if deployment is None:
        raise NotFound(document.deployment_id)
    # Dates are computed before the lock of the deployment is taken.
    planned = await plan(context, document.schedules, ("schedules",), deployment, deployment.id)
    async with context.database.write() as transaction:
        locked = sa.select(Deployment.paused).where(Deployment.id == deployment.id).with_for_update()
        paused = (await transaction.connection.execute(locked)).scalar()
        if paused is None:
            raise NotFound(deployment.id)
        return await replace_schedules(context, transaction, deployment.id, planned, paused=paused)


async def replace_schedules(
    context: CommandContext,
    transaction: Transaction,
    deployment_id: UUID,
    planned: Sequence[Planned],
    *,
    paused: bool,
    new: bool = False,
) -> SchedulesSet:
    """Replace the schedules of a locked deployment; a new one has none. A matched one keeps its id and its runs."""
    connection, now = transaction.connection, context.clock()
    left = [] if new else await _rows(connection, _of_deployment(deployment_id).with_for_update())
    # Matched before anything is written: a matched schedule keeps its id, and so its runs.
    matched = [_match(each.fields, left) for each in planned]
    # Deleted first, so that their slugs are free.
    taken = sum([await _delete(transaction, each, now) for each in left])
    await _free_slugs(transaction, planned, matched, now)
    for each, row in zip(planned, matched, strict=True):
        columns = _columns(each.fields)
        if row is not None and _is_same(each.fields.schedule, row.schedule):
            # An equal rule keeps the stored anchor, on which the dates of an interval depend.
            columns["schedule"] = row.schedule
        if row is None:
            further = {"deployment_id": deployment_id} | _passes(columns.get("active", True), paused, now)
            await insert(connection, DeploymentSchedule, fresh(context) | columns | further)
        elif any(getattr(row, name) != value for name, value in columns.items()):
            dates = each.dates if columns["schedule"] != row.schedule else None
            taken += (await _change(context, transaction, row, columns, dates, paused=paused)).taken_back
    kept = sum(row is not None for row in matched)
    return SchedulesSet(len(planned) - kept, len(left), kept, taken)


def _match(fields: ScheduleFields, left: list[DeploymentSchedule]) -> DeploymentSchedule | None:
    """Remove and return the existing schedule that is meant: by slug, or an equal one if neither has a slug.

    A schedule that has been renamed already is found by its new slug.
    """
    for slug in (fields.replaces, fields.slug) if fields.replaces else (fields.slug,):
        for row in left:
            if row.slug == slug if slug else row.slug is None and _is_same(fields.schedule, row.schedule):
                left.remove(row)
                return row
    return None


def _is_same(given: Schedule, stored: Schedule) -> bool:
    """Return whether a rule is that of an existing schedule. An interval without an anchor keeps the existing one."""
    if isinstance(given, IntervalSchedule) and isinstance(stored, IntervalSchedule):
        anchored = "anchor" in given.model_fields_set
        return given == (stored if anchored else stored.model_copy(update={"anchor": given.anchor}))
    return given == stored


async def _free_slugs(
    transaction: Transaction, planned: Sequence[Planned], matched: Sequence[DeploymentSchedule | None], now: datetime
) -> None:
    """Clear the slugs that change, so that schedules can swap them."""
    renamed = [row.id for each, row in zip(planned, matched, strict=True) if row and row.slug != each.fields.slug]
    if renamed:
        cleared = sa.update(DeploymentSchedule).where(among(DeploymentSchedule.id, sorted(renamed)))
        await transaction.connection.execute(cleared.values(slug=None, updated=now))


async def set_paused(transaction: Transaction, deployment_id: UUID, now: datetime, *, paused: bool) -> int:
    """Have the scheduler skip or resume a locked deployment; return the number of runs that were deleted."""
    mine = sa.update(DeploymentSchedule).where(DeploymentSchedule.deployment_id == deployment_id)
    next_pass = sa.null() if paused else _time_if(DeploymentSchedule.active, now)
    revision = DeploymentSchedule.revision + 1
    # Dates of the time in which it was paused are not caught up.
    await transaction.connection.execute(mine.values(next_pass=next_pass, revision=revision, planned_until=now))
    if not paused:
        return 0
    return len(await delete_flow_runs(transaction, (FlowRun.deployment_id == deployment_id) & UNSTARTED, now))


async def _is_paused(transaction: Transaction, deployment_id: UUID) -> bool:
    """Return whether a deployment is paused, and lock it against a change of that. Deployments are locked first."""
    asked = sa.select(Deployment.paused).where(Deployment.id == deployment_id).with_for_update(read=True)
    paused = (await transaction.connection.execute(asked)).scalar()
    if paused is None:
        raise NotFound(deployment_id)
    return paused


async def _locked(transaction: Transaction, schedule_id: UUID) -> DeploymentSchedule:
    table = table_of(DeploymentSchedule)
    found = await transaction.connection.execute(sa.select(table).where(table.c.id == schedule_id).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise NotFound(schedule_id)
    return DeploymentSchedule.of(row._mapping)  # type: ignore[arg-type] # noqa: SLF001 the columns by name


def _columns(fields: ScheduleFields) -> dict[str, Any]:
    """Return the columns of a schedule; `active` only if it is set."""
    columns = {
        "schedule": fields.schedule,
        "max_scheduled_runs": fields.max_scheduled_runs,
        "parameters": fields.parameters or {},
        "slug": fields.slug,
    }
    return columns if fields.active is None else columns | {"active": fields.active}


def _passes(active: bool, paused: bool, now: datetime) -> dict[str, datetime | None]:  # noqa: FBT001
    """Return the columns of a new or changed schedule that say which dates are planned next."""
    return {"next_pass": now if active and not paused else None, "planned_until": now}


def _time_if(condition: Any, time: datetime) -> sa.ColumnElement[Any]:
    """Return the time of the next pass: `time` for the rows that meet a condition, null for others."""
    return sa.case((condition, sa.literal(time, DeploymentSchedule.next_pass.type)), else_=None)
