"""Plays recorded scenarios over HTTP."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

from tests.client import Ask
from tests.oracle.comparison import STARTED, Differs, same, same_history, same_run, same_state, same_verdict
from tests.oracle.recording import Scenario, Step

STATE = "type name data details { scheduledTime pauseTimeout pauseReschedule }"
RUN = f"""
    stateType stateName runCount expectedStartTime nextScheduledStartTime startTime endTime version
    state {{ {STATE} }}
"""
PROBLEM = "... on Problem { code message }"


def creation(mutation: str, field: str, selection: str = "id") -> str:
    """Return a mutation that creates an object."""
    name = mutation[0].upper() + mutation[1:]
    return f"""
        mutation Make($input: {name}Input!) {{
            answer: {mutation}(input: $input) {{
                __typename
                ... on {name}Payload {{ made: {field} {{ {selection} }} }}
                {PROBLEM}
            }}
        }}
    """


CREATE = {
    "flow": creation("createFlow", "flow"),
    "deployment": creation("createDeployment", "deployment"),
    "tag_limit": creation("createConcurrencyLimit", "concurrencyLimit"),
    "flow_run": creation("createFlowRun", "flowRun", f"id state {{ {STATE} }}"),
    "task_run": creation("createTaskRun", "taskRun", f"id state {{ {STATE} }}"),
}
PROPOSE = f"""
    mutation Propose($input: ProposeStateInput!) {{
        answer: proposeState(input: $input) {{
            __typename
            ... on OrchestrationResult {{ status reason rule retryAfterSeconds state {{ {STATE} }} }}
            {PROBLEM}
        }}
    }}
