"""`runstate demo`: small flows, run on a server to create data."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import typer
import websockets

from runstate.cli.watch import (
    PROTOCOL,
    RefusedError,
    Session,
    SubscriptionError,
    insist_on_coming_back,
    socket_address,
)

POOL: Final = "demo"
"""Name of the work pool whose worker the demo is."""
NIGHTLY: Final = [{"slug": "nightly", "schedule": {"cron": {"cron": "0 3 * * *"}}}]
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
NAMELESS: Final = {"artifact", "flowRunInput"}
WORKERS: Final = 3
"""Number of flow runs at the same time."""
ANSWER: Final = "... on OrchestrationResult { status reason retryAfterSeconds state { type name message isFinal } }"
PROBLEM: Final = "... on Problem { code message }"

Answer = dict[str, Any]
Attempt = Callable[[], Awaitable[str | None]]
"""Executes a run once. Returns the error message, empty on success; None if the run was ended from outside."""
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


class Api:
    """Mutations over one connection to the server."""

    def __init__(self, session: Session) -> None:
        self.session = session
        # A session executes one operation at a time.
        self.turn = asyncio.Lock()

    async def do(self, mutation: str, kind: str, selection: str, **given: Any) -> Answer:
        """Execute a mutation and return its payload. Raise RefusedError if it returns a problem."""
        document = f"mutation($input: {kind}!) {{ it: {mutation}(input: $input) {{ {selection} {PROBLEM} }} }}"
        async with self.turn:
            answer: Answer = (await self.session.ask(document, input=given))["it"]
        if "code" in answer:
            raise RefusedError(f"{mutation}: {answer['message']}")
        return answer

    async def finds_pool(self) -> bool:
        """Return whether the work pool of the demo exists."""
        async with self.turn:
            answer = await self.session.ask("query($name: String!) { workPool(by: {name: $name}) { id } }", name=POOL)
        return bool(answer["workPool"])

    async def create(self, what: str, **given: Any) -> Answer:
        """Create an object, or find the existing one; return its id, and its name if it has one."""
        kind = what[0].upper() + what[1:]
        fields = "id" if what in NAMELESS else "id name"
        payload = f"... on Create{kind}Payload {{ {what} {{ {fields} }} }}"
        answer: Answer = (await self.do(f"create{kind}", f"Create{kind}Input", payload, **given))[what]
        return answer


@dataclass(frozen=True, slots=True)
class Run:
    """A run that proposes its states and follows the answers."""

    api: Api
    tell: Tell
    label: str
    ref: dict[str, str]

    async def change(self, mutation: str, kind: str, **given: Any) -> Answer:
        """Execute a mutation that changes the state; return the result."""
        answer = await self.api.do(mutation, kind, ANSWER, **given)
        # `start` reports a wait.
        if answer["status"] != "WAIT":
            self.tell(self.label, answer["state"]["name"], answer["reason"] or answer["state"]["message"] or "")
        return answer

    async def propose(self, kind: str, **state: Any) -> Answer:
        """Propose a state; return the result."""
        return await self.change("proposeState", "ProposeStateInput", run=self.ref, state={"type": kind, **state})

    async def start(self, **details: Any) -> Answer:
        """Propose RUNNING until the answer is not WAIT; return the result."""
        while (answer := await self.propose("RUNNING", details=details))["status"] == "WAIT":
            self.tell(self.label, "…", answer["reason"] or "")
            await asyncio.sleep(answer["retryAfterSeconds"])
        return answer

    async def work(self, attempt: Attempt, **details: Any) -> bool:
        """Repeat attempts while the rules accept RUNNING and schedule retries; return whether the run completed."""
        while (answer := await self.start(**details))["status"] == "ACCEPT":
            fault = await attempt()
            if fault is None:
                return False
            ending = {"message": fault} if fault else {"details": details}
            answer = await self.propose("FAILED" if fault else "COMPLETED", **ending)
            if answer["state"]["isFinal"]:
                break
        return str(answer["state"]["type"]) == "COMPLETED"


class Demo:
    """Runs of the flows."""

    def __init__(self, api: Api, tell: Tell, speed: float) -> None:
        self.api, self.tell, self.speed = api, tell, speed

    async def prepare(self) -> None:
        """Create a concurrency limit, a work pool, and a run that is scheduled in an hour."""
        await self.api.create("concurrencyLimit", name="tag:database", limit=2)
        if not await self.api.finds_pool():
            pool = await self.api.create("workPool", name=POOL, type="process", concurrencyLimit=10)
            await self.api.create("workQueue", workPoolId=pool["id"], name="urgent", priority=1)
        await self.live()
        # The idempotency key makes a second demo in the same hour find the run.
        hour = (datetime.now(UTC) + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
        await self.deployed(FLOWS[0], {}, scheduledTime=hour.isoformat(), idempotencyKey=f"hourly {hour:%Y%m%d%H}")

    async def take(self, numbers: Iterator[int]) -> None:
        """Run one flow for each number, consecutively; the flows alternate."""
        for number in numbers:
            nth, which = divmod(number, len(FLOWS))
            await self.run(FLOWS[which], nth)
            await self.live()
            await self.rest(1)

    async def live(self) -> None:
        """Send a heartbeat of the worker."""
        fields = "... on WorkerHeartbeatPayload { worker { id } }"
        await self.api.do("workerHeartbeat", "WorkerHeartbeatInput", fields, workPool=POOL, worker="demo-worker")

    async def run(self, flow: Flow, nth: int, parent: str | None = None) -> str:
        """Run a flow, as a subflow if it has a parent; return the error message, empty on success."""
        parameters = {name: turn(values, nth) for name, values in flow.parameters.items()}
        if flow.deployment:
            made = await self.deployed(flow, parameters)
        else:
            flow_id = (await self.api.create("flow", name=flow.name))["id"]
            more = {"parentTaskRunId": parent} if parent else {}
            made = await self.api.create("flowRun", flowId=flow_id, parameters=parameters, tags=list(flow.tags), **more)
        run = Run(self.api, self.tell, f"{flow.name} / {made['name']}", {"flowRunId": made["id"]})
        link = "[Dashboard](https://example.com/dashboards/1)"
        await self.api.create("artifact", key=f"{flow.name}-dashboard", type="markdown", data=link, **run.ref)
        await self.log(run, flow.name, line(20, f"Flow {flow.name} was started"))
        well = await run.work(lambda: self.stages(flow, nth, run, parameters))
        return "" if well else f"{flow.name} did not complete"

    async def deployed(self, flow: Flow, parameters: dict[str, Any], **more: Any) -> Answer:
        """Create a run from the flow's deployment; return its id and name."""
        flow_id = (await self.api.create("flow", name=flow.name))["id"]
        common = {"name": flow.deployment, "tags": list(flow.tags), "workPool": POOL, "schedules": NIGHTLY}
        made = await self.api.create("deployment", flowId=flow_id, **common)
        payload = "... on CreateFlowRunPayload { flowRun { id name } }"
        given = {"deploymentId": made["id"], "parameters": parameters, **more}
        run: Answer = (await self.api.do("runDeployment", "RunDeploymentInput", payload, **given))["flowRun"]
        return run

    async def stages(self, flow: Flow, nth: int, run: Run, parameters: dict[str, Any]) -> str | None:
        """Run the tasks of a flow; return the error message, empty on success, None if the run was ended."""
        before: list[str] = []
        for number, stage in enumerate(flow.stages):
            if number == 1 and not await self.goes_on(turn(flow.endings, nth), run):
                return None
            done = await asyncio.gather(*(self.task(task, nth, run, before, parameters) for task in stage))
            if faults := [task.name for task, (_, well) in zip(stage, done, strict=True) if not well]:
                return f"Failed: {', '.join(faults)}"
            before = [task_run for task_run, _ in done]
        return ""

    async def goes_on(self, ending: str, run: Run) -> bool:
        """Pause, cancel or crash a run; return whether it continues."""
        here = {"id": run.ref["flowRunId"]}
        if ending == "PAUSED":
            return await self.approved(run, here)
        if ending == "CANCELLED":
            await run.change("cancelFlowRun", "CancelFlowRunInput", **here, message="Cancelled by the user.")
            await self.rest(1)
            await run.propose("CANCELLED", message="The process has ended.")
        elif ending == "CRASHED":
            await run.propose("CRASHED", message="The process was killed: out of memory.")
        return not ending

    async def approved(self, run: Run, here: dict[str, str]) -> bool:
        """Pause a run for some time, in which a user can resume it with an input; return whether it continues."""
        for key, value in APPROVAL.items():
            await self.api.create("flowRunInput", key=key, value=value, **run.ref)
        pause = {"message": "Waiting for approval.", "timeoutSeconds": 3600, "runInputKeyset": KEYSET}
        await run.change("pauseFlowRun", "PauseFlowRunInput", **here, **pause)
        await self.rest(15)
        resumed = await run.change("resumeFlowRun", "ResumeFlowRunInput", **here, runInput={"approved": True})
        return str(resumed["status"]) == "ACCEPT" or str(resumed["state"]["type"]) == "RUNNING"

    async def task(
        self, task: Task, nth: int, run: Run, before: list[str], parameters: dict[str, Any]
    ) -> tuple[str, bool]:
        """Run a task; return the id of its run, and whether it completed."""
        made = await self.api.create(
            "taskRun",
            flowRunId=run.ref["flowRunId"],
            taskKey=task.name,
            dynamicKey="0",
            tags=list(task.tags),
            policy={"retries": task.retries, "retryDelaysSeconds": [2 / self.speed]},
            taskInputs={"data": [{"input_type": "task_run", "id": each} for each in before]},
        )
        task_run = str(made["id"])
        text = f"Progress of {task.name}"
        progress = await self.api.create(
            "artifact", type="progress", data=0, description=text, taskRunId=task_run, **run.ref
        )
        # One item for each attempt.
        faults = itertools.chain(["Connection reset by peer"] * turn(task.faults, nth), itertools.repeat(""))

        async def attempt() -> str:
            lines = [line(20, f"Task {task.name} was started")]
            await self.rest(task.seconds)
            fault = await self.run(task.subflow, nth, task_run) if task.subflow else next(faults)
            await self.api.do(
                "updateArtifact", "UpdateArtifactInput", "__typename", id=progress["id"], data=50 if fault else 100
            )
            lines.append(line(40, fault) if fault else line(20, f"Task {task.name} was completed"))
            await self.log(run, task.name, *lines, task_run=task_run)
            return fault

        details = cache(task, parameters) if task.cached_by else {}
        this = Run(self.api, self.tell, f"{run.label} / {task.name}", {"taskRunId": task_run})
        return task_run, await this.work(attempt, **details)

    async def log(self, run: Run, name: str, *lines: dict[str, Any], task_run: str | None = None) -> None:
        """Write lines of a flow run or of a task run; the name is that of the flow or the task."""
        common = {**run.ref, "taskRunId": task_run, "logger": f"demo.{name}"}
        fields = "... on WriteLogsPayload { written }"
        await self.api.do("writeLogs", "WriteLogsInput", fields, logs=[{**common, **each} for each in lines])

    async def rest(self, seconds: float) -> None:
        """Sleep for some seconds, divided by the speed."""
        await asyncio.sleep(seconds / self.speed)


