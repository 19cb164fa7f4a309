"""Runs of schedules: which dates become runs, and their creation, each (schedule, date) once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
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
SOON: Final = timedelta(seconds=1)
"""Shortest time between two passes over a schedule."""
FAILED: Final = timedelta(minutes=5)
"""Time until the next pass over a schedule whose dates could not be computed."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """The dates that become runs: at least `min_runs` and until `min_time`, at most `max_runs` and until `max_time`."""

    min_runs: int = 3
    max_runs: int = 100
    min_time: timedelta = timedelta(hours=1)
    max_time: timedelta = timedelta(days=100)


class Plan(NamedTuple):
    """Dates that become runs, and the time at which more of them do; None if there are no more."""

    dates: Sequence[datetime]
    next_pass: datetime | None


def planned(found: Sequence[datetime], now: datetime, horizon: Horizon) -> Plan:
    """Choose from the next dates of a schedule; all of them were found if they are at most `max_runs`."""
    last = now + horizon.max_time
    dates = list[datetime]()
    for date in found:
        enough = len(dates) >= horizon.min_runs and (not dates or dates[-1] >= now + horizon.min_time)
        if enough or len(dates) == horizon.max_runs or date > last:
            return Plan(dates, max(_next_pass(dates, date, horizon), now + SOON))
        dates.append(date)
    return Plan(dates, None)


def _next_pass(dates: Sequence[datetime], following: datetime, horizon: Horizon) -> datetime:
    """Return the time at which there are too few runs ahead, or the following date is near enough."""
    near = following - horizon.max_time
    if not dates or len(dates) < horizon.min_runs:
        return near
    few = dates[len(dates) - max(horizon.min_runs, 1)]
    return max(near, dates[0] if len(dates) == horizon.max_runs else min(few, dates[-1] - horizon.min_time))


async def plan_schedule(calendar: Calendar, schedule: DeploymentSchedule, now: datetime, horizon: Horizon) -> Plan:
    """Choose the dates of a schedule that become runs. A schedule that cannot be evaluated has none for some minutes.

    The reason can be temporary, for example a busy machine: the schedule must not end for it.
    """
    most = min(horizon.max_runs, schedule.max_scheduled_runs or horizon.max_runs)
    limited = Horizon(min(horizon.min_runs, most), most, horizon.min_time, horizon.max_time)
    # Most schedules have few dates ahead: the others are asked twice.
    for first in (limited.min_runs + 1, most + 1):
        try:
            found = await calendar.dates(schedule.schedule, (), now, first=first)
        except InvalidInput as error:
            log.warning("a schedule has no dates", schedule=str(schedule.id), reason=error.message)
            return Plan((), now + FAILED)
        plan = planned([each.date for each in found.dates], now, limited)
        if plan.next_pass is not None or not found.has_more:
            break
    return plan


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
    key = f"schedule:{schedule_id}:{date.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return {"id": run_id, "name": readable_name(run_id), "idempotency_key": key}


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
        default=None, description="Minimum number of runs for each schedule; default 3."
    )
    max_runs: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Maximum number of runs for each schedule, 1 to 1000; default 100."
    )
    min_seconds: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)] | None = Field(
        default=None, description="Minimum length of the window that is filled, in seconds; default 3600."
    )


async def schedule_deployment(batcher: Batcher, document: ScheduleDeployment) -> list[UUID]:
    """Create the runs of a deployment in a window, also in the past; return the ids of the new ones by date."""
    deployment = await find(batcher.context, Deployment, document.deployment_id)
    if deployment is None:
        raise NotFound(document.deployment_id)
    since = document.since or batcher.clock()
    horizon = _window(document, since)
    requests = list[CreateRun]()
    for schedule in await _active(batcher.context, deployment.id):
        plan = await plan_schedule(batcher.context.calendar, schedule, since, horizon)
        requests += runs_of(batcher, schedule, deployment, plan.dates)
        if len(requests) > MOST_RUNS:
            raise InvalidInput(f"The window has more than {MOST_RUNS} runs.", ["maxRuns"])
    made = await create_runs(batcher, sorted(requests, key=lambda each: str(each.state.details.scheduled_time)))
    for fault in made.faults.values():
        raise fault
    return made.runs


def _window(document: ScheduleDeployment, since: datetime) -> Horizon:
    default = Horizon()
    until = document.until or since + default.max_time
    return Horizon(
        default.min_runs if document.min_runs is None else document.min_runs,
        document.max_runs or default.max_runs,
        default.min_time if document.min_seconds is None else timedelta(seconds=document.min_seconds),
        until - since,
    )


async def _active(context: CommandContext, deployment_id: UUID) -> list[DeploymentSchedule]:
    table = table_of(DeploymentSchedule)
    asked = sa.select(table).where(table.c.deployment_id == deployment_id, table.c.active).order_by(table.c.id)
    async with context.database.read() as connection:
        return [DeploymentSchedule.of(row._mapping) for row in await connection.execute(asked)]  # type: ignore[arg-type] # noqa: SLF001
