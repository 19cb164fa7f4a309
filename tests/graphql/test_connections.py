"""Connections: pages in any order, forwards and backwards, of one parent or of many."""

import random
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import cmp_to_key
from typing import Any
from unittest.mock import ANY

import pytest

from runstate.database import Database
from runstate.rows import FlowRun
from tests.client import Ask
from tests.graphql.factories import at, ids, make_flow, make_flow_run, make_state, make_task_run, store

PAGE = """
query($where: FlowRunWhere, $orderBy: [FlowRunOrderBy!], $first: Int, $after: String, $last: Int, $before: String) {
  flowRuns(where: $where, orderBy: $orderBy, first: $first, after: $after, last: $last, before: $before) {
    totalCount
    edges { cursor node { id } }
    nodes { id }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
COLUMNS = {"name": "name", "startTime": "start_time", "endTime": "end_time", "created": "created", "id": "id"}


async def runs_with_ties_and_nulls(database: Database, chance: random.Random, number: int = 23) -> list[FlowRun]:
    """Insert runs with many equal values and nulls; return them."""
    flow = make_flow()
    times = [None, at(1), at(2)]
    runs = [
        make_flow_run(
            flow,
            name=chance.choice("ab"),
            start_time=chance.choice(times),
            end_time=chance.choice(times),
            created=at(chance.randrange(2)),
        )
        for _ in range(number)
    ]
    await store(database, flow, *runs)
    return runs


def before(keys: list[tuple[str, bool]]) -> Callable[[Any, Any], int]:
    """Return a comparison of two rows by an order; nulls are last in both directions."""

    def compare(one: Any, other: Any) -> int:
        for column, descending in keys:
            left, right = getattr(one, column), getattr(other, column)
            if left == right:
                continue
            if left is None or right is None:
                return 1 if left is None else -1
            return (1 if left > right else -1) * (-1 if descending else 1)
        return 0

    return compare


def sorted_as(runs: list[FlowRun], order: list[dict[str, str]]) -> list[FlowRun]:
    """Return runs sorted by an order, computed in Python."""
    keys = [(COLUMNS[name], direction == "DESC") for by in order for name, direction in by.items()]
    return sorted(runs, key=cmp_to_key(before([*keys, ("id", keys[-1][1] if keys else True)])))


def orders(chance: random.Random) -> list[list[dict[str, str]]]:
    """Return orders: none, each column in both directions, and several columns together."""
    single = [[{name: direction}] for name in COLUMNS for direction in ("ASC", "DESC")]
    several = [[{name: chance.choice(["ASC", "DESC"])} for name in chance.sample(list(COLUMNS), k=3)] for _ in range(4)]
    return [[], *single, *several]


async def test_pages_forwards_contain_every_run_once_in_order(database: Database, ask: Ask) -> None:
    chance = random.Random(1)
    runs = await runs_with_ties_and_nulls(database, chance)
    for order in orders(chance):
        found, after, more = [], None, True
        while more:
            page = (await ask(PAGE, orderBy=order, first=5, after=after))["flowRuns"]
            info = page["pageInfo"]
            assert info["hasPreviousPage"] == (after is not None)
            assert [info["startCursor"], info["endCursor"]] == [page["edges"][0]["cursor"], page["edges"][-1]["cursor"]]
            assert page["nodes"] == [edge["node"] for edge in page["edges"]]
            assert page["totalCount"] == len(runs)
            found += ids(page["nodes"])
            after, more = info["endCursor"], info["hasNextPage"]
        assert found == ids(sorted_as(runs, order)), order


async def test_pages_backwards_contain_the_same_order(database: Database, ask: Ask) -> None:
    chance = random.Random(2)
    runs = await runs_with_ties_and_nulls(database, chance)
    for order in orders(chance):
        found: list[str] = []
        start, more = None, True
        while more:
            page = (await ask(PAGE, orderBy=order, last=5, before=start))["flowRuns"]
            assert page["pageInfo"]["hasNextPage"] == (start is not None)
            found = ids(page["nodes"]) + found
            start, more = page["pageInfo"]["startCursor"], page["pageInfo"]["hasPreviousPage"]
        assert found == ids(sorted_as(runs, order)), order


async def test_a_page_can_lie_between_two_cursors(database: Database, ask: Ask) -> None:
    chance = random.Random(3)
    runs = await runs_with_ties_and_nulls(database, chance)
    for order in orders(chance):
        edges = (await ask(PAGE, orderBy=order, first=50))["flowRuns"]["edges"]
        expected = ids(sorted_as(runs, order))
        for start, end in [(0, 5), (3, 22), (7, 8), (8, 8), (9, 4)]:
            for size in ({"first": 3}, {"last": 3}):
                cursors = {"after": edges[start]["cursor"], "before": edges[end]["cursor"]}
                page = (await ask(PAGE, orderBy=order, **cursors, **size))["flowRuns"]
                between = expected[start + 1 : end]
                assert ids(page["nodes"]) == (between[:3] if "first" in size else between[-3:])
                info = page["pageInfo"]
                assert info["hasNextPage"] == (end < len(runs)) or ("first" in size and len(between) > 3)
                assert info["hasPreviousPage"] is True


async def test_a_page_is_stable_while_rows_are_inserted_and_deleted(database: Database, ask: Ask) -> None:
    flow = make_flow()
    runs = [make_flow_run(flow) for _ in range(4)]
    await store(database, flow, *runs[:3])
    first = (await ask(PAGE, first=1))["flowRuns"]
    await store(database, runs[3])

    page = (await ask(PAGE, first=2, after=first["pageInfo"]["endCursor"]))["flowRuns"]

    assert ids(page["nodes"]) == ids([runs[1], runs[0]])


async def test_an_empty_list_has_no_cursors(ask: Ask) -> None:
    page = (await ask(PAGE))["flowRuns"]

    assert page == {
        "totalCount": 0,
        "edges": [],
        "nodes": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }


@pytest.mark.parametrize("size", [{"first": 0}, {"first": -1}, {"last": 0}, {"first": 1, "last": 1}])
async def test_a_page_has_at_least_one_row(ask: Ask, size: dict[str, int]) -> None:
    body = await ask.raw(PAGE, **size)

    assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("argument", ["first", "last"])
async def test_a_page_has_at_most_200_rows(ask: Ask, argument: str) -> None:
    error = (await ask.raw(PAGE, **{argument: 201}))["errors"][0]["extensions"]

    assert (error["code"], error["limit"], error["allowed"], error["found"]) == ("LIMIT_EXCEEDED", "pageSize", 200, 201)


async def test_a_page_has_50_rows_by_default(database: Database, ask: Ask) -> None:
    flow = make_flow()
    await store(database, flow, *(make_flow_run(flow) for _ in range(51)))

    page = (await ask(PAGE, first=None, last=None))["flowRuns"]

    assert len(page["nodes"]) == 50
    assert page["pageInfo"]["hasNextPage"]


def forged(text: bytes) -> str:
    """Return a cursor with other content."""
    return urlsafe_b64encode(text).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "!!!!",
        forged(b""),
        forged(b"null"),
        forged(b"[]"),
        forged(b"[1]"),
        forged(b"[1,2]"),
        forged(b'[0,"x"]'),
        forged(b"{}"),
        forged(b'[1,"01890000-0000-7000-8000-000000000000",3]'),
    ],
)
@pytest.mark.parametrize("argument", ["after", "before"])
async def test_a_malformed_cursor_is_refused(ask: Ask, cursor: str, argument: str) -> None:
    body = await ask.raw(PAGE, **{argument: cursor})

    assert body["errors"][0]["extensions"] == {"code": "INVALID_INPUT", "path": [argument], "requestId": ANY}


async def test_a_cursor_of_another_order_is_refused(database: Database, ask: Ask) -> None:
    flow = make_flow()
    await store(database, flow, make_flow_run(flow))
    cursor = (await ask(PAGE, orderBy=[{"created": "ASC"}]))["flowRuns"]["pageInfo"]["endCursor"]

    body = await ask.raw(PAGE, orderBy=[{"created": "DESC"}], after=cursor)

    assert body["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


async def test_a_cursor_of_another_type_is_refused(database: Database, ask: Ask) -> None:
    await store(database, make_flow())
    cursor = (await ask("{ flows { pageInfo { endCursor } } }"))["flows"]["pageInfo"]["endCursor"]

    assert "errors" in await ask.raw(PAGE, after=cursor)


async def test_states_are_sorted_oldest_first_and_everything_else_newest_first(database: Database, ask: Ask) -> None:
    flow = make_flow()
    run = make_flow_run(flow)
    states = [make_state(run, version) for version in (3, 1, 2)]
    await store(database, flow, run, *states)

    data = await ask("{ flowRuns { nodes { states { nodes { version } } history(last: 2) { version } } } }")

    assert data["flowRuns"]["nodes"] == [
        {
            "states": {"nodes": [{"version": 1}, {"version": 2}, {"version": 3}]},
            "history": [{"version": 2}, {"version": 3}],
        }
    ]


NESTED = """
query($first: Int, $last: Int, $after: String, $where: TaskRunWhere) {
  flowRuns(first: 200) {
    nodes {
      id
      flow { name }
      state { name run { id } }
      history(last: 2) { version run { runCount } }
      states(last: 1) { nodes { version } }
      taskRuns(first: $first, last: $last, after: $after, where: $where, orderBy: [{name: ASC}]) {
        totalCount
        pageInfo { hasNextPage hasPreviousPage }
        nodes { id name flowRun { name } state { name } childFlowRun { id } }
      }
    }
  }
}
"""


async def many_runs(database: Database, number: int) -> dict[str, list[str]]:
    """Insert flow runs with task runs; return the names of the task runs of each."""
    flow = make_flow(f"with {number}")
    rows: list[Any] = [flow]
    names = {}
    for each in range(number):
        run = make_flow_run(flow)
        state = make_state(run)
        run = run.replace(state_id=state.id)
        task_runs = [make_task_run(run, name=f"{place:02}") for place in range(each % 5)]
        rows += [run, state, *task_runs]
        names[str(run.id)] = [task_run.name for task_run in task_runs]
    await store(database, *rows)
    return names


@pytest.mark.parametrize("size", [{"first": 2}, {"last": 2}])
async def test_nested_lists_belong_to_their_parents(database: Database, ask: Ask, size: dict[str, int]) -> None:
    names = await many_runs(database, 7)

    data = await ask(NESTED, **size)

    for run in data["flowRuns"]["nodes"]:
        expected = names[run["id"]]
        page = expected[:2] if "first" in size else expected[-2:]
        assert [task_run["name"] for task_run in run["taskRuns"]["nodes"]] == page
        assert run["taskRuns"]["totalCount"] == len(expected)
        cut = len(expected) > 2
        assert run["taskRuns"]["pageInfo"] == {
            "hasNextPage": cut and "first" in size,
            "hasPreviousPage": cut and "last" in size,
        }


async def test_the_number_of_statements_does_not_depend_on_the_number_of_rows(
    database: Database, ask: Ask, read: list[str]
) -> None:
    counted = []
    for number in (2, 40):
        await many_runs(database, number)
        read.clear()
        await ask(NESTED, first=2, where={"name": {"ne": "x"}, "flowRun": {"flow": {"name": {"startsWith": "with"}}}})
        counted.append(len(read))

    assert counted == [11, 11]


async def test_a_cursor_in_a_nested_list_applies_to_each_parent(database: Database, ask: Ask) -> None:
    names = await many_runs(database, 7)
    first = await ask("{ taskRuns(first: 1, orderBy: [{name: ASC}]) { pageInfo { endCursor } nodes { name } } }")
    assert first["taskRuns"]["nodes"][0]["name"] == "00"

    data = await ask(NESTED, after=first["taskRuns"]["pageInfo"]["endCursor"])

    for run in data["flowRuns"]["nodes"]:
        found = [task_run["name"] for task_run in run["taskRuns"]["nodes"]]
        assert [name for name in found if name != "00"] == names[run["id"]][1:]
        assert run["taskRuns"]["pageInfo"]["hasPreviousPage"] == (len(found) < len(names[run["id"]]))
