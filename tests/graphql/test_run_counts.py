"""Numbers of runs by group: query, subscription and plain Python agree."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.documents.states import StateType
from runstate.rows import FlowRun, TaskRun
from tests.client import Ask
from tests.graphql.factories import make_deployment as deployment_row
from tests.graphql.factories import make_flow as flow_row
from tests.graphql.factories import make_flow_run as flow_run_row
from tests.graphql.factories import make_task_run as task_run_row
from tests.graphql.factories import store
from tests.graphql.mutations import make_deployment, make_flow, make_flow_run, make_task_run, propose
from tests.subscribing import Listening, Socket, Subscription, asking, connected, listening

FIELDS = "runKind count flowId deploymentId stateType stateName taskKey"
COUNTS = f"""subscription($where: FlowRunWhere, $groupBy: [RunGrouping!]) {{
  runCounts(where: $where, groupBy: $groupBy) {{ {FIELDS} }} }}"""
FLOW_RUNS = f"""query($where: FlowRunWhere, $groupBy: [RunGrouping!]!) {{
  counts: flowRunCounts(where: $where, groupBy: $groupBy, first: 1000) {{ {FIELDS} }} }}"""
TASK_RUNS = FLOW_RUNS.replace("FlowRun", "TaskRun").replace("flowRun", "taskRun")
EMPTY = {"flowId": None, "deploymentId": None, "stateType": None, "stateName": None, "taskKey": None}
NEVER = 3_600.0
GROUPINGS = {
    "FLOW": "flowId",
    "DEPLOYMENT": "deploymentId",
    "STATE_TYPE": "stateType",
    "STATE_NAME": "stateName",
    "TASK_KEY": "taskKey",
}


def group(**values: Any) -> dict[str, Any]:
    """Return the count of a group as it is answered."""
    return {"runKind": "FLOW_RUN", **EMPTY, **values}


class Data:
    """Random flows, deployments and runs."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.flows = [flow_row(name) for name in ("one", "two", "three")]
        self.deployments = [deployment_row(flow, name) for flow in self.flows[:2] for name in ("nightly", "hourly")]
        self.flow_runs = [self._flow_run(chance) for _ in range(80)]
        self.task_runs = [
            task_run_row(
                chance.choice([None, *self.flow_runs]), task_key=chance.choice(["load", "save"]), **_state(chance)
            )
            for _ in range(80)
        ]

    def _flow_run(self, chance: random.Random) -> FlowRun:
        flow = chance.choice(self.flows)
        deployment = chance.choice([None, *(each for each in self.deployments if each.flow_id == flow.id)])
        return flow_run_row(flow, deployment_id=deployment and deployment.id, **_state(chance))

    def _flow_run_of(self, run: TaskRun) -> FlowRun | None:
        return next((each for each in self.flow_runs if each.id == run.flow_run_id), None)

    async def store(self, database: Database) -> None:
        """Insert all rows."""
        await store(database, *self.flows, *self.deployments, *self.flow_runs, *self.task_runs)

    def columns(self, run: FlowRun | TaskRun) -> dict[str, Any]:
        """Return the values that a run is grouped by."""
        home = run if isinstance(run, FlowRun) else self._flow_run_of(run)
        return {
            "flowId": str(home.flow_id) if home else None,
            "deploymentId": str(home.deployment_id) if home and home.deployment_id else None,
            "stateType": run.state_type and run.state_type.value,
            "stateName": run.state_name,
            "taskKey": run.task_key if isinstance(run, TaskRun) else None,
        }


def _state(chance: random.Random) -> dict[str, Any]:
    kind = chance.choice([None, StateType.RUNNING, StateType.FAILED, StateType.COMPLETED])
    name = kind and chance.choice([kind.value.title(), "Walking"])
    return {
        "state_type": kind,
        "state_name": name,
        "run_count": chance.randrange(3),
        "tags": chance.choice([[], ["a"]]),
    }


Condition = tuple[dict[str, Any], Callable[[FlowRun | TaskRun, dict[str, Any]], bool]]


