"""Counts and histories of runs, and the estimates that they sum."""

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.database.queries import estimates
from runstate.documents.states import StateType
from runstate.rows import FlowRun
from tests.client import Ask
from tests.graphql.factories import at, make_flow, make_flow_run, make_task_run, store

HISTORY = """
query($since: DateTime!, $until: DateTime!, $seconds: Float!, $where: FlowRunWhere) {
  flowRunHistory(since: $since, until: $until, intervalSeconds: $seconds, where: $where) {
    start end states { stateType stateName count estimatedRunTimeSeconds estimatedLatenessSeconds }
  }
}
"""


def some_runs(chance: random.Random, number: int) -> list[FlowRun]:
    """Return runs in all states that started early, late or never."""
    flow = make_flow()
    times = [None, *(at(seconds) for seconds in (0, 10, 19.999999, 20, 20.000001, 45.5))]
    return [
        make_flow_run(
            flow,
            state_type=(kind := chance.choice([None, *StateType])),
            state_name=kind and chance.choice(["One", "Two"]),
            state_timestamp=kind and chance.choice(times[1:]),
            expected_start_time=chance.choice(times),
            start_time=chance.choice(times),
            total_run_time_seconds=chance.choice([0.0, 2.25, 100.0]),
        )
        for _ in range(number)
    ]


async def stored(database: Database, seed: int, number: int = 60) -> list[FlowRun]:
    """Insert random runs; return them."""
    flow = make_flow()
    runs = [run.replace(flow_id=flow.id) for run in some_runs(random.Random(seed), number)]
    await store(database, flow, *runs)
    return runs


async def test_estimates_are_equal_in_python_and_in_sql(database: Database) -> None:
    runs = await stored(database, 5)
    table = FlowRun.__table__
    for now in (at(15), at(20), at(60)):
        columns = estimates.run_time_of(table, now), estimates.start_time_delta_of(table, now)
        async with database.read() as connection:
            found = {key: values for key, *values in await connection.execute(sa.select(table.c.id, *columns))}
        for run in runs:
            expected = [estimates.run_time(run, now), estimates.start_time_delta(run, now)]
            assert found[run.id] == pytest.approx(expected), (run.__dict__, now)


@pytest.mark.parametrize(
    ("columns", "delta"),
    [
        ({}, 0),
        ({"start_time": at(5)}, 0),
        ({"expected_start_time": at(5), "start_time": at(7)}, 2),
        ({"expected_start_time": at(5), "start_time": at(3)}, 0),
        ({"expected_start_time": at(5)}, 5),
        ({"expected_start_time": at(5), "state_type": StateType.SCHEDULED}, 5),
        ({"expected_start_time": at(15), "state_type": StateType.SCHEDULED}, 0),
        ({"expected_start_time": at(5), "state_type": StateType.CANCELLED}, 0),
        ({"expected_start_time": at(5), "start_time": at(7), "state_type": StateType.COMPLETED}, 2),
    ],
)
def test_the_lateness_of_a_run_is_its_start_after_the_expected_time(columns: dict[str, Any], delta: float) -> None:
    assert estimates.start_time_delta(make_flow_run(make_flow(), **columns), at(10)) == delta


@pytest.mark.parametrize(
    ("columns", "seconds"),
    [
        ({}, 0),
        ({"total_run_time_seconds": 3.0, "state_type": StateType.COMPLETED, "state_timestamp": at(0)}, 3),
        ({"total_run_time_seconds": 3.0, "state_type": StateType.RUNNING, "state_timestamp": at(4)}, 9),
        ({"state_type": StateType.RUNNING, "state_timestamp": at(40)}, 0),
    ],
)
def test_the_run_time_of_a_running_run_ends_now(columns: dict[str, Any], seconds: float) -> None:
    assert estimates.run_time(make_flow_run(make_flow(), **columns), at(10)) == seconds


