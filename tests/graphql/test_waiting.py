"""Decisions, last answers, waiting runs and heartbeats over HTTP."""

from typing import Any

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.rows import ConcurrencyWaiter
from tests.client import Ask
from tests.graphql.mutations import (
    PROBLEM,
    create,
    do,
    flow_run,
    make_deployment,
    make_flow,
    make_flow_run,
    make_task_run,
    propose,
)

DECISION = "decision { proposed { type name } status rule reason amendedBy }"
ANSWER = """lastAnswer { at proposed { type name } status rule reason retryAfterSeconds attempts
  limits { name limit activeSlots } }"""
WAITING = """query($name: String!) { concurrencyLimit(by: { name: $name }) { waitingCount waiting {
  totalCount nodes { created updated runKind run { id name } flowRun { id } limit { name } } }
  leases { nodes { run { __typename id } flowRun { id } } } } }"""
HEARTBEAT = f"""mutation($runs: [RunRef!]!) {{ heartbeat(runs: $runs) {{ {PROBLEM}
  ... on HeartbeatPayload {{ runs {{ runId stateType stateName version }} }} }} }}"""


async def states(ask: Ask, run: str) -> list[Any]:
    """Return the states of a flow run with the decisions that wrote them."""
    found = await flow_run(ask, run, f"states {{ nodes {{ name {DECISION} }} }}")
    return list(found["states"]["nodes"])


async def task_run(ask: Ask, run: str, selection: str) -> Any:
    """Return fields of a task run."""
    return (await ask(f"query($id: ID!) {{ it: taskRun(id: $id) {{ {selection} }} }}", id=run))["it"]


async def waiting(ask: Ask, name: str) -> Any:
    """Return who waits for slots of a limit and who holds them."""
    return (await ask(WAITING, name=name))["concurrencyLimit"]


async def full_limit(ask: Ask, slots: int = 1) -> tuple[str, list[str]]:
    """Return the id of a RUNNING flow run, and ids of task runs of it that hold all slots of the limit `tag:db`."""
    await create(ask, "concurrencyLimit", name="tag:db", limit=slots)
    parent = await make_flow_run(ask, state={"type": "RUNNING"})
    holders = [await make_task_run(ask, f"h{each}", flowRunId=parent, tags=["db"]) for each in range(slots)]
    for holder in holders:
        assert (await propose(ask, holder, "RUNNING", task=True))["status"] == "ACCEPT"
    return parent, holders


async def test_every_state_has_the_decision_that_wrote_it(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "SCHEDULED"}, policy={"retries": 1})
    for state in ("RUNNING", {"type": "FAILED", "name": "Boom"}):
        await propose(ask, run, state)
    await propose(ask, run, "COMPLETED", force=True)
    none: dict[str, Any] = {"rule": None, "reason": None, "amendedBy": []}

    assert await states(ask, run) == [
        {
            "name": "Scheduled",
            "decision": {"proposed": {"type": "SCHEDULED", "name": "Scheduled"}, "status": "ACCEPT", **none},
        },
        {
            "name": "Running",
            "decision": {"proposed": {"type": "RUNNING", "name": "Running"}, "status": "ACCEPT", **none},
        },
        {
            "name": "AwaitingRetry",
            "decision": {
                "proposed": {"type": "FAILED", "name": "Boom"},
                "status": "REJECT",
                "rule": "retry_failed_flow_run",
                "reason": "The run will be retried.",
                "amendedBy": [],
            },
        },
        {"name": "Completed", "decision": {"proposed": None, "status": "ACCEPT", **none, "rule": "force"}},
    ]


async def test_the_answer_to_a_proposal_has_the_decision_too(ask: Ask) -> None:
    run = await make_task_run(ask, policy={"retries": 1})
    await propose(ask, run, "RUNNING", task=True)
    document = f"""mutation($input: ProposeStateInput!) {{ it: proposeState(input: $input) {{
      ... on OrchestrationResult {{ status state {{ name {DECISION} }} run {{ {ANSWER} }} }} }} }}"""
    given = {"run": {"taskRunId": run}, "state": {"type": "FAILED"}}
    said = (await ask(document, input=given))["it"]

    assert (said["status"], said["state"]["decision"]["rule"]) == ("REJECT", "retry_failed_task_run")
    assert said["run"]["lastAnswer"] is None