def conditions(data: Data, run: type[FlowRun | TaskRun]) -> list[Condition]:
    """Return conditions with their meaning in Python; the tallies can answer all but the last three."""
    flow, deployment = data.flows[0], data.deployments[1]

    def home(condition: dict[str, Any]) -> dict[str, Any]:
        return condition if run is FlowRun else {"flowRun": condition}

    return [
        ({}, lambda _, __: True),
        ({"stateType": {"in": ["RUNNING", "FAILED"]}}, lambda _, known: known["stateType"] in {"RUNNING", "FAILED"}),
        ({"stateType": {"isNull": True}}, lambda _, known: known["stateType"] is None),
        (home({"flow": {"name": {"eq": "one"}}}), lambda _, known: known["flowId"] == str(flow.id)),
        (home({"deploymentId": {"isNull": False}}), lambda _, known: known["deploymentId"] is not None),
        (
            home({"deployment": {"id": {"eq": str(deployment.id)}}}),
            lambda _, known: known["deploymentId"] == str(deployment.id),
        ),
        ({"runCount": {"gte": 1}}, lambda run, _: run.run_count >= 1),
        ({"tags": {"any": ["a"]}}, lambda run, _: "a" in run.tags),
        ({"stateName": {"eq": "Walking"}}, lambda _, known: known["stateName"] == "Walking"),
    ]


def combined(chance: random.Random, known: list[Condition]) -> Condition:
    """Return a random combination of two conditions."""
    (one, is_one), (other, is_other) = chance.choice(known), chance.choice(known)
    return chance.choice(
        [
            (one, is_one),
            ({"and": [one, other]}, lambda run, columns: is_one(run, columns) and is_other(run, columns)),
            ({"or": [one, other]}, lambda run, columns: is_one(run, columns) or is_other(run, columns)),
            ({"not": one}, lambda run, columns: not is_one(run, columns)),
        ]
    )


def counted(data: Data, run: type[FlowRun | TaskRun], groups: list[str], holds: Any) -> Counter[tuple[Any, ...]]:
    """Return the numbers by group, computed in Python."""
    runs: list[Any] = [*data.flow_runs, *data.task_runs]
    columns = [(each, data.columns(each)) for each in runs if isinstance(each, run)]
    fields = [GROUPINGS[name] for name in groups]
    return Counter(tuple(known[field] for field in fields) for each, known in columns if holds(each, known))


def answered(found: list[dict[str, Any]], groups: list[str], kind: str) -> Counter[tuple[Any, ...]]:
    """Return the numbers of an answer by group; check that they are sorted and other columns are null."""
    fields = [GROUPINGS[name] for name in groups]
    assert [each["count"] for each in found] == sorted((each["count"] for each in found), reverse=True)
    assert {each["runKind"] for each in found} <= {kind}
    assert all(each[field] is None for each in found for field in EMPTY.keys() - set(fields))
    return Counter({tuple(each[field] for field in fields): each["count"] for each in found})


@pytest.mark.parametrize("seed", range(4))
async def test_query_subscription_and_python_count_the_same(
    database: Database, live: Ask, socket: Socket, seed: int
) -> None:
    data, chance = Data(seed), random.Random(seed)
    await data.store(database)
    for number in range(25):
        groups = chance.sample(list(GROUPINGS), chance.randrange(4))
        where, holds = combined(chance, conditions(data, FlowRun))
        expected = counted(data, FlowRun, groups, holds)
        found = (await live(FLOW_RUNS, where=where, groupBy=groups))["counts"]
        subscription = await socket.subscribe(COUNTS, str(number), where=where, groupBy=groups)

        assert +answered(found, groups, "FLOW_RUN") == expected, (where, groups)
        assert (await subscription.next())["runCounts"] == found
        await subscription.stop()


@pytest.mark.parametrize("seed", range(4))
async def test_task_runs_are_counted_like_in_python(database: Database, ask: Ask, seed: int) -> None:
    data, chance = Data(seed), random.Random(seed)
    await data.store(database)
    for _ in range(25):
        groups = chance.sample(list(GROUPINGS), chance.randrange(4))
        where, holds = combined(chance, conditions(data, TaskRun))

        found = (await ask(TASK_RUNS, where=where, groupBy=groups))["counts"]

        assert +answered(found, groups, "TASK_RUN") == counted(data, TaskRun, groups, holds), (where, groups)


