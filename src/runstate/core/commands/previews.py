"""Dry runs of the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from runstate.core.commands.runs import find
from runstate.core.commands.schedules import MOST_DATES, UNSTARTED
from runstate.core.commands.scheduling import active_schedules, key_of, plan_schedule
from runstate.core.context import CommandContext
from runstate.core.scheduling.horizon import Horizon
from runstate.database.dialects import among
from runstate.errors import InvalidInput
from runstate.rows import DeletedDate, Deployment, DeploymentSchedule, FlowRun

MOST_SURPLUS: Final = 200
"""Maximum number of surplus runs in a preview."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A run that the scheduler would create."""

    date: datetime
    schedule: DeploymentSchedule
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Preview:
    """The runs that the scheduler would create, and the ids of those that no active schedule accounts for."""

    missing: Sequence[Missing]
    surplus: Sequence[UUID]
    idle: str | None
    """The reason for which it would create none."""


async def preview(context: CommandContext, deployment_id: UUID, until: datetime | None) -> Preview | None:
    """Return what a pass of the scheduler would do for a deployment; None if the deployment is unknown."""
    deployment = await find(context, Deployment, deployment_id)
    if deployment is None:
        return None
    schedules = [] if deployment.paused else await active_schedules(context, deployment.id)
    missing = await _missing(context, deployment, schedules, until)
    idle = None if missing else _idle(deployment, schedules)
    return Preview(missing, await _surplus(context, deployment, schedules), idle)


def _idle(deployment: Deployment, schedules: Sequence[DeploymentSchedule]) -> str:
    if deployment.paused:
        return "The deployment is paused."
    return "Its schedules have enough runs ahead." if schedules else "It has no active schedule."


async def _missing(
    context: CommandContext,
    deployment: Deployment,
    schedules: Sequence[DeploymentSchedule],
    until: datetime | None,
) -> list[Missing]:
    now = context.clock()
    horizon = context.horizon if until is None else _until(context.horizon, now, until)
    found = list[Missing]()
    for schedule in schedules:
        plan = await plan_schedule(context.calendar, schedule, now, horizon)
        parameters = deployment.parameters | schedule.parameters
        found += [Missing(date, schedule, parameters) for date in plan.dates]
    keys = {key_of(each.schedule.id, each.date): each for each in found}
    existing = sa.select(FlowRun.idempotency_key).where(
        FlowRun.flow_id == deployment.flow_id, among(FlowRun.idempotency_key, sorted(keys))
    )
    deleted = sa.select(DeletedDate.schedule_id, DeletedDate.date).where(
        among(DeletedDate.schedule_id, [each.id for each in schedules])
    )
    async with context.database.read() as connection:
        taken = set((await connection.execute(existing)).scalars())
        taken |= {key_of(*each) for each in await connection.execute(deleted)}
    return sorted((each for key, each in keys.items() if key not in taken), key=lambda each: each.date)


def _until(horizon: Horizon, now: datetime, until: datetime) -> Horizon:
    return replace(horizon, max_time=min(until - now, horizon.max_time))


async def _surplus(
    context: CommandContext, deployment: Deployment, schedules: Sequence[DeploymentSchedule]
) -> list[UUID]:
    """Return the unstarted runs that the active schedules do not have."""
    asked = sa.select(FlowRun.id, FlowRun.deployment_schedule_id, FlowRun.expected_start_time)
    mine = asked.where(FlowRun.deployment_id == deployment.id, UNSTARTED).order_by(FlowRun.expected_start_time)
    async with context.database.read() as connection:
        runs = (await connection.execute(mine.limit(MOST_DATES))).all()
    wanted = set[tuple[UUID, datetime]]()
    for schedule in schedules:
        dates = [date for _, of, date in runs if of == schedule.id and date]
        wanted |= {(schedule.id, date) for date in await _dates(context, schedule, dates)}
    return [run for run, schedule, date in runs if (schedule, date) not in wanted][:MOST_SURPLUS]


async def _dates(
    context: CommandContext, schedule: DeploymentSchedule, among_these: Sequence[datetime]
) -> Sequence[datetime]:
    """Return the dates of a schedule from the first to the last of some dates; these, if it cannot be evaluated."""
    if not among_these:
        return ()
    try:
        found = await context.calendar.dates(
            schedule.schedule, (), among_these[0], until=among_these[-1], first=MOST_DATES
        )
    except InvalidInput:
        return among_these
    return [each.date for each in found.dates]
