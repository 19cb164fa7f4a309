"""Deployments over HTTP."""

from typing import Any
from uuid import uuid4

from runstate.database import Database
from tests.client import Ask
from tests.credentials import Keys, asking_with
from tests.graphql.mutations import PROBLEM, create, do, flow_run, make_deployment, make_flow, make_flow_run
from tests.subscribing import listening

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


async def test_a_deployment_shares_a_limit_or_has_its_own(ask: Ask) -> None:
    shared = (await create(ask, "concurrencyLimit", name="warehouse", limit=7))["concurrencyLimit"]["id"]
    deployment = await make_deployment(ask, globalConcurrencyLimitId=shared)
    limit = f"{PROBLEM} ... on UpdateDeploymentPayload {{ deployment {{ concurrencyLimit concurrencyLimitId }} }}"
    other = (await ask("query($id: ID!) { deployment(id: $id) { concurrencyLimit } }", id=deployment))["deployment"]

    async def set_limits(**given: Any) -> Any:
        answer = await do(ask, "updateDeployment", "UpdateDeploymentInput", limit, id=deployment, **given)
        return answer.get("deployment") or answer

    assert other == {"concurrencyLimit": 7}
    own = await set_limits(concurrencyLimit=2)
    assert own["concurrencyLimit"] == 2
    assert own["concurrencyLimitId"] != shared
    assert await set_limits(globalConcurrencyLimitId=None) == own, "null removes a shared limit only"
    again = await set_limits(globalConcurrencyLimitId=shared)
    assert again == {"concurrencyLimit": 7, "concurrencyLimitId": shared}
    assert (await ask("{ concurrencyLimits { totalCount } }"))["concurrencyLimits"]["totalCount"] == 1
    both = await set_limits(globalConcurrencyLimitId=shared, concurrencyLimit=1)
    assert (both["__typename"], both["path"]) == ("InvalidInput", ["globalConcurrencyLimitId"])
    assert (await set_limits(globalConcurrencyLimitId=str(uuid4())))["__typename"] == "NotFound"
    assert (await set_limits(globalConcurrencyLimitId=None))["concurrencyLimit"] is None


async def test_a_limit_of_another_deployment_is_not_shared_and_no_flow_is_left(ask: Ask) -> None:
    owner = await make_deployment(ask, concurrencyLimit=1)
    found = await ask("query($id: ID!) { deployment(id: $id) { concurrencyLimitId } }", id=owner)
    given = {"globalConcurrencyLimitId": found["deployment"]["concurrencyLimitId"], "createFlow": True}
    refused = await do(ask, "deployFlow", "DeployFlowInput", PROBLEM, flow={"name": "new"}, name="n", **given)

    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["globalConcurrencyLimitId"])
    assert (await ask("{ flows { nodes { name } } }"))["flows"]["nodes"] == [{"name": "etl"}]


async def test_a_deployment_and_its_runs_name_the_client_that_made_them(url: str) -> None:
    who = "createdBy { type displayValue } updatedBy { displayValue }"
    async with listening(url, authentication="keys") as server:
        database = Database(url)
        ada, bob = [await Keys(database).make(name, "admin") for name in ("ada", "bob")]
        await database.close()
        async with asking_with(server, ada) as first, asking_with(server, bob) as second:
            made = (await create(first, "deployment", f"id {who}", flowId=await make_flow(first), name="n"))[
                "deployment"
            ]
            fields = f"... on UpdateDeploymentPayload {{ deployment {{ {who} }} }}"
            changed = await do(
                second, "updateDeployment", "UpdateDeploymentInput", fields, id=made["id"], description="x"
            )
            run = "... on CreateFlowRunPayload { flowRun { createdBy { type displayValue } } }"
            ran = await do(second, "runDeployment", "RunDeploymentInput", run, deploymentId=made["id"])

    assert (made["createdBy"], made["updatedBy"]) == (
        {"type": "CLIENT", "displayValue": "ada"},
        {"displayValue": "ada"},
    )
    assert changed["deployment"] == {"createdBy": made["createdBy"], "updatedBy": {"displayValue": "bob"}}
    assert ran["flowRun"]["createdBy"] == {"type": "CLIENT", "displayValue": "bob"}


async def test_the_automations_that_run_a_deployment_or_that_it_owns_are_found(ask: Ask) -> None:
    deployment = await make_deployment(ask)
    event = {"event": {"posture": "REACTIVE", "expect": ["a"]}}
    runs = [{"runDeployment": {"deploymentId": deployment}}]
    given: dict[str, dict[str, Any]] = {
        "owned": {"actions": [], "ownerResourceId": f"runstate.deployment.{deployment}"},
        "running": {"actions": runs},
        "other": {"actions": [{"doNothing": True}]},
    }
    for name, more in given.items():
        await create(ask, "automation", "id", name=name, trigger=event, **more)
    found = await ask(
        """query($id: ID!) { deployment(id: $id) { automations(first: 1, where: { enabled: { eq: true } }) {
          totalCount nodes { name } pageInfo { hasNextPage } } } }""",
        id=deployment,
    )
    page = found["deployment"]["automations"]
    assert page == {"totalCount": 2, "nodes": [{"name": "owned"}], "pageInfo": {"hasNextPage": True}}
