"""Runs of schedules: which dates become runs, and their creation, each (schedule, date) once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
import structlog
from pydantic import Field

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Created, CreateRun
from runstate.core.commands.crud import new_columns
from runstate.core.commands.flow_runs import NEW_FLOW_RUN, CreateFlowRun, readable_name
from runstate.core.commands.runs import find
from runstate.core.commands.schedules import run_columns
from runstate.core.context import CommandContext
from runstate.core.scheduling.calendar import Calendar
from runstate.core.scheduling.horizon import Horizon, Plan, planned
from runstate.database.bulk import table_of
from runstate.documents.access import SERVICE
from runstate.documents.base import Document
from runstate.documents.deployments import Actor
from runstate.documents.schedules import Instant
from runstate.errors import Id, InvalidInput, NotFound
from runstate.rows import Deployment, DeploymentSchedule, FlowRun

log = structlog.get_logger(__name__)

INSERT_BATCH: Final = 500
"""Number of runs that are submitted together."""
MOST_RUNS: Final = 2000
"""Maximum number of runs in the window of a client, over all schedules of a deployment."""
MOST_MISSED: Final = 1000
"""Maximum number of missed dates that are looked at."""
FAILED: Final = timedelta(minutes=5)
"""Time until the next pass over a schedule whose dates could not be computed."""


async def plan_schedule(calendar: Calendar, schedule: DeploymentSchedule, now: datetime, horizon: Horizon) -> Plan:
    """Choose the dates of a schedule that become runs. A schedule that cannot be evaluated has none for some minutes.

    The reason can be temporary, for example a busy machine: the schedule must not end for it.
    """
    try:
        return await _plan(calendar, schedule, now, horizon)
    except InvalidInput as error:
        log.warning("a schedule has no dates", schedule=str(schedule.id), reason=error.message)
        return Plan((), now + FAILED, is_known=False)


async def _plan(calendar: Calendar, schedule: DeploymentSchedule, now: datetime, horizon: Horizon) -> Plan:
    most = min(horizon.max_runs, schedule.max_scheduled_runs or horizon.max_runs)
    limited = replace(horizon, min_runs=min(horizon.min_runs, most), max_runs=most)
    missed = await _missed(calendar, schedule, now, horizon)
    # Most schedules have few dates ahead: the others are asked twice.
    for first in (limited.min_runs + 1, most + 1):
        found = await calendar.dates(schedule.schedule, (), now, first=first)
        plan = planned([each.date for each in found.dates], now, limited)
        if plan.next_pass is not None or not found.has_more:
            break
    return plan._replace(dates=[*missed, *plan.dates])


async def _missed(calendar: Calendar, schedule: DeploymentSchedule, now: datetime, horizon: Horizon) -> list[datetime]:
    """Return the latest dates since the last pass, as far back as the horizon says."""
    # After a long absence, runs of dates that nobody waits for any more are not created.
    since = max(now - horizon.catch_up, schedule.planned_until or now)
    if since >= now:
        return []
    found = await calendar.dates(schedule.schedule, (), since, until=now, first=MOST_MISSED)
    return [each.date for each in found.dates if since < each.date < now][-horizon.max_runs :]


def runs_of(batcher: Batcher, schedule: DeploymentSchedule, deployment: Deployment, dates: Sequence[datetime]) -> Any:
    """Return the requests that create the runs of a schedule at some dates. A run that exists is not created again."""
    now, kind = batcher.clock(), type(schedule.schedule).__name__
    origin = Actor(type="SCHEDULE", id=Id(str(schedule.id)), display_value=schedule.slug or kind)
    common = new_columns(FlowRun, CreateFlowRun(flow_id=deployment.flow_id, deployment_id=deployment.id))
    common |= NEW_FLOW_RUN | run_columns(deployment, schedule) | {"created": now, "updated": now}
    common |= {"auto_scheduled": True, "created_by": origin, "deployment_schedule_id": schedule.id}
    return [
        _request(FlowRun.of(common | _identity(batcher.new_id(), schedule.id, date)), date, now, schedule.revision)
        for date in dates
    ]


def _identity(run_id: UUID, schedule_id: UUID, date: datetime) -> dict[str, Any]:
    return {"id": run_id, "name": readable_name(run_id), "idempotency_key": key_of(schedule_id, date)}


def key_of(schedule_id: UUID, date: datetime) -> str:
    """Return the idempotency key of the run of a schedule at a date."""
    # Of the schedule and the date only, so that all servers give a date the same key.
    return f"schedule:{schedule_id}:{date.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _request(run: FlowRun, date: datetime, now: datetime, revision: int) -> CreateRun:
    state, actor = states.scheduled(now, date), f"{SERVICE}scheduler"
    return CreateRun(run=run, state=state, actor=actor, schedule_revision=revision)


class Made(NamedTuple):
    """The ids of new runs of schedules, and the errors of runs that could not be created, by id of the schedule."""

    runs: list[UUID]
    faults: dict[UUID, Exception]


async def create_runs(batcher: Batcher, requests: Sequence[CreateRun]) -> Made:
    """Create runs of schedules. Runs of schedules that have changed are skipped, and a failing run fails alone."""
    made, parts = Made([], {}), [requests[at : at + INSERT_BATCH] for at in range(0, len(requests), INSERT_BATCH)]
    # Together: on PostgreSQL one part is decided while another one is written.
    for some, outcomes in zip(parts, await asyncio.gather(*map(batcher.submit, parts)), strict=True):
        for request, outcome in zip(some, outcomes, strict=True):
            if isinstance(outcome, Created) and outcome.created:
                made.runs.append(outcome.run_id)
            elif isinstance(outcome, Exception) and not isinstance(outcome, NotFound):
                assert isinstance(request.run, FlowRun) and request.run.deployment_schedule_id  # noqa: PT018, S101
                made.faults[request.run.deployment_schedule_id] = outcome
    return made


class ScheduleDeployment(Document):
    """A window in which the runs of each active schedule are created: at most maxRuns of each.

    Creation stops early once there are minRuns and the last is at least minSeconds after `since`.
    """

    deployment_id: UUID = Field(description="Id of the deployment.")
    since: Instant | None = Field(default=None, description="Start of the window, inclusive; default: now.")
    until: Instant | None = Field(
        default=None, description="End of the window, inclusive; default: 100 days after `since`."
    )
    min_runs: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Minimum number of runs for each schedule; default: setting (3)."
    )
    max_runs: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Maximum number of runs for each schedule, 1 to 1000; default: setting (100)."
    )
    min_seconds: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)] | None = Field(
        default=None, description="Minimum length of the window that is filled, in seconds; default: setting (3600)."
    )


async def schedule_deployment(batcher: Batcher, document: ScheduleDeployment) -> list[UUID]:
    """Create the runs of a deployment in a window, also in the past; return the ids of the new ones by date."""
    deployment = await find(batcher.context, Deployment, document.deployment_id)
    if deployment is None:
        raise NotFound(document.deployment_id)
    since = document.since or batcher.clock()
    horizon = _window(document, since, batcher.context.horizon)
    requests = list[CreateRun]()
    for schedule in await active_schedules(batcher.context, deployment.id):
        plan = await plan_schedule(batcher.context.calendar, schedule, since, horizon)
        requests += runs_of(batcher, schedule, deployment, plan.dates)
        if len(requests) > MOST_RUNS:
            raise InvalidInput(f"The window has more than {MOST_RUNS} runs.", ["maxRuns"])
    made = await create_runs(batcher, sorted(requests, key=lambda each: str(each.state.details.scheduled_time)))
    for fault in made.faults.values():
        raise fault
    return made.runs


def _window(document: ScheduleDeployment, since: datetime, default: Horizon) -> Horizon:
    until = document.until or since + default.max_time
    return Horizon(
        default.min_runs if document.min_runs is None else document.min_runs,
        document.max_runs or default.max_runs,
        default.min_time if document.min_seconds is None else timedelta(seconds=document.min_seconds),
        until - since,
    )


async def active_schedules(context: CommandContext, deployment_id: UUID) -> list[DeploymentSchedule]:
    """Return the active schedules of a deployment."""
    table = table_of(DeploymentSchedule)
    asked = sa.select(table).where(table.c.deployment_id == deployment_id, table.c.active).order_by(table.c.id)
    async with context.database.read() as connection:
        return [DeploymentSchedule.of(row._mapping) for row in await connection.execute(asked)]  # type: ignore[arg-type] # noqa: SLF001
