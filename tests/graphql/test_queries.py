"""Single objects, their references, and computed fields."""

from typing import Any
from uuid import uuid4

import pytest

from runstate.app import clock
from runstate.database import Database
from runstate.documents.policies import CollisionStrategy, ConcurrencyOptions, FlowRunPolicy
from runstate.documents.states import StateDetails, StateType
from tests.client import Ask
from tests.graphql.factories import (
    at,
    ids,
    make_deployment,
    make_flow,
    make_flow_run,
    make_limit,
    make_state,
    make_task_run,
    store,
)


async def test_a_node_of_any_type_is_found(database: Database, ask: Ask, read: list[str]) -> None:
    flow, limit = make_flow(), make_limit()
    deployment, run, task_run = make_deployment(flow), make_flow_run(flow), make_task_run()
    states = make_state(run), make_state(task_run)
    everything = [flow, limit, deployment, run, task_run, *states]
    await store(database, *everything)
    read.clear()

    data = await ask(
        """query($ids: [ID!]!) { nodes(ids: $ids) {
          __typename id ... on State { name run { id } } ... on Run { tags } ... on Flow { name }
        } }""",
        ids=[*ids(everything), "malformed", str(uuid4()), str(flow.id).upper(), ""],
    )

    kinds = [node and node["__typename"] for node in data["nodes"]]
    assert kinds == [*(type(row).__name__ for row in everything), None, None, "Flow", None]
    assert ids(node for node in data["nodes"][:7]) == ids(everything)
    assert data["nodes"][5]["run"] == {"id": str(run.id)}
    assert len(read) == 1 + 7 + 2


