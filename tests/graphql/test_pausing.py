"""Mutations for flow runs over HTTP: pause, suspend, resume, cancel, retry."""

from typing import Any
from uuid import uuid4

from tests.client import Ask
from tests.graphql.mutations import (
    PROBLEM,
    RESULT,
    do,
    flow_run,
    make_deployment,
    make_flow,
    make_flow_run,
    make_task_run,
    propose,
)


async def verb(ask: Ask, name: str, **given: Any) -> Any:
    """Send a mutation: `pause`, `suspend`, `resume`, `cancel` or `retry`."""
    kind = "Pause" if name == "suspend" else name.capitalize()
    return await do(ask, f"{name}FlowRun", f"{kind}FlowRunInput", RESULT, **given)


async def running_deployed(ask: Ask) -> str:
    """Create a running flow run of a deployment; return its id."""
    flow = await make_flow(ask)
    deployment = await make_deployment(ask, flowId=flow)
    return await make_flow_run(ask, flowId=flow, deploymentId=deployment, state={"type": "RUNNING"})


async def test_a_running_run_is_paused_and_resumed(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    paused = await verb(ask, "pause", id=run, timeoutSeconds=300, pauseKey="here")
    assert (paused["status"], paused["state"]["type"], paused["state"]["name"]) == ("ACCEPT", "PAUSED", "Paused")
    assert paused["state"]["details"]["pauseTimeout"]
    resumed = await verb(ask, "resume", id=run)
    assert (resumed["status"], resumed["state"]["type"]) == ("ACCEPT", "RUNNING")
    again = await verb(ask, "pause", id=run, pauseKey="here")
    assert (again["status"], again["rule"]) == ("REJECT", "pause_once_for_each_key")


async def test_a_run_of_a_deployment_is_suspended_and_scheduled_again(ask: Ask) -> None:
    run = await running_deployed(ask)
    suspended = await verb(ask, "suspend", id=run)
    assert (suspended["status"], suspended["state"]["name"]) == ("ACCEPT", "Suspended")
    resumed = await verb(ask, "resume", id=run)
    assert (resumed["status"], resumed["state"]["type"], resumed["state"]["name"]) == (
        "ACCEPT",
        "SCHEDULED",
        "Resuming",
    )


async def test_a_run_without_a_deployment_cannot_be_suspended(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    answer = await verb(ask, "suspend", id=run)
    assert (answer["status"], answer["rule"]) == ("ABORT", "suspend_needs_deployment")


async def test_only_a_paused_run_can_be_resumed(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    answer = await verb(ask, "resume", id=run)
    assert (answer["status"], answer["rule"]) == ("ABORT", "resume_only_when_paused")
    assert (await verb(ask, "resume", id=str(uuid4())))["__typename"] == "NotFound"


async def test_a_repeated_mutation_with_the_same_key_gets_the_same_answer(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    for name, given in (("pause", {"timeoutSeconds": 60}), ("resume", {})):
        first = await verb(ask, name, id=run, idempotencyKey=name, **given)
        again = await verb(ask, name, id=run, idempotencyKey=name, **given)
        assert (first["replayed"], again["replayed"]) == (False, True)
        assert again["state"]["id"] == first["state"]["id"]


async def test_a_pause_expires_after_seconds_or_at_a_time_but_not_both(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    answer = await verb(ask, "pause", id=run, timeoutSeconds=60, expirationTime="2030-01-01T00:00:00Z")
    assert (answer["__typename"], answer["path"]) == ("InvalidInput", ["expirationTime"])


async def test_a_paused_run_gets_its_input_if_it_conforms_to_the_schema(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    schema = {"type": "object", "required": ["approved"], "properties": {"approved": {"type": "boolean"}}}
    given = {"flowRunId": run, "key": "the-schema", "value": schema}
    await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", "__typename", **given)
    keyset = {"schema": "the-schema", "response": "the-answer"}
    await verb(ask, "pause", id=run, runInputKeyset=keyset)
    wrong = await verb(ask, "resume", id=run, runInput={"approved": "yes"})
    assert (wrong["__typename"], wrong["path"]) == ("InvalidInput", ["runInput", "approved"])
    assert (await flow_run(ask, run, "stateType"))["stateType"] == "PAUSED"
    right = await verb(ask, "resume", id=run, runInput={"approved": True})
    assert right["status"] == "ACCEPT"
    inputs = (await flow_run(ask, run, 'inputs(where: { key: { eq: "the-answer" } }) { nodes { value } }'))["inputs"]
    assert inputs["nodes"] == [{"value": {"approved": True}}]


async def test_a_paused_subflow_run_gets_its_input(ask: Ask) -> None:
    parent = await make_flow_run(ask, state={"type": "RUNNING"})
    task = await make_task_run(ask, flowRunId=parent)
    run = await make_flow_run(ask, parentTaskRunId=task, state={"type": "RUNNING"})
    given = {"flowRunId": run, "key": "s", "value": {"type": "object"}}
    await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", "__typename", **given)
    await verb(ask, "pause", id=run, runInputKeyset={"schema": "s", "response": "r"})

    assert (await verb(ask, "resume", id=run, runInput={"a": 1}))["status"] == "ACCEPT"
    inputs = (await flow_run(ask, run, 'inputs(where: { key: { eq: "r" } }) { nodes { value } }'))["inputs"]
    assert inputs["nodes"] == [{"value": {"a": 1}}]


OUTSIDE = {"$ref": "http://127.0.0.1:9/schema"}
"""A schema with a reference to another document."""
KEYSET = {"schema": "s", "response": "r"}


async def test_a_run_cannot_be_resumed_if_its_stored_schema_is_invalid(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    given = {"flowRunId": run, "key": "s", "value": OUTSIDE}
    await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", "__typename", **given)
    paused = await verb(ask, "pause", id=run, runInputKeyset=KEYSET)
    assert (paused["__typename"], paused["path"]) == ("InvalidInput", ["runInputKeyset", "schema"])
    proposed = await propose(ask, run, {"type": "PAUSED", "details": {"runInputKeyset": KEYSET}})
    assert proposed["__typename"] == "InvalidInput"
    assert (await flow_run(ask, run, "stateType"))["stateType"] == "RUNNING"


async def test_a_pause_with_an_invalid_schema_is_refused(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    await verb(ask, "pause", id=run, runInputKeyset=KEYSET)
    given = {"flowRunId": run, "key": "s", "value": OUTSIDE}
    refused = await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", PROBLEM, **given)
    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["value"])


async def test_a_scheduled_run_without_infrastructure_is_cancelled_immediately(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "SCHEDULED"})
    answer = await verb(ask, "cancel", id=run, message="enough")
    assert (answer["status"], answer["state"]["type"], answer["state"]["message"]) == ("REJECT", "CANCELLED", "enough")


async def test_a_run_that_is_cancelled_before_it_starts_has_no_start_time(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "SCHEDULED"})
    await verb(ask, "cancel", id=run)
    ended = await flow_run(ask, run, "stateType startTime endTime")
    assert (ended["stateType"], ended["startTime"]) == ("CANCELLED", None)
    assert ended["endTime"]


async def test_a_run_that_is_paused_in_its_process_is_cancelled_in_two_steps(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    await verb(ask, "pause", id=run)
    answer = await verb(ask, "cancel", id=run)
    assert (answer["status"], answer["state"]["type"]) == ("ACCEPT", "CANCELLING")
    assert (await flow_run(ask, run, "policy { resuming }"))["policy"] == {"resuming": False}
    assert (await propose(ask, run, "CANCELLED"))["status"] == "ACCEPT"


async def test_a_suspended_run_is_cancelled_immediately(ask: Ask) -> None:
    run = await running_deployed(ask)
    await verb(ask, "suspend", id=run)
    answer = await verb(ask, "cancel", id=run)
    assert (answer["rule"], answer["state"]["type"]) == ("cancel_at_once_without_infrastructure", "CANCELLED")


KEPT = "version policy { resuming } states { totalCount }"


async def test_a_refused_cancellation_writes_nothing_but_the_last_answer(ask: Ask) -> None:
    for state, status in (("COMPLETED", "ABORT"), ("CANCELLING", "REJECT")):
        run = await make_flow_run(ask, state={"type": state})
        before = await flow_run(ask, run, KEPT)
        assert (await verb(ask, "cancel", id=run))["status"] == status
        assert await flow_run(ask, run, KEPT) == before
        assert await flow_run(ask, run, "lastAnswer { status }") == {"lastAnswer": {"status": status}}


async def test_a_refused_resumption_writes_nothing_but_the_last_answer(ask: Ask) -> None:
    run = await running_deployed(ask)
    await verb(ask, "suspend", id=run)
    (deployment,) = (await ask("{ deployments { nodes { id } } }"))["deployments"]["nodes"]
    await ask("mutation($id: ID!) { deleteDeployment(id: $id) { __typename } }", id=deployment["id"])
    before = await flow_run(ask, run, KEPT)
    assert (await verb(ask, "resume", id=run))["status"] == "REJECT"
    assert await flow_run(ask, run, KEPT) == before
    assert await flow_run(ask, run, "lastAnswer { status }") == {"lastAnswer": {"status": "REJECT"}}


async def test_a_running_run_is_cancelled_in_two_steps(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    assert (await verb(ask, "cancel", id=run))["state"]["type"] == "CANCELLING"
    assert (await propose(ask, run, "COMPLETED"))["rule"] == "finish_cancelling"


async def test_an_ended_run_of_a_deployment_is_retried(ask: Ask) -> None:
    run = await running_deployed(ask)
    await propose(ask, run, "FAILED")
    answer = await verb(ask, "retry", id=run, delaySeconds=60)
    assert (answer["status"], answer["state"]["name"]) == ("ACCEPT", "AwaitingRetry")
    alone = await make_flow_run(ask, state={"type": "FAILED"})
    assert (await verb(ask, "retry", id=alone))["rule"] == "reschedule_needs_deployment"
