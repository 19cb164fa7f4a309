"""Runs in the states that tests of pairs of features start from."""

from typing import Any

from tests.client import Ask
from tests.graphql.mutations import RESULT, flow_run, make_deployment, make_flow, make_flow_run, make_task_run, propose

BATCH = f"mutation($inputs: [ProposeStateInput!]!) {{ it: proposeStates(inputs: $inputs) {{ {RESULT} }} }}"


async def task_run(ask: Ask, run: str, selection: str = "stateType stateName") -> Any:
    return (await ask(f"query($id: ID!) {{ it: taskRun(id: $id) {{ {selection} }} }}", id=run))["it"]


async def state_of(ask: Ask, run: str) -> str:
    return str((await flow_run(ask, run, "stateType"))["stateType"])


async def delete(ask: Ask, what: str, id: str) -> str:
    document = f"mutation($id: ID!) {{ it: delete{what}(id: $id) {{ __typename }} }}"
    return str((await ask(document, id=id))["it"]["__typename"])


async def batch(ask: Ask, *inputs: dict[str, Any]) -> list[Any]:
    return list((await ask(BATCH, inputs=inputs))["it"])


async def deployed(ask: Ask, count: int = 1, **given: Any) -> tuple[str, list[str]]:
    """The id of a deployment, and of SCHEDULED runs of it."""
    flow = await make_flow(ask)
    deployment = await make_deployment(ask, flowId=flow, **given)
    runs = [
        await make_flow_run(ask, flowId=flow, deploymentId=deployment, state={"type": "SCHEDULED"})
        for _ in range(count)
    ]
    return deployment, runs


async def started(ask: Ask, run: str) -> None:
    for state in ("PENDING", "RUNNING"):
        assert (await propose(ask, run, state))["status"] == "ACCEPT"


async def subflow(ask: Ask, **given: Any) -> tuple[str, str, str]:
    """The ids of a RUNNING parent, of the task run that stands for its subflow run, and of that one, RUNNING."""
    parent = await make_flow_run(ask, state={"type": "RUNNING"})
    mirror = await make_task_run(ask, flowRunId=parent, **given)
    return parent, mirror, await make_flow_run(ask, parentTaskRunId=mirror, state={"type": "RUNNING"})
