"""Subscriptions to transitions: matching transitions arrive once and in order, from the first batch on."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest

from runstate import feed
from runstate.feed.cursor import Cursor
from tests.client import Ask
from tests.graphql.mutations import make_deployment, make_flow, make_flow_run, make_task_run, propose
from tests.subscribing import Listening, Socket, Subscription, asking, connected, listening

TRANSITIONS = """subscription($where: TransitionWhere, $after: String) { transitions(where: $where, after: $after) {
  cursor transitions { runKind runId stateId flowRunId flowId deploymentId version occurred previousStateType
  previousStateName stateType stateName message } } }"""
RUN = """subscription($run: RunRef!, $afterVersion: Int, $untilFinal: Boolean! = false) {
  runTransitions(run: $run, afterVersion: $afterVersion, untilFinal: $untilFinal) { version stateType } }"""


async def next_transitions(subscription: Subscription, number: int) -> list[dict[str, Any]]:
    """Return the next transitions."""
    found: list[dict[str, Any]] = []
    while len(found) < number:
        found += (await subscription.next())["transitions"]["transitions"]
    assert len(found) == number
    return found


def entered(transitions: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Return version and type of the entered states."""
    return [(each["version"], each["stateType"]) for each in transitions]


async def test_the_first_batch_arrives_immediately_and_is_empty(live: Ask, socket: Socket) -> None:
    await make_flow_run(live)
    subscription = await socket.subscribe(TRANSITIONS)

    batch = (await subscription.next())["transitions"]

    assert batch["transitions"] == []
    assert batch["cursor"]


async def test_a_transition_has_all_its_fields(live: Ask, socket: Socket) -> None:
    subscription = await socket.subscribe(TRANSITIONS)
    await subscription.next()
    flow = await make_flow(live)
    deployment = await make_deployment(live, flowId=flow)
    run = await make_flow_run(live, flowId=flow, deploymentId=deployment)
    answer = await propose(live, run, {"type": "RUNNING", "message": "off it goes"})

    first, second = await next_transitions(subscription, 2)

    assert entered([first, second]) == [(1, "PENDING"), (2, "RUNNING")]
    assert (first["previousStateType"], first["previousStateName"]) == (None, None)
    assert second == {
        "runKind": "FLOW_RUN",
        "runId": run,
        "stateId": answer["state"]["id"],
        "flowRunId": run,
        "flowId": flow,
        "deploymentId": deployment,
        "version": 2,
        "occurred": second["occurred"],
        "previousStateType": "PENDING",
        "previousStateName": "Pending",
        "stateType": "RUNNING",
        "stateName": "Running",
        "message": "off it goes",
    }


PAGE = """query($after: String, $first: Int!, $where: TransitionWhere) {
  transitions(after: $after, first: $first, where: $where) {
    cursor hasMore transitions { runId version stateType } } }"""


async def test_the_log_is_read_page_by_page(live: Ask) -> None:
    runs = [await make_flow_run(live), await make_flow_run(live)]
    for state in ("RUNNING", "COMPLETED"):
        for run in runs:
            await propose(live, run, state)
    found, after, more = [], None, True
    while more:
        page = (await live(PAGE, first=4, after=after))["transitions"]
        found += [(each["runId"], each["version"]) for each in page["transitions"]]
        after, more = page["cursor"], page["hasMore"]
    mine = (await live(PAGE, first=100, where={"runIds": [runs[0]]}))["transitions"]
    await propose(live, runs[0], "RUNNING", force=True)
    new = (await live(PAGE, first=1, after=after))["transitions"]

    assert sorted(found) == sorted((run, version) for run in runs for version in (1, 2, 3))
    assert [(each["runId"], each["version"]) for each in mine["transitions"]] == [(runs[0], each) for each in (1, 2, 3)]
    assert (mine["hasMore"], new["hasMore"]) == (False, False)
    assert entered(new["transitions"]) == [(4, "RUNNING")]


async def test_cursors_of_the_query_and_of_the_subscription_are_the_same(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    for state in ("RUNNING", "COMPLETED"):
        await propose(live, run, state)
    cursor = (await live(PAGE, first=1))["transitions"]["cursor"]

    subscription = await socket.subscribe(TRANSITIONS, after=cursor)

    assert entered(await next_transitions(subscription, 2)) == [(2, "RUNNING"), (3, "COMPLETED")]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"first": 101}, "LIMIT_EXCEEDED"),
        ({"first": 0}, "BAD_USER_INPUT"),
        ({"first": 1, "after": "x"}, "INVALID_INPUT"),
    ],
)
async def test_a_page_of_the_log_that_is_impossible_is_an_error(live: Ask, arguments: Any, code: str) -> None:
    body = await live.raw(PAGE, **arguments)

    assert body["errors"][0]["extensions"]["code"] == code


