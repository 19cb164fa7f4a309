"""Bad input gets a typed problem or an error with a code: never status 500, a traceback or a partial write."""

from typing import Any
from uuid import uuid4

import pytest

from tests.client import Ask
from tests.graphql.mutations import create, flow_run, make_flow, make_flow_run, propose

A_DAY = 'since: "2026-01-01T00:00:00Z", until: "2026-01-02T00:00:00Z"'


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"name": "x" * 256}, ["name"]),
        ({"name": ""}, ["name"]),
        ({"name": "a\0b"}, ["name"]),
        ({"name": "ok", "tags": ["a\0b"]}, ["tags", "0"]),
        ({"name": "ok", "tags": ["t"] * 101}, ["tags"]),
        ({"name": "ok", "labels": {"k": "a\0b"}}, ["labels"]),
    ],
)
async def test_a_flow_with_invalid_text_is_not_created(ask: Ask, given: dict[str, Any], path: list[str]) -> None:
    answer = await create(ask, "flow", **given)
    assert (answer["__typename"], answer["path"]) == ("InvalidInput", path)
    assert (await ask("{ flows { totalCount } }"))["flows"]["totalCount"] == 0


async def test_half_of_a_surrogate_pair_is_invalid_text(ask: Ask) -> None:
    body = rb'{"query": "{ flow(by: { name: \"\ud800\" }) { id } }"}'
    reply = await ask.client.post("/graphql", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert reply.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"flowId": "nonsense"}, ["flowId"]),
        ({"policy": {"retries": -1}}, ["policy", "retries"]),
        ({"policy": {"retryDelaySeconds": -0.5}}, ["policy", "retryDelaySeconds"]),
        ({"policy": {"retryDelaySeconds": 1e300}}, ["policy", "retryDelaySeconds"]),
        ({"state": {"type": "PENDING", "name": "n" * 10_000}}, ["state", "name"]),
        ({"state": {"type": "PENDING", "details": {"transitionId": "x"}}}, ["state", "details", "transitionId"]),
        ({"parameters": {"big": "x" * 600_000}}, ["parameters"]),
        ({"idempotencyKey": "k" * 300}, ["idempotencyKey"]),
    ],
)
async def test_a_flow_run_with_invalid_values_is_not_created(ask: Ask, given: dict[str, Any], path: list[str]) -> None:
    answer = await create(ask, "flowRun", **{"flowId": await make_flow(ask), **given})
    assert (answer["__typename"], answer["path"]) == ("InvalidInput", path)
    assert answer["message"]
    assert (await ask("{ flowRunCount }"))["flowRunCount"] == 0


async def test_parameters_of_512_kib_are_stored_and_larger_ones_are_refused_with_the_limit(ask: Ask) -> None:
    flow = await make_flow(ask)
    fits = {"big": "x" * (512 * 1024 - 10)}
    made = await create(ask, "flowRun", flowId=flow, parameters=fits)
    assert (await flow_run(ask, made["flowRun"]["id"], "parameters"))["parameters"] == fits
    answer = await create(ask, "flowRun", flowId=flow, parameters={"big": "x" * (512 * 1024)})
    assert "524,288" in answer["message"]


