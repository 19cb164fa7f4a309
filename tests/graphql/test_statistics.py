"""Statistics of runs are the numbers that plain Python computes, on both databases."""

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import floor
from statistics import fmean
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from runstate.database import Database
from runstate.database.queries.intervals import Intervals
from runstate.documents.intervals import CalendarInterval, CalendarUnit
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.errors import BadUserInput
from runstate.rows import Flow, FlowRun, TaskRun
from tests.client import Ask
from tests.graphql.factories import at, make_deployment, make_flow, make_flow_run, make_state, make_task_run, store

SHARES = (0.0, 0.25, 0.5, 0.95, 1.0)
DISTRIBUTION = (
    "{ count mean min max " + " ".join(f"q{place}: quantile(at: {at})" for place, at in enumerate(SHARES)) + " }"
)
GROUPS = {
    "FLOW": "flowId",
    "DEPLOYMENT": "deploymentId",
    "TASK_KEY": "taskKey",
    "TAG": "tag",
    "WORK_QUEUE": "workQueueName",
    "STATE_TYPE": "stateType",
    "STATE_NAME": "stateName",
    "ACTOR": "actor",
}
TIMES = {"EXPECTED_START": "expected_start_time", "START": "start_time", "END": "end_time"}
FIELDS = f"""count completed failed crashed cancelled successRate start end {" ".join(GROUPS.values())}
  runTimeSeconds {DISTRIBUTION} latenessSeconds {DISTRIBUTION}"""
DOCUMENT = """query($where: KINDWhere, $groups: [RunGrouping!]!, $interval: IntervalInput, $since: TimeInput,
  $until: TimeInput, $by: RunTime!) { found: FIELDStatistics(
    where: $where, groupBy: $groups, interval: $interval, since: $since, until: $until, by: $by) { FIELDS } }"""


def document(run: type) -> str:
    """The query for runs of a kind."""
    field = run.__name__[0].lower() + run.__name__[1:]
    return (
        DOCUMENT.replace("KIND", run.__name__)
        .replace("FIELDStatistics", f"{field}Statistics")
        .replace("FIELDS", FIELDS)
    )


