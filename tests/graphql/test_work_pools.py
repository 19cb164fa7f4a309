"""Work pools, queues and workers: rules beyond those of all families."""

import asyncio
from typing import Any

import pytest

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, create, do, make_deployment, make_flow

TEMPLATE: Any = {
    "job_configuration": {"command": "{{ command }}", "env": ["{{ cpu }}-{{ image }}"]},
    "variables": {
        "type": "object",
        "properties": {
            "command": {"type": "string"},
            "cpu": {"type": "integer", "minimum": 1, "default": 1},
            "image": {"type": "string", "default": "python"},
        },
        "required": ["command"],
    },
}
ONE = f"{PROBLEM} ... on NameTaken {{ takenBy: id path }}"
QUEUE = "id name priority paused status slotsInUse lastPolled health { healthy lateRunsCount }"
RUN = f"""{PROBLEM} ... on CreateFlowRunPayload {{ flowRun {{
  id heartbeatSeconds jobVariables workQueueName workQueue {{ name }} workPool {{ name }} }} }}"""
DEPLOYED = "id workQueueName workQueueId workQueue { name } workPool { name }"


async def make_pool(ask: Ask, name: str = "pool", **given: Any) -> str:
    made = await create(ask, "workPool", name=name, **given)
    return str(made["workPool"]["id"])


async def make_queue(ask: Ask, pool: str, name: str, **given: Any) -> Any:
    return await create(ask, "workQueue", QUEUE, workPoolId=pool, name=name, **given)


async def pool_of(ask: Ask, selection: str, name: str = "pool") -> Any:
    return (await ask(f"query($n: String) {{ it: workPool(by: {{ name: $n }}) {{ {selection} }} }}", n=name))["it"]


async def queues(ask: Ask) -> dict[str, int]:
    found = await pool_of(ask, "workQueues { nodes { name priority } }")
    return {each["name"]: each["priority"] for each in found["workQueues"]["nodes"]}


async def remove(ask: Ask, what: str, id: str) -> Any:
    document = (
        f"mutation($id: ID!) {{ it: delete{what}(id: $id) {{ {PROBLEM} ... on DeletePayload {{ deletedId }} }} }}"
    )
    return (await ask(document, id=id))["it"]


async def change(ask: Ask, what: str, selection: str, **given: Any) -> Any:
    fields = f"{ONE} ... on Update{what}Payload {{ {what[0].lower()}{what[1:]} {{ {selection} }} }}"
    return await do(ask, f"update{what}", f"Update{what}Input", fields, **given)


async def beat(ask: Ask, worker: str = "w", **given: Any) -> Any:
    fields = f"""{PROBLEM} ... on WorkerHeartbeatPayload {{ workPool {{ status }}
      worker {{ id name status heartbeatIntervalSeconds metadata {{ other integrations {{ name version }} }} }} }}"""
    given = {"workPool": "pool", "worker": worker, **given}
    return await do(ask, "workerHeartbeat", "WorkerHeartbeatInput", fields, **given)


async def test_a_pool_has_a_default_queue_that_cannot_be_deleted(ask: Ask) -> None:
    await make_pool(ask)
    found = await pool_of(ask, f"status statusName slotsInUse lastTransitionedStatusAt defaultQueue {{ {QUEUE} }}")
    refused = await remove(ask, "WorkQueue", found["defaultQueue"]["id"])

    assert (found["status"], found["statusName"], found["slotsInUse"]) == ("NOT_READY", "Not Ready", 0)
    assert found["lastTransitionedStatusAt"] is None
    assert (found["defaultQueue"]["name"], found["defaultQueue"]["priority"]) == ("default", 1)
    assert found["defaultQueue"]["health"] == {"healthy": False, "lateRunsCount": 0}
    assert refused["__typename"] == "InvalidInput"


@pytest.mark.parametrize("name", [" ", "'\"", "a/b", "a%b", "a&b", "a<b", "a>b", "prefect-x", "PREFECT", ""])
async def test_names_that_would_be_ambiguous_are_refused(ask: Ask, name: str) -> None:
    refused = await create(ask, "workPool", name=name)

    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["name"])