async def test_a_transition_of_a_task_run_has_its_flow_run(live: Ask, socket: Socket) -> None:
    flow = await make_flow(live)
    run = await make_flow_run(live, flowId=flow)
    subscription = await socket.subscribe(TRANSITIONS, where={"runKind": "TASK_RUN", "flowRunIds": [run]})
    await subscription.next()
    await propose(live, run, "RUNNING")
    task = await make_task_run(live, flowRunId=run)

    (only,) = await next_transitions(subscription, 1)

    assert (only["runId"], only["flowRunId"], only["flowId"]) == (task, run, flow)


async def test_a_subscription_after_a_query_misses_nothing(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    cursor = (await live("{ transitionCursor }"))["transitionCursor"]
    await propose(live, run, "RUNNING")
    subscription = await socket.subscribe(TRANSITIONS, after=cursor)
    first = await next_transitions(subscription, 1)
    await propose(live, run, "COMPLETED")

    assert entered(first + await next_transitions(subscription, 1)) == [(2, "RUNNING"), (3, "COMPLETED")]


async def test_a_subscription_resumes_at_a_cursor(live: Ask, server: Listening) -> None:
    run = await make_flow_run(live)
    async with connected(server) as socket:
        cursor = (await (await socket.subscribe(TRANSITIONS)).next())["transitions"]["cursor"]
    found = []
    for state in ("RUNNING", "PAUSED", "RUNNING", "COMPLETED"):
        await propose(live, run, state, force=True)
        async with connected(server) as socket:
            batch = (await (await socket.subscribe(TRANSITIONS, after=cursor)).next())["transitions"]
        found += batch["transitions"]
        cursor = batch["cursor"]

    assert entered(found) == [(2, "RUNNING"), (3, "PAUSED"), (4, "RUNNING"), (5, "COMPLETED")]


async def test_only_matching_transitions_are_delivered(live: Ask, socket: Socket) -> None:
    one, other = await make_flow_run(live, tags=["x"]), await make_flow_run(live)
    wishes: dict[str, dict[str, Any]] = {
        "run": {"runIds": [one, "nonsense"]},
        "type": {"stateTypes": ["COMPLETED"]},
        "name": {"stateNames": ["Running"]},
        "tags": {"tags": {"any": ["x"]}},
        "nothing": {"runIds": []},
    }
    subscriptions = {key: await socket.subscribe(TRANSITIONS, key, where=where) for key, where in wishes.items()}
    for subscription in subscriptions.values():
        await subscription.next()
    for state in ("RUNNING", "COMPLETED"):
        await propose(live, other, state)
        await propose(live, one, state)

    runs = {
        key: [each["runId"] for each in await next_transitions(subscriptions[key], 2)]
        for key in ("run", "type", "name", "tags")
    }

    assert runs == {"run": [one, one], "type": [other, one], "name": [other, one], "tags": [one, one]}
    assert [message for message in socket.waiting if message["id"] == "nothing"] == []


@pytest.mark.parametrize("after", ["", "nonsense", "é" * 9])
async def test_a_malformed_cursor_is_an_error_before_the_first_batch(socket: Socket, after: str) -> None:
    subscription = await socket.subscribe(TRANSITIONS, after=after)

    error = await subscription.error()

    assert error["extensions"] == {"code": "INVALID_INPUT", "path": ["after"], "requestId": ANY}


async def test_a_cursor_of_another_database_is_refused(server: Listening, socket: Socket) -> None:
    foreign = Cursor(await server.hub.reader.position()).encode(uuid4(), feed.TRANSITIONS.name)
    subscription = await socket.subscribe(TRANSITIONS, after=foreign)

    assert (await subscription.error())["extensions"]["code"] == "INVALID_INPUT"


async def test_an_expired_cursor_is_refused_with_the_oldest_valid_one(
    live: Ask, server: Listening, socket: Socket
) -> None:
    cursor = (await live("{ transitionCursor }"))["transitionCursor"]
    run = await make_flow_run(live)
    await feed.prune_log(server.hub.database, feed.TRANSITIONS, datetime.now(UTC), timedelta(0))
    await propose(live, run, "RUNNING")

    extensions = (await (await socket.subscribe(TRANSITIONS, after=cursor)).error())["extensions"]
    again = await socket.subscribe(TRANSITIONS, "2", after=extensions["oldest"])

    assert extensions["code"] == "CURSOR_EXPIRED"
    assert entered(await next_transitions(again, 1)) == [(2, "RUNNING")]


async def test_the_state_and_the_run_are_loaded_together(live: Ask, server: Listening, socket: Socket) -> None:
    runs = [await make_flow_run(live, flowId=await make_flow(live)) for _ in range(20)]
    cursor = (await live("{ transitionCursor }"))["transitionCursor"]
    for run in runs:
        await propose(live, run, "RUNNING")
    before = server.hub.database.statements
    document = """subscription($after: String) { transitions(after: $after) { transitions {
      state { type ... on FlowRunState { run { name } } } run { id stateType ... on FlowRun { flow { name } } } } } }"""
    batch = (await (await socket.subscribe(document, after=cursor)).next())["transitions"]["transitions"]

    assert [each["run"]["id"] for each in batch] == runs
    assert {each["state"]["type"] for each in batch} == {"RUNNING"}
    assert server.hub.database.statements - before < 40


async def test_transitions_of_a_deleted_run_are_delivered(live: Ask, socket: Socket) -> None:
    cursor = (await live("{ transitionCursor }"))["transitionCursor"]
    run = await make_flow_run(live)
    await live("mutation($id: ID!) { deleteFlowRun(id: $id) { __typename } }", id=run)
    document = (
        "subscription($after: String) { transitions(after: $after) { transitions { runId run { id } state { id } } } }"
    )

    batch = (await (await socket.subscribe(document, after=cursor)).next())["transitions"]["transitions"]

    assert batch == [{"runId": run, "run": None, "state": None}]


async def test_each_event_loads_the_current_run(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    subscription = await socket.subscribe("subscription { transitions { transitions { version run { version } } } }")
    await subscription.next()
    for version, state in ((2, "RUNNING"), (3, "COMPLETED")):
        await propose(live, run, state)
        assert await next_transitions(subscription, 1) == [{"version": version, "run": {"version": version}}]


async def test_one_run_is_delivered_from_its_first_version_to_its_end(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    await propose(live, run, "RUNNING")
    subscription = await socket.subscribe(RUN, run={"flowRunId": run}, untilFinal=True)
    found = [(await subscription.next())["runTransitions"] for _ in range(2)]
    await propose(live, run, "COMPLETED")
    found.append((await subscription.next())["runTransitions"])
    await subscription.completed()

    assert entered(found) == [(1, "PENDING"), (2, "RUNNING"), (3, "COMPLETED")]


async def test_one_run_is_delivered_after_a_version(live: Ask, socket: Socket) -> None:
    task = await make_task_run(live)
    await propose(live, task, "RUNNING", task=True)
    subscription = await socket.subscribe(RUN, run={"taskRunId": task}, afterVersion=1)

    assert entered([(await subscription.next())["runTransitions"]]) == [(2, "RUNNING")]


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"run": {"flowRunId": str(uuid4())}}, "NOT_FOUND"),
        ({"run": {"flowRunId": "nonsense"}}, "INVALID_INPUT"),
        ({"run": {}}, "BAD_USER_INPUT"),
    ],
)
async def test_an_unknown_run_is_an_error(socket: Socket, variables: dict[str, Any], code: str) -> None:
    subscription = await socket.subscribe(RUN, **variables)

    assert (await subscription.error())["extensions"]["code"] == code