class World:
    """Runs of both kinds in all states, with the times around a change of the clocks."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.flows = [make_flow(name) for name in ("one", "two")]
        self.deployments = [make_deployment(self.flows[0])]
        self.flow_runs = [self._flow_run(chance) for _ in range(60)]
        self.task_runs = [self._task_run(chance) for _ in range(90)]
        self.states = [each for run in self._runs() if (each := self._state(chance, run))]
        entered = {each.run_id: each for each in self.states}
        self.actors = {run.id: entered[run.id].actor if run.id in entered else None for run in self._runs()}
        known = {run_id: {"state_id": state.id} for run_id, state in entered.items()}
        self.flow_runs = [run.replace(**known.get(run.id, {})) for run in self.flow_runs]
        self.task_runs = [run.replace(**known.get(run.id, {})) for run in self.task_runs]

    def _runs(self) -> list[Any]:
        return [*self.flow_runs, *self.task_runs]

    def _times(self, chance: random.Random) -> dict[str, Any]:
        # Berlin's clocks change on 29 March: the day has 23 hours.
        start = datetime(2026, 3, 27, tzinfo=UTC)
        expected, started, ended = (
            chance.choice([None, start + timedelta(minutes=chance.randrange(60 * 24 * 6))]) for _ in range(3)
        )
        kind = chance.choice([None, *StateType])
        return {
            "state_type": kind,
            "state_name": kind and chance.choice(["One", "Two"]),
            "state_timestamp": kind and start,
            "expected_start_time": expected,
            "start_time": started,
            "end_time": ended,
            "run_count": chance.choice([0, 1, 2]),
            "total_run_time_seconds": chance.choice([0.0, 2.25, 7.5, chance.random() * 100]),
            "tags": chance.choice([[], ["a"], ["b"], ["a", "b"]]),
        }

    def _flow_run(self, chance: random.Random) -> FlowRun:
        more = {"deployment_id": chance.choice([None, self.deployments[0].id])}
        queue = {"work_queue_name": chance.choice([None, "fast"])}
        return make_flow_run(chance.choice(self.flows), **self._times(chance), **more, **queue)

    def _task_run(self, chance: random.Random) -> TaskRun:
        parent = chance.choice([None, *self.flow_runs])
        return make_task_run(parent, task_key=chance.choice(["load", "join"]), **self._times(chance))

    def _state(self, chance: random.Random, run: Any) -> Any:
        return make_state(run, type=run.state_type, actor=chance.choice(["ada", "bob"])) if run.state_type else None

    async def store(self, database: Database) -> None:
        """Write everything."""
        await store(database, *self.flows, *self.deployments, *self.flow_runs, *self.task_runs, *self.states)

    def values(self, run: Any) -> dict[str, list[Any]]:
        """The values of a run in each column that it can be grouped by."""
        parents = {each.id: each for each in self.flow_runs}
        flow_run = run if isinstance(run, FlowRun) else parents.get(run.flow_run_id)
        return {
            "flowId": [flow_run and str(flow_run.flow_id)],
            "deploymentId": [flow_run and flow_run.deployment_id and str(flow_run.deployment_id)],
            "taskKey": [getattr(run, "task_key", None)],
            "tag": run.tags or [None],
            "workQueueName": [flow_run and flow_run.work_queue_name],
            "stateType": [run.state_type and run.state_type.value],
            "stateName": [run.state_name],
            "actor": [self.actors[run.id]],
        }


def quantile(values: list[float], share: float) -> float | None:
    """A quantile with linear interpolation."""
    if not values:
        return None
    place = share * (len(values) - 1)
    low, high = values[floor(place)], values[min(floor(place) + 1, len(values) - 1)]
    return low + (place - floor(place)) * (high - low)


def distribution(values: list[float]) -> dict[str, Any]:
    """The distribution of some numbers."""
    values = sorted(values)
    ends = (
        {"min": values[0], "max": values[-1], "mean": fmean(values)}
        if values
        else dict.fromkeys(("min", "max", "mean"))
    )
    return {"count": len(values), **ends, **{f"q{place}": quantile(values, at) for place, at in enumerate(SHARES)}}


def run_time(run: Any) -> float | None:
    return run.total_run_time_seconds if run.state_type in FINAL_TYPES and run.run_count else None


def lateness(run: Any) -> float | None:
    """Return the lateness of a run in seconds. Runs that can still start are due, since their times have passed."""
    started = run.start_time
    if run.expected_start_time is None or (started is None and run.state_type in (None, *FINAL_TYPES)):
        return None
    return NOW_LATE if started is None else max(0.0, (started - run.expected_start_time).total_seconds())


NOW_LATE = -1.0
"""Stands for a lateness that grows while the test runs."""


def statistics(runs: list[Any]) -> dict[str, Any]:
    """The statistics of the runs of a group."""
    count: Callable[[StateType], int] = lambda kind: sum(run.state_type is kind for run in runs)  # noqa: E731
    completed, failed, crashed = map(count, (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED))
    ended = completed + failed + crashed
    return {
        "count": len(runs),
        "completed": completed,
        "failed": failed,
        "crashed": crashed,
        "cancelled": count(StateType.CANCELLED),
        "successRate": completed / ended if ended else None,
        "runTimeSeconds": distribution([value for run in runs if (value := run_time(run)) is not None]),
        "latenessSeconds": distribution([value for run in runs if (value := lateness(run)) is not None]),
    }


def expected(
    world: World, runs: list[Any], groups: list[str], edges: tuple[datetime, ...], time: str
) -> dict[Any, Any]:
    """The statistics of runs by group, and by the start of the interval."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for run in runs:
        places: list[datetime | None] = [None]
        if edges:
            instant = getattr(run, time)
            places = [start for start, end in pairwise(edges) if instant and start <= instant < end]
        keys: list[tuple[Any, ...]] = [()]
        for name in groups:
            keys = [(*key, value) for key in keys for value in world.values(run)[name]]
        for start in places:
            for key in keys:
                found[start, *key].append(run)
    if not groups and not edges:
        found.setdefault((None,), [])
    return {key: statistics(each) for key, each in found.items()}


def matches(found: Any, wanted: Any) -> bool:
    """Whether numbers agree, except for lateness that grows."""
    late, known = found.pop("latenessSeconds"), wanted.pop("latenessSeconds")
    grows = known["min"] == NOW_LATE
    same = late["count"] == known["count"] if grows else late == pytest.approx(known)
    time, real = found.pop("runTimeSeconds"), wanted.pop("runTimeSeconds")
    return bool(same and time == pytest.approx(real) and found == pytest.approx(wanted))


