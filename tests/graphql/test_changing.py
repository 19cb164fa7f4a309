"""Updates and deletions of flows, runs and states over HTTP, on both databases."""

from typing import Any

from starlette.applications import Starlette
from uuid_utils.compat import uuid7

from runstate.app import clock
from runstate.core.checks.verify import verify
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

MANY = "... on BulkOperation { total done hasMore }"


async def delete(ask: Ask, mutation: str, id: str) -> Any:
    """Delete an object by id; return the answer."""
    document = f"mutation($id: ID!) {{ it: {mutation}(id: $id) {{ {PROBLEM} ... on DeletePayload {{ deletedId }} }} }}"
    return (await ask(document, id=id))["it"]


async def delete_many(ask: Ask, kind: str, ids: list[str]) -> Any:
    """Delete the runs of a kind by id; return the answer."""
    document = f"mutation($ids: [ID!]!) {{ it: delete{kind}s(where: {{id: {{in: $ids}}}}) {{ {PROBLEM} {MANY} }} }}"
    return (await ask(document, ids=ids))["it"]


async def states(ask: Ask, run: str) -> Any:
    """Return the states of a flow run."""
    return (await flow_run(ask, run, "states { nodes { id version } }"))["states"]["nodes"]


async def findings(app: Starlette) -> list[str]:
    """Return the findings of `verify`."""
    return await verify(app.state.database, clock())


async def test_given_fields_of_a_flow_run_change_and_omitted_ones_stay(ask: Ask) -> None:
    run = await make_flow_run(ask, name="one", tags=["a"], policy={"retries": 2, "retryDelaySeconds": 1})
    given = {"tags": ["b", "b", "c"], "infrastructurePid": "7", "parameters": {"x": 1}, "policy": {"retries": 5}}
    fields = "flowRun { name tags infrastructurePid parameters version policy { retries retryDelaySeconds } }"

    selection = f"{PROBLEM} ... on UpdateFlowRunPayload {{ {fields} }}"
    changed = await do(ask, "updateFlowRun", "UpdateFlowRunInput", selection, id=run, **given)

    assert changed["flowRun"] == {
        "name": "one",
        "tags": ["b", "c"],
        "infrastructurePid": "7",
        "parameters": {"x": 1},
        "version": 1,
        "policy": {"retries": 5, "retryDelaySeconds": 1},
    }


async def test_a_task_run_that_loses_a_tag_releases_its_slot(ask: Ask, app: Starlette) -> None:
    for tag in ("a", "b"):
        await create(ask, "concurrencyLimit", name=f"tag:{tag}", limit=1)
    one, other = [await make_task_run(ask, key, tags=["a", "b"]) for key in "12"]
    await propose(ask, one, "RUNNING", task=True)
    selection = f"{PROBLEM} ... on UpdateTaskRunPayload {{ taskRun {{ tags stateType }} }}"

    changed = await do(ask, "updateTaskRun", "UpdateTaskRunInput", selection, id=one, tags=["b"])

    assert changed["taskRun"] == {"tags": ["b"], "stateType": "RUNNING"}
    slots = "{ concurrencyLimits(orderBy: [{name: ASC}]) { nodes { activeSlots } } }"
    assert [each["activeSlots"] for each in (await ask(slots))["concurrencyLimits"]["nodes"]] == [0, 1]
    await propose(ask, one, "COMPLETED", task=True)
    assert (await propose(ask, other, "RUNNING", task=True))["status"] == "ACCEPT"
    assert await findings(app) == []


async def test_tags_and_labels_of_a_flow_change(ask: Ask) -> None:
    flow = await make_flow(ask)
    selection = f"{PROBLEM} ... on UpdateFlowPayload {{ flow {{ name tags labels }} }}"

    changed = await do(ask, "updateFlow", "UpdateFlowInput", selection, id=flow, tags=["x"], labels={"k": 1})

    assert changed["flow"] == {"name": "etl", "tags": ["x"], "labels": {"k": 1}}


async def test_an_unknown_object_cannot_be_updated(ask: Ask) -> None:
    for what in ("Flow", "FlowRun", "TaskRun"):
        missing = str(uuid7())
        answer = await do(ask, f"update{what}", f"Update{what}Input", PROBLEM, id=missing)
        assert (answer["code"], answer["missingId"]) == ("NOT_FOUND", missing)


async def test_a_past_state_can_be_deleted_and_its_version_is_not_reused(ask: Ask, app: Starlette) -> None:
    run = await make_flow_run(ask)
    await propose(ask, run, "RUNNING")
    first, second = await states(ask, run)

    refused = await delete(ask, "deleteFlowRunState", second["id"])
    deleted = await delete(ask, "deleteFlowRunState", first["id"])
    again = await delete(ask, "deleteFlowRunState", first["id"])
    await propose(ask, run, "COMPLETED")

    assert (refused["code"], refused["path"]) == ("INVALID_INPUT", ["id"])
    assert deleted["deletedId"] == first["id"]
    assert again["code"] == "NOT_FOUND"
    assert [each["version"] for each in await states(ask, run)] == [2, 3]
    assert await findings(app) == []


async def test_a_past_state_of_a_task_run_can_be_deleted(ask: Ask) -> None:
    run = await make_task_run(ask)
    await propose(ask, run, "RUNNING", task=True)
    data = await ask("query($id: ID!) { taskRun(id: $id) { states { nodes { id } } } }", id=run)
    first, second = [each["id"] for each in data["taskRun"]["states"]["nodes"]]

    assert (await delete(ask, "deleteTaskRunState", second))["code"] == "INVALID_INPUT"
    assert (await delete(ask, "deleteTaskRunState", first))["deletedId"] == first


async def test_several_runs_are_deleted_by_a_list_of_ids(ask: Ask, app: Starlette) -> None:
    flow = await make_flow(ask)
    runs = [await make_flow_run(ask, flowId=flow) for _ in range(3)]
    tasks = [await make_task_run(ask, str(key), flowRunId=runs[0]) for key in range(2)]
    missing = str(uuid7())

    deleted_tasks = await delete_many(ask, "TaskRun", [tasks[0], missing])
    deleted_runs = await delete_many(ask, "FlowRun", [runs[0], runs[1], "malformed", runs[0]])

    assert deleted_tasks == {"__typename": "BulkOperation", "total": 1, "done": 1, "hasMore": False}
    assert deleted_runs == {"__typename": "BulkOperation", "total": 2, "done": 2, "hasMore": False}
    assert (await ask("{ flowRunCount taskRunCount }")) == {"flowRunCount": 1, "taskRunCount": 0}
    assert await findings(app) == []


async def test_a_flow_is_deleted_with_its_runs_and_its_deployments_with_their_limits(ask: Ask, app: Starlette) -> None:
    flow = await make_flow(ask)
    deployment = await make_deployment(ask, flowId=flow, concurrencyLimit=1)
    run = await make_flow_run(ask, flowId=flow, deploymentId=deployment)
    await propose(ask, run, "PENDING")
    await make_task_run(ask, flowRunId=run)

    assert (await delete(ask, "deleteFlow", flow))["deletedId"] == flow
    counts = "{ flowRunCount taskRunCount deployments { totalCount } concurrencyLimits { totalCount } }"
    assert await ask(counts) == {
        "flowRunCount": 0,
        "taskRunCount": 0,
        "deployments": {"totalCount": 0},
        "concurrencyLimits": {"totalCount": 0},
    }
    assert (await delete(ask, "deleteFlow", flow))["code"] == "NOT_FOUND"
    assert await findings(app) == []