async def test_runs_are_counted_by_state_largest_first(database: Database, ask: Ask) -> None:
    flow = make_flow()
    kinds = [StateType.RUNNING, StateType.RUNNING, StateType.FAILED, None]
    runs = [make_flow_run(flow, state_type=kind, state_name=kind and kind.value.title()) for kind in kinds]
    task_run = make_task_run(runs[0], state_type=StateType.RUNNING, state_name="Retrying")
    await store(database, flow, *runs, task_run)

    data = await ask(
        """{
          flowRunCount
          some: flowRunCount(where: {stateType: {eq: RUNNING}})
          flowRunCountsByState { stateType stateName count }
          failed: flowRunCountsByState(where: {stateType: {in: [FAILED]}}) { stateName count }
          taskRunCount
          taskRunCountsByState { stateType stateName count }
        }"""
    )

    assert data["flowRunCount"] == 4
    assert data["some"] == 2
    assert data["flowRunCountsByState"][0] == {"stateType": "RUNNING", "stateName": "Running", "count": 2}
    assert sorted(data["flowRunCountsByState"][1:], key=str) == [
        {"stateType": "FAILED", "stateName": "Failed", "count": 1},
        {"stateType": None, "stateName": None, "count": 1},
    ]
    assert data["failed"] == [{"stateName": "Failed", "count": 1}]
    assert data["taskRunCount"] == 1
    assert data["taskRunCountsByState"] == [{"stateType": "RUNNING", "stateName": "Retrying", "count": 1}]


def counted(runs: list[FlowRun], start: datetime, end: datetime) -> dict[tuple[str, str], int]:
    """Return how many runs were expected to start in an interval, by state."""
    found: dict[tuple[str, str], int] = {}
    for run in runs:
        if run.expected_start_time and start <= run.expected_start_time < end and run.state_type:
            key = run.state_type.value, str(run.state_name)
            found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize("seconds", [1, 2.5, 10, 33])
async def test_a_history_contains_every_interval_and_every_run(database: Database, ask: Ask, seconds: float) -> None:
    runs = await stored(database, 6)

    data = await ask(HISTORY, since=at(0).isoformat(), until=at(50).isoformat(), seconds=seconds)

    intervals = data["flowRunHistory"]
    assert len(intervals) == -(-50 // seconds)
    for place, interval in enumerate(intervals):
        start, end = datetime.fromisoformat(interval["start"]), datetime.fromisoformat(interval["end"])
        assert (start, end - start) == (at(place * seconds), timedelta(seconds=seconds))
        found = {(state["stateType"], state["stateName"]): state["count"] for state in interval["states"]}
        assert found == counted(runs, start, end)
        counts = [state["count"] for state in interval["states"]]
        assert counts == sorted(counts, reverse=True)


async def test_a_history_sums_run_times_and_lateness(database: Database, ask: Ask) -> None:
    flow = make_flow()
    common = {"state_type": StateType.COMPLETED, "state_name": "Completed", "expected_start_time": at(3)}
    runs = [
        make_flow_run(flow, start_time=at(5), total_run_time_seconds=0.1, **common),
        make_flow_run(flow, start_time=at(4), total_run_time_seconds=0.2, **common),
        make_flow_run(flow, start_time=at(1), **common),
        make_flow_run(flow, name="other", start_time=at(100), **common),
    ]
    await store(database, flow, *runs)

    data = await ask(
        HISTORY, since=at(0).isoformat(), until=at(9).isoformat(), seconds=5, where={"name": {"eq": "run"}}
    )

    assert [interval["states"] for interval in data["flowRunHistory"]] == [
        [
            {
                "stateType": "COMPLETED",
                "stateName": "Completed",
                "count": 3,
                "estimatedRunTimeSeconds": 0.3,
                "estimatedLatenessSeconds": 3.0,
            }
        ],
        [],
    ]


async def test_task_runs_have_a_history_too(database: Database, ask: Ask) -> None:
    task_run = make_task_run(state_type=StateType.FAILED, state_name="Failed", expected_start_time=at(1))
    await store(database, task_run)

    data = await ask(
        """{ taskRunHistory(since: "2026-01-01T12:00:00Z", until: "2026-01-01T12:00:02Z", intervalSeconds: 1) {
          states { stateName count }
        } }"""
    )

    assert data["taskRunHistory"] == [{"states": []}, {"states": [{"stateName": "Failed", "count": 1}]}]


@pytest.mark.parametrize(
    ("until", "seconds", "intervals"),
    [
        (at(500), 1, 500),
        (at(501), 1, None),
        (at(5), 0.999, None),
        (at(5), 1e300, None),
        (at(5), -1, None),
        (at(0), 1, 0),
        (at(-5), 1, 0),
        (at(5), 300000000000.0, None),
        (at(5), 1000000000.0, 1),
    ],
)
async def test_a_history_has_at_most_500_intervals_of_at_least_a_second(
    ask: Ask, until: datetime, seconds: float, intervals: int | None
) -> None:
    body = await ask.raw(HISTORY, since=at(0).isoformat(), until=until.isoformat(), seconds=seconds)

    if intervals is None:
        assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    else:
        assert len(body["data"]["flowRunHistory"]) == intervals
