"""Mutations of all runs that meet a condition."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.app import clock
from runstate.core.batch.requests import ProposeState
from runstate.core.checks.verify import verify
from runstate.core.commands import bulk
from runstate.database import Database
from runstate.database.lanes import COMMANDS
from runstate.database.queries.expiry import delete_expired
from runstate.errors import Overloaded, Unavailable
from runstate.rows import BulkOperation
from tests.client import Ask
from tests.graphql.mutations import PROBLEM, flow_run, make_deployment, make_flow, make_flow_run, make_task_run, propose

FIELDS = """total done changed hasMore finished cursor key mutation
  outcomes { count changed status problem rule reason runIds }"""
ARGUMENTS = {
    "where": "FlowRunWhere!",
    "state": "StateInput!",
    "force": "Boolean",
    "message": "String",
    "delaySeconds": "Float",
    "limit": "Int",
    "after": "String",
    "dryRun": "Boolean",
    "idempotencyKey": "String",
}


async def many(ask: Ask, mutation: str, **given: Any) -> Any:
    """The answer to a mutation of many runs."""
    kinds = ARGUMENTS | ({"where": "TaskRunWhere!"} if "TaskRuns" in mutation else {})
    variables = ", ".join(f"${name}: {kinds[name]}" for name in given)
    arguments = ", ".join(f"{name}: ${name}" for name in given)
    selection = f"{PROBLEM} ... on BulkOperation {{ {FIELDS} }}"
    return (await ask(f"mutation({variables}) {{ it: {mutation}({arguments}) {{ {selection} }} }}", **given))["it"]


def groups(answer: Any) -> dict[tuple[Any, Any], int]:
    """The number of runs by decision and rule."""
    return {(each["status"] or each["problem"], each["rule"]): each["count"] for each in answer["outcomes"]}


async def a_run(ask: Ask, *states: str, **given: Any) -> str:
    """A flow run that has entered states."""
    run = await make_flow_run(ask, **given)
    for state in states:
        await propose(ask, run, state, force=True)
    return run


FAILED = {"stateType": {"eq": "FAILED"}}


async def test_failed_runs_are_retried_and_the_others_are_told_in_groups(ask: Ask, app: Starlette) -> None:
    deployment = await make_deployment(ask)
    again = [await a_run(ask, "RUNNING", "FAILED", deploymentId=deployment) for _ in range(3)]
    alone = await a_run(ask, "RUNNING", "FAILED")
    done = await a_run(ask, "RUNNING", "COMPLETED", deploymentId=deployment)

    tried = await many(ask, "retryFlowRuns", where=FAILED, dryRun=True)
    untouched = await ask("{ flowRunCount(where: {stateType: {eq: FAILED}}) }")
    retried = await many(ask, "retryFlowRuns", where=FAILED, message="Try again.")

    expected = {("ACCEPT", None): 3, ("ABORT", "reschedule_needs_deployment"): 1}
    assert (groups(tried), groups(retried)) == (expected, expected)
    assert untouched == {"flowRunCount": 4}
    assert (retried["total"], retried["done"], retried["changed"], retried["hasMore"]) == (4, 4, 3, False)
    (refused,) = (each for each in retried["outcomes"] if each["rule"])
    assert (refused["runIds"], refused["reason"]) == ([alone], "Only a run of a deployment can be scheduled again.")
    for run in again:
        state = (await flow_run(ask, run, "state { name message }"))["state"]
        assert state == {"name": "AwaitingRetry", "message": "Try again."}
    assert (await flow_run(ask, done, "stateType"))["stateType"] == "COMPLETED"
    assert await verify(app.state.database, clock()) == []


async def test_all_runs_of_a_flow_are_cancelled(ask: Ask) -> None:
    one, two = await make_flow(ask, "one"), await make_flow(ask, "two")
    waiting = await a_run(ask, flowId=one, state={"type": "SCHEDULED"})
    runs = [waiting, await a_run(ask, "RUNNING", flowId=one), await a_run(ask, flowId=two)]

    answer = await many(ask, "cancelFlowRuns", where={"flow": {"name": {"eq": "one"}}}, message="Stop.")

    assert answer["changed"] == 2
    states = [(await flow_run(ask, run, "stateType"))["stateType"] for run in runs]
    assert states == ["CANCELLED", "CANCELLING", "PENDING"]


async def test_states_are_proposed_for_task_runs(ask: Ask) -> None:
    tasks = [await make_task_run(ask, str(number), tags=["x"] if number else []) for number in range(3)]
    where = {"tags": {"any": ["x"]}}

    answer = await many(ask, "proposeForTaskRuns", where=where, state={"type": "RUNNING"})
    again = await many(ask, "proposeForTaskRuns", where=where, state={"type": "RUNNING"}, force=True)

    assert (groups(answer), again["changed"]) == ({("ACCEPT", None): 2}, 2)
    data = await ask("{ taskRuns(orderBy: [{id: ASC}]) { nodes { id stateType version } } }")
    assert [(each["id"], each["version"]) for each in data["taskRuns"]["nodes"]] == list(
        zip(tasks, (1, 3, 3), strict=True)
    )


@pytest.mark.parametrize("runs_of", ["FlowRun", "TaskRun"])
async def test_runs_are_deleted_by_a_condition(ask: Ask, app: Starlette, runs_of: str) -> None:
    flow = await make_flow(ask)
    runs = [await make_flow_run(ask, flowId=flow, tags=["x"]) for _ in range(3)]
    for number, run in enumerate(runs):
        await make_task_run(ask, str(number), flowRunId=run, tags=["x"])
    kept = await make_flow_run(ask, flowId=flow)

    tried = await many(ask, f"delete{runs_of}s", where={"tags": {"any": ["x"]}}, dryRun=True)
    first = await many(ask, f"delete{runs_of}s", where={"tags": {"any": ["x"]}}, limit=2)
    rest = await many(ask, f"delete{runs_of}s", where={"tags": {"any": ["x"]}}, after=first["cursor"])

    assert (tried["total"], tried["changed"]) == (3, 3)
    assert (first["done"], first["hasMore"], rest["done"], rest["hasMore"]) == (2, True, 1, False)
    counts = await ask("{ flowRunCount taskRunCount }")
    assert counts == {"flowRunCount": 1 if runs_of == "FlowRun" else 4, "taskRunCount": 0}
    assert (await flow_run(ask, kept, "id"))["id"] == kept
    assert await verify(app.state.database, clock()) == []


async def test_a_limit_leaves_runs_for_the_cursor(ask: Ask) -> None:
    runs = [await a_run(ask) for _ in range(5)]
    where = {"id": {"isNull": False}}
    seen, after, more = 0, None, True
    while more:
        answer = await many(ask, "proposeForFlowRuns", where=where, state={"type": "RUNNING"}, limit=2, after=after)
        after, more = answer["cursor"], answer["hasMore"]
        seen += answer["changed"]
        assert answer["finished"]

    assert seen == len(runs)
    assert (await ask("{ flowRunCount(where: {version: {eq: 2}}) }"))["flowRunCount"] == 5


async def test_a_repeated_mutation_with_a_key_returns_its_result(ask: Ask) -> None:
    for _ in range(3):
        await a_run(ask)
    given = {"where": {"stateType": {"eq": "PENDING"}}, "state": {"type": "RUNNING"}, "idempotencyKey": "night"}

    first = await many(ask, "proposeForFlowRuns", **given)
    await a_run(ask)
    again = await many(ask, "proposeForFlowRuns", **given)
    other = await many(ask, "proposeForFlowRuns", **{**given, "state": {"type": "COMPLETED"}})
    progress = await ask(f'{{ bulkOperation(key: "night") {{ {FIELDS} }} none: bulkOperation(key: "x") {{ done }} }}')

    assert (first["changed"], first["finished"]) == (3, True)
    assert again == first
    assert other["__typename"] == "IdempotencyConflict"
    assert progress == {"bulkOperation": {name: first[name] for name in first if name != "__typename"}, "none": None}
    assert (await ask("{ flowRunCount(where: {stateType: {eq: RUNNING}}) }"))["flowRunCount"] == 3


async def test_runs_that_have_not_ended_are_not_retried(ask: Ask) -> None:
    deployment = await make_deployment(ask)
    runs = [await a_run(ask, *states, deploymentId=deployment) for states in ((), ("RUNNING",), ("RUNNING", "PAUSED"))]

    answer = await many(ask, "retryFlowRuns", where={"id": {"in": runs}})

    # The reasons name the states of the runs, so each run is a group.
    told = [(each["status"], each["rule"], each["count"], each["changed"]) for each in answer["outcomes"]]
    assert told == [("ABORT", "retry_only_after_the_end", 1, False)] * 3
    assert [(await flow_run(ask, run, "stateType"))["stateType"] for run in runs] == ["PENDING", "RUNNING", "PAUSED"]


RUNNING: dict[str, Any] = {"where": {"id": {"isNull": False}}, "state": {"type": "RUNNING"}}
RETRY: dict[str, Any] = {"where": FAILED, "delaySeconds": 1.0}


@pytest.mark.parametrize(
    ("mutation", "given", "other"),
    [
        ("proposeForFlowRuns", RUNNING, {"force": True}),
        ("proposeForFlowRuns", RUNNING, {"state": {"type": "RUNNING", "data": 1}}),
        ("proposeForFlowRuns", RUNNING, {"state": {"type": "RUNNING", "details": {"cacheKey": "k"}}}),
        ("retryFlowRuns", RETRY, {"delaySeconds": 2.0}),
    ],
)
async def test_a_key_belongs_to_all_arguments(
    ask: Ask, mutation: str, given: dict[str, Any], other: dict[str, Any]
) -> None:
    first = await many(ask, mutation, **given, idempotencyKey="k")
    again = await many(ask, mutation, **given, idempotencyKey="k")
    different = await many(ask, mutation, **(given | other), idempotencyKey="k")

    assert (again, different["__typename"]) == (first, "IdempotencyConflict")


@pytest.mark.parametrize("number", [2**64, 10**30])
async def test_a_condition_can_have_a_number_of_any_size(ask: Ask, number: int) -> None:
    run = await a_run(ask, parameters={"a": number})
    where = {"parameters": {"path": ["a"], "in": [number, number + 1]}}

    found = await many(ask, "cancelFlowRuns", where=where, idempotencyKey="k")

    assert [each["runIds"] for each in found["outcomes"]] == [[run]]


async def test_a_mutation_goes_on_where_a_killed_one_stopped(
    ask: Ask, app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await a_run(ask)
    given = {"where": {"id": {"isNull": False}}, "state": {"type": "RUNNING"}, "force": True, "idempotencyKey": "k"}
    monkeypatch.setattr(bulk, "MOST_SECONDS", -1)
    monkeypatch.setattr("runstate.graphql.families.many_runs.PROPOSALS", 2)

    first = await many(ask, "proposeForFlowRuns", **given)
    # The process is killed after a batch was committed, and before the progress was stored.
    async with app.state.database.write() as transaction:
        lost: dict[str, Any] = {"done": 0, "cursor": None, "outcomes": []}
        await transaction.connection.execute(sa.update(BulkOperation).values(**lost))
    found = [await many(ask, "proposeForFlowRuns", **given) for _ in range(4)]

    assert (first["done"], first["finished"], first["hasMore"]) == (2, False, True)
    assert [each["done"] for each in found] == [2, 4, 5, 5]
    assert (found[-1]["finished"], found[-1]["changed"], found[-1]["hasMore"]) == (True, 5, False)
    # Nothing was done twice.
    assert (await ask("{ flowRunCount(where: {version: {eq: 2}}) }"))["flowRunCount"] == 5


async def test_runs_are_looked_up_without_the_connections_of_commands(ask: Ask, app: Starlette) -> None:
    run = await a_run(ask)

    async with AsyncExitStack() as busy, asyncio.timeout(20):
        for _ in range(COMMANDS):
            await busy.enter_async_context(app.state.database.read())
        found = await many(ask, "cancelFlowRuns", where={"id": {"isNull": False}}, dryRun=True)

    assert [each["runIds"] for each in found["outcomes"]] == [[run]]


@pytest.mark.parametrize("error", [Overloaded(), Unavailable("Nothing was written.")])
async def test_a_server_that_cannot_go_on_returns_what_was_done_and_the_cursor(
    ask: Ask, app: Starlette, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    runs = [await a_run(ask) for _ in range(3)]
    batcher = app.state.batcher
    submit, calls = batcher.submit, count()

    async def submit_first(requests: Any) -> Any:
        if next(calls):
            raise error
        return await submit(requests)

    monkeypatch.setattr("runstate.graphql.families.many_runs.PROPOSALS", 1)
    with monkeypatch.context() as failing:
        failing.setattr(batcher, "submit", submit_first)
        first = await many(ask, "cancelFlowRuns", where={"id": {"isNull": False}})
    rest = await many(ask, "cancelFlowRuns", where={"id": {"isNull": False}}, after=first["cursor"])

    assert (first["done"], first["changed"], first["finished"], first["cursor"]) == (1, 1, False, min(runs))
    assert (rest["done"], rest["changed"], rest["finished"]) == (2, 2, True)


async def test_two_mutations_with_one_key_do_everything_once(ask: Ask) -> None:
    for _ in range(6):
        await a_run(ask)
    given = {"where": {"id": {"isNull": False}}, "state": {"type": "RUNNING"}, "force": True, "idempotencyKey": "k"}

    await asyncio.gather(*(many(ask, "proposeForFlowRuns", **given) for _ in range(3)))

    assert (await ask("{ flowRunCount(where: {version: {eq: 2}}) }"))["flowRunCount"] == 6
    assert (await ask(f'{{ bulkOperation(key: "k") {{ {FIELDS} }} }}'))["bulkOperation"]["done"] == 6


async def test_a_run_that_changes_meanwhile_is_looked_up_again(ask: Ask, app: Starlette) -> None:
    moved, ended = await a_run(ask), await a_run(ask)
    batcher, seen = app.state.batcher, list[int]()
    submit = batcher.submit

    async def interfered(requests: Any) -> Any:
        bulk_requests = [each for each in requests if isinstance(each, ProposeState) and each.expected_version == 1]
        if bulk_requests and not seen:
            seen.append(1)
            await propose(ask, moved, "RUNNING")
            await propose(ask, ended, "COMPLETED", force=True)
        return await submit(requests)

    batcher.submit = interfered
    answer = await many(ask, "cancelFlowRuns", where={"stateType": {"in": ["PENDING", "RUNNING"]}})

    assert seen
    told = {(each["count"], each["status"], each["reason"]) for each in answer["outcomes"]}
    assert told == {(1, "ACCEPT", None), (1, None, "The run no longer meets the condition.")}
    assert (await flow_run(ask, moved, "stateType"))["stateType"] == "CANCELLING"
    assert (await flow_run(ask, ended, "stateType"))["stateType"] == "COMPLETED"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"where": {}}, ["where"]),
        ({"where": FAILED, "limit": 0}, ["limit"]),
        ({"where": FAILED, "limit": 10_001}, ["limit"]),
        ({"where": FAILED, "after": "x"}, ["after"]),
        ({"where": FAILED, "idempotencyKey": ""}, ["idempotencyKey"]),
        ({"where": FAILED, "idempotencyKey": "x" * 201}, ["idempotencyKey"]),
        ({"where": FAILED, "delaySeconds": -1}, ["delaySeconds"]),
    ],
)
async def test_what_is_wrong_with_the_arguments_is_a_problem(ask: Ask, given: Any, path: list[str]) -> None:
    answer = await many(ask, "retryFlowRuns", **given)

    assert (answer["__typename"], answer["path"]) == ("InvalidInput", path)


async def test_the_progress_expires(ask: Ask, database: Database) -> None:
    await many(ask, "retryFlowRuns", where=FAILED, idempotencyKey="k")

    await delete_expired(database, clock() + timedelta(hours=2), {"idempotency_retention_hours": 1})

    assert await ask('{ bulkOperation(key: "k") { done } }') == {"bulkOperation": None}
