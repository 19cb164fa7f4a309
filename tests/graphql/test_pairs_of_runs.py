"""Pairs of features that concern several runs: subflow runs, task runs, deployments, and their deletion."""

from collections.abc import Awaitable, Callable

import pytest

from runstate.services import cancellation, orphans
from tests.client import Ask
from tests.graphql.mutations import PROBLEM, create, do, flow_run, make_flow, make_flow_run, make_task_run, propose
from tests.graphql.pairs import batch, delete, deployed, started, state_of, subflow, task_run
from tests.graphql.test_pausing import verb
from tests.graphql.test_slots import active

pytestmark = pytest.mark.usefixtures("consistent")

Later = Callable[..., Awaitable[int]]


# Subflow runs


async def test_subflow_and_cancel_it_ends_with_its_parent_and_so_do_both_task_runs(
    ask: Ask, serve_later: Later
) -> None:
    parent, mirror, child = await subflow(ask)
    task = await make_task_run(ask, flowRunId=child)
    await propose(ask, task, "RUNNING", task=True)
    await verb(ask, "cancel", id=parent)
    await propose(ask, parent, "CANCELLED")
    for _ in range(2):
        await serve_later(cancellation, seconds=1)
    assert await state_of(ask, child) == "CANCELLED"
    assert [(await task_run(ask, each))["stateType"] for each in (mirror, task)] == ["CANCELLED"] * 2