@pytest.mark.parametrize(
    "template",
    [
        {"variables": {}},
        {"job_configuration": {}},
        {"job_configuration": {"a": [{"b": "x {{ y }}"}]}, "variables": {"properties": {"a": {}}}},
        {"job_configuration": {}, "variables": {"properties": {"a": {"type": "nothing"}}}},
        {"job_configuration": {}, "variables": {"properties": {"a": {"type": "string", "default": 1}}}},
    ],
)
async def test_an_invalid_template_is_refused(ask: Ask, template: Any) -> None:
    refused = await create(ask, "workPool", name="pool", baseJobTemplate=template)

    assert (refused["__typename"], refused["path"][0]) == ("InvalidInput", "baseJobTemplate")


async def test_a_new_queue_gets_the_lowest_free_priority_and_a_taken_one_moves_others(ask: Ask) -> None:
    pool = await make_pool(ask)
    first = (await make_queue(ask, pool, "a"))["workQueue"]
    await make_queue(ask, pool, "b", priority=4)
    await make_queue(ask, pool, "c")
    await make_queue(ask, pool, "d", priority=1)
    before = await queues(ask)
    await change(ask, "WorkQueue", "id", id=first["id"], priority=9)

    assert before == {"d": 1, "default": 2, "a": 3, "c": 4, "b": 5}
    assert await queues(ask) == {"d": 1, "default": 2, "c": 4, "b": 5, "a": 9}


async def test_priorities_are_set_together(ask: Ask) -> None:
    pool = await make_pool(ask)
    made = {name: (await make_queue(ask, pool, name))["workQueue"]["id"] for name in "abc"}
    fields = f"{PROBLEM} ... on SetWorkQueuePrioritiesPayload {{ workQueues {{ name priority }} }}"

    async def set_to(**priorities: int) -> Any:
        given = [{"workQueueId": made[name], "priority": priority} for name, priority in priorities.items()]
        name = "setWorkQueuePriorities"
        return await do(ask, name, "SetWorkQueuePrioritiesInput", fields, workPoolId=pool, priorities=given)

    found = await set_to(c=1, b=2)
    refused = await set_to(a=1, b=1)

    assert [each["name"] for each in found["workQueues"]] == ["c", "b", "default", "a"]
    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["priorities"])


async def test_eight_queues_created_at_once_have_different_priorities(ask: Ask) -> None:
    pool = await make_pool(ask)
    await asyncio.gather(*(make_queue(ask, pool, f"q-{number}") for number in range(8)))

    assert sorted((await queues(ask)).values()) == list(range(1, 10))


async def test_the_name_of_a_queue_is_unique_within_its_pool(ask: Ask) -> None:
    pool, other = await make_pool(ask), await make_pool(ask, "other")
    await make_queue(ask, pool, "a")
    taken = await create(ask, "workQueue", workPoolId=pool, name="a")
    document = "query($by: WorkQueueRef!) { it: workQueue(by: $by) { workPool { name } } }"
    await make_queue(ask, other, "a")
    found = (await ask(document, by={"path": {"workPool": "other", "name": "a"}}))["it"]

    assert taken["__typename"] == "NameTaken"
    assert found["workPool"]["name"] == "other"
    assert (await ask(document, by={"path": {"workPool": "nowhere"}}))["it"] is None


async def test_a_heartbeat_creates_a_worker_and_makes_its_pool_ready(ask: Ask) -> None:
    pool = await make_pool(ask)
    metadata = {"integrations": [{"name": "aws", "version": "1"}], "region": "eu"}
    first = await beat(ask, intervalSeconds=10.0, metadata=metadata)
    second = await beat(ask)
    unknown = await beat(ask, workPool="nowhere")
    worker = second["worker"]
    await remove(ask, "Worker", worker["id"])

    assert first["workPool"]["status"] == "READY"
    assert (first["worker"]["status"], first["worker"]["heartbeatIntervalSeconds"]) == ("ONLINE", 10)
    assert worker["metadata"] == {"other": {"region": "eu"}, "integrations": [{"name": "aws", "version": "1"}]}
    assert (worker["id"], worker["heartbeatIntervalSeconds"]) == (first["worker"]["id"], 30)
    assert unknown["__typename"] == "NotFound"
    assert (await pool_of(ask, "status workers { totalCount }")) == {
        "status": "NOT_READY",
        "workers": {"totalCount": 0},
    }
    assert (await change(ask, "WorkPool", "status", id=pool, paused=True))["workPool"]["status"] == "PAUSED"


