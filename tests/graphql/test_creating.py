"""Creation and deletion of flows, runs and run inputs over HTTP."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from runstate.core.commands.flow_runs import readable_name
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


async def test_a_flow_is_created_once_for_its_name(ask: Ask) -> None:
    first = await create(ask, "flow", "id name tags", name="etl", tags=["a", "b", "a"])
    again = await create(ask, "flow", "id name tags", name="etl", tags=["other"])
    assert first["created"]
    assert not again["created"]
    assert first["flow"]["tags"] == ["a", "b"]
    assert again["flow"] == first["flow"]


async def test_concurrent_creations_of_a_flow_return_the_same_one(ask: Ask) -> None:
    made = await asyncio.gather(*(create(ask, "flow", name="etl") for _ in range(20)))
    assert len({each["flow"]["id"] for each in made}) == 1
    assert sum(each["created"] for each in made) == 1


async def test_a_new_run_is_pending_at_version_1(ask: Ask) -> None:
    run = await make_flow_run(ask)
    found = await flow_run(ask, run, "stateType stateName version name states { nodes { version type actor } }")
    assert (found["stateType"], found["stateName"], found["version"]) == ("PENDING", "Pending", 1)
    assert found["states"]["nodes"] == [{"version": 1, "type": "PENDING", "actor": "anonymous"}]
    assert found["name"] == readable_name(UUID(run))


async def test_the_initial_state_is_written_as_given(ask: Ask) -> None:
    state = {"type": "RUNNING", "name": "Going", "message": "here", "data": [1, "two", None]}
    run = await make_flow_run(ask, state=state)
    found = await flow_run(ask, run, "runCount startTime state { type name message data }")
    assert found["state"] == state
    assert found["runCount"] == 1
    assert found["startTime"]


@pytest.mark.parametrize("missing", ["flowId", "deploymentId", "parentTaskRunId"])
async def test_a_flow_run_with_unknown_references_is_not_created(ask: Ask, missing: str) -> None:
    given = {"flowId": await make_flow(ask), missing: str(uuid4())}
    answer = await create(ask, "flowRun", **given)
    assert answer["__typename"] == "NotFound"
    assert answer["missingId"] == given[missing]
    assert (await ask("{ flowRunCount }"))["flowRunCount"] == 0


async def test_a_task_run_of_an_unknown_flow_run_is_not_created(ask: Ask) -> None:
    answer = await create(ask, "taskRun", flowRunId=str(uuid4()), taskKey="t", dynamicKey="0")
    assert answer["code"] == "NOT_FOUND"


async def test_a_flow_run_is_created_once_for_its_idempotency_key(ask: Ask) -> None:
    flow = await make_flow(ask)
    made = await asyncio.gather(
        *(create(ask, "flowRun", flowId=flow, idempotencyKey="k", name=f"n{n}") for n in range(10))
    )
    assert len({each["flowRun"]["id"] for each in made}) == 1
    assert sum(each["created"] for each in made) == 1
    other = await create(ask, "flowRun", flowId=await make_flow(ask, "other"), idempotencyKey="k")
    assert other["created"]


@pytest.mark.parametrize("under_make_flow_run", [True, False])
async def test_a_task_run_is_created_once_for_its_keys(ask: Ask, *, under_make_flow_run: bool) -> None:
    given: dict[str, Any] = {"flowRunId": await make_flow_run(ask)} if under_make_flow_run else {}
    made = await asyncio.gather(
        *(create(ask, "taskRun", taskKey="t", dynamicKey=str(n % 2), **given) for n in range(10))
    )
    assert len({each["taskRun"]["id"] for each in made}) == 2
    assert sum(each["created"] for each in made) == 2


async def test_deleting_a_flow_run_deletes_its_states_and_task_runs(ask: Ask) -> None:
    run = await make_flow_run(ask)
    task = await make_task_run(ask, flowRunId=run)
    answer = "... on DeletePayload { deletedId } ... on Problem { code }"
    document = f"mutation($id: ID!) {{ it: deleteFlowRun(id: $id) {{ {answer} }} }}"
    assert (await ask(document, id=run))["it"] == {"deletedId": run}
    assert (await ask(document, id=run))["it"] == {"code": "NOT_FOUND"}
    assert (await ask(document, id="nonsense"))["it"] == {"code": "NOT_FOUND"}
    found = await ask(
        "query($run: ID!, $task: ID!) { a: flowRun(id: $run) { id } b: taskRun(id: $task) { id } }", run=run, task=task
    )
    assert found == {"a": None, "b": None}


async def test_deleting_a_run_releases_its_slot(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:db", limit=1)
    first, second = await make_task_run(ask, "0", tags=["db"]), await make_task_run(ask, "1", tags=["db"])
    assert (await propose(ask, first, "RUNNING", task=True))["status"] == "ACCEPT"
    assert (await propose(ask, second, "RUNNING", task=True))["status"] == "WAIT"
    document = "mutation($id: ID!) { deleteTaskRun(id: $id) { __typename } }"
    assert (await ask(document, id=first))["deleteTaskRun"]["__typename"] == "DeletePayload"
    assert (await propose(ask, second, "RUNNING", task=True))["status"] == "ACCEPT"


async def test_a_run_of_a_deployment_merges_parameters_and_tags_and_is_scheduled(ask: Ask) -> None:
    deployment = await make_deployment(ask, parameters={"a": 1, "b": 2}, tags=["x"], workQueueName="q")
    made_from = "parameters tags stateType workQueueName deployment { id }"
    fields = f"{PROBLEM} ... on CreateFlowRunPayload {{ created flowRun {{ {made_from} }} }}"
    given = {"deploymentId": deployment, "parameters": {"b": 3}, "tags": ["y", "x"]}
    made = await do(ask, "runDeployment", "RunDeploymentInput", fields, **given)
    assert made["flowRun"] == {
        "parameters": {"a": 1, "b": 3},
        "tags": ["x", "y"],
        "stateType": "SCHEDULED",
        "workQueueName": "q",
        "deployment": {"id": deployment},
    }


RUN_FLOW = (
    f"{PROBLEM} ... on CreateFlowRunPayload {{ created flowRun {{ id name flow {{ name }} deployment {{ name }} }} }}"
)


async def test_a_flow_is_run_by_its_name_and_created_with_its_first_run(ask: Ask) -> None:
    given = {"flow": {"name": "etl"}, "parameters": {"a": 1}, "idempotencyKey": "k", "tags": ["t"]}

    missing = await do(ask, "runFlow", "RunFlowInput", RUN_FLOW, **given)
    first = await do(ask, "runFlow", "RunFlowInput", RUN_FLOW, **given, createFlow=True)
    again = await do(ask, "runFlow", "RunFlowInput", RUN_FLOW, **given)
    flow = (await create(ask, "flow", name="etl"))["flow"]["id"]
    by_id = await do(ask, "runFlow", "RunFlowInput", RUN_FLOW, flow={"id": flow}, name="second")

    assert (missing["__typename"], missing["message"]) == ("NotFound", "No flow has the name `etl`.")
    assert (first["created"], first["flowRun"]["flow"]["name"]) == (True, "etl")
    assert (again["created"], again["flowRun"]["id"]) == (False, first["flowRun"]["id"])
    assert (by_id["created"], by_id["flowRun"]["name"]) == (True, "second")
    found = await flow_run(ask, first["flowRun"]["id"], "parameters tags")
    assert found == {"parameters": {"a": 1}, "tags": ["t"]}


async def test_a_wrong_deployment_leaves_no_flow_behind(ask: Ask) -> None:
    given = {"flow": {"name": "new"}, "createFlow": True, "deployment": {"flow": "new", "name": "nightly"}}

    answer = await do(ask, "runFlow", "RunFlowInput", RUN_FLOW, **given)

    assert answer["__typename"] == "NotFound"
    assert await ask("{ flows { totalCount } }") == {"flows": {"totalCount": 0}}


PARAMETERS = {
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/count"}, "mode": {"type": "string", "default": "fast"}},
    "required": ["n", "mode"],
    "$defs": {"count": {"type": "integer"}},
}
INHERITED = f"""{PROBLEM} ... on CreateFlowRunPayload {{
  flowRun {{ id parameters deploymentVersion workQueueName workPool {{ name }} }} }}"""


async def test_a_run_of_a_deployment_has_its_version_queue_and_checked_parameters(ask: Ask) -> None:
    await create(ask, "workPool", name="local")
    flow = await make_flow(ask)
    deployment = await make_deployment(
        ask, flowId=flow, workPool="local", version="7", parameterSchema=PARAMETERS, parameters={"n": 1}
    )
    plain: Any = ("createFlowRun", "CreateFlowRunInput", {"flowId": flow, "deploymentId": deployment})
    named: Any = ("runFlow", "RunFlowInput", {"flow": {"id": flow}, "deployment": {"id": deployment}})
    for mutation, kind, given in (plain, named):
        made = (await do(ask, mutation, kind, INHERITED, **given, parameters={"mode": "slow"}))["flowRun"]
        wrong = await do(ask, mutation, kind, INHERITED, **given, parameters={"n": "one"})
        elsewhere = await do(ask, mutation, kind, INHERITED, **given, workQueueName="unknown")

        assert (made["parameters"], made["deploymentVersion"]) == ({"n": 1, "mode": "slow"}, "7")
        assert (made["workQueueName"], made["workPool"]) == ("default", {"name": "local"})
        assert (wrong["__typename"], wrong["path"]) == ("InvalidInput", ["parameters", "n"])
        assert elsewhere["__typename"] == "NotFound"


@pytest.mark.parametrize(
    "wrong", [{"parentTaskRunId": str(uuid4())}, {"deployment": {"flow": "etl", "name": "nightly"}}]
)
async def test_a_refused_run_leaves_no_new_flow_behind(ask: Ask, wrong: Any) -> None:
    await make_deployment(ask)
    answer = await do(ask, "runFlow", "RunFlowInput", RUN_FLOW, flow={"name": "new"}, createFlow=True, **wrong)

    assert answer["__typename"] in {"NotFound", "InvalidInput"}
    assert (await ask("{ flows { nodes { name } } }"))["flows"]["nodes"] == [{"name": "etl"}]


async def test_a_deployment_is_made_found_and_run_by_names(ask: Ask) -> None:
    fields = (
        f"{PROBLEM} ... on CreateDeploymentPayload {{ created deployment {{ id concurrencyLimit flow {{ name }} }} }}"
    )
    given = {"flow": {"name": "etl"}, "name": "nightly", "concurrencyLimit": 3}
    missing = await do(ask, "deployFlow", "DeployFlowInput", fields, **given)
    made = await do(ask, "deployFlow", "DeployFlowInput", fields, **given, createFlow=True)
    again = await do(ask, "deployFlow", "DeployFlowInput", fields, **given)
    by_names = {"flow": "etl", "name": "nightly"}
    run = await do(ask, "runDeployment", "RunDeploymentInput", RUN_FLOW, deployment=by_names)
    document = "query($by: DeploymentRef!) { deployment(by: $by) { id name } }"

    assert missing["__typename"] == "NotFound"
    assert (made["created"], again["created"]) == (True, False)
    assert made["deployment"] == {**again["deployment"], "concurrencyLimit": 3, "flow": {"name": "etl"}}
    assert run["flowRun"]["deployment"] == {"name": "nightly"}
    assert (await ask(document, by=by_names))["deployment"] == {"id": made["deployment"]["id"], "name": "nightly"}
    assert (await ask(document, by={"id": made["deployment"]["id"]}))["deployment"]["name"] == "nightly"
    assert (await ask(document, by={"flow": "etl", "name": "other"}))["deployment"] is None


async def test_flows_and_deployments_are_updated_by_name(ask: Ask) -> None:
    flow = await make_flow(ask, "etl")
    await make_deployment(ask, flowId=flow, name="nightly")
    of_flow = f"{PROBLEM} ... on UpdateFlowPayload {{ flow {{ id tags }} }}"
    of_deployment = f"{PROBLEM} ... on UpdateDeploymentPayload {{ deployment {{ name paused }} }}"
    names = {"flow": "etl", "name": "nightly"}

    tagged = await do(ask, "updateFlow", "UpdateFlowInput", of_flow, by={"name": "etl"}, tags=["x"])
    nothing = await do(ask, "updateFlow", "UpdateFlowInput", of_flow, tags=["y"])
    paused = await do(ask, "updateDeployment", "UpdateDeploymentInput", of_deployment, by=names, paused=True)
    unknown = await do(ask, "updateDeployment", "UpdateDeploymentInput", of_deployment, by={**names, "name": "x"})

    assert tagged["flow"] == {"id": flow, "tags": ["x"]}
    assert paused["deployment"] == {"name": "nightly", "paused": True}
    assert (nothing["__typename"], unknown["__typename"]) == ("InvalidInput", "NotFound")


@pytest.mark.parametrize(
    ("mutation", "input_type", "given", "type_"),
    [
        ("runDeployment", "RunDeploymentInput", {"deployment": {"flow": "x", "name": "y"}}, "NotFound"),
        ("runDeployment", "RunDeploymentInput", {"deployment": {"name": "y"}}, "InvalidInput"),
        ("runDeployment", "RunDeploymentInput", {}, "InvalidInput"),
        ("runFlow", "RunFlowInput", {"flow": {"name": ""}}, "InvalidInput"),
    ],
)
async def test_a_reference_that_names_nothing_is_a_problem(
    ask: Ask, mutation: str, input_type: str, given: dict[str, Any], type_: str
) -> None:
    assert (await do(ask, mutation, input_type, RUN_FLOW, **given))["__typename"] == type_


@pytest.mark.parametrize(
    ("mutation", "input_type", "given", "meant"),
    [
        ("createFlowRun", "CreateFlowRunInput", {"flowId": "etl"}, '`flow: {name: "etl"}`'),
        ("runDeployment", "RunDeploymentInput", {"deploymentId": "n"}, '`deployment: {flow: …, name: "n"}`'),
        ("runFlow", "RunFlowInput", {"flow": {"id": "etl"}}, '`name: "etl"`'),
    ],
)
async def test_a_name_in_place_of_an_id_is_answered_with_what_was_meant(
    ask: Ask, mutation: str, input_type: str, given: dict[str, Any], meant: str
) -> None:
    answer = await do(ask, mutation, input_type, RUN_FLOW, **given)

    assert (answer["__typename"], answer["message"][:30]) == ("InvalidInput", "The value is not a valid UUID.")
    assert meant in answer["message"]


async def test_a_subflow_run_is_mirrored_by_its_parent_task_run(ask: Ask) -> None:
    parent = await make_flow_run(ask, state={"type": "RUNNING"})
    task = await make_task_run(ask, flowRunId=parent)
    child = await make_flow_run(ask, parentTaskRunId=task)
    await propose(ask, child, {"type": "RUNNING", "message": "hello"})
    document = """query($id: ID!) { it: taskRun(id: $id) { stateType version childFlowRun { id }
      state { message details { childFlowRunId taskRunId } } } }"""
    found = (await ask(document, id=task))["it"]
    assert found == {
        "stateType": "RUNNING",
        "version": 3,
        "childFlowRun": {"id": child},
        "state": {"message": "hello", "details": {"childFlowRunId": child, "taskRunId": task}},
    }


async def test_a_run_input_is_written_once_for_its_key(ask: Ask) -> None:
    run = await make_flow_run(ask)
    fields = f"{PROBLEM} ... on CreateFlowRunInputPayload {{ created flowRunInput {{ id key value }} }}"
    given = {"flowRunId": run, "key": "approval", "value": {"by": "me"}}
    first = await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", fields, **given)
    again = await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", fields, **{**given, "value": 2})
    assert (first["created"], again["created"]) == (True, False)
    assert again["flowRunInput"] == first["flowRunInput"]
    found = await flow_run(ask, run, "inputs { nodes { key value } }")
    assert found["inputs"]["nodes"] == [{"key": "approval", "value": {"by": "me"}}]


TASK_RUNS = f"""mutation($inputs: [CreateTaskRunInput!]!) {{ it: createTaskRuns(inputs: $inputs) {{ {PROBLEM}
  ... on CreateTaskRunPayload {{ created taskRun {{ id dynamicKey version }} }} }} }}"""


async def test_task_runs_are_created_together(ask: Ask) -> None:
    run, unknown = await make_flow_run(ask), str(uuid4())
    inputs = [{"flowRunId": run, "taskKey": "t", "dynamicKey": str(number)} for number in range(3)]
    first = (await ask(TASK_RUNS, inputs=inputs))["it"]
    wrong = [{**inputs[0], "flowRunId": unknown}, {**inputs[0], "dynamicKey": ""}]
    again = (await ask(TASK_RUNS, inputs=[*inputs, *wrong]))["it"]

    assert [each["created"] for each in first] == [True, True, True]
    assert [each["taskRun"]["dynamicKey"] for each in first] == ["0", "1", "2"]
    assert [each["taskRun"] for each in again[:3]] == [each["taskRun"] for each in first]
    assert [each.get("code") for each in again] == [None, None, None, "NOT_FOUND", "INVALID_INPUT"]


async def test_at_most_200_task_runs_are_created_together(ask: Ask) -> None:
    answer = await ask.raw(TASK_RUNS, inputs=[{"taskKey": "t", "dynamicKey": str(number)} for number in range(201)])
    assert answer["errors"][0]["message"] == "From 1 to 200 task runs can be created at once, not 201."
