"""The scheduler: each date of each schedule becomes one run, and changes delete the runs that no longer match."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.checks.verify import verify
from runstate.core.commands.deployments import (
    UpdateDeployment,
    delete_deployment,
    pause_deployment,
    resume_deployment,
    update_deployment,
)
from runstate.core.commands.flow_runs import delete_flow_run, run_deployment
from runstate.core.commands.schedules import (
    ScheduleFields,
    SetDeploymentSchedules,
    UpdateDeploymentSchedule,
    delete_schedule,
    set_schedules,
    update_schedule,
)
from runstate.core.commands.scheduling import ScheduleDeployment, create_runs, runs_of, schedule_deployment
from runstate.core.scheduling.horizon import Horizon
from runstate.documents import requests
from runstate.documents.schedules import CronSchedule, IntervalSchedule, Schedule
from runstate.errors import InvalidInput
from runstate.rows import Deployment, DeploymentSchedule, FlowRun
from runstate.services import scheduler
from tests.services.factories import NOW, Making

EVERY_TEN_MINUTES = IntervalSchedule(interval_seconds=600, anchor=datetime(2026, 1, 1, tzinfo=UTC))
HOURLY = CronSchedule(cron="@hourly")
TWICE_A_DAY = CronSchedule(cron="0 */12 * * *")


async def deployed(make: Making, *schedules: Schedule, **given: Any) -> UUID:
    """Create a deployment with schedules; return its id."""
    return await make.deployment(schedules=[ScheduleFields(schedule=each) for each in schedules], **given)


async def passes(make: Making) -> int:
    return await scheduler.run_once(make.batcher, make.clock())


async def dates(make: Making) -> list[datetime]:
    """Return the dates of the scheduled runs."""
    return sorted(run.expected_start_time for run in await make.rows(FlowRun, FlowRun.auto_scheduled))


async def only_schedule(make: Making) -> Any:
    (found,) = await make.rows(DeploymentSchedule)
    return found


async def test_a_scheduled_run_has_the_columns_of_its_deployment_and_schedule(make: Making) -> None:
    fields = ScheduleFields(schedule=TWICE_A_DAY, parameters={"b": 2}, slug="nightly")
    deployment = await make.deployment(
        schedules=[fields], parameters={"a": 1, "b": 1}, tags=["x"], version="7", work_queue_name="q", labels={"l": 1}
    )
    assert await passes(make) == 3
    first = min(await make.rows(FlowRun), key=lambda run: run.expected_start_time)
    schedule = await only_schedule(make)

    assert (first.state_name, first.expected_start_time) == ("Scheduled", datetime(2026, 1, 2, 12, tzinfo=UTC))
    assert first.next_scheduled_start_time == first.expected_start_time
    assert (first.deployment_id, first.deployment_schedule_id) == (deployment, schedule.id)
    assert (first.parameters, first.tags, first.labels) == ({"a": 1, "b": 2}, ["auto-scheduled", "x"], {"l": 1})
    assert (first.deployment_version, first.work_queue_name, first.job_variables) == ("7", "q", {})
    assert first.created_by.model_dump() == {"type": "SCHEDULE", "id": str(schedule.id), "display_value": "nightly"}
    assert await verify(make.database, make.clock()) == []


async def test_passes_continue_the_dates_without_gaps_and_duplicates(make: Making) -> None:
    await deployed(make, EVERY_TEN_MINUTES)
    for _ in range(12):
        await passes(make)
        make.clock.forward(minutes=25)
    found = await dates(make)

    assert all(later - earlier == timedelta(minutes=10) for earlier, later in pairwise(found))
    assert found[0] == datetime(2026, 1, 2, 3, 10, tzinfo=UTC)
    assert found[-1] >= NOW + 11 * timedelta(minutes=25) + timedelta(minutes=50)


async def test_a_second_pass_creates_nothing(make: Making) -> None:
    await deployed(make, EVERY_TEN_MINUTES, HOURLY)

    assert (await passes(make), await passes(make)) == (10, 0)


async def test_two_servers_create_each_run_once(make: Making, other: Batcher) -> None:
    for _ in range(20):
        await deployed(make, EVERY_TEN_MINUTES, HOURLY)
    for _ in range(3):
        now = make.clock.forward(minutes=30)
        await asyncio.gather(*(scheduler.run_once(each, now) for each in (make.batcher, other) * 2))
    runs = Counter((run.deployment_schedule_id, run.expected_start_time) for run in await make.rows(FlowRun))

    assert set(runs.values()) == {1}
    assert len({schedule for schedule, _ in runs}) == 40


async def test_schedules_of_a_server_that_was_killed_are_taken_over(make: Making) -> None:
    await deployed(make, HOURLY)
    await scheduler._claim(make.database, make.clock(), make.clock())  # noqa: SLF001 the server ends after this

    assert await passes(make) == 0
    make.clock.forward(seconds=16)
    assert await passes(make) == 3


async def test_a_changed_schedule_keeps_only_the_future_runs_that_match(make: Making) -> None:
    await deployed(make, TWICE_A_DAY)
    await passes(make)
    kept = {run.id for run in await make.rows(FlowRun) if run.expected_start_time.hour == 0}
    schedule = await only_schedule(make)
    change = UpdateDeploymentSchedule(id=schedule.id, schedule=CronSchedule(cron="@daily"))
    done = await update_schedule(make.batcher.context, change)

    assert done.taken_back == 2
    assert {run.id for run in await make.rows(FlowRun)} == kept
    await passes(make)
    assert [each.hour for each in await dates(make)] == [0, 0, 0]


async def test_overdue_runs_stay_when_a_schedule_changes(make: Making) -> None:
    await deployed(make, EVERY_TEN_MINUTES)
    await passes(make)
    make.clock.forward(minutes=30)
    schedule = await only_schedule(make)
    await update_schedule(make.batcher.context, UpdateDeploymentSchedule(id=schedule.id, active=False))

    assert [each.minute for each in await dates(make)] == [10, 20, 30]


async def test_a_schedule_takes_back_only_its_own_runs(make: Making) -> None:
    deployment = await deployed(make, TWICE_A_DAY, HOURLY)
    await passes(make)
    document = SetDeploymentSchedules(deployment_id=deployment, schedules=[ScheduleFields(schedule=HOURLY)])
    done = await set_schedules(make.batcher.context, document)

    assert (done.deleted, done.kept, done.taken_back) == (1, 1, 3)
    assert [each.hour for each in await dates(make)] == [4, 5, 6]


async def test_a_deleted_schedule_deletes_its_unstarted_runs_and_no_others(make: Making) -> None:
    await deployed(make, EVERY_TEN_MINUTES)
    await passes(make)
    make.clock.forward(minutes=15)
    started = (await make.rows(FlowRun))[1].id
    await make.flow_run_enters(started, states.pending(), force=True)
    await delete_schedule(make.batcher.context, (await only_schedule(make)).id)
    (left,) = await make.rows(FlowRun)

    assert (left.id, left.deployment_schedule_id) == (started, None)


async def test_a_paused_deployment_has_no_scheduled_runs_until_it_is_resumed(make: Making) -> None:
    deployment = await deployed(make, EVERY_TEN_MINUTES)
    by_hand = (await run_deployment(make.batcher, requests.RunDeployment(deployment_id=deployment))).row.id
    await passes(make)
    make.clock.forward(minutes=15)
    paused = await pause_deployment(make.batcher.context, deployment)

    assert (paused.row.paused, paused.taken_back) == (True, 7)
    assert [run.id for run in await make.rows(FlowRun)] == [by_hand]
    assert await passes(make) == 0
    await resume_deployment(make.batcher.context, deployment)
    assert await passes(make) == 7
    assert min(await dates(make)) > make.clock()


async def test_a_deployment_that_is_paused_by_an_update_schedules_nothing(make: Making) -> None:
    deployment = await deployed(make, HOURLY)
    await passes(make)
    await update_deployment(make.batcher.context, UpdateDeployment(id=deployment, paused=True))

    assert (await dates(make), await passes(make)) == ([], 0)


async def test_unstarted_runs_follow_their_deployment(make: Making) -> None:
    deployment = await deployed(make, HOURLY, parameters={"n": 1}, version="1")
    await passes(make)
    before = {run.id for run in await make.rows(FlowRun)}
    change = UpdateDeployment(id=deployment, parameters={"n": 2}, version="2", tags=["t"])
    await update_deployment(make.batcher.context, change)
    await passes(make)
    runs = await make.rows(FlowRun)

    assert {run.id for run in runs} == before
    assert {(run.parameters["n"], run.deployment_version, run.tags[-1]) for run in runs} == {(2, "2", "t")}


async def test_runs_of_an_earlier_revision_are_not_created(make: Making) -> None:
    await deployed(make, HOURLY)
    (schedule,) = await make.rows(DeploymentSchedule)
    (deployment,) = await make.rows(Deployment)
    asked = runs_of(make.batcher, schedule, deployment, [NOW])
    await update_schedule(make.batcher.context, UpdateDeploymentSchedule(id=schedule.id, active=False))

    assert (await create_runs(make.batcher, asked)).runs == []
    assert await make.rows(FlowRun) == []


async def test_the_number_of_runs_ahead_is_limited(make: Making) -> None:
    await make.deployment(schedules=[ScheduleFields(schedule=EVERY_TEN_MINUTES, max_scheduled_runs=2)])

    assert await passes(make) == 2
    assert await passes(make) == 0
    make.clock.forward(minutes=10)
    assert await passes(make) == 1


async def test_a_run_that_was_deleted_by_hand_is_not_created_again(make: Making) -> None:
    await deployed(make, EVERY_TEN_MINUTES)
    await passes(make)
    before = await dates(make)
    (last,) = [run for run in await make.rows(FlowRun) if run.expected_start_time == before[-1]]
    await delete_flow_run(make.batcher.context, last.id)
    make.clock.forward(minutes=50)
    created = await passes(make)

    assert created > 0
    assert before[-1] not in await dates(make)


async def test_a_run_that_a_change_took_back_is_created_again(make: Making) -> None:
    await deployed(make, HOURLY)
    await passes(make)
    before = await dates(make)
    for active in (False, True):
        change = UpdateDeploymentSchedule(id=(await only_schedule(make)).id, active=active)
        await update_schedule(make.batcher.context, change)
    await passes(make)

    assert await dates(make) == before


async def test_a_deletion_during_a_pass_is_not_undone_by_it(make: Making) -> None:
    await deployed(make, HOURLY)
    await passes(make)
    (schedule,), (deployment,) = await make.rows(DeploymentSchedule), await make.rows(Deployment)
    planned = runs_of(make.batcher, schedule, deployment, await dates(make))
    for run in await make.rows(FlowRun):
        await delete_flow_run(make.batcher.context, run.id)

    assert (await create_runs(make.batcher, planned)).runs == []


async def test_a_run_that_cannot_be_created_stops_no_other_schedule(make: Making) -> None:
    bad = await deployed(make, HOURLY)
    await deployed(make, HOURLY)
    refusal = {
        True: f"CREATE TRIGGER broken BEFORE INSERT ON flow_run WHEN NEW.deployment_id = '{bad.hex}' "
        "BEGIN SELECT RAISE(ABORT, 'broken'); END",
        False: f"ALTER TABLE flow_run ADD CONSTRAINT broken CHECK (deployment_id <> '{bad}')",
    }
    await make.execute(sa.text(refusal[make.database.is_sqlite]))
    created = await passes(make)
    faults = {each.deployment_id: each.fault for each in await make.rows(DeploymentSchedule)}

    assert created == 3
    assert [key for key, fault in faults.items() if fault] == [bad]


async def test_a_deleted_deployment_takes_its_runs_and_schedules_along(make: Making) -> None:
    deployment = await deployed(make, HOURLY)
    await passes(make)
    await delete_deployment(make.batcher.context, deployment)

    assert await make.rows(FlowRun) == await make.rows(DeploymentSchedule) == []
    assert await passes(make) == 0


async def test_a_schedule_that_could_not_be_evaluated_is_tried_again(make: Making) -> None:
    await deployed(make, HOURLY)
    stored = sa.update(DeploymentSchedule)
    await make.execute(stored.values(schedule=CronSchedule(cron="@hourly", time_zone="Mars/Olympus")))
    assert await passes(make) == 0
    await make.execute(stored.values(schedule=HOURLY))
    make.clock.forward(minutes=5)

    assert await passes(make) == 3


async def test_a_round_that_takes_long_creates_no_runs_in_the_past(make: Making) -> None:
    await deployed(make, EVERY_TEN_MINUTES)
    started = make.clock()
    make.clock.forward(minutes=30)
    await scheduler.run_once(make.batcher, started)

    assert min(await dates(make)) > make.clock()


async def test_a_lower_limit_deletes_the_latest_runs_beyond_it(make: Making) -> None:
    await deployed(make, EVERY_TEN_MINUTES)
    await passes(make)
    earliest = (await dates(make))[:2]
    change = UpdateDeploymentSchedule(id=(await only_schedule(make)).id, max_scheduled_runs=2)
    done = await update_schedule(make.batcher.context, change)

    assert (done.taken_back, await passes(make), await dates(make)) == (5, 0, earliest)


async def test_a_window_with_too_many_runs_is_refused_before_any_is_created(make: Making) -> None:
    deployment = await deployed(make, *[CronSchedule(cron="* * * * *")] * 3)
    window = ScheduleDeployment(deployment_id=deployment, min_runs=1000, max_runs=1000)
    with pytest.raises(InvalidInput, match="more than 2000 runs"):
        await schedule_deployment(make.batcher, window)

    assert await make.rows(FlowRun) == []


async def test_runs_follow_the_parameters_of_their_schedule_only(make: Making) -> None:
    await deployed(make, HOURLY, TWICE_A_DAY)
    await passes(make)
    one, other = await make.rows(DeploymentSchedule)
    await update_schedule(make.batcher.context, UpdateDeploymentSchedule(id=one.id, parameters={"n": 1}))
    given = {run.deployment_schedule_id: run.parameters for run in await make.rows(FlowRun)}
    revisions = {each.id: each.revision for each in await make.rows(DeploymentSchedule)}

    assert given == {one.id: {"n": 1}, other.id: {}}
    assert revisions == {one.id: 1, other.id: 0}


async def test_dates_that_were_missed_while_no_server_ran_are_scheduled_as_far_back_as_the_setting_says(
    make: Making,
) -> None:
    await deployed(make, EVERY_TEN_MINUTES)
    await passes(make)
    last = (await dates(make))[-1]
    make.clock.now = last + timedelta(hours=5)
    make.batcher.context = replace(make.batcher.context, horizon=Horizon(catch_up=timedelta(hours=2)))
    await passes(make)
    found = [date for date in await dates(make) if date > last]

    assert found[0] == last + timedelta(hours=3, minutes=10)
    assert all(later - earlier == timedelta(minutes=10) for earlier, later in pairwise(found))
    assert await passes(make) == 0


async def test_a_resumed_deployment_catches_up_nothing(make: Making) -> None:
    deployment = await deployed(make, EVERY_TEN_MINUTES)
    make.batcher.context = replace(make.batcher.context, horizon=Horizon(catch_up=timedelta(days=1)))
    await passes(make)
    await pause_deployment(make.batcher.context, deployment)
    make.clock.forward(hours=5)
    await resume_deployment(make.batcher.context, deployment)
    await passes(make)

    assert (await dates(make))[0] >= make.clock()
