"""Conditions relative to the present, on parts of texts, and on all related rows; orders without an index."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runstate.database import Database
from runstate.documents.states import StateType
from tests.client import Ask
from tests.graphql.factories import at, make_flow, make_flow_run, make_task_run, store

NAMES = """query($where: FlowRunWhere, $orderBy: [FlowRunOrderBy!], $after: String) {
  flowRuns(where: $where, orderBy: $orderBy, first: 2, after: $after) {
    nodes { name } pageInfo { endCursor hasNextPage } } }"""


async def names(ask: Ask, **variables: Any) -> list[str]:
    """The names of all flow runs on all pages."""
    found, after, more = [], None, True
    while more:
        page = (await ask(NAMES, **variables, after=after))["flowRuns"]
        found += [each["name"] for each in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    return found


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"lte": 3600}, ["minute", "future"]),
        ({"lt": 3600, "gte": 0}, ["minute"]),
        ({"gt": 3600}, ["day"]),
        ({"lt": 0}, ["future"]),
        ({"gt": 0, "lt": 1e9}, ["minute", "day"]),
    ],
)
async def test_a_time_is_compared_with_the_present(
    database: Database, ask: Ask, condition: dict[str, float], expected: list[str]
) -> None:
    flow, now = make_flow(), datetime.now(UTC)
    ages = {"future": timedelta(hours=-1), "minute": timedelta(minutes=1), "day": timedelta(days=1)}
    runs = [make_flow_run(flow, name=name, end_time=now - age) for name, age in ages.items()]
    await store(database, flow, *runs, make_flow_run(flow, name="never"))

    found = await names(ask, where={"endTime": {"secondsAgo": condition}})

    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("condition", [{}, {"lt": 1e300}, {"lt": None}])
async def test_a_relative_condition_has_a_number_in_range(ask: Ask, condition: dict[str, Any]) -> None:
    body = await ask.raw(NAMES, where={"endTime": {"secondsAgo": condition}})

    assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"endsWith": "Load"}, ["nightLoad"]),
        ({"endsWith": "load"}, ["preload"]),
        ({"endsWith": ""}, ["nightLoad", "preload", "Été"]),
        ({"endsWith": "something-longer-than-any"}, []),
        ({"endsWith": "%"}, []),
        ({"eqIgnoreCase": "NIGHTLOAD"}, ["nightLoad"]),
        ({"eqIgnoreCase": "load"}, []),
        ({"eqIgnoreCase": "éTÉ"}, ["Été"]),
        ({"eqIgnoreCase": "p\0reload"}, []),
    ],
)
async def test_texts_are_compared_by_their_end_and_without_case(
    database: Database, ask: Ask, condition: dict[str, str], expected: list[str]
) -> None:
    flow = make_flow()
    await store(database, flow, *(make_flow_run(flow, name=name) for name in ("nightLoad", "preload", "Été")))

    assert sorted(await names(ask, where={"name": condition})) == sorted(expected)


async def test_every_related_row_meets_a_condition_or_there_is_none(database: Database, ask: Ask) -> None:
    flow = make_flow()
    states: dict[str, list[str | None]] = {
        "all": ["COMPLETED", "COMPLETED"],
        "some": ["COMPLETED", "FAILED"],
        "none": [],
        "unknown": [None],
    }
    runs = {name: make_flow_run(flow, name=name) for name in states}
    tasks = [
        make_task_run(runs[name], state_type=kind and StateType(kind))
        for name, kinds in states.items()
        for kind in kinds
    ]
    await store(database, flow, *runs.values(), *tasks)

    found = await names(ask, where={"taskRuns": {"every": {"stateType": {"eq": "COMPLETED"}}}})

    assert sorted(found) == ["all", "none"]


@pytest.mark.parametrize("field", ["totalRunTimeSeconds", "stateTimestamp", "updated", "runCount"])
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_runs_are_sorted_by_columns_without_an_index(
    database: Database, ask: Ask, field: str, direction: str
) -> None:
    flow = make_flow()
    runs = [
        make_flow_run(
            flow,
            name=str(number),
            total_run_time_seconds=number / 4,
            state_timestamp=at(number),
            updated=at(number),
            run_count=number,
        )
        for number in (2, 0, 3, 1)
    ]
    await store(database, flow, *runs)

    found = await names(ask, orderBy=[{field: direction}])

    assert found == (["0", "1", "2", "3"] if direction == "ASC" else ["3", "2", "1", "0"])


async def test_a_flow_has_the_tasks_of_its_newest_runs(database: Database, ask: Ask) -> None:
    flow, other = make_flow("etl"), make_flow("other")
    old, new = (make_flow_run(flow, expected_start_time=at(time)) for time in (1, 2))
    its = make_flow_run(other, expected_start_time=at(3))
    tasks = [
        make_task_run(old, task_key="gone"),
        make_task_run(new, task_key="load", name="first"),
        make_task_run(new, task_key="extract"),
        make_task_run(new, task_key="load", name="second"),
        make_task_run(its, task_key="join"),
    ]
    await store(database, flow, other, old, new, its, *tasks)
    document = (
        """query($runs: Int!) { flow(by: {name: "etl"}) { tasks(inLatestRuns: $runs) { key latestRun { name } } } }"""
    )

    latest = (await ask(document, runs=1))["flow"]["tasks"]
    both = (await ask(document, runs=2))["flow"]["tasks"]
    too_many = await ask.raw(document, runs=501)

    assert latest == [
        {"key": "extract", "latestRun": {"name": "task"}},
        {"key": "load", "latestRun": {"name": "second"}},
    ]
    assert [each["key"] for each in both] == ["extract", "gone", "load"]
    assert too_many["errors"][0]["extensions"] | {"requestId": None} == {
        "code": "LIMIT_EXCEEDED",
        "limit": "pageSize",
        "allowed": 500,
        "found": 501,
        "requestId": None,
    }


async def test_the_server_and_the_client_describe_themselves(ask: Ask, kind: str) -> None:
    data = await ask(
        "{ viewer { name scopes } server { version startedAt database features limits { cost pageSize rootFields } } }"
    )

    assert data["viewer"] == {"name": "anonymous", "scopes": ["READ", "PROPOSE", "ADMIN", "SECRETS"]}
    assert data["server"]["database"] == kind.upper()
    assert data["server"]["features"] == ["GET_PREFLIGHT", "INTROSPECTION"]
    assert data["server"]["limits"] == {"cost": 50_000, "pageSize": 200, "rootFields": 20}


@pytest.mark.parametrize(
    ("direction", "expected"), [("DESC", ["b", "a", "c", "none"]), ("ASC", ["c", "a", "b", "none"])]
)
async def test_flows_are_sorted_by_their_newest_run(
    database: Database, ask: Ask, direction: str, expected: list[str]
) -> None:
    flows = {name: make_flow(name, tags=["x"]) for name in ("a", "b", "c", "none")}
    runs = [("a", 1), ("a", 5), ("b", 9), ("b", 2), ("c", 4)]
    await store(
        database, *flows.values(), *(make_flow_run(flows[name], expected_start_time=at(time)) for name, time in runs)
    )
    document = """query($by: [FlowOrderBy!], $after: String, $before: String, $first: Int, $last: Int) {
      flows(orderBy: $by, where: {tags: {any: ["x"]}, flowRuns: {none: {name: {eq: "?"}}}},
      first: $first, after: $after, last: $last, before: $before) {
        nodes { name } totalCount pageInfo { endCursor startCursor hasNextPage } } }"""
    found, after, more = [], None, True
    while more:
        page = (await ask(document, by=[{"latestRun": direction}], first=1, after=after))["flows"]
        found += [each["name"] for each in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    back = (await ask(document, by=[{"latestRun": direction}], last=2, before=after))["flows"]

    assert (found, page["totalCount"]) == (expected, 4)
    assert [each["name"] for each in back["nodes"]] == expected[1:3]