async def test_a_deployment_is_in_the_default_queue_or_a_named_one_that_is_created(ask: Ask) -> None:
    await make_pool(ask)
    flow = await make_flow(ask)
    made = (await create(ask, "deployment", DEPLOYED, flowId=flow, name="d", workPool="pool"))["deployment"]
    given = {"flowId": flow, "name": "d", "workPool": "pool", "workQueueName": "new"}
    moved = (await create(ask, "deployment", DEPLOYED, **given))["deployment"]
    kept = (await change(ask, "Deployment", DEPLOYED, id=made["id"], description="x"))["deployment"]
    reset = (await create(ask, "deployment", DEPLOYED, flowId=flow, name="d", workQueueName=None))["deployment"]
    gone = (await change(ask, "Deployment", DEPLOYED, id=made["id"], workPool=None))["deployment"]
    unknown = await create(ask, "deployment", flowId=flow, name="e", workPool="nowhere")

    assert (made["workQueueName"], made["workPool"]["name"]) == ("default", "pool")
    assert (moved["workQueueName"], moved["workQueue"]["name"]) == ("new", "new")
    assert kept == moved
    assert reset == made
    assert (gone["workQueueName"], gone["workQueueId"], gone["workPool"]) == (None, None, None)
    assert unknown["__typename"] == "NotFound"


async def test_job_variables_must_conform_to_the_template(ask: Ask) -> None:
    await make_pool(ask, baseJobTemplate=TEMPLATE)
    flow = await make_flow(ask)
    refused = await create(ask, "deployment", flowId=flow, name="d", workPool="pool", jobVariables={"cpu": 0})
    deployment = await make_deployment(ask, flowId=flow, workPool="pool", jobVariables={"cpu": None, "more": 1})

    async def run(**given: Any) -> Any:
        return await do(ask, "runDeployment", "RunDeploymentInput", RUN, deploymentId=deployment, **given)

    missing, accepted = await run(), await run(jobVariables={"command": "x"})

    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["jobVariables", "cpu"])
    assert (missing["__typename"], missing["path"]) == ("InvalidInput", ["jobVariables"])
    assert accepted["flowRun"]["jobVariables"] == {"command": "x"}
    assert (accepted["flowRun"]["workQueue"]["name"], accepted["flowRun"]["workPool"]["name"]) == ("default", "pool")


DEPLOY_FLOW = f"""{PROBLEM} ... on CreateDeploymentPayload {{ created deployment {{
  flow {{ name }} workQueueName workPool {{ name }} schedules {{ nodes {{ slug }} }} }} }}"""


async def deploy(ask: Ask, **given: Any) -> Any:
    fields = {"flow": {"name": "etl"}, "name": "nightly", "createFlow": True, **given}
    return await do(ask, "deployFlow", "DeployFlowInput", DEPLOY_FLOW, **fields)


async def test_a_flow_is_deployed_by_name_with_a_pool_and_schedules(ask: Ask) -> None:
    await make_pool(ask)
    schedules = [{"schedule": {"cron": {"cron": "@daily"}}, "slug": "daily"}]
    made = await deploy(ask, workPool="pool", workQueueName="new", schedules=schedules)
    again = await deploy(ask, tags=["t"])

    assert (made["created"], again["created"]) == (True, False)
    assert made["deployment"] == {
        "flow": {"name": "etl"},
        "workQueueName": "new",
        "workPool": {"name": "pool"},
        "schedules": {"nodes": [{"slug": "daily"}]},
    }
    assert again["deployment"] == made["deployment"]


