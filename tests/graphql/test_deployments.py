"""Deployments over HTTP."""

from typing import Any
from uuid import uuid4

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, create, do, flow_run, make_deployment, make_flow, make_flow_run

FIELDS = "id name concurrencyLimit concurrencyOptions { collisionStrategy gracePeriodSeconds } paused parameters tags"


async def change(ask: Ask, **given: Any) -> Any:
    """Update a deployment; return the answer."""
    fields = f"{PROBLEM} ... on UpdateDeploymentPayload {{ deployment {{ {FIELDS} }} }}"
    return await do(ask, "updateDeployment", "UpdateDeploymentInput", fields, **given)


async def test_a_deployment_is_updated_by_flow_and_name(ask: Ask) -> None:
    flow = await make_flow(ask)
    options = {"collisionStrategy": "CANCEL_NEW", "gracePeriodSeconds": 60}
    first = await create(
        ask, "deployment", FIELDS, flowId=flow, name="n", concurrencyLimit=2, concurrencyOptions=options, tags=["a"]
    )
    again = await create(ask, "deployment", FIELDS, flowId=flow, name="n", concurrencyLimit=3)
    assert (first["created"], again["created"]) == (True, False)
    assert again["deployment"] == {**first["deployment"], "concurrencyLimit": 3}
    assert first["deployment"]["concurrencyOptions"] == options


async def test_omitted_fields_stay_and_null_clears(ask: Ask) -> None:
    deployment = await make_deployment(ask, concurrencyLimit=2, parameters={"a": 1}, paused=True)
    changed = (await change(ask, id=deployment, tags=["t"]))["deployment"]
    assert (changed["concurrencyLimit"], changed["parameters"], changed["paused"], changed["tags"]) == (
        2,
        {"a": 1},
        True,
        ["t"],
    )
    changed = (await change(ask, id=deployment, concurrencyLimit=None))["deployment"]
    assert changed["concurrencyLimit"] is None
    assert (await ask("{ concurrencyLimits { totalCount } }"))["concurrencyLimits"]["totalCount"] == 0


async def test_a_deployment_of_an_unknown_flow_is_not_created(ask: Ask) -> None:
    answer = await create(ask, "deployment", flowId=str(uuid4()), name="n")
    assert answer["__typename"] == "NotFound"
    assert (await change(ask, id=str(uuid4()), tags=[]))["__typename"] == "NotFound"


async def test_deleting_a_deployment_deletes_its_limit_and_scheduled_runs_only(ask: Ask) -> None:
    flow = await make_flow(ask)
    deployment = await make_deployment(ask, flowId=flow, concurrencyLimit=1)
    scheduled = await make_flow_run(ask, flowId=flow, deploymentId=deployment, state={"type": "SCHEDULED"})
    running = await make_flow_run(ask, flowId=flow, deploymentId=deployment, state={"type": "RUNNING"})
    document = "mutation($id: ID!) { deleteDeployment(id: $id) { __typename } }"
    assert (await ask(document, id=deployment))["deleteDeployment"]["__typename"] == "DeletePayload"
    assert await flow_run(ask, scheduled, "id") is None
    assert (await flow_run(ask, running, "deployment { id }"))["deployment"] is None
    assert (await ask("{ concurrencyLimits { totalCount } }"))["concurrencyLimits"]["totalCount"] == 0