async def test_a_run_that_waits_says_what_for_until_it_goes_on(ask: Ask) -> None:
    _, (holder,) = await full_limit(ask)
    run = await make_task_run(ask, tags=["db"])
    said = await propose(ask, run, "RUNNING", task=True)
    answer = (await task_run(ask, run, ANSWER))["lastAnswer"]

    assert answer.pop("at")
    assert answer == {
        "proposed": {"type": "RUNNING", "name": "Running"},
        "status": "WAIT",
        "rule": "take_tag_slots",
        "reason": "The limit tag:db is full.",
        "retryAfterSeconds": said["retryAfterSeconds"],
        "attempts": 1,
        "limits": [{"name": "tag:db", "limit": 1, "activeSlots": 1}],
    }
    await propose(ask, holder, "COMPLETED", task=True)
    assert (await propose(ask, run, "RUNNING", task=True))["status"] == "ACCEPT"
    assert await task_run(ask, run, ANSWER) == {"lastAnswer": None}


async def test_a_limit_lists_the_runs_that_wait_longest_first_and_who_holds_its_slots(ask: Ask) -> None:
    parent, (holder,) = await full_limit(ask)
    runs = [await make_task_run(ask, f"w{each}", flowRunId=parent, tags=["db"], name=f"w{each}") for each in range(3)]
    for run in (runs[2], runs[0], runs[1], runs[2]):
        assert (await propose(ask, run, "RUNNING", task=True))["status"] == "WAIT"

    limit = await waiting(ask, "tag:db")
    assert (limit["waitingCount"], limit["waiting"]["totalCount"]) == (3, 3)
    assert [each["run"]["name"] for each in limit["waiting"]["nodes"]] == ["w2", "w0", "w1"]
    assert {(each["runKind"], each["flowRun"]["id"], each["limit"]["name"]) for each in limit["waiting"]["nodes"]} == {
        ("TASK_RUN", parent, "tag:db")
    }
    assert limit["leases"]["nodes"] == [{"run": {"__typename": "TaskRun", "id": holder}, "flowRun": {"id": parent}}]

    await propose(ask, holder, "COMPLETED", task=True)
    await propose(ask, runs[0], "RUNNING", task=True)
    await propose(ask, runs[1], {"type": "CANCELLED"}, task=True)
    limit = await waiting(ask, "tag:db")
    assert [each["run"]["id"] for each in limit["waiting"]["nodes"]] == [runs[2]]
    assert limit["waitingCount"] == 1


async def test_limits_are_found_by_who_waits_for_them(ask: Ask) -> None:
    await full_limit(ask)
    await create(ask, "concurrencyLimit", name="idle", limit=1)
    run = await make_task_run(ask, tags=["db"])
    await propose(ask, run, "RUNNING", task=True)
    document = """query($run: ID!) {
      concurrencyLimits(where: { waiting: { some: { runId: { eq: $run } } } }) { nodes { name waitingCount } } }"""

    assert (await ask(document, run=run))["concurrencyLimits"]["nodes"] == [{"name": "tag:db", "waitingCount": 1}]


async def test_a_claimed_run_waits_for_the_limit_of_its_deployment(ask: Ask) -> None:
    flow = await make_flow(ask)
    deployment = await make_deployment(ask, flowId=flow, concurrencyLimit=1)
    given = {"flowId": flow, "deploymentId": deployment, "state": {"type": "SCHEDULED"}}
    first, second = [await make_flow_run(ask, **given) for _ in range(2)]
    await propose(ask, first, "PENDING")
    assert (await propose(ask, second, "PENDING"))["state"]["name"] == "AwaitingConcurrencySlot"

    limit = await waiting(ask, f"deployment:{deployment}")
    assert [(each["run"]["id"], each["flowRun"]["id"]) for each in limit["waiting"]["nodes"]] == [(second, second)]
    assert [(each["run"]["id"], each["flowRun"]["id"]) for each in limit["leases"]["nodes"]] == [(first, first)]
    answer = (await flow_run(ask, second, ANSWER))["lastAnswer"]
    assert (answer["status"], answer["rule"], [each["name"] for each in answer["limits"]]) == (
        "REJECT",
        "take_deployment_slot",
        [f"deployment:{deployment}"],
    )

    await propose(ask, first, "COMPLETED", force=True)
    await propose(ask, second, "PENDING")
    assert (await waiting(ask, f"deployment:{deployment}"))["waitingCount"] == 0
    assert (await flow_run(ask, second, ANSWER))["lastAnswer"] is None