async def test_runs_are_grouped_by_state_by_default(ask: Ask) -> None:
    await propose(ask, await make_flow_run(ask), "RUNNING")
    await make_task_run(ask)

    data = await ask(f"{{ flowRunCounts {{ {FIELDS} }} taskRunCounts {{ stateName taskKey }} }}")

    assert data["flowRunCounts"] == [group(stateType="RUNNING", stateName="Running", count=1)]
    assert data["taskRunCounts"] == [{"stateName": "Pending", "taskKey": None}]


async def test_flow_runs_have_no_task_key(ask: Ask) -> None:
    await make_flow_run(ask)

    data = await ask(f"{{ flowRunCounts(groupBy: [TASK_KEY]) {{ {FIELDS} }} }}")

    assert data["flowRunCounts"] == [group(count=1)]


@pytest.mark.parametrize("groups", ["[]", "[TASK_KEY]"])
async def test_without_groups_the_answer_is_one_number_even_without_runs(ask: Ask, groups: str) -> None:
    nothing = {"runCount": {"gt": 5}}
    document = f"""query($where: FlowRunWhere) {{ all: flowRunCounts(groupBy: {groups}) {{ count }}
      some: flowRunCounts(groupBy: {groups}, where: $where) {{ count }} }}"""

    assert await ask(document, where=nothing) == {"all": [{"count": 0}], "some": [{"count": 0}]}


async def test_only_the_largest_groups_are_returned(ask: Ask) -> None:
    small, large = await make_flow(ask, "small"), await make_flow(ask, "large")
    for flow in (small, large, large):
        await make_flow_run(ask, flowId=flow)

    data = await ask("{ flowRunCounts(groupBy: [FLOW], first: 1) { count flow { name } } }")

    assert data["flowRunCounts"] == [{"count": 2, "flow": {"name": "large"}}]


@pytest.mark.parametrize(
    ("first", "code", "message"),
    [
        (-1, "BAD_USER_INPUT", "`first` must be at least 1."),
        (0, "BAD_USER_INPUT", "`first` must be at least 1."),
        (1001, "LIMIT_EXCEEDED", "A page is too large: at most 1000, not 1001."),
    ],
)
async def test_an_invalid_number_of_groups_is_refused(ask: Ask, first: int, code: str, message: str) -> None:
    (error,) = (await ask.raw("query($n: Int!) { flowRunCounts(first: $n) { count } }", n=first))["errors"]

    assert (error["extensions"]["code"], error["message"]) == (code, message)


