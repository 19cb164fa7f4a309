"""`runstate demo`: small flows, run on a server to create data."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import typer

from runstate.cli.demo_worker import Deployed, working
from runstate.client import AsyncClient, Cancelled, FlowRun, RefusedError, RunHandler, TaskRun, UnreachableError
from runstate.client.proposals import ReportedRun
from runstate.client.reports import Answer as AnswerOfRules
from runstate.client.sockets import socket_address

APPROVAL: Final = {
    "approval-schema": {
        "type": "object",
        "properties": {"approved": {"type": "boolean"}, "comment": {"type": "string"}},
        "required": ["approved"],
    },
    "approval-description": "Is this invoice to be paid?",
}
"""Inputs of a run that waits for an approval: the JSON schema of the answer, and the question."""
KEYSET: Final = {"schema": "approval-schema", "description": "approval-description", "response": "approval"}
WORKERS: Final = 3
"""Number of flow runs at the same time."""
PATIENCE_SECONDS: Final = 5
"""Seconds for which a server that is away is awaited."""
ANSWER: Final = "... on OrchestrationResult { status reason state { type name message isFinal } }"
PROBLEM: Final = "... on Problem { code message }"

AUTOMATION: Final[dict[str, Any]] = {
    "name": "note failed runs",
    "description": "Fires when a run fails, and records the firing.",
    "trigger": {"event": {"posture": "REACTIVE", "expect": ["runstate.flow-run.Failed"]}},
    "actions": [{"doNothing": True}],
}

Answer = dict[str, Any]
Tell = Callable[[str, str, str], None]
"""Reports a step: the label of the run, the state and a message."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task, with its duration and its failures."""

    name: str
    seconds: float = 1
    retries: int = 0
    faults: tuple[int, ...] = (0,)
    """Numbers of failing attempts in the first run of the flow, the second, …; repeated from the start."""
    cached_by: str = ""
    """Parameter that is part of the cache key; empty for no caching."""
    tags: tuple[str, ...] = ()
    subflow: "Flow | None" = None
    """Flow that the task runs."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow: consecutive stages of concurrent tasks."""

    name: str
    stages: tuple[tuple[Task, ...], ...]
    tags: tuple[str, ...] = ()
    parameters: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values of each parameter in the first run, the second, …"""
    endings: tuple[str, ...] = ("",)
    """State of the first run, the second, … after the first stage: PAUSED, CANCELLED, CRASHED, or empty for none."""
    deployment: str = ""
    """Name of the deployment that its runs are created from."""


REGIONS: Final = ("north", "south", "north", "east")
DATABASE: Final = ("database",)
REPORT: Final = Flow("report", ((Task("render"),), (Task("send", retries=1, faults=(0, 1)),)), tags=("reporting",))
FLOWS: Final = (
    Flow(
        "etl",
        (
            (Task("extract-orders", tags=DATABASE), Task("extract-customers", 2, tags=DATABASE)),
            (Task("join", 2, cached_by="region"),),
            (Task("load", retries=2, faults=(1, 3, 0), tags=DATABASE),),
        ),
        tags=("nightly", "data"),
        parameters={"region": REGIONS, "full": (False, True)},
        deployment="nightly",
    ),
    Flow(
        "invoices",
        ((Task("collect"),), (Task("pay", retries=1),)),
        tags=("finance",),
        parameters={"amount": (120, 990, 45)},
        endings=("PAUSED", "PAUSED", "CANCELLED"),
    ),
    Flow("health-check", ((Task("ping-api", 0.5), Task("ping-database", 0.5, faults=(0, 1))),), tags=("monitoring",)),
    Flow(
        "train-model",
        ((Task("load-data", cached_by="region"),), (Task("fit", 3),), (Task("report", subflow=REPORT),)),
        tags=("ml",),
        parameters={"region": REGIONS},
        endings=("", "", "CRASHED"),
    ),
)


class DemoError(Exception):
    """A task or a flow that fails on purpose."""


class Demo:
    """Runs of the flows."""

    def __init__(self, client: AsyncClient, tell: Tell, speed: float) -> None:
        self.client, self.tell, self.speed = client, tell, speed

    async def ask(self, document: str, **variables: Any) -> Answer:
        """Execute an operation and return its data."""
        return await self.client.execute(document, variables)

    async def do(self, mutation: str, kind: str, selection: str, **given: Any) -> Answer:
        """Execute a mutation and return its payload. Raise RefusedError if it returns a problem."""
        document = f"mutation($input: {kind}!) {{ it: {mutation}(input: $input) {{ {selection} {PROBLEM} }} }}"
        answer: Answer = (await self.ask(document, input=given))["it"]
        if "code" in answer:
            raise RefusedError(f"{mutation}: {answer['message']}")
        return answer

    async def change(self, run: FlowRun, mutation: str, kind: str, **given: Any) -> None:
        """Execute a mutation that changes the state of a flow run, and tell that state."""
        answer = await self.do(mutation, kind, ANSWER, id=run.id, **given)
        self.tell(label(run), answer["state"]["name"], answer["reason"] or answer["state"]["message"] or "")

    async def prepare(self) -> None:
        """Create a concurrency limit, and a run that is scheduled in an hour."""
        await self.do(
            "createConcurrencyLimit", "CreateConcurrencyLimitInput", "__typename", name="tag:database", limit=2
        )
        # The idempotency key makes a second demo in the same hour find the run.
        hour = (datetime.now(UTC) + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
        given = {"deploymentId": await self.deployment(FLOWS[0]), "idempotencyKey": f"hourly {hour:%Y%m%d%H}"}
        scheduled = {"scheduledTime": hour.isoformat(), "parameters": {}}
        await self.do("runDeployment", "RunDeploymentInput", "__typename", **given, **scheduled)
        await self.automate(AUTOMATION)

    async def automate(self, automation: dict[str, Any]) -> None:
        """Create an automation, unless one of its name exists."""
        existing = "query($name: String!) { automations(where: { name: { eq: $name } }) { totalCount } }"
        if not (await self.ask(existing, name=automation["name"]))["automations"]["totalCount"]:
            await self.do("createAutomation", "CreateAutomationInput", "__typename", **automation)

    async def deployment(self, flow: Flow) -> str:
        """Create the deployment of a flow, or find it; return its id."""
        payload = "... on CreateDeploymentPayload { deployment { id } }"
        given = {"flow": {"name": flow.name}, "createFlow": True, "name": flow.deployment, "tags": list(flow.tags)}
        return str((await self.do("deployFlow", "DeployFlowInput", payload, **given))["deployment"]["id"])

    async def take(self, numbers: Iterator[int]) -> None:
        """Run one flow for each number, consecutively; the flows alternate."""
        for number in numbers:
            nth, which = divmod(number, len(FLOWS))
            flow = FLOWS[which]
            deployment = await self.deployment(flow) if flow.deployment else None
            parameters = parameters_of(flow, nth)
            run = self.client.flow_run(flow.name, parameters=parameters, tags=flow.tags, deployment=deployment)
            # Flows of the demo fail, crash and are cancelled on purpose.
            with suppress(DemoError, SystemExit, Cancelled):
                await run.arun(self.stages, flow, nth, run)
            await self.rest(1)

    async def stages(self, flow: Flow, nth: int, run: FlowRun) -> None:
        """Run the tasks of a flow. Raise DemoError if some fail."""
        link = "[Dashboard](https://example.com/dashboards/1)"
        await self.client.artifact(key=f"{flow.name}-dashboard", type="markdown", data=link)
        log(flow.name).info("Flow %s was started", flow.name)
        before: list[str] = []
        for number, stage in enumerate(flow.stages):
            if number == 1:
                await self.end(turn(flow.endings, nth), run)
            inputs = {"data": [{"input_type": "task_run", "id": each} for each in before]}
            tasks = [self.task(task, flow, nth, run, inputs) for task in stage]
            done = await asyncio.gather(*tasks, return_exceptions=True)
            if faults := [task.name for task, each in zip(stage, done, strict=True) if isinstance(each, BaseException)]:
                raise DemoError(f"Failed: {', '.join(faults)}")
            before = [each for each in done if isinstance(each, str)]

    async def end(self, ending: str, run: FlowRun) -> None:
        """Pause, cancel or crash a run."""
        if ending == "PAUSED":
            await self.approve(run)
        elif ending == "CANCELLED":
            await self.change(run, "cancelFlowRun", "CancelFlowRunInput", message="Cancelled by the user.")
            await self.rest(1)
            raise Cancelled
        elif ending == "CRASHED":
            raise SystemExit("The process was killed: out of memory.")

    async def approve(self, run: FlowRun) -> None:
        """Pause a run for some time, in which a user can resume it with an input; then resume it."""
        for key, value in APPROVAL.items():
            given = {"flowRunId": run.id, "key": key, "value": value}
            await self.do("createFlowRunInput", "CreateFlowRunInputInput", "__typename", **given)
        pause = {"message": "Waiting for approval.", "timeoutSeconds": 3600, "runInputKeyset": KEYSET}
        await self.change(run, "pauseFlowRun", "PauseFlowRunInput", **pause)
        await self.rest(15)
        await self.change(run, "resumeFlowRun", "ResumeFlowRunInput", runInput={"approved": True})

    async def task(self, task: Task, flow: Flow, nth: int, run: FlowRun, inputs: Answer) -> str:
        """Run a task or a subflow; return the id of the task run."""
        if task.subflow:
            subflow = run.subflow(task.subflow.name, tags=task.subflow.tags, inputs=inputs)
            await subflow.arun(self.stages, task.subflow, nth, subflow)
            return str(subflow.stand_in_id)
        parameters = parameters_of(flow, nth)
        task_run = run.task(
            task.name,
            retries=task.retries,
            retry_delay=2 / self.speed,
            tags=task.tags,
            cache_for=timedelta(minutes=10),
            inputs=inputs,
            cache_key=f"{task.name} {parameters[task.cached_by]}" if task.cached_by else None,
        )
        faults = itertools.chain(["Connection reset by peer"] * turn(task.faults, nth), itertools.repeat(""))
        await task_run.arun(self.attempt, task, faults)
        return task_run.id

    async def attempt(self, task: Task, faults: Iterator[str]) -> None:
        """Execute a task once. Raise DemoError if it is to fail."""
        log(task.name).info("Task %s was started", task.name)
        progress = await self.client.artifact(type="progress", data=0, description=f"Progress of {task.name}")
        await self.rest(task.seconds)
        fault = next(faults)
        done = 50 if fault else 100
        await self.do("updateArtifact", "UpdateArtifactInput", "__typename", id=progress, data=done)
        if fault:
            log(task.name).error(fault)
            raise DemoError(fault)
        log(task.name).info("Task %s was completed", task.name)

    async def rest(self, seconds: float) -> None:
        """Sleep for some seconds, divided by the speed."""
        await asyncio.sleep(seconds / self.speed)


def log(name: str) -> logging.Logger:
    """Return the logger of a flow or a task."""
    return logging.getLogger(f"demo.{name}")


def label(run: ReportedRun) -> str:
    """Return the names of the flow, the flow run and the task."""
    if isinstance(run, TaskRun) and run.flow_run:
        return f"{label(run.flow_run)} / {run.fields['taskKey']}"
    return f"{run.title} / {run.name}"


def parameters_of(flow: Flow, nth: int) -> Answer:
    """Return the parameters of the nth run of a flow."""
    return {name: turn(values, nth) for name, values in flow.parameters.items()}


def turn(values: tuple[Any, ...], nth: int) -> Any:
    """Return the value for the nth run; values repeat from the start."""
    return values[nth % len(values)]


async def demo(address: str, key: str | None, runs: int | None, speed: float, tell: Tell) -> None:
    """Run a number of flows; None means unlimited. Raise ClientError if the server rejects an operation."""
    numbers = iter(itertools.count() if runs is None else range(runs))

    def answered(run: ReportedRun, answer: AnswerOfRules) -> None:
        state = answer.state
        name = "…" if answer.status == "WAIT" or state is None else state.name
        tell(label(run), name, answer.reason or (state and state.message) or "")

    with logged():
        async with AsyncClient(address, key, patience=PATIENCE_SECONDS, on_answer=answered) as client:
            made = Demo(client, tell, speed)
            deployed = Deployed(made.do, made.ask)
            await made.prepare()
            await deployed.prepare(speed)
            async with working(socket_address(address), key, tell):
                # All workers take numbers from one iterator, so each flow is run in turn.
                await asyncio.gather(*(made.take(numbers) for _ in range(WORKERS)))
            await deployed.pause()


@contextmanager
def logged() -> Iterator[None]:
    """Send the records of flows and tasks to the logs of their runs."""
    logger, handler = logging.getLogger("demo"), RunHandler()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def say(label: str, state: str, message: str) -> None:
    """Print a step."""
    typer.echo(f"{datetime.now(UTC):%H:%M:%S}  {label:48} {state:16} {message}".rstrip())


def run_demo(url: str, key: str | None, runs: int | None, speed: float) -> None:
    """Run flows until the number is reached or on SIGINT. Raise RefusedError if the server is unreachable."""
    try:
        asyncio.run(demo(url, key, runs, speed, say))
    except KeyboardInterrupt:
        typer.echo("Stopped.")
    except UnreachableError as error:
        raise RefusedError(f"Cannot connect to a server at {url}: {error}") from error
