"""Creates the runs of schedules ahead of time."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
import structlog

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import CreateRun
from runstate.core.commands.scheduling import FAILED, create_runs, plan_schedule, runs_of
from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.failures import is_temporary
from runstate.rows import Deployment, DeploymentSchedule

PAGE: Final = 100
"""Schedules of one page."""
CLAIM: Final = timedelta(seconds=15)
"""Time after which another server takes over schedules whose server ended in between."""
SCHEDULE: Final = table_of(DeploymentSchedule)
DEPLOYMENT: Final = table_of(Deployment)

log = structlog.get_logger(__name__)


class Pass(NamedTuple):
    """A pass over a schedule: the time of the next one, and the reason for which this one failed."""

    schedule: DeploymentSchedule
    following: datetime | None
    planned_until: datetime | None
    """Time until which dates have been created; later ones are caught up."""
    fault: str | None = None


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Create the runs of all schedules that have too few, and return their number.

    The key of a run consists of its schedule and date, so that none is created twice, whatever the number of servers.
    """
    created = 0
    # A round over many schedules takes long: claims and dates count from the present time, not from its start.
    while schedules := await _claim(batcher.database, now, present := max(now, batcher.clock())):
        created += await _schedule(batcher, schedules, present)
    return created


async def _claim(database: Database, before: datetime, now: datetime) -> list[DeploymentSchedule]:
    """Return schedules that were due at a time and that no other server works on."""
    due = sa.select(SCHEDULE.c.id).where(SCHEDULE.c.next_pass <= before).order_by(SCHEDULE.c.next_pass).limit(PAGE)
    # Most rounds find nothing: they must not write.
    async with database.read() as connection:
        if not (await connection.execute(due.limit(1))).first():
            return []
    # Other servers skip the locked schedules and take the next ones, so that rounds share the work.
    claimed = sa.update(SCHEDULE).where(SCHEDULE.c.id.in_(due.with_for_update(skip_locked=True)))
    async with database.write() as transaction:
        # The later time of the next pass is the claim: if this server is killed, another one finds the schedule again.
        rows = await transaction.connection.execute(claimed.values(next_pass=now + CLAIM).returning(*SCHEDULE.columns))
        return [DeploymentSchedule.of(row._mapping) for row in rows]  # type: ignore[arg-type] # noqa: SLF001


async def _schedule(batcher: Batcher, schedules: Sequence[DeploymentSchedule], now: datetime) -> int:
    deployments = await _deployments(batcher.database, schedules)
    requests, passes = list[CreateRun](), list[Pass]()
    for schedule in schedules:
        # Deleted between the claim and this, with its schedules.
        if (deployment := deployments.get(schedule.deployment_id)) is not None:
            context = batcher.context
            plan = await plan_schedule(context.scheduler_calendar, schedule, now, context.horizon)
            requests += runs_of(batcher, schedule, deployment, plan.dates)
            passes.append(Pass(schedule, plan.next_pass, now if plan.is_known else schedule.planned_until))
    made = await create_runs(batcher, requests)
    await _finish(batcher.database, [_after(each, made.faults, now) for each in passes])
    return len(made.runs)


def _after(done: Pass, faults: Mapping[UUID, Exception], now: datetime) -> Pass:
    """Return the end of a pass. A schedule whose runs cannot be created is tried again in some minutes."""
    fault = faults.get(done.schedule.id)
    if fault is None:
        return done
    # Nothing is wrong with the schedule: the round fails, and the next one does its work.
    if is_temporary(fault):
        raise fault
    log.error("a run of a schedule could not be created", schedule=str(done.schedule.id), exc_info=fault)
    reason = f"Its runs cannot be created: {type(fault).__name__}."
    return Pass(done.schedule, now + FAILED, done.schedule.planned_until, reason)


async def _deployments(database: Database, schedules: Sequence[DeploymentSchedule]) -> dict[object, Deployment]:
    asked = sa.select(DEPLOYMENT).where(among(DEPLOYMENT.c.id, sorted({each.deployment_id for each in schedules})))
    async with database.read() as connection:
        rows = await connection.execute(asked)
        return {row.id: Deployment.of(row._mapping) for row in rows}  # type: ignore[arg-type] # noqa: SLF001


async def _finish(database: Database, passes: Sequence[Pass]) -> None:
    """Store the times of the next passes, except for schedules that have changed: their change set a time."""
    stored = (
        sa.update(SCHEDULE)
        .where(SCHEDULE.c.id == sa.bindparam("schedule_id"), SCHEDULE.c.revision == sa.bindparam("seen"))
        .values(next_pass=sa.bindparam("following"), planned_until=sa.bindparam("until"), fault=sa.bindparam("failure"))
    )
    given = [
        {
            "schedule_id": each.schedule.id,
            "seen": each.schedule.revision,
            "following": each.following,
            "until": each.planned_until,
            "failure": each.fault,
        }
        # In one order on all servers, so that two of them cannot deadlock.
        for each in sorted(passes, key=lambda each: each.schedule.id)
    ]
    async with database.write() as transaction:
        await transaction.connection.execute(stored, given)
