"""Mutations on the fast path get the same answers as from graphql-core, byte for byte."""

from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

import pytest
from starlette.applications import Starlette

from runstate.app import clock
from runstate.graphql.context import Context
from runstate.graphql.execution.fast_path import FastPath
from runstate.graphql.execution.operation import Schema
from runstate.graphql.schema import build_schema
from runstate.graphql.transport.sse import body_of
from runstate.graphql.types.scalars import dumped
from tests.client import Ask
from tests.graphql.mutations import make_flow_run, make_task_run

ROUNDS = 100
FAST = build_schema()
STOCK = build_schema(plans=False)
PROBLEM = "... on Problem { code message } ... on InvalidInput { path } ... on NotFound { missingId }"
ANSWER = f"""__typename ... on OrchestrationResult {{
  status reason rule retryAfterSeconds replayed considered {{ rule verdict reason }}
  state {{ id name type version ... on TaskRunState {{ created }} }}
  proposed {{ type name message details {{ cacheKey scheduledTime flowRunId }} }} }} {PROBLEM}"""
PROPOSE = f"mutation($input: ProposeStateInput!) {{ it: proposeState(input: $input) {{ {ANSWER} }} }}"
PROPOSE_MANY = f"mutation($inputs: [ProposeStateInput!]!) {{ proposeStates(inputs: $inputs) {{ {ANSWER} }} }}"
CREATE = f"mutation($input: CreateTaskRunInput!) {{ createTaskRun(input: $input) {{ __typename {PROBLEM} }} }}"
SHOWN = (
    "mutation($input: CreateTaskRunInput!) { createTaskRun(input: $input) { ... on CreateTaskRunPayload {taskRun{id}}}}"
)
DELETE = "mutation($id: ID!) { deleteFlow(id: $id) { __typename ... on NotFound { message missingId } } }"
ODD: tuple[Any, ...] = (
    *(None, True, 0, 7, -1, 2**31, 2**40, 1.0, 2.5, "", "x", "RUNNING", "a\0b", "n" * 300, "2026-01-02T03:04:05Z"),
    *([], ["x"], [None], {}, {"x": 1}, {"type": "PENDING"}, "00000000-0000-0000-0000-000000000000"),
)


async def answered(schema: Schema, app: Starlette, document: str, variables: Any) -> bytes:
    context = Context(app.state.database, clock, request_id="request", batcher=app.state.batcher)
    return dumped(body_of(await schema.execute(document, variables, context)))


async def same(app: Starlette, document: str, variables: Any) -> bytes:
    """Execute an operation with both schemas; return the answer after checking that both are equal."""
    fast = await answered(FAST, app, document, deepcopy(variables))
    assert fast == await answered(STOCK, app, document, deepcopy(variables)), variables
    return fast


def fast_paths(document: str) -> list[FastPath | None]:
    """Return the fast paths of the operations of a cached document."""
    return [FAST.fast_paths[each] for each in FAST.documents.get(document).operations.values()]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the places that can be changed, as container and key. `dryRun` stays, so nothing is written."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if key != "dryRun":
            yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def spoilt(variables: Any, random: Random) -> Any:
    """Return a copy of variables with up to two mistakes."""
    changed = deepcopy(variables)
    for _ in range(random.randint(0, 2)):
        where, key = random.choice([*places(changed), (changed, "further")])
        way = random.random()
        if isinstance(where, dict) and way < 0.2:
            where.pop(key, None)
        elif isinstance(where, dict) and way < 0.3:
            where["unknown"] = 1
        else:
            where[key] = deepcopy(random.choice(ODD))
    return changed


@pytest.fixture
async def tasks(ask: Ask) -> list[str]:
    """Return the ids of task runs of a running flow run."""
    flow_run = await make_flow_run(ask, state={"type": "RUNNING"})
    return [await make_task_run(ask, key, flowRunId=flow_run) for key in ("0", "1")]


def proposal(task: str) -> dict[str, Any]:
    details = {"cacheKey": "k", "cacheExpiration": "2030-01-01T00:00:00Z", "retriable": None}
    state = {"type": "RUNNING", "name": "Mine", "message": None, "data": {"x": [1]}, "details": details}
    return {"run": {"taskRunId": task}, "state": state, "dryRun": True, "expectedVersion": 1, "force": False}


@pytest.mark.parametrize("seed", range(4))
async def test_random_variables_get_the_same_answer(app: Starlette, tasks: list[str], seed: int) -> None:
    random = Random(seed)
    new = {"taskKey": "t", "dynamicKey": "0", "tags": ["a"], "policy": {"retries": 1, "retryDelaysSeconds": [0.5]}}
    asked: list[tuple[str, Any]] = [
        (PROPOSE, {"input": proposal(tasks[0])}),
        (PROPOSE_MANY, {"inputs": [proposal(each) for each in tasks]}),
        (CREATE, {"input": {**new, "state": {"type": "PENDING"}}}),
        (DELETE, {"id": tasks[0]}),
    ]
    for document, variables in asked:
        await same(app, document, variables)
        for _ in range(ROUNDS // 4):
            await same(app, document, spoilt(variables, random))
        assert [isinstance(each, FastPath) for each in fast_paths(document)] == [True]


async def test_an_answer_that_reads_further_rows_is_the_same(app: Starlette, ask: Ask, tasks: list[str]) -> None:
    given = {"input": {"taskKey": "t", "dynamicKey": "alone"}}
    made = await answered(FAST, app, SHOWN, given)

    assert [await same(app, SHOWN, given) for _ in range(2)] == [made, made]
    assert (await ask("{ taskRunCount }"))["taskRunCount"] == len(tasks) + 1


async def test_an_error_is_the_same(app: Starlette, tasks: list[str]) -> None:
    await same(app, PROPOSE, {"input": proposal(tasks[0])})
    await app.state.batcher.close()

    answer = await same(app, PROPOSE, {"input": proposal(tasks[0])})
    assert b'"OVERLOADED"' in answer
    assert b'"path":["it"]' in answer


@pytest.mark.parametrize(
    "document",
    [
        "mutation($id: ID!) { deleteFlow(id: $id) { __typename } again: deleteFlow(id: $id) { __typename } }",
        "mutation($id: ID!, $no: Boolean = false) { deleteFlow(id: $id) { __typename @skip(if: $no) } }",
        'mutation { deleteFlow(id: "x") { __typename } }',
        "query($id: ID!) { flow(by: { id: $id }) { id } }",
    ],
)
async def test_other_operations_than_one_mutation_with_variables_are_executed_by_graphql_core(
    app: Starlette, document: str
) -> None:
    await same(app, document, {"id": "x"})
    await same(app, document, {"id": "x"})
    assert fast_paths(document) == [None]