def line(level: int, message: str) -> dict[str, Any]:
    """Return a line of a log."""
    return {"level": level, "message": message, "timestamp": datetime.now(UTC).isoformat()}


def turn(values: tuple[Any, ...], nth: int) -> Any:
    """Return the value for the nth run; values repeat from the start."""
    return values[nth % len(values)]


def cache(task: Task, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the state details that cache the result of a task for ten minutes."""
    until = datetime.now(UTC) + timedelta(minutes=10)
    return {"cacheKey": f"{task.name} {parameters[task.cached_by]}", "cacheExpiration": until.isoformat()}


async def demo(address: str, key: str | None, runs: int | None, speed: float, tell: Tell) -> None:
    """Run a number of flows; None means unlimited. Raise RefusedError if the server rejects an operation."""
    numbers = iter(itertools.count() if runs is None else range(runs))
    async with websockets.connect(address, subprotocols=[PROTOCOL], max_size=2**24) as socket:
        session = Session(socket)
        await session.begin(key)
        try:
            made = Demo(Api(session), tell, speed)
            await made.prepare()
            # All workers take numbers from one iterator, so each flow is run in turn.
            await asyncio.gather(*(made.take(numbers) for _ in range(WORKERS)))
        except SubscriptionError as error:
            raise RefusedError(str(error)) from error


def say(label: str, state: str, message: str) -> None:
    """Print a step."""
    typer.echo(f"{datetime.now(UTC):%H:%M:%S}  {label:48} {state:16} {message}".rstrip())


def run_demo(url: str, key: str | None, runs: int | None, speed: float) -> None:
    """Run flows until the number is reached or on SIGINT. Raise RefusedError if the server is unreachable."""
    try:
        asyncio.run(demo(socket_address(url), key, runs, speed, say))
    except KeyboardInterrupt:
        typer.echo("Stopped.")
    except (OSError, websockets.WebSocketException) as error:
        # A rejected key or path has a message of its own.
        insist_on_coming_back(error)
        raise RefusedError(f"Cannot connect to a server at {url}: {error}") from error