"""
READ = {
    "flow_run": f"""
        query Read($id: ID!) {{ run: flowRun(id: $id) {{ {RUN} policy {{ resuming pauseKeys retryType }} }} }}
    """,
    "task_run": f"query Read($id: ID!) {{ run: taskRun(id: $id) {{ {RUN} flowRunRunCount }} }}",
}
STATES = "states(first: 200) { nodes { type name version } }"
HISTORY = {
    "flow_run": f"query States($id: ID!) {{ run: flowRun(id: $id) {{ {STATES} }} }}",
    "task_run": f"query States($id: ID!) {{ run: taskRun(id: $id) {{ {STATES} }} }}",
}

TIMES = {
    "scheduled_in": "scheduledTime",
    "cache_expires_in": "cacheExpiration",
    "pause_timeout_in": "pauseTimeout",
}
DETAILS = {
    "pause_key": "pauseKey",
    "pause_reschedule": "pauseReschedule",
    "retriable": "retriable",
    "refresh_cache": "refreshCache",
}


async def play(ask: Ask, scenarios: Iterable[Scenario], at_once: int) -> list[str]:
    """Play scenarios, some concurrently; return the differences from the recording."""
    gate, differences = asyncio.Semaphore(at_once), list[str]()

    async def each(scenario: Scenario) -> None:
        async with gate:
            try:
                await Play(ask).play(scenario)
            except AssertionError as difference:
                differences.append(f"{scenario.name}: {difference}")

    await asyncio.gather(*map(each, scenarios))
    return sorted(differences)


class Play:
    """A scenario in progress: its objects, and a suffix that makes its names unique."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.nonce = uuid4().hex[:12]
        self.ids: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.perform = {
            "flow": self.make_flow,
            "deployment": self.make_deployment,
            "tag_limit": self.make_tag_limit,
            "flow_run": self.make_flow_run,
            "task_run": self.make_task_run,
            "propose": self.propose,
            "read": self.read,
            "states": self.read_history,
        }

    async def play(self, scenario: Scenario) -> None:
        """Execute the steps in order and compare each answer with the recorded one."""
        STARTED.set(datetime.now(UTC))
        for number, step in enumerate(scenario.steps):
            try:
                await self.perform[step["op"]](step)
            except AssertionError as difference:
                raise Differs(f"step {number} {step['op']}: {difference}") from difference

    async def make(self, kind: str, given: dict[str, Any]) -> dict[str, Any]:
        """Create an object; a problem is a difference."""
        answer = (await self.ask(CREATE[kind], input=given))["answer"]
        if "made" not in answer:
            raise Differs(f"{kind} was not made: {answer}")
        made: dict[str, Any] = answer["made"]
        return made

    async def make_flow(self, step: Step) -> None:
        """Create a flow."""
        self.ids[step["as"]] = (await self.make("flow", {"name": f"flow-{self.nonce}"}))["id"]

    async def make_deployment(self, step: Step) -> None:
        """Create a deployment, with or without a limit."""
        given: dict[str, Any] = {"flowId": self.ids[step["flow"]], "name": f"deployment-{self.nonce}"}
        if "concurrency_limit" in step:
            given["concurrencyLimit"] = step["concurrency_limit"]
        if "collision_strategy" in step:
            given["concurrencyOptions"] = {"collisionStrategy": step["collision_strategy"]}
        self.ids[step["as"]] = (await self.make("deployment", given))["id"]

    async def make_tag_limit(self, step: Step) -> None:
        """Create a limit for the runs with a tag."""
        await self.make("tag_limit", {"name": f"tag:{self.own(step['tag'])}", "limit": step["limit"]})

    async def make_flow_run(self, step: Step) -> None:
        """Create a flow run, or get the existing one."""
        given = self.run(step, "retryDelaySeconds") | {"flowId": self.ids[step["flow"]]}
        if "deployment" in step:
            given["deploymentId"] = self.ids[step["deployment"]]
        if "idempotency_key" in step:
            given["idempotencyKey"] = self.own(step["idempotency_key"])
        await self.make_run(step, given)

    async def make_task_run(self, step: Step) -> None:
        """Create a task run, or get the existing one."""
        given = self.run(step, "retryDelaysSeconds")
        given |= {"taskKey": step["task_key"], "dynamicKey": self.own(step["dynamic_key"])}
        if "flow_run" in step:
            given["flowRunId"] = self.ids[step["flow_run"]]
        await self.make_run(step, given)

    async def make_run(self, step: Step, given: dict[str, Any]) -> None:
        """Create a run and compare its initial state."""
        name, expected = step["as"], step["expect"]
        run = await self.make(step["op"], given)
        self.ids[name], self.kinds[name] = run["id"], step["op"]
        same_state(run["state"], expected["state"])
        if "same" in expected:
            same("same run", run["id"] == self.ids[step["same_as"]], expected["same"])

    async def propose(self, step: Step) -> None:
        """Propose a state; compare the verdict and the current state of the run."""
        reference = "flowRunId" if self.kinds[step["run"]] == "flow_run" else "taskRunId"
        given = {
            "run": {reference: self.ids[step["run"]]},
            "state": self.state(step["state"]),
            "force": step.get("force", False),
        }
        same_verdict((await self.ask(PROPOSE, input=given))["answer"], step["expect"])

    async def read(self, step: Step) -> None:
        """Read a run and compare its columns."""
        run = await self.ask(READ[self.kinds[step["run"]]], id=self.ids[step["run"]])
        same_run(run["run"], step["expect"])

    async def read_history(self, step: Step) -> None:
        """Read the states of a run and compare them."""
        run = await self.ask(HISTORY[self.kinds[step["run"]]], id=self.ids[step["run"]])
        same_history(run["run"]["states"]["nodes"], step["expect"])

    def own(self, text: str) -> str:
        """Return a recorded name with the suffix of this scenario."""
        return text.replace("{n}", self.nonce)

    def run(self, step: Step, delay: str) -> dict[str, Any]:
        """Return the fields that flow runs and task runs have in common."""
        policy = {"retries": step.get("retries"), delay: step.get("retry_delay")}
        given: dict[str, Any] = {"name": "x", "policy": {name: it for name, it in policy.items() if it is not None}}
        if "tags" in step:
            given["tags"] = [self.own(tag) for tag in step["tags"]]
        if "state" in step:
            given["state"] = self.state(step["state"])
        return given

    def state(self, recorded: Step) -> dict[str, Any]:
        """Return a recorded state with times relative to now."""
        details: dict[str, Any] = {DETAILS[name]: recorded[name] for name in DETAILS if name in recorded}
        details |= {TIMES[name]: in_seconds(recorded[name]) for name in TIMES if name in recorded}
        if "cache_key" in recorded:
            details["cacheKey"] = self.own(recorded["cache_key"])
        if "transition_id" in recorded:
            details["transitionId"] = str(uuid5(NAMESPACE_OID, self.nonce + recorded["transition_id"]))
        given = {name: recorded[name] for name in ("type", "name", "message", "data") if name in recorded}
        return given | {"details": details}


def in_seconds(seconds: float) -> str:
    """Return the time that is this many seconds after now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