async def test_at_most_1000_nodes_are_requested_by_id(ask: Ask) -> None:
    body = await ask.raw("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=[str(uuid4())] * 1001)

    assert body["errors"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"


@pytest.mark.parametrize("field", ["node", "flowRun", "taskRun", "flowRunState", "taskRunState", "deployment"])
@pytest.mark.parametrize("id", ["", "malformed", "00000000-0000-7000-8000-000000000000", "\x00"])
async def test_an_unknown_id_returns_null(ask: Ask, field: str, id: str) -> None:
    assert await ask(f"query($id: ID!) {{ {field}(id: $id) {{ id }} }}", id=id) == {field: None}


async def test_a_flow_is_found_by_id_or_name(database: Database, ask: Ask) -> None:
    flow = make_flow("etl", tags=["a"])
    await store(database, flow)
    document = "query($by: FlowRef!) { flow(by: $by) { id tags } }"
    found = {"flow": {"id": str(flow.id), "tags": ["a"]}}

    assert await ask(document, by={"name": "etl"}) == found
    assert await ask(document, by={"id": str(flow.id)}) == found
    assert await ask(document, by={"name": "other"}) == {"flow": None}
    assert await ask(document, by={"name": "\0"}) == {"flow": None}
    assert await ask(document, by={"id": "malformed"}) == {"flow": None}
    for by in ({}, {"name": "etl", "id": str(flow.id)}, {"name": None}, {"name": "etl", "id": None}):
        body = await ask.raw(document, by=by)
        assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_run_has_all_its_references(database: Database, ask: Ask) -> None:
    flow, limit = make_flow(), make_limit(limit=7)
    options = ConcurrencyOptions(collision_strategy=CollisionStrategy.CANCEL_NEW)
    deployment = make_deployment(flow, concurrency_limit_id=limit.id, concurrency_options=options)
    parent = make_flow_run(flow, name="parent")
    task_run = make_task_run(parent, name="stands for it")
    policy = FlowRunPolicy(retries=2, pause_keys=("a", "b"))
    run = make_flow_run(flow, deployment_id=deployment.id, parent_task_run_id=task_run.id, policy=policy)
    details = StateDetails(scheduled_time=at(1), run_input_keyset={"schema": "x"}, flow_run_id=run.id)
    state = make_state(run, 1, StateType.COMPLETED, data={"x": [1, None, 2.5]}, details=details)
    await store(database, flow, limit, deployment, parent, task_run, run.replace(state_id=state.id), state)

    data = await ask(
        """query($id: ID!) { flowRun(id: $id) {
          flow { name }
          deployment {
            name concurrencyLimit concurrency { name } concurrencyOptions { collisionStrategy gracePeriodSeconds }
            flow { flowRuns { totalCount } }
          }
          parentTaskRun { name flowRun { name deployment { name } } childFlowRun { id } }
          policy { retries retryDelaySeconds pauseKeys resuming }
          state {
            isFinal type data timestamp run { id }
            details { scheduledTime runInputKeyset flowRunId pauseReschedule }
          }
        } }""",
        id=str(run.id),
    )

    assert data["flowRun"] == {
        "flow": {"name": "etl"},
        "deployment": {
            "name": "nightly",
            "concurrencyLimit": 7,
            "concurrency": {"name": "db"},
            "concurrencyOptions": {"collisionStrategy": "CANCEL_NEW", "gracePeriodSeconds": None},
            "flow": {"flowRuns": {"totalCount": 2}},
        },
        "parentTaskRun": {
            "name": "stands for it",
            "flowRun": {"name": "parent", "deployment": None},
            "childFlowRun": {"id": str(run.id)},
        },
        "policy": {"retries": 2, "retryDelaySeconds": None, "pauseKeys": ["a", "b"], "resuming": False},
        "state": {
            "isFinal": True,
            "type": "COMPLETED",
            "data": {"x": [1, None, 2.5]},
            "timestamp": "2026-01-01T12:00:01.000000Z",
            "details": {
                "scheduledTime": "2026-01-01T12:00:01.000000Z",
                "runInputKeyset": {"schema": "x"},
                "flowRunId": str(run.id),
                "pauseReschedule": False,
            },
            "run": {"id": str(run.id)},
        },
    }


async def test_only_requested_columns_are_read(database: Database, ask: Ask, read: list[str]) -> None:
    flow = make_flow()
    run = make_flow_run(flow)
    await store(database, flow, run)
    read.clear()

    await ask(
        """query($id: ID!, $no: Boolean!) {
          flowRun(id: $id) { __typename called: name ...more ... on Run { tags } }
          node(id: $id) { id ... on FlowRun { parameters } }
        }
        fragment more on FlowRun { flow { id } startTime @include(if: $no) estimatedRunTimeSeconds }""",
        id=str(run.id),
        no=False,
    )

    named = next(statement for statement in read if "flow_run.name" in statement)
    for column in ("id", "tags", "flow_id", "start_time", "total_run_time_seconds", "state_timestamp"):
        assert f"flow_run.{column}" in named
    assert "parameters" not in named
    other = next(statement for statement in read if "flow_run.parameters" in statement)
    assert "flow_run.name" not in other
    assert not any("flow.name" in statement for statement in read)


async def test_a_run_without_a_state_has_a_null_state(database: Database, ask: Ask) -> None:
    flow = make_flow()
    await store(database, flow, make_flow_run(flow), make_task_run())

    data = await ask(
        """{ flowRuns { nodes { state { id } stateType history { id } } }
             taskRuns { nodes { flowRun { id } childFlowRun { id } state { name } states { totalCount } } } }"""
    )

    assert data["flowRuns"]["nodes"] == [{"state": None, "stateType": None, "history": []}]
    assert data["taskRuns"]["nodes"] == [
        {"flowRun": None, "childFlowRun": None, "state": None, "states": {"totalCount": 0}}
    ]


async def test_history_contains_the_last_states(database: Database, ask: Ask) -> None:
    flow = make_flow()
    run = make_flow_run(flow)
    await store(database, flow, run, *(make_state(run, version) for version in range(1, 61)))

    data = await ask(
        """{ flowRuns { nodes {
          all: history { version } two: history(last: 2) { version } unsaid: history(last: null) { id }
        } } }"""
    )

    (found,) = data["flowRuns"]["nodes"]
    assert [state["version"] for state in found["all"]] == list(range(11, 61))
    assert [state["version"] for state in found["two"]] == [59, 60]
    assert len(found["unsaid"]) == 50
    for last, code in ((0, "BAD_USER_INPUT"), (201, "LIMIT_EXCEEDED")):
        body = await ask.raw(f"{{ flowRuns {{ nodes {{ history(last: {last}) {{ id }} }} }} }}")
        assert body["errors"][0]["extensions"]["code"] == code


async def test_a_limit_shows_how_many_slots_are_held(database: Database, ask: Ask) -> None:
    now = clock().timestamp()
    await store(
        database,
        make_limit("held", occupied=2),
        make_limit("rate", slot_decay_per_second=0.5, drained=at(now + 1000 - at(0).timestamp())),
        make_limit("drained", slot_decay_per_second=0.5, drained=at(0), occupied=0),
        make_limit("unused", slot_decay_per_second=0.5),
    )

    data = await ask("{ concurrencyLimits(orderBy: {id: ASC}) { nodes { name activeSlots limit } } }")

    held, rate, drained, unused = (limit["activeSlots"] for limit in data["concurrencyLimits"]["nodes"])
    assert (held, drained, unused) == (2, 0, 0)
    assert 450 < rate <= 500


async def test_a_limit_is_found_by_id_or_name(database: Database, ask: Ask) -> None:
    limit = make_limit("db")
    await store(database, limit)
    document = "query($by: ConcurrencyLimitRef!) { concurrencyLimit(by: $by) { id } }"

    for by in ({"name": "db"}, {"id": str(limit.id)}):
        assert await ask(document, by=by) == {"concurrencyLimit": {"id": str(limit.id)}}
    assert await ask(document, by={"name": "other"}) == {"concurrencyLimit": None}


async def test_times_are_written_in_utc_with_six_digits(database: Database, ask: Ask) -> None:
    await store(database, make_flow(created=at(0.000123)))

    data = await ask(
        'query { flows(where: {created: {eq: "2026-01-01T13:00:00.0001239+01:00"}}) { nodes { created } } }'
    )

    assert data["flows"]["nodes"] == [{"created": "2026-01-01T12:00:00.000123Z"}]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01",
        "2026-01-01T12:00:00",
        "2026-01-01 12:00:00Z",
        "2026-W01-1T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "",
        5,
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00+25:00",
    ],
)
async def test_an_invalid_time_is_refused(ask: Ask, text: Any) -> None:
    document = "query($since: DateTime!) { flowRunCount(where: {created: {eq: $since}}) }"

    body = await ask.raw(document, since=text)

    assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
