"""Logs over HTTP, on both databases: writing, pages, trees, deletion and retention."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from starlette.applications import Starlette

from runstate.services import cleanup
from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do, make_flow_run, make_task_run

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
LINES = "query($where: LogWhere, $tree: ID) { logs(where: $where, tree: $tree) { totalCount nodes { message } } }"


def line(message: str = "m", second: float = 0, **more: Any) -> dict[str, Any]:
    """Return a line."""
    at = (NOON + timedelta(seconds=second)).isoformat()
    return {"message": message, "logger": "app", "level": 20, "timestamp": at, **more}


async def write(ask: Ask, *lines: dict[str, Any]) -> Any:
    """Write lines; return the payload or the problem."""
    fields = f"{PROBLEM} ... on WriteLogsPayload {{ written refused {{ index path message }} }}"
    return await do(ask, "writeLogs", "WriteLogsInput", fields, logs=list(lines))


async def messages(ask: Ask, tree: str | None = None, **where: Any) -> list[str]:
    """Return the messages of lines in order, after comparing their number with the count."""
    found = (await ask(LINES, where=where, **({} if tree is None else {"tree": tree})))["logs"]
    assert found["totalCount"] == len(found["nodes"])
    return [each["message"] for each in found["nodes"]]


async def subflow(ask: Ask, parent: str) -> str:
    """Create a subflow run; return its id."""
    task = await make_task_run(ask, flowRunId=parent, dynamic_key=str(uuid4()))
    return await make_flow_run(ask, parentTaskRunId=task)


async def test_a_line_keeps_all_that_was_written(ask: Ask) -> None:
    run = await make_flow_run(ask)
    task = await make_task_run(ask, flowRunId=run)
    given = line("text", 0.123456, flowRunId=run, taskRunId=task, workerId=str(uuid4()), level=45)
    await write(ask, given)
    fields = """id message logger level levelName timestamp flowRunId taskRunId workerId truncated
      flowRun { id } taskRun { id }"""
    (found,) = (await ask(f"{{ logs {{ nodes {{ {fields} }} }} }}"))["logs"]["nodes"]

    expected = {**given, "timestamp": "2026-01-05T12:00:00.123456Z", "levelName": "ERROR", "truncated": False}
    assert found == {**expected, "id": found["id"], "flowRun": {"id": run}, "taskRun": {"id": task}}
    assert (await ask("query($id: ID!) { log(id: $id) { message } }", id=found["id"]))["log"] == {"message": "text"}
    assert (await ask("query($id: ID!) { node(id: $id) { __typename } }", id=found["id"]))["node"] == {
        "__typename": "Log"
    }


async def test_one_invalid_line_is_refused_and_the_others_are_written(ask: Ask) -> None:
    written = await write(
        ask,
        line("first"),
        line("bad level", level=32768),
        line("bad id", taskRunId="none"),
        line("bad logger", logger="x" * 1025),
        line("last", second=1),
    )

    assert written["written"] == 2
    assert [(each["index"], each["path"]) for each in written["refused"]] == [
        (1, ["level"]),
        (2, ["taskRunId"]),
        (3, ["logger"]),
    ]
    assert await messages(ask) == ["first", "last"]


@pytest.mark.parametrize(("number", "expected"), [(0, "InvalidInput"), (1001, "LIMIT_EXCEEDED")])
async def test_a_call_writes_from_1_to_1000_lines(ask: Ask, number: int, expected: str) -> None:
    body = await ask.raw(
        "mutation($input: WriteLogsInput!) { it: writeLogs(input: $input) { __typename } }",
        input={"logs": [line()] * number},
    )

    answer = body["errors"][0]["extensions"]["code"] if "errors" in body else body["data"]["it"]["__typename"]
    assert answer == expected
    assert await messages(ask) == []


async def test_a_long_message_is_cut_and_nul_is_removed(ask: Ask) -> None:
    await write(ask, line("a\0b"), line("x" * 100_001, second=1))
    found = (await ask("{ logs { nodes { message truncated } } }"))["logs"]["nodes"]

    assert found == [{"message": "ab", "truncated": False}, {"message": "x" * 100_000, "truncated": True}]


async def test_equal_timestamps_are_sorted_as_written(ask: Ask) -> None:
    texts = [str(number) for number in range(600)]
    for start in (0, 300):
        await write(ask, *map(line, texts[start : start + 300]))
    found: list[str] = []
    after = None
    while True:
        document = """query($after: String) { logs(first: 200, after: $after) {
          nodes { message } pageInfo { endCursor hasNextPage } } }"""
        page = (await ask(document, after=after))["logs"]
        found += [each["message"] for each in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert found == texts


async def test_the_last_lines_are_a_page_from_the_end(ask: Ask) -> None:
    await write(ask, *(line(str(number), number) for number in range(5)))
    document = (
        "query($before: String) { logs(last: 2, before: $before) { nodes { message } pageInfo { startCursor } } }"
    )
    last = (await ask(document))["logs"]
    previous = (await ask(document, before=last["pageInfo"]["startCursor"]))["logs"]

    assert [each["message"] for each in previous["nodes"] + last["nodes"]] == ["1", "2", "3", "4"]


async def test_a_tree_has_the_lines_of_task_runs_and_subflows_in_one_order(ask: Ask) -> None:
    run, other = await make_flow_run(ask), await make_flow_run(ask)
    child = await subflow(ask, run)
    grandchild = await subflow(ask, child)
    task = await make_task_run(ask, flowRunId=run, dynamic_key="own")
    await write(
        ask,
        line("2", 2, flowRunId=grandchild),
        line("0", 0, flowRunId=run),
        line("other", 1, flowRunId=other),
        line("1", 1, flowRunId=run, taskRunId=task),
        line("3", 3, flowRunId=child),
        line("none", 3),
    )

    assert await messages(ask, tree=run) == ["0", "1", "2", "3"]
    assert await messages(ask, tree=child) == ["2", "3"]
    assert await messages(ask, tree=run, level={"gt": 20}) == []
    assert await messages(ask, tree="malformed") == []
    of_run = await ask("query($id: ID!) { flowRun(id: $id) { logs { nodes { message } } } }", id=run)
    assert [each["message"] for each in of_run["flowRun"]["logs"]["nodes"]] == ["0", "1"]
    of_task = await ask("query($id: ID!) { taskRun(id: $id) { logs { nodes { message } } } }", id=task)
    assert [each["message"] for each in of_task["taskRun"]["logs"]["nodes"]] == ["1"]


PAGES = """query($tree: ID, $first: Int, $after: String, $last: Int, $before: String, $by: [LogOrderBy!]) {
  logs(tree: $tree, first: $first, after: $after, last: $last, before: $before, orderBy: $by) {
    totalCount nodes { message } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


@pytest.mark.parametrize("by", [[], [{"timestamp": "DESC"}], [{"taskRunId": "ASC"}, {"timestamp": "ASC"}]])
async def test_a_tree_is_read_page_by_page_in_both_directions(ask: Ask, by: list[dict[str, str]]) -> None:
    run = await make_flow_run(ask)
    child = await subflow(ask, run)
    await write(ask, *(line(str(each), each // 2, flowRunId=(run, child)[each % 2]) for each in range(7)), line("x", 1))
    order = {"by": by} if by else {}
    expected = list("0123456") if by != [{"timestamp": "DESC"}] else list("6543210")
    forward, backward = list[str](), list[str]()
    page: dict[str, Any] = {}
    while not page or page["pageInfo"]["hasNextPage"]:
        page = (await ask(PAGES, tree=run, first=2, after=(page and page["pageInfo"]["endCursor"]) or None, **order))[
            "logs"
        ]
        forward += [each["message"] for each in page["nodes"]]
        assert page["totalCount"] == len(expected)
    page = {}
    while not page or page["pageInfo"]["hasPreviousPage"]:
        before = (page and page["pageInfo"]["startCursor"]) or None
        page = (await ask(PAGES, tree=run, last=2, before=before, **order))["logs"]
        backward = [each["message"] for each in page["nodes"]] + backward

    assert forward == backward == expected


async def test_a_search_has_at_most_200_characters(ask: Ask) -> None:
    body = await ask.raw(LINES, where={"search": "x" * 201})

    assert body["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


async def test_loggers_are_listed_once_in_alphabetical_order(ask: Ask) -> None:
    await write(ask, *(line(logger=name, level=level) for name, level in (("b", 20), ("a", 40), ("b", 40), ("c", 20))))

    assert (await ask("{ loggers }"))["loggers"] == ["a", "b", "c"]
    assert (await ask("{ loggers(where: {level: {gte: 40}}) }"))["loggers"] == ["a", "b"]


async def test_lines_that_meet_a_condition_are_counted_and_deleted(ask: Ask) -> None:
    await write(ask, *(line(str(number), number, level=number * 10) for number in range(5)))
    delete = partial(do, ask, "deleteLogs", "DeleteLogsInput", f"{PROBLEM} ... on DeleteLogsPayload {{ count }}")
    where = {"level": {"lte": 20}}

    assert (await delete(where=where, dryRun=True))["count"] == 3
    assert len(await messages(ask)) == 5
    assert (await delete(where=where))["count"] == 3
    assert await messages(ask) == ["3", "4"]
    refused = await delete(where={})
    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["where"])


async def test_lines_are_deleted_with_their_run(ask: Ask) -> None:
    run = await make_flow_run(ask)
    task = await make_task_run(ask)
    await write(ask, line("run", flowRunId=run), line("task", taskRunId=task), line("none"))
    for kind, key in (("FlowRun", run), ("TaskRun", task)):
        await ask(f"mutation($id: ID!) {{ delete{kind}(id: $id) {{ __typename }} }}", id=key)

    assert await messages(ask) == ["none"]


async def test_lines_expire_by_the_time_of_their_arrival(ask: Ask, app: Starlette) -> None:
    await write(ask, line("old", -1e9), line("new"))
    batcher = app.state.batcher
    retention = {"run_log_retention_days": 30.0}

    assert await cleanup.run_once(batcher, batcher.clock() + timedelta(days=29), retention=retention) == 0
    assert await cleanup.run_once(batcher, batcher.clock() + timedelta(days=31), retention={}) == 0
    assert await cleanup.run_once(batcher, batcher.clock() + timedelta(days=31), retention=retention) == 2
    assert await messages(ask) == []


async def test_each_of_several_runs_has_a_page_of_its_own(ask: Ask) -> None:
    runs = [await make_flow_run(ask) for _ in range(3)]
    await write(ask, *(line(f"{run}{n}", n, flowRunId=runs[run]) for n in range(4) for run in range(2)))
    page = "nodes { message } totalCount pageInfo { hasNextPage hasPreviousPage endCursor startCursor }"
    document = f"""{{ flowRuns(orderBy: [{{created: ASC}}]) {{ nodes {{
        a: logs(first: 3) {{ {page} }} b: logs(last: 1) {{ {page} }} }} }} }}"""
    found = (await ask(document))["flowRuns"]["nodes"]

    shown = [[[each["message"] for each in run[alias]["nodes"]] for alias in ("a", "b")] for run in found]
    assert shown == [[["00", "01", "02"], ["03"]], [["10", "11", "12"], ["13"]], [[], []]]
    more = [(run["a"]["pageInfo"]["hasNextPage"], run["b"]["pageInfo"]["hasPreviousPage"]) for run in found]
    assert more == [(True, True), (True, True), (False, False)]
    following = document.replace("first: 3", f'first: 3, after: "{found[0]["a"]["pageInfo"]["endCursor"]}"')
    rest = (await ask(following))["flowRuns"]["nodes"]
    assert [[each["message"] for each in run["a"]["nodes"]] for run in rest] == [["03"], ["12", "13"], []]