async def test_counts_are_delivered_initially_and_after_each_change(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    subscription = await socket.subscribe(COUNTS)
    before = (await subscription.next())["runCounts"]
    await propose(live, run, "RUNNING")
    after = (await subscription.next())["runCounts"]

    assert before == [group(stateType="PENDING", stateName="Pending", count=1)]
    assert after == [group(stateType="RUNNING", stateName="Running", count=1)]


async def test_unchanged_counts_are_not_repeated(live: Ask, socket: Socket) -> None:
    flow = await make_flow(live, "a")
    one, other = await make_flow_run(live, flowId=flow), await make_flow_run(live)
    where = {"flow": {"id": {"eq": flow}}}
    subscription = await socket.subscribe(COUNTS, where=where, groupBy=["FLOW", "STATE_TYPE"])
    first = (await subscription.next())["runCounts"]
    await propose(live, other, "RUNNING")
    await propose(live, one, {"type": "PENDING", "name": "Waiting"}, force=True)
    await propose(live, one, "COMPLETED", force=True)
    second = (await subscription.next())["runCounts"]

    assert first == [group(stateType="PENDING", flowId=flow, count=1)]
    assert second == [group(stateType="COMPLETED", flowId=flow, count=1)]


async def test_a_subscription_without_groups_delivers_one_number(live: Ask, socket: Socket) -> None:
    await make_flow_run(live)
    await make_flow_run(live)
    subscription = await socket.subscribe(COUNTS, groupBy=[])

    assert await subscription.next() == {"runCounts": [group(count=2)]}


async def until(subscription: Subscription, expected: list[dict[str, Any]]) -> None:
    """Receive counts until they are the expected ones."""
    while (await subscription.next())["runCounts"] != expected:
        pass


async def test_deletions_change_counts_without_a_transition(server: Listening, live: Ask, socket: Socket) -> None:
    server.hub.live.rest_seconds = NEVER
    flow = await make_flow(live, "a")
    deployment = await make_deployment(live, flowId=flow)
    runs = [await make_flow_run(live, flowId=flow, deploymentId=each) for each in (deployment, None, None)]
    await propose(live, runs[0], "RUNNING")
    subscription = await socket.subscribe(COUNTS, groupBy=["DEPLOYMENT"])
    none, some = group(count=2), group(deploymentId=deployment, count=1)
    await until(subscription, [none, some])

    await live("mutation($id: ID!) { deleteFlowRun(id: $id) { __typename } }", id=runs[1])
    (changed,) = [each for each in (await subscription.next())["runCounts"] if each["deploymentId"] is None]
    assert changed == group(count=1)
    await live("mutation($id: ID!) { deleteDeployment(id: $id) { __typename } }", id=deployment)
    await until(subscription, [none])
    await live("mutation($id: ID!) { deleteFlow(id: $id) { __typename } }", id=flow)
    await until(subscription, [])


@pytest.fixture
async def replicas(url: str) -> AsyncIterator[list[Listening]]:
    """Yield two servers on one database."""
    async with AsyncExitStack() as servers:
        yield [await servers.enter_async_context(listening(url)) for _ in range(2)]


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_subscriber_receives_changes_of_another_replica(replicas: list[Listening]) -> None:
    async with AsyncExitStack() as opened:
        asks = [await opened.enter_async_context(asking(each)) for each in replicas]
        subscriptions = [await subscribed(opened, each) for each in replicas]
        run = await make_flow_run(asks[0])
        for each in subscriptions:
            await until(each, [group(stateType="PENDING", count=1)])
        await propose(asks[1], run, "RUNNING")
        for each in subscriptions:
            await until(each, [group(stateType="RUNNING", count=1)])
        await asks[0]("mutation($id: ID!) { deleteFlowRun(id: $id) { __typename } }", id=run)
        for each in subscriptions:
            await until(each, [])


async def subscribed(opened: AsyncExitStack, server: Listening) -> Subscription:
    """Return a subscription, after its first count of 0, to a server that executes live queries only when notified."""
    server.hub.live.rest_seconds = NEVER
    socket = await opened.enter_async_context(connected(server))
    subscription = await socket.subscribe(COUNTS, groupBy=["STATE_TYPE"])
    await until(subscription, [])
    return subscription


async def test_many_subscribers_to_the_same_counts_share_each_read_of_the_tallies(
    server: Listening, live: Ask, socket: Socket
) -> None:
    run = await make_flow_run(live)
    read: list[str] = []
    reader = server.starlette.state.database.reader.sync_engine
    sa.event.listen(reader, "before_cursor_execute", lambda *given: read.append(given[2]))
    subscriptions = [await socket.subscribe(COUNTS, str(number), groupBy=["STATE_TYPE"]) for number in range(50)]
    for each in subscriptions:
        await each.next()
    (query,) = server.hub.live.queries.values()
    before = query.started
    read.clear()

    await propose(live, run, "RUNNING")
    for each in subscriptions:
        assert (await each.next())["runCounts"] == [group(stateType="RUNNING", count=1)]

    sums = [statement for statement in read if "sum(" in statement]
    assert len(sums) == query.started - before <= 2  # the notification and the next read of the log may be separate
    assert not [statement for statement in read if "FROM flow_run " in statement and "count(" in statement]


async def test_flow_and_deployment_of_a_live_count_are_the_current_ones(live: Ask, socket: Socket) -> None:
    flow = await make_flow(live, "a")
    subscription = await socket.subscribe("subscription { runCounts(groupBy: [FLOW]) { count flow { tags } } }")
    assert (await subscription.next())["runCounts"] == []
    await make_flow_run(live, flowId=flow)
    first = (await subscription.next())["runCounts"]
    await live('mutation($id: ID!) { updateFlow(input: {id: $id, tags: ["x"]}) { __typename } }', id=flow)
    await make_flow_run(live, flowId=flow)
    second = (await subscription.next())["runCounts"]

    assert first == [{"count": 1, "flow": {"tags": []}}]
    assert second == [{"count": 2, "flow": {"tags": ["x"]}}]
