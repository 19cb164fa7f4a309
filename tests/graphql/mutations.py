"""Mutations for tests; each returns the payload or the problem."""

from typing import Any

from tests.client import Ask

PROBLEM = """__typename ... on Problem { code message ... on InvalidInput { path } ... on NotFound { missingId }
  ... on VersionConflict { currentVersion } }"""
STATE = "id type name message version data actor requestId details { scheduledTime pauseTimeout pauseReschedule }"
RESULT = f"""{PROBLEM} ... on OrchestrationResult {{
  status reason rule retryAfterSeconds replayed considered {{ rule verdict reason }}
  state {{ {STATE.replace("actor requestId", "")} }} proposed {{ type name message details {{ scheduledTime }} }}
  run {{ id stateType stateName version runCount }} }}"""


async def do(ask: Ask, mutation: str, kind: str, selection: str, **given: Any) -> Any:
    """Send a mutation with one input; return its answer."""
    document = f"mutation($input: {kind}!) {{ it: {mutation}(input: $input) {{ {selection} }} }}"
    return (await ask(document, input=given))["it"]


async def create(ask: Ask, what: str, selection: str = "id", **given: Any) -> Any:
    """Create a `flow`, `flowRun`, `taskRun`, `deployment` or `concurrencyLimit`; return its payload or problem."""
    kind = what[0].upper() + what[1:]
    fields = f"{PROBLEM} ... on Create{kind}Payload {{ created {what} {{ {selection} }} }}"
    return await do(ask, f"create{kind}", f"Create{kind}Input", fields, **given)


async def make_flow(ask: Ask, name: str = "etl") -> str:
    """Create a flow; return its id."""
    return str((await create(ask, "flow", name=name))["flow"]["id"])


async def make_flow_run(ask: Ask, **given: Any) -> str:
    """Create a flow run; return its id."""
    given.setdefault("flowId", await make_flow(ask))
    return str((await create(ask, "flowRun", **given))["flowRun"]["id"])


async def make_task_run(ask: Ask, dynamic_key: str = "0", **given: Any) -> str:
    """Create a task run; return its id."""
    made = await create(ask, "taskRun", taskKey="t", dynamicKey=dynamic_key, **given)
    return str(made["taskRun"]["id"])


async def make_deployment(ask: Ask, **given: Any) -> str:
    """Create a deployment; return its id."""
    given.setdefault("flowId", await make_flow(ask))
    return str((await create(ask, "deployment", **{"name": "nightly", **given}))["deployment"]["id"])


async def propose(ask: Ask, run: str, state: Any, *, task: bool = False, **more: Any) -> Any:
    """Propose a state: a type or a whole StateInput."""
    said = {"type": state} if isinstance(state, str) else state
    ref = {"taskRunId" if task else "flowRunId": run}
    return await do(ask, "proposeState", "ProposeStateInput", RESULT, run=ref, state=said, **more)


async def flow_run(ask: Ask, run: str, selection: str) -> Any:
    """Return fields of a flow run."""
    return (await ask(f"query($id: ID!) {{ it: flowRun(id: $id) {{ {selection} }} }}", id=run))["it"]