async def test_a_version_beyond_the_current_one_is_an_error(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    subscription = await socket.subscribe(RUN, run={"flowRunId": run}, afterVersion=5)

    assert (await subscription.error())["extensions"] == {
        "code": "INVALID_INPUT",
        "path": ["afterVersion"],
        "requestId": ANY,
    }


@pytest.mark.parametrize("field", ["flowRun", "taskRun"])
async def test_a_live_run_is_delivered_after_each_change(live: Ask, socket: Socket, field: str) -> None:
    task = field == "taskRun"
    run = await (make_task_run(live) if task else make_flow_run(live))
    subscription = await socket.subscribe(
        f"subscription($id: ID!) {{ {field}(id: $id) {{ stateType state {{ version }} }} }}", id=run
    )
    found = [(await subscription.next())[field]]
    for state in ("RUNNING", "COMPLETED"):
        await propose(live, run, state, task=task)
        found.append((await subscription.next())[field])

    assert found == [
        {"stateType": "PENDING", "state": {"version": 1}},
        {"stateType": "RUNNING", "state": {"version": 2}},
        {"stateType": "COMPLETED", "state": {"version": 3}},
    ]


@pytest.mark.parametrize("key", ["nonsense", "10fc7b6b-6eb3-4498-ba84-ca0d0e29cf3e"])
async def test_a_live_run_with_an_unknown_id_is_null_and_completes(socket: Socket, key: str) -> None:
    subscription = await socket.subscribe("subscription($id: ID!) { flowRun(id: $id) { id } }", id=key)

    assert await subscription.next() == {"flowRun": None}
    await subscription.completed()


LIVE_RUN = "subscription($id: ID!) { %s(id: $id) { stateType } }"


@pytest.mark.parametrize("field", ["flowRun", "taskRun"])
async def test_a_live_run_that_is_deleted_becomes_null_and_completes(live: Ask, socket: Socket, field: str) -> None:
    run = await (make_task_run(live) if field == "taskRun" else make_flow_run(live))
    subscription = await socket.subscribe(LIVE_RUN % field, id=run)
    assert await subscription.next() == {field: {"stateType": "PENDING"}}
    mutation = f"delete{field[0].upper()}{field[1:]}"
    await live(f"mutation($id: ID!) {{ {mutation}(id: $id) {{ __typename }} }}", id=run)

    assert await subscription.next() == {field: None}
    await subscription.completed()


async def test_a_live_run_that_is_deleted_with_its_flow_becomes_null(live: Ask, socket: Socket) -> None:
    flow = await make_flow(live)
    run = await make_flow_run(live, flowId=flow)
    task = await make_task_run(live, flowRunId=run)
    subscriptions = {
        "flowRun": await socket.subscribe(LIVE_RUN % "flowRun", "1", id=run),
        "taskRun": await socket.subscribe(LIVE_RUN % "taskRun", "2", id=task),
    }
    for subscription in subscriptions.values():
        await subscription.next()
    await live("mutation($id: ID!) { deleteFlow(id: $id) { __typename } }", id=flow)

    for field, subscription in subscriptions.items():
        assert await subscription.next() == {field: None}


async def test_the_transitions_of_a_run_complete_when_it_is_deleted(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    subscription = await socket.subscribe(RUN, run={"flowRunId": run})
    await subscription.next()
    await propose(live, run, "RUNNING")
    await live("mutation($id: ID!) { deleteFlowRun(id: $id) { __typename } }", id=run)

    assert entered([(await subscription.next())["runTransitions"]]) == [(2, "RUNNING")]
    await subscription.completed()


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_live_run_that_another_replica_deletes_becomes_null(url: str, live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    subscription = await socket.subscribe(LIVE_RUN % "flowRun", id=run)
    await subscription.next()
    async with listening(url) as other, asking(other) as elsewhere:
        await elsewhere("mutation($id: ID!) { deleteFlowRun(id: $id) { __typename } }", id=run)

        assert await subscription.next() == {"flowRun": None}


async def test_a_condition_has_at_most_a_thousand_values(socket: Socket) -> None:
    subscription = await socket.subscribe(TRANSITIONS, where={"stateNames": ["x"] * 1001})

    assert (await subscription.error())["extensions"]["code"] == "LIMIT_EXCEEDED"


async def test_a_batch_is_delivered_in_the_order_of_versions(live: Ask, socket: Socket) -> None:
    runs = [await make_flow_run(live, flowId=await make_flow(live)) for _ in range(3)]
    subscription = await socket.subscribe(TRANSITIONS)
    await subscription.next()
    states = ["RUNNING", "PENDING", "RUNNING", "COMPLETED"]
    proposals = [
        {"run": {"flowRunId": run}, "state": {"type": state}, "force": True} for state in states for run in runs
    ]
    await asyncio.gather(
        *(
            live("mutation($i: [ProposeStateInput!]!) { proposeStates(inputs: $i) { __typename } }", i=proposals)
            for _ in range(4)
        )
    )

    found = await next_transitions(subscription, 48)

    for run in runs:
        assert [each["version"] for each in found if each["runId"] == run] == list(range(2, 18))