async def test_subflow_and_limit_the_task_run_that_stands_for_it_takes_no_slot(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    _, mirror, child = await subflow(ask, tags=["x"])
    assert (await task_run(ask, mirror))["stateType"] == "RUNNING"
    assert await active(ask) == {"tag:x": 0}
    await propose(ask, child, "COMPLETED")
    assert (await task_run(ask, mirror))["stateType"] == "COMPLETED"


async def test_subflow_and_slots_its_end_releases_those_of_the_task_run_that_stands_for_it(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    parent = await make_flow_run(ask, state={"type": "RUNNING"})
    mirror = await make_task_run(ask, flowRunId=parent, tags=["x"])
    await propose(ask, mirror, "RUNNING", task=True)
    child = await make_flow_run(ask, parentTaskRunId=mirror, state={"type": "RUNNING"})
    assert await active(ask) == {"tag:x": 1}
    await propose(ask, child, "CRASHED")
    assert await active(ask) == {"tag:x": 0}


async def test_subflow_and_retry_and_cancel_both_runs_are_cancelled_in_steps(ask: Ask) -> None:
    _, mirror, child = await subflow(ask)
    await do(ask, "updateFlowRun", "UpdateFlowRunInput", PROBLEM, id=child, policy={"retries": 1})
    await propose(ask, child, "FAILED")
    await verb(ask, "cancel", id=child)
    assert (await task_run(ask, mirror))["stateType"] == "CANCELLING"
    await propose(ask, child, "CANCELLED")
    assert (await task_run(ask, mirror))["stateType"] == "CANCELLED"


async def test_subflow_and_pause_and_retry_the_task_run_that_stands_for_it_follows(ask: Ask) -> None:
    _, mirror, child = await subflow(ask)
    await do(ask, "updateFlowRun", "UpdateFlowRunInput", PROBLEM, id=child, policy={"retries": 1})
    for step, name in (("pause", "Paused"), ("resume", "Running")):
        await verb(ask, step, id=child)
        assert (await task_run(ask, mirror))["stateName"] == name
    for state, name in (("FAILED", "AwaitingRetry"), ("RUNNING", "Running"), ("COMPLETED", "Completed")):
        await propose(ask, child, state)
        assert (await task_run(ask, mirror))["stateName"] == name


async def test_subflow_and_deletion_of_the_parent_it_goes_on_alone(ask: Ask) -> None:
    parent, mirror, child = await subflow(ask)
    await delete(ask, "FlowRun", parent)
    assert await task_run(ask, mirror) is None
    assert (await flow_run(ask, child, "parentTaskRunId"))["parentTaskRunId"] is None
    assert (await propose(ask, child, "COMPLETED"))["status"] == "ACCEPT"


async def test_subflow_and_its_deletion_the_task_run_that_stood_for_it_ends_with_the_parent(
    ask: Ask, serve_later: Later
) -> None:
    parent, mirror, child = await subflow(ask)
    await delete(ask, "FlowRun", child)
    assert (await task_run(ask, mirror))["stateType"] == "RUNNING"
    await propose(ask, parent, "CRASHED")
    await serve_later(orphans, seconds=11)
    assert (await task_run(ask, mirror))["stateType"] == "CRASHED"


async def test_subflow_and_idempotency_a_repeated_end_is_written_once_for_both(ask: Ask) -> None:
    _, mirror, child = await subflow(ask)
    for _ in range(2):
        await propose(ask, child, "COMPLETED", idempotencyKey="k")
    assert (await task_run(ask, mirror, "version"))["version"] == 3


async def test_subflow_and_batch_proposals_for_both_runs_are_decided_in_order(ask: Ask) -> None:
    _, mirror, child = await subflow(ask)
    answers = await batch(
        ask,
        {"run": {"flowRunId": child}, "state": {"type": "FAILED"}},
        {"run": {"taskRunId": mirror}, "state": {"type": "PAUSED"}},
        {"run": {"taskRunId": mirror}, "state": {"type": "COMPLETED"}},
    )
    assert [each["status"] for each in answers] == ["ACCEPT", "ABORT", "ACCEPT"]
    assert (await task_run(ask, mirror))["stateType"] == "COMPLETED"
    assert await state_of(ask, child) == "FAILED"


async def test_subflow_and_crash_a_paused_one_crashes_and_a_deployed_one_goes_on(ask: Ask, serve_later: Later) -> None:
    parent, _, child = await subflow(ask)
    await verb(ask, "pause", id=child)
    deployment, _ = await deployed(ask, 0)
    stands = await make_task_run(ask, "1", flowRunId=parent)
    document = """mutation($input: RunDeploymentInput!) {
      runDeployment(input: $input) { ... on CreateFlowRunPayload { flowRun { id } } } }"""
    made = await ask(document, input={"deploymentId": deployment, "parentTaskRunId": stands})
    await propose(ask, parent, "CRASHED")
    await serve_later(orphans, seconds=11)
    assert await state_of(ask, child) == "CRASHED"
    assert await state_of(ask, made["runDeployment"]["flowRun"]["id"]) == "SCHEDULED"


async def test_subflow_and_suspension_of_the_parent_are_cancelled_together(ask: Ask, serve_later: Later) -> None:
    _, (parent,) = await deployed(ask)
    await started(ask, parent)
    mirror = await make_task_run(ask, flowRunId=parent)
    child = await make_flow_run(ask, parentTaskRunId=mirror, state={"type": "RUNNING"})
    await verb(ask, "suspend", id=parent)
    await verb(ask, "cancel", id=parent)
    assert await serve_later(cancellation, seconds=1) == 1
    assert [await state_of(ask, parent), await state_of(ask, child)] == ["CANCELLED"] * 2


# Task runs


async def test_cancel_and_task_runs_a_retry_does_not_start_again_and_slots_are_released(
    ask: Ask, serve_later: Later
) -> None:
    await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    failing = await make_task_run(ask, "a", flowRunId=run, policy={"retries": 1})
    holding = await make_task_run(ask, "b", flowRunId=run, tags=["x"])
    for each in (failing, holding):
        await propose(ask, each, "RUNNING", task=True)
    await propose(ask, failing, "FAILED", task=True)
    await verb(ask, "cancel", id=run)
    assert (await propose(ask, failing, "RUNNING", task=True))["rule"] == "run_only_in_running_flow"
    await propose(ask, run, "CANCELLED")
    assert await serve_later(cancellation, seconds=1) == 2
    assert await active(ask) == {"tag:x": 0}


async def test_reschedule_and_task_runs_one_that_ended_runs_again_as_a_retry(ask: Ask) -> None:
    _, (run,) = await deployed(ask)
    await started(ask, run)
    task = await make_task_run(ask, flowRunId=run)
    await propose(ask, task, "RUNNING", task=True)
    await propose(ask, task, "FAILED", task=True)
    await propose(ask, run, "FAILED")
    await verb(ask, "retry", id=run)
    await started(ask, run)
    again = await propose(ask, task, "RUNNING", task=True)
    assert (again["state"]["name"], again["run"]["runCount"]) == ("Retrying", 1)


async def test_batch_and_deletion_only_proposals_for_the_deleted_run_are_refused(ask: Ask) -> None:
    flow = await make_flow(ask)
    gone, here = [await make_flow_run(ask, flowId=flow) for _ in range(2)]
    await delete(ask, "FlowRun", gone)
    answers = await batch(ask, *({"run": {"flowRunId": each}, "state": {"type": "RUNNING"}} for each in (gone, here)))
    assert [each["__typename"] for each in answers] == ["NotFound", "OrchestrationResult"]


# Deployments and flows


async def test_deployment_and_deletion_only_runs_that_have_not_started_are_deleted(ask: Ask) -> None:
    deployment, (waiting, running) = await deployed(ask, 2, concurrencyLimit=1)
    await started(ask, running)
    await delete(ask, "Deployment", deployment)
    assert await flow_run(ask, waiting, "id") is None
    assert await active(ask) == {}
    assert (await propose(ask, running, "COMPLETED"))["status"] == "ACCEPT"


async def test_deployment_and_deletion_a_suspended_run_can_only_be_cancelled(ask: Ask) -> None:
    deployment, (run,) = await deployed(ask)
    await started(ask, run)
    await verb(ask, "suspend", id=run)
    await delete(ask, "Deployment", deployment)
    assert (await verb(ask, "resume", id=run))["rule"] == "resume_suspended_needs_deployment"
    assert (await verb(ask, "cancel", id=run))["state"]["type"] == "CANCELLED"


async def test_deployment_and_deletion_a_failed_run_cannot_be_retried(ask: Ask) -> None:
    deployment, (run,) = await deployed(ask)
    await started(ask, run)
    await propose(ask, run, "FAILED")
    await delete(ask, "Deployment", deployment)
    assert (await verb(ask, "retry", id=run))["rule"] == "reschedule_needs_deployment"


async def test_flow_and_deletion_its_subflow_runs_of_other_flows_stay(ask: Ask) -> None:
    flow = await make_flow(ask, "parent")
    parent = await make_flow_run(ask, flowId=flow, state={"type": "RUNNING"})
    mirror = await make_task_run(ask, flowRunId=parent)
    child = await make_flow_run(ask, parentTaskRunId=mirror, state={"type": "RUNNING"})
    assert await delete(ask, "Flow", flow) == "DeletePayload"
    assert (await propose(ask, child, "COMPLETED"))["status"] == "ACCEPT"