async def test_a_body_of_more_than_a_mebibyte_is_refused(ask: Ask) -> None:
    reply = await ask.client.post(
        "/graphql", content=b'{"query": "' + b" " * 2**20 + b'"}', headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 413
    assert reply.json()["errors"][0]["extensions"]["code"]


@pytest.mark.parametrize(
    "document",
    [
        "{ flowRuns(first: 0) { nodes { id } } }",
        "{ flowRuns(first: 1, last: 1) { nodes { id } } }",
        "{ flowRuns(first: 99999999999) { nodes { id } } }",
        '{ flowRuns(where: { startTime: { gt: "2026-01-01T00:00:00" } }) { nodes { id } } }',
        '{ flowRuns(where: { startTime: { gt: "yesterday" } }) { nodes { id } } }',
        "{ flowRuns(where: { runCount: { eq: 3000000000 } }) { nodes { id } } }",
        f"{{ flowRunHistory({A_DAY}, intervalSeconds: 0) {{ start }} }}",
        f"{{ flowRunHistory({A_DAY}, intervalSeconds: 1) {{ start }} }}",
        "mutation { proposeState(input: { run: {}, state: { type: RUNNING } }) { __typename } }",
        'mutation { proposeState(input: { run: { flowRunId: "a", taskRunId: "b" } }) { __typename } }',
        "{ nothing }",
    ],
)
async def test_arguments_that_violate_the_schema_are_errors_with_a_code(ask: Ask, document: str) -> None:
    body = await ask.raw(document)
    assert {error["extensions"]["code"] for error in body["errors"]} == {"BAD_USER_INPUT"}
    assert "Traceback" not in str(body)


async def test_a_page_that_is_too_large_is_an_error_with_the_limit(ask: Ask) -> None:
    body = await ask.raw("{ flowRuns(first: 10000) { nodes { id } } }")
    (error,) = body["errors"]
    assert (error["extensions"]["code"], error["extensions"]["limit"]) == ("LIMIT_EXCEEDED", "pageSize")


@pytest.mark.parametrize("cursor", ["nonsense", "", "AAAA", "e30=", "\0"])
async def test_a_malformed_cursor_is_an_error_with_a_code(ask: Ask, cursor: str) -> None:
    body = await ask.raw("query($after: String) { flowRuns(after: $after) { nodes { id } } }", after=cursor)
    assert [error["extensions"]["code"] for error in body["errors"]] == ["INVALID_INPUT"]


@pytest.mark.parametrize("id", ["nonsense", "", "\0", "0" * 10_000])
async def test_a_query_with_a_malformed_id_returns_null(ask: Ask, id: str) -> None:
    document = """query($id: ID!) { a: flowRun(id: $id) { id } b: node(id: $id) { id } c: nodes(ids: [$id]) { id }
      d: flowRuns(where: { id: { eq: $id } }) { nodes { id } } e: flow(by: { id: $id }) { id } }"""
    assert await ask(document, id=id) == {"a": None, "b": None, "c": [None], "d": {"nodes": []}, "e": None}


async def test_contradictory_filters_match_nothing(ask: Ask) -> None:
    await make_flow_run(ask)
    document = "{ flowRuns(where: { stateType: { in: [PENDING], notIn: [PENDING] } }) { nodes { id } } }"
    assert (await ask(document))["flowRuns"]["nodes"] == []


async def test_a_nul_character_in_a_filter_matches_nothing(ask: Ask) -> None:
    document = """query($text: String!) { a: flowRuns(where: { name: { eq: $text } }) { nodes { id } }
      b: flowRuns(where: { name: { contains: $text } }) { nodes { id } }
      c: flowRuns(where: { tags: { any: [$text] } }) { nodes { id } } d: flow(by: { name: $text }) { id } }"""
    nothing: dict[str, list[str]] = {"nodes": []}
    assert await ask(document, text="a\0b") == {"a": nothing, "b": nothing, "c": nothing, "d": None}


@pytest.mark.parametrize(
    "state",
    [
        {"type": "RUNNING", "message": "a\0b"},
        {"type": "RUNNING", "details": {"pauseKey": "a\0b"}},
        {"type": "RUNNING", "details": {"runInputKeyset": {"schema": 5}}},
        {"type": "RUNNING", "details": {"runInputKeyset": [1]}},
        {"type": "COMPLETED", "data": {"x": "y" * 600_000}},
    ],
)
async def test_a_state_with_invalid_values_is_a_problem(ask: Ask, state: dict[str, Any]) -> None:
    run = await make_flow_run(ask)
    answer = await propose(ask, run, state)
    assert answer["__typename"] == "InvalidInput"
    assert answer["path"][0] == "state"
    assert (await flow_run(ask, run, "version"))["version"] == 1


async def test_json_is_stored_unchanged(ask: Ask) -> None:
    value = {"a": [1, 2.5, -0.0, True, None, "é \\u0000 \\", {"": {}}], "big": 2**53, "tiny": 1e-300}
    run = await make_flow_run(ask, parameters=value)
    assert (await flow_run(ask, run, "parameters"))["parameters"] == value


async def test_an_empty_list_of_proposals_and_unknown_runs_write_nothing(ask: Ask) -> None:
    answer = await propose(ask, str(uuid4()), "RUNNING", idempotencyKey="k")
    assert answer["__typename"] == "NotFound"