BERLIN = {"calendar": {"unit": "DAY", "timeZone": "Europe/Berlin"}}
SINCE, UNTIL = datetime(2026, 3, 27, 5, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize("run", [FlowRun, TaskRun])
async def test_statistics_are_what_python_computes(database: Database, ask: Ask, run: type) -> None:
    chance = random.Random(run.__name__)
    world = World(3)
    await world.store(database)
    runs = world.flow_runs if run is FlowRun else world.task_runs
    intervals = {None: (), "calendar": BERLIN, "seconds": {"seconds": 20_000.5}}
    for _ in range(25):
        names = chance.sample(
            [name for name in GROUPS if run is TaskRun or name != "TASK_KEY"], chance.choice([0, 1, 2])
        )
        by, interval = chance.choice(list(TIMES)), chance.choice(list(intervals))
        edges: tuple[datetime, ...] = ()
        times: dict[str, Any] = {}
        if interval:
            times = {
                "since": {"at": SINCE.isoformat()},
                "until": {"at": UNTIL.isoformat()},
                "interval": intervals[interval],
            }
            days = CalendarInterval(unit=CalendarUnit.DAY, time_zone="Europe/Berlin")
            over = (
                Intervals.of_calendar(SINCE, UNTIL, days)
                if interval == "calendar"
                else Intervals.of_seconds(SINCE, UNTIL, 20_000.5)
            )
            edges = over.edges

        data = await ask(document(run), groups=names, by=by, **times)

        groups = [GROUPS[name] for name in names]
        wanted = expected(world, runs, groups, edges, TIMES[by])
        answered = {}
        for each in data["found"]:
            start = each.pop("start")
            each.pop("end")
            values = {name: each.pop(name) for name in GROUPS.values()}
            answered[datetime.fromisoformat(start) if start else None, *(values[name] for name in groups)] = each
        assert answered.keys() == wanted.keys()
        for key, each in answered.items():
            assert matches(each, wanted[key]), (names, by, interval, key)


async def test_only_what_is_selected_is_computed(database: Database, ask: Ask, read: list[str]) -> None:
    flow = make_flow()
    await store(database, flow, make_flow_run(flow, state_type=StateType.COMPLETED, state_name="Completed"))
    read.clear()

    data = await ask("{ flowRunStatistics(groupBy: [FLOW]) { count flow { name } } }")

    assert data == {"flowRunStatistics": [{"count": 1, "flow": {"name": "etl"}}]}
    assert not any(word in read[0] for word in ("row_number", "avg", "total_run_time_seconds", "state_type"))
    assert len(read) == 2


async def test_without_runs_there_are_no_numbers(ask: Ask) -> None:
    data = await ask("""{ flowRunStatistics { count successRate runTimeSeconds { count mean quantile(at: 0.5) } }
      taskRunStatistics(groupBy: [TAG]) { count } }""")

    nothing = {"count": 0, "mean": None, "quantile": None}
    assert data["flowRunStatistics"] == [{"count": 0, "successRate": None, "runTimeSeconds": nothing}]
    assert data["taskRunStatistics"] == []


async def test_the_share_of_a_quantile_can_be_a_variable(database: Database, ask: Ask) -> None:
    flow = make_flow()
    ended = {"state_type": StateType.COMPLETED, "state_name": "Completed", "run_count": 1, "end_time": at(1)}
    await store(
        database, flow, *(make_flow_run(flow, total_run_time_seconds=float(each), **ended) for each in range(5))
    )

    data = await ask(
        """query($at: Float!) { flowRunStatistics(since: {at: "2026-01-01T00:00:00Z"}, by: END) {
      runTimeSeconds { half: quantile(at: $at) ...Tail } } }
      fragment Tail on Distribution { tail: quantile(at: 1) }""",
        at=0.5,
    )

    assert data["flowRunStatistics"] == [{"runTimeSeconds": {"half": 2.0, "tail": 4.0}}]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("first: 0", "BAD_USER_INPUT"),
        ("first: 2001", "LIMIT_EXCEEDED"),
        ("interval: {seconds: 60}", "BAD_USER_INPUT"),
        ("interval: {seconds: 0.5}, since: {secondsAgo: 60}", "BAD_USER_INPUT"),
        ("interval: {seconds: 1}, since: {secondsAgo: 600}", "BAD_USER_INPUT"),
        ("interval: {}, since: {secondsAgo: 60}", "BAD_USER_INPUT"),
        ('interval: {calendar: {unit: DAY, timeZone: "Nowhere/At_all"}}, since: {secondsAgo: 60}', "BAD_USER_INPUT"),
        ('interval: {calendar: {unit: DAY, timeZone: "../../etc"}}, since: {secondsAgo: 60}', "BAD_USER_INPUT"),
        ("interval: {calendar: {unit: HOUR}}, since: {secondsAgo: 1e7}", "BAD_USER_INPUT"),
        ("since: {secondsAgo: 1e300}", "BAD_USER_INPUT"),
        ("since: {secondsAgo: 1e10}, interval: {calendar: {unit: MONTH}}", "BAD_USER_INPUT"),
    ],
)
async def test_what_is_wrong_with_the_arguments_is_an_error(ask: Ask, arguments: str, code: str) -> None:
    body = await ask.raw(f"{{ flowRunStatistics({arguments}) {{ count }} }}")

    assert body["errors"][0]["extensions"]["code"] == code


@pytest.mark.parametrize("share", ["1.5", "-1", "1" + "0" * 400, "$at"])
async def test_a_share_is_from_0_to_1(ask: Ask, share: str) -> None:
    document = f"query($at: Float = 0.5) {{ flowRunStatistics {{ runTimeSeconds {{ quantile(at: {share}) }} }} }}"
    # A variable that is not used is an error, too.
    body = await ask.raw(document if share == "$at" else document.removeprefix("query($at: Float = 0.5) "), at=None)

    assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


