"""The service for expired pauses."""

from datetime import datetime, timedelta, timezone

import pytest

from runstate.core import states
from runstate.core.states import State
from runstate.rows import FlowRun
from runstate.services import pause_expiry
from tests.services.factories import NOW, Making

HOUR = timedelta(hours=1)


def until(moment: datetime | None) -> State:
    return states.paused(NOW - 2 * HOUR, pause_expiration_time=moment)


async def test_a_run_whose_pause_has_expired_fails(make: Making) -> None:
    expired, suspended, waiting, forever = await make.flow_runs(
        [
            until(NOW - timedelta(milliseconds=1)),
            states.suspended(NOW - 2 * HOUR, timeout_seconds=3600),
            until(NOW + timedelta(milliseconds=1)),
            until(None),
        ]
    )

    assert await pause_expiry.run_once(make.batcher, NOW) == 2
    assert await make.flow_run_names(expired, suspended, waiting, forever) == ["Failed", "Failed", "Paused", "Paused"]
    state = (await make.history(expired))[-1]
    assert (state.message, state.actor) == ("The flow was paused and never resumed.", "service:pause-expiry")
    assert await pause_expiry.run_once(make.batcher, NOW) == 0


@pytest.mark.parametrize("hours", [-11, 14])
async def test_the_expiry_of_a_pause_is_read_in_every_time_zone(make: Making, hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    past, future = (NOW + delta for delta in (-timedelta(minutes=1), timedelta(minutes=1)))
    runs = await make.flow_runs([until(moment.astimezone(zone)) for moment in (past, future)])

    assert await pause_expiry.run_once(make.batcher, NOW) == 1
    assert await make.flow_run_names(*runs) == ["Failed", "Paused"]


async def test_a_run_that_has_left_its_pause_continues(make: Making) -> None:
    run = await make.flow_run(states.running())
    await make.flow_run_enters(run, states.paused(NOW, timeout_seconds=60))
    await make.flow_run_enters(run, states.running())

    assert await pause_expiry.run_once(make.batcher, NOW + HOUR) == 0
    assert await make.flow_run_names(run) == ["Running"]


async def test_a_failed_pause_is_not_retried(make: Making) -> None:
    run = await make.flow_run(until(NOW - HOUR))

    await pause_expiry.run_once(make.batcher, NOW)

    (row,) = await make.rows(FlowRun)
    assert (row.id, row.state_name, row.end_time) == (run, "Failed", NOW)


async def test_all_expired_pauses_are_found(make: Making) -> None:
    await make.flow_runs([until(NOW + HOUR if number % 2 else NOW - HOUR) for number in range(450)])

    assert await pause_expiry.run_once(make.batcher, NOW) == 225