@pytest.mark.parametrize(
    ("given", "type_"),
    [
        ({"workPool": "nowhere"}, "NotFound"),
        ({"schedules": [{"schedule": {"cron": {"cron": "0 0 30 2 *"}}}]}, "InvalidInput"),
        ({"parameterSchema": {"properties": {"n": {"type": "integer"}}}, "parameters": {"n": "x"}}, "InvalidInput"),
    ],
)
async def test_a_deployment_that_is_refused_leaves_no_flow_behind(ask: Ask, given: Any, type_: str) -> None:
    assert (await deploy(ask, **given))["__typename"] == type_
    assert await ask("{ flows { totalCount } }") == {"flows": {"totalCount": 0}}


async def test_updates_and_runs_by_name_are_checked_as_those_by_id(ask: Ask) -> None:
    await make_pool(ask, baseJobTemplate=TEMPLATE)
    await deploy(ask, workPool="pool", parameterSchema={"properties": {"n": {"type": "integer"}}})
    names = {"flow": "etl", "name": "nightly"}
    updates: list[dict[str, Any]] = [{"parameters": {"n": "x"}}, {"jobVariables": {"cpu": 0}}, {"workPool": "nowhere"}]
    refused = [await change(ask, "Deployment", DEPLOYED, by=names, **given) for given in updates]
    moved = (await change(ask, "Deployment", DEPLOYED, by=names, workQueueName="new"))["deployment"]

    async def run(**given: Any) -> Any:
        return await do(ask, "runDeployment", "RunDeploymentInput", RUN, deployment=names, **given)

    wrong = [await run(parameters={"n": "x"}), await run(), await run(jobVariables={"command": "x", "cpu": 0})]
    accepted = await run(parameters={"n": 1}, jobVariables={"command": "x"}, heartbeatSeconds=5)

    assert [each["__typename"] for each in refused] == ["InvalidInput", "InvalidInput", "NotFound"]
    assert moved["workQueueName"] == "new"
    assert [each["path"] for each in wrong] == [["parameters", "n"], ["jobVariables"], ["jobVariables", "cpu"]]
    assert accepted["flowRun"]["workQueue"]["name"] == "new"
    assert accepted["flowRun"]["heartbeatSeconds"] == 5


async def test_deployments_and_runs_stay_without_a_queue_when_it_is_deleted(ask: Ask) -> None:
    pool = await make_pool(ask)
    deployment = await make_deployment(ask, workPool="pool", workQueueName="q")
    run = (await do(ask, "runDeployment", "RunDeploymentInput", RUN, deploymentId=deployment))["flowRun"]
    document = (
        "query($id: ID!, $run: ID!) { deployment(id: $id) { workQueueName } flowRun(id: $run) { workQueueName } }"
    )
    before = await ask(document, id=deployment, run=run["id"])
    await remove(ask, "WorkPool", pool)
    after = await ask(document, id=deployment, run=run["id"])

    assert before == {"deployment": {"workQueueName": "q"}, "flowRun": {"workQueueName": "q"}}
    assert after == {"deployment": {"workQueueName": None}, "flowRun": {"workQueueName": None}}


async def test_a_renamed_queue_keeps_its_deployments(ask: Ask) -> None:
    await make_pool(ask)
    deployment = await make_deployment(ask, workPool="pool", workQueueName="q")
    read = f"query($id: ID!) {{ deployment(id: $id) {{ {DEPLOYED} }} }}"
    queue = (await ask(read, id=deployment))["deployment"]["workQueueId"]
    await change(ask, "WorkQueue", "id", id=queue, name="renamed")

    assert (await ask(read, id=deployment))["deployment"]["workQueueName"] == "renamed"


DUE = f"""query($input: ClaimableFlowRunsInput!) {{ it: claimableFlowRuns(input: $input) {{ {PROBLEM}
  ... on ClaimableFlowRunsPayload {{ flowRuns {{ name }} held {{ count reason workQueue {{ name }} }} }} }} }}"""