@pytest.mark.parametrize("mutation", ["deleteTaskRun", "deleteConcurrencyLimit", "deleteFlow"])
async def test_nobody_waits_any_more_once_the_run_or_the_limit_is_deleted(
    ask: Ask, app: Starlette, mutation: str
) -> None:
    parent, _ = await full_limit(ask)
    run = await make_task_run(ask, "w", flowRunId=parent, tags=["db"])
    await propose(ask, run, "RUNNING", task=True)
    limit = (await ask('{ concurrencyLimit(by: { name: "tag:db" }) { id } }'))["concurrencyLimit"]["id"]
    flow = (await flow_run(ask, parent, "flowId"))["flowId"]
    ids = {"deleteTaskRun": run, "deleteConcurrencyLimit": limit, "deleteFlow": flow}
    await ask(f"mutation($id: ID!) {{ {mutation}(id: $id) {{ __typename }} }}", id=ids[mutation])

    async with app.state.database.read() as connection:
        assert (await connection.scalar(sa.select(sa.func.count()).select_from(ConcurrencyWaiter))) == 0
    if mutation == "deleteConcurrencyLimit":
        assert (await task_run(ask, run, ANSWER))["lastAnswer"]["limits"] == []
        assert (await propose(ask, run, "RUNNING", task=True))["status"] == "ACCEPT"


async def test_a_page_of_limits_with_waiting_runs_takes_few_statements(ask: Ask, read: list[str]) -> None:
    await full_limit(ask)
    await create(ask, "concurrencyLimit", name="tag:api", limit=1)
    for each in range(5):
        await propose(ask, await make_task_run(ask, f"w{each}", tags=["db"]), "RUNNING", task=True)
    read.clear()
    document = """{ concurrencyLimits { nodes { name waitingCount
      waiting { nodes { run { name } flowRun { name } } } leases { nodes { run { name } flowRun { name } } } } } }"""
    (api, db) = sorted((await ask(document))["concurrencyLimits"]["nodes"], key=lambda each: str(each["name"]))

    assert (api["waitingCount"], db["waitingCount"]) == (0, 5)
    assert len(read) <= 10


async def test_a_heartbeat_tells_what_became_of_each_run(ask: Ask, read: list[str]) -> None:
    flow_runs = [await make_flow_run(ask, state={"type": "RUNNING"}, heartbeatSeconds=5) for _ in range(2)]
    task = await make_task_run(ask, state={"type": "RUNNING"})
    cancelled = await make_flow_run(ask, state={"type": "RUNNING"}, infrastructurePid="7")
    document = "mutation($id: ID!) { cancelFlowRun(input: { id: $id }) { __typename } }"
    await ask(document, id=cancelled)
    await propose(ask, flow_runs[1], {"type": "PAUSED"})
    unknown = "00000000-0000-0000-0000-000000000000"
    runs = [{"flowRunId": each} for each in (flow_runs[0], cancelled, flow_runs[1], unknown, task)]
    read.clear()
    answer = (await ask(HEARTBEAT, runs=[*runs, {"taskRunId": task}]))["heartbeat"]

    assert [(each["runId"], each["stateType"], each["version"]) for each in answer["runs"]] == [
        (flow_runs[0], "RUNNING", 1),
        (cancelled, "CANCELLING", 2),
        (flow_runs[1], "PAUSED", 2),
        (unknown, None, None),
        (task, None, None),
        (task, "RUNNING", 1),
    ]
    assert len(read) == 1


@pytest.mark.parametrize("runs", [[], [{"flowRunId": "x"}]])
async def test_an_invalid_heartbeat_is_refused(ask: Ask, runs: list[Any]) -> None:
    assert (await ask(HEARTBEAT, runs=runs))["heartbeat"]["__typename"] == "InvalidInput"


async def test_the_interval_of_heartbeats_can_be_set_and_changed(ask: Ask) -> None:
    run = await make_task_run(ask, heartbeatSeconds=5)
    assert await task_run(ask, run, "heartbeatSeconds") == {"heartbeatSeconds": 5}
    fields = f"{PROBLEM} ... on UpdateTaskRunPayload {{ taskRun {{ heartbeatSeconds }} }}"
    for seconds in (60, None):
        changed = await do(ask, "updateTaskRun", "UpdateTaskRunInput", fields, id=run, heartbeatSeconds=seconds)
        assert changed["taskRun"] == {"heartbeatSeconds": seconds}
    refused = await do(ask, "updateTaskRun", "UpdateTaskRunInput", fields, id=run, heartbeatSeconds=0.5)
    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["heartbeatSeconds"])


async def test_a_run_of_a_deployment_can_be_monitored_from_its_creation(ask: Ask) -> None:
    deployment = await make_deployment(ask)
    fields = f"{PROBLEM} ... on CreateFlowRunPayload {{ flowRun {{ heartbeatSeconds }} }}"
    made = await do(ask, "runDeployment", "RunDeploymentInput", fields, deploymentId=deployment, heartbeatSeconds=30)

    assert made["flowRun"] == {"heartbeatSeconds": 30}
