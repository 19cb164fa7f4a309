"""Events over HTTP, on both databases: appending, conditions, events of transitions and objects, retention."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.database.bulk import table_of
from runstate.feed.retention import prune_logs
from runstate.rows import StoredEventResource
from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do, make_deployment, make_flow, make_flow_run, make_task_run, propose
from tests.subscribing import Socket

FIELDS = "id name occurred follows payload resource { resourceId role name labels } related { resourceId role name }"
EVENTS = f"query($where: EventWhere) {{ events(where: $where) {{ totalCount nodes {{ {FIELDS} }} }} }}"
FOLLOWING = """subscription($match: EventMatchInput, $after: String) {
  events(match: $match, after: $after) { cursor events { name resource { resourceId } } } }"""
EMITTED = "ids duplicateIds cursor"


def event(name: str = "order.placed", resource: str = "order.1", **more: Any) -> dict[str, Any]:
    """Return an event."""
    return {"name": name, "resource": {"resourceId": resource}, **more}


async def emit(ask: Ask, *events: dict[str, Any]) -> Any:
    """Append events; return the payload or the problem."""
    fields = f"{PROBLEM} ... on EmitEventsPayload {{ {EMITTED} }}"
    return await do(ask, "emitEvents", "EmitEventsInput", fields, events=list(events))


async def found(ask: Ask, **where: Any) -> list[dict[str, Any]]:
    """Return events, newest first, after comparing their number with the count."""
    page = (await ask(EVENTS, where=where))["events"]
    assert page["totalCount"] == len(page["nodes"])
    nodes: list[dict[str, Any]] = page["nodes"]
    return nodes


async def test_an_event_keeps_all_that_was_emitted(ask: Ask) -> None:
    key, leader = str(uuid4()), str(uuid4())
    resource = {"resourceId": "order.1", "name": "Größe", "labels": {"env": "prod", "a.b": ""}}
    related = [{"resourceId": "tag.1", "role": "tag", "name": None}] * 2
    given = event(id=key, follows=leader, occurred="2026-01-05T12:00:00.123456Z", payload={"n": [1]})
    answer = await emit(ask, given | {"resource": resource, "related": related})

    assert answer["ids"] == [key]
    expected = given | {"resource": {**resource, "role": None}, "related": related}
    assert await found(ask) == [expected]
    assert (await ask(f"query($id: ID!) {{ event(id: $id) {{ {FIELDS} }} }}", id=key))["event"] == expected
    assert (await ask("query($id: ID!) { node(id: $id) { __typename } }", id=key))["node"] == {"__typename": "Event"}


async def test_an_id_is_written_once(ask: Ask) -> None:
    key = str(uuid4())
    await emit(ask, event("first", id=key))
    answer = await emit(ask, event("second", id=key), event("third", id=key), event("fourth"))

    assert answer["duplicateIds"] == [key]
    assert answer["ids"][:2] == [key, key]
    assert sorted(each["name"] for each in await found(ask)) == ["first", "fourth"]


async def test_the_event_of_a_transition_cannot_be_emitted(ask: Ask) -> None:
    run = await make_flow_run(ask)
    (told,) = await found(ask, name={"eq": "runstate.flow-run.Pending"})

    assert (await emit(ask, event(id=told["id"])))["duplicateIds"] == [told["id"]]
    assert told["resource"]["resourceId"] == f"runstate.flow-run.{run}"


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"name": ""}, ["name"]),
        ({"name": "n" * 1025}, ["name"]),
        ({"id": "x"}, ["id"]),
        ({"payload": [1]}, ["payload"]),
        ({"payload": {"a": "\0"}}, ["payload"]),
        ({"resource": {"resourceId": ""}}, ["resource", "resourceId"]),
        ({"resource": {"resourceId": "a", "role": "r"}}, ["resource", "role"]),
        ({"resource": {"resourceId": "a", "labels": {"resource.name": "r"}}}, ["resource", "labels"]),
        ({"related": [{"resourceId": "a"}]}, ["related", "0", "role"]),
        ({"related": [{"resourceId": "a", "role": "r"}] * 101}, ["related"]),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_one_wrong_event_refuses_all(ask: Ask, wrong: dict[str, Any], path: list[str]) -> None:
    answer = await emit(ask, event(), event() | wrong)

    assert answer["__typename"] == "InvalidInput"
    assert answer["path"] == ["events", "1", *path]
    assert await found(ask) == []


async def test_a_run_is_told_with_what_it_belongs_to(ask: Ask) -> None:
    flow = await make_flow(ask)
    deployment = await make_deployment(ask, flowId=flow)
    run = await make_flow_run(ask, flowId=flow, deploymentId=deployment, name="r", tags=["b", "a"])
    await propose(ask, run, {"type": "RUNNING", "message": "go"})
    resource = f"runstate.flow-run.{run}"
    running, pending = await found(ask, resource={"resourceId": {"eq": resource}})

    assert [each["name"] for each in (pending, running)] == ["runstate.flow-run.Pending", "runstate.flow-run.Running"]
    assert running["follows"] == pending["id"]
    assert running["resource"]["name"] == "r"
    labels = running["resource"]["labels"]
    assert (labels["runstate.state-message"], labels["runstate.run-count"]) == ("go", "1")
    assert [(each["role"], each["resourceId"]) for each in running["related"]] == [
        ("flow", f"runstate.flow.{flow}"),
        ("deployment", f"runstate.deployment.{deployment}"),
        ("tag", "runstate.tag.a"),
        ("tag", "runstate.tag.b"),
    ]
    assert running["payload"]["intended"] == {"from": "PENDING", "to": "RUNNING"}


async def test_events_are_found_by_related_objects(ask: Ask) -> None:
    run = await make_flow_run(ask)
    task = await make_task_run(ask, flowRunId=run)
    await emit(ask, event("about", related=[{"resourceId": f"runstate.flow-run.{run}", "role": "run"}]))
    related = {"some": {"resourceId": {"eq": f"runstate.flow-run.{run}"}}}

    names = {each["name"] for each in await found(ask, related=related)}
    assert names == {"about", "runstate.task-run.Pending"}
    either = await found(ask, anyResource={"resourceId": {"in": [f"runstate.flow-run.{run}"]}})
    assert {each["name"] for each in either} == names | {"runstate.flow-run.Pending"}
    assert [
        each["resource"]["resourceId"] for each in await found(ask, related=related, name={"startsWith": "runstate."})
    ] == [f"runstate.task-run.{task}"]


async def test_a_run_has_its_events(ask: Ask) -> None:
    run, other = await make_flow_run(ask), await make_flow_run(ask)
    await emit(ask, event("about", related=[{"resourceId": f"runstate.flow-run.{run}", "role": "run"}]))
    runs = '{ flowRuns { nodes { id events(where: {name: {ne: "x"}}) { totalCount nodes { name } } } } }'
    found = {each["id"]: each["events"] for each in (await ask(runs))["flowRuns"]["nodes"]}

    assert {each["name"] for each in found[run]["nodes"]} == {"about", "runstate.flow-run.Pending"}
    assert found[other] == {"totalCount": 1, "nodes": [{"name": "runstate.flow-run.Pending"}]}


async def test_one_event_is_listed_for_each_resource(ask: Ask) -> None:
    at = [f"2026-01-05T12:00:0{second}Z" for second in range(4)]
    await emit(ask, *(event(str(place), f"order.{place % 2}", occurred=each) for place, each in enumerate(at)))
    listed = "query($first: Int) { events(onePerResource: true, first: $first) { totalCount nodes { name } } }"

    assert (await ask(listed))["events"] == {"totalCount": 2, "nodes": [{"name": "3"}, {"name": "2"}]}
    assert (await ask(listed, first=1))["events"] == {"totalCount": 2, "nodes": [{"name": "3"}]}


async def test_changes_of_objects_are_told_with_them(ask: Ask) -> None:
    flow = await make_flow(ask)
    await do(ask, "updateFlow", "UpdateFlowInput", PROBLEM, id=flow, tags=["t"])
    await ask("mutation($id: ID!) { deleteFlow(id: $id) { __typename } }", id=flow)
    told = await found(ask, resource={"resourceId": {"eq": f"runstate.flow.{flow}"}})

    assert sorted(each["name"] for each in told) == [
        f"runstate.flow.{each}" for each in ("created", "deleted", "updated")
    ]


async def test_a_paused_work_pool_tells_which_fields_have_changed(ask: Ask) -> None:
    pool = "{ ... on CreateWorkPoolPayload { workPool { id } } }"
    made = (await ask(f'mutation {{ it: createWorkPool(input: {{ name: "p" }}) {pool} }}'))["it"]["workPool"]["id"]
    await do(ask, "updateWorkPool", "UpdateWorkPoolInput", PROBLEM, id=made, paused=True)
    (told,) = await found(ask, name={"eq": "runstate.work-pool.updated"})

    assert told["payload"] == {"updates": ["paused"]}


async def test_what_is_refused_is_not_told(ask: Ask) -> None:
    await do(ask, "createVariable", "CreateVariableInput", PROBLEM, name="v", value=1)
    await do(ask, "createVariable", "CreateVariableInput", PROBLEM, name="v", value=2)

    assert [each["name"] for each in await found(ask)] == ["runstate.variable.created"]


async def test_expired_events_are_deleted_with_the_log(ask: Ask, app: Starlette) -> None:
    await emit(ask, event("old", related=[{"resourceId": "a", "role": "r"}]))
    later = datetime.now(UTC) + timedelta(days=1)
    database = app.state.database
    settings = {"transition_log_retention_days": 1.0}
    await prune_logs(database, later, settings)
    await emit(ask, event("new", occurred="2020-01-01T00:00:00Z", related=[{"resourceId": "a", "role": "r"}]))
    await prune_logs(database, later + timedelta(days=1), settings)

    assert [each["name"] for each in await found(ask)] == ["new"]
    async with database.read() as connection:
        left = sa.select(sa.func.count()).select_from(table_of(StoredEventResource))
        assert await connection.scalar(left) == 1


async def names_of(subscription: Any, number: int) -> list[str]:
    """Return the names of the next events."""
    names: list[str] = []
    while len(names) < number:
        names += [each["name"] for each in (await subscription.next())["events"]["events"]]
    return names


async def test_transitions_and_events_are_one_stream(live: Ask, socket: Socket) -> None:
    subscription = await socket.subscribe(FOLLOWING, match={"names": ["runstate.flow-run.*", "order.?laced"]})
    first = (await subscription.next())["events"]
    run = await make_flow_run(live)
    await emit(live, event(), event("order.replaced"))
    await propose(live, run, {"type": "RUNNING"})
    expected = ["runstate.flow-run.Pending", "order.placed", "runstate.flow-run.Running"]

    assert first["events"] == []
    assert await names_of(subscription, 3) == expected
    again = await socket.subscribe(
        FOLLOWING, "2", after=first["cursor"], match={"names": ["runstate.flow-run.*", "order.?laced"]}
    )
    assert await names_of(again, 3) == expected


async def test_cursors_of_transitions_and_emitted_events_are_valid(live: Ask, socket: Socket) -> None:
    await make_flow_run(live)
    cursor = (await live("{ transitionCursor }"))["transitionCursor"]
    answer = await emit(live, event("one"))
    await emit(live, event("two"))

    after = await socket.subscribe(FOLLOWING, after=cursor)
    assert await names_of(after, 2) == ["one", "two"]
    behind = await socket.subscribe(FOLLOWING, "2", after=answer["cursor"])
    assert await names_of(behind, 1) == ["two"]


async def test_a_subscription_matches_labels_of_resources(live: Ask, socket: Socket) -> None:
    match = {
        "resource": [{"label": "env", "values": ["!prod"]}],
        "related": [[{"label": "resource.role", "values": ["tag"]}, {"label": "resource.id", "values": ["a*"]}]],
    }
    subscription = await socket.subscribe(FOLLOWING, match=match)
    start = (await subscription.next())["events"]["cursor"]
    tag = [{"resourceId": "ab", "role": "tag"}]

    def labelled(name: str, env: str | None, related: list[dict[str, str]]) -> dict[str, Any]:
        labels = {} if env is None else {"env": env}
        return {"name": name, "resource": {"resourceId": "r", "labels": labels}, "related": related}

    await emit(
        live,
        labelled("wrong value", "prod", tag),
        labelled("no label", None, tag),
        labelled("right", "test", tag),
        labelled("no tag", "test", [{"resourceId": "ab", "role": "other"}]),
        labelled("last", "dev", tag),
    )

    assert await names_of(subscription, 2) == ["right", "last"]
    assert await names_of(await socket.subscribe(FOLLOWING, "2", after=start, match=match), 2) == ["right", "last"]