async def due(ask: Ask, **given: Any) -> Any:
    return (await ask(DUE, input={"workPool": "pool", **given}))["it"]


async def due_runs(ask: Ask, **pool: Any) -> str:
    """Create a pool with two queues and three due runs in each, r0 to r5; return the id of the pool."""
    made, flow = await make_pool(ask, **pool), await make_flow(ask)
    for name in ("default", "second"):
        deployment = await make_deployment(ask, flowId=flow, name=name, workPool="pool", workQueueName=name)
        for number in range(3):
            given = {
                "deploymentId": deployment,
                "name": f"{name}-{number}",
                "scheduledTime": f"2026-01-0{3 - number}T00:00:00Z",
            }
            await do(ask, "runDeployment", "RunDeploymentInput", RUN, **given)
    return made


def names(found: Any) -> list[str]:
    return [run["name"] for run in found["flowRuns"]]


async def test_due_runs_are_ordered_by_priority_and_time(ask: Ask) -> None:
    await due_runs(ask)
    found = await due(ask)
    some = await due(ask, workQueues=["second"], first=2)

    assert names(found) == [
        *(f"default-{number}" for number in (2, 1, 0)),
        *(f"second-{number}" for number in (2, 1, 0)),
    ]
    assert (names(some), found["held"]) == (["second-2", "second-1"], [])


async def test_runs_beyond_the_limits_are_held_with_the_reason(ask: Ask) -> None:
    await due_runs(ask, concurrencyLimit=4)
    queue = (await pool_of(ask, "workQueues { nodes { id name } }"))["workQueues"]["nodes"][0]
    await change(ask, "WorkQueue", "id", id=queue["id"], concurrencyLimit=2)
    found = await due(ask)
    held = sorted((each["reason"], each["count"]) for each in found["held"])

    assert names(found) == ["default-2", "default-1", "second-2", "second-1"]
    assert held == [("POOL_LIMIT", 1), ("QUEUE_LIMIT", 1)]


async def test_paused_pools_and_queues_give_no_runs(ask: Ask) -> None:
    pool = await due_runs(ask)
    queue = (await pool_of(ask, "workQueues { nodes { id name } }"))["workQueues"]["nodes"][0]
    paused = (await change(ask, "WorkQueue", "status", id=queue["id"], paused=True))["workQueue"]
    of_queue = await due(ask)
    await change(ask, "WorkPool", "id", id=pool, paused=True)
    of_pool = await due(ask)

    assert paused["status"] == "PAUSED"
    assert names(of_queue) == ["second-2", "second-1", "second-0"]
    assert of_queue["held"] == [{"count": 3, "reason": "QUEUE_PAUSED", "workQueue": {"name": "default"}}]
    assert (names(of_pool), [each["reason"] for each in of_pool["held"]]) == ([], ["POOL_PAUSED"] * 2)


async def test_unknown_pools_and_queues_and_far_times_are_refused(ask: Ask) -> None:
    await make_pool(ask)
    answers = [
        await due(ask, workPool="nowhere"),
        await due(ask, workQueues=["nowhere"]),
        await due(ask, dueBefore="2200-01-01T00:00:00Z"),
    ]

    assert [each["__typename"] for each in answers] == ["NotFound", "NotFound", "InvalidInput"]


async def test_a_priority_that_would_move_others_beyond_the_greatest_one_is_refused(ask: Ask) -> None:
    pool = await make_pool(ask)
    await make_queue(ask, pool, "a", priority=2**31 - 1)
    refused = await make_queue(ask, pool, "b", priority=2**31 - 1)

    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["priority"])
    assert await queues(ask) == {"default": 1, "a": 2**31 - 1}


@pytest.mark.parametrize("text", ["{{" + " " * 4_000, "{{" * 100_000])
async def test_placeholders_that_do_not_end_take_linear_time(ask: Ask, text: str) -> None:
    template = {"job_configuration": {"command": text}, "variables": {}}
    async with asyncio.timeout(5):
        made = await create(ask, "workPool", name="pool", baseJobTemplate=template)

    assert made["workPool"]["id"]