def local(edges: tuple[datetime, ...], zone: str) -> list[str]:
    return [f"{edge.astimezone(ZoneInfo(zone)):%m-%d %H:%M}" for edge in edges]


@pytest.mark.parametrize(
    ("unit", "zone", "since", "until", "starts", "hours"),
    [
        (
            CalendarUnit.DAY,
            "Europe/Berlin",
            "2026-03-28T12:00Z",
            "2026-03-30T12:00Z",
            ["03-28 00:00", "03-29 00:00", "03-30 00:00", "03-31 00:00"],
            [24, 23, 24],
        ),
        (
            CalendarUnit.DAY,
            "Europe/Berlin",
            "2026-10-25T00:00Z",
            "2026-10-26T00:00Z",
            ["10-25 00:00", "10-26 00:00", "10-27 00:00"],
            [25, 24],
        ),
        (
            CalendarUnit.DAY,
            "America/Santiago",
            "2026-09-05T12:00Z",
            "2026-09-07T01:00Z",
            ["09-05 00:00", "09-06 01:00", "09-07 00:00"],
            [24, 23],
        ),
        (
            CalendarUnit.WEEK,
            "UTC",
            "2026-01-01T00:00Z",
            "2026-01-06T00:00Z",
            ["12-29 00:00", "01-05 00:00", "01-12 00:00"],
            [168, 168],
        ),
        (
            CalendarUnit.MONTH,
            "Asia/Tokyo",
            "2026-01-31T14:59Z",
            "2026-02-28T20:00Z",
            ["01-01 00:00", "02-01 00:00", "03-01 00:00", "04-01 00:00"],
            [744, 672, 744],
        ),
        (
            CalendarUnit.HOUR,
            "Asia/Kolkata",
            "2026-01-01T00:00Z",
            "2026-01-01T01:00Z",
            ["01-01 05:00", "01-01 06:00", "01-01 07:00"],
            [1, 1],
        ),
        (CalendarUnit.DAY, "UTC", "2026-01-02T00:00Z", "2026-01-02T00:00Z", ["01-02 00:00"], []),
    ],
)
def test_units_of_the_calendar_follow_the_clocks_of_a_time_zone(
    unit: CalendarUnit, zone: str, since: str, until: str, starts: list[str], hours: list[float]
) -> None:
    between = datetime.fromisoformat(since), datetime.fromisoformat(until)

    found = Intervals.of_calendar(*between, CalendarInterval(unit=unit, time_zone=zone))

    assert local(found.edges, zone) == starts
    assert [(end - start) / timedelta(hours=1) for start, end in found] == hours


def test_intervals_end_where_time_does() -> None:
    late = datetime(9999, 12, 31, 12, tzinfo=UTC)
    with pytest.raises(BadUserInput):
        Intervals.of_calendar(late, late + timedelta(hours=11), CalendarInterval(unit=CalendarUnit.DAY))


async def test_a_history_takes_calendar_intervals(database: Database, ask: Ask) -> None:
    flow = make_flow()
    times = [
        datetime(2026, 3, 28, 23, 30, tzinfo=UTC),
        datetime(2026, 3, 29, 21, 30, tzinfo=UTC),
        datetime(2026, 3, 29, 22, 30, tzinfo=UTC),
    ]
    common = {"state_type": StateType.FAILED, "state_name": "Failed"}
    await store(database, flow, *(make_flow_run(flow, expected_start_time=each, **common) for each in times))

    data = await ask(
        """query($interval: IntervalInput!) { flowRunHistory(
        since: "2026-03-29T00:00:00Z", until: "2026-03-30T12:00:00Z", intervalSeconds: 1, interval: $interval
        ) { start end states { count } } }""",
        interval=BERLIN,
    )

    assert [(each["start"][:13], each["end"][:13], each["states"]) for each in data["flowRunHistory"]] == [
        ("2026-03-28T23", "2026-03-29T22", [{"count": 2}]),
        ("2026-03-29T22", "2026-03-30T22", [{"count": 1}]),
    ]


async def test_flows_are_grouped_with_their_names(database: Database, ask: Ask) -> None:
    flows: list[Flow] = [make_flow(name) for name in ("one", "two")]
    ended = {"state_type": StateType.COMPLETED, "state_name": "Completed", "expected_start_time": at(0)}
    await store(database, *flows, make_flow_run(flows[0], **ended), make_flow_run(flows[1], **ended))

    data = await ask("{ flowRunStatistics(groupBy: [FLOW]) { flow { name } successRate } }")

    assert sorted(each["flow"]["name"] for each in data["flowRunStatistics"]) == ["one", "two"]
