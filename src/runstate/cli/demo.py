"""`runstate demo`: a few small flows, really run, so that there is something to look at."""

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

WORKERS: Final = 3
"""How many flow runs are under way at once."""
ANSWER: Final = "... on OrchestrationResult { status reason retryAfterSeconds state { type name message isFinal } }"
PROBLEM: Final = "... on Problem { code message }"

Answer = dict[str, Any]
Attempt = Callable[[], Awaitable[str | None]]
"""Answers the fault, nothing if it went well; None if the run was ended meanwhile."""
Tell = Callable[[str, str, str], None]
"""Told of each step: whose it is, the state, and a message."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task: how long it takes, and what happens to it."""

    name: str
    seconds: float = 1
    retries: int = 0
    faults: tuple[int, ...] = (0,)
    """How many attempts fail: in the first run of the flow, in the second ..., and from the start again."""
    cached_by: str = ""
    """The parameter by which its result is shared between runs."""
    tags: tuple[str, ...] = ()
    subflow: "Flow | None" = None
    """What it runs."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow: stages one after the other, whose tasks run side by side."""

    name: str
    stages: tuple[tuple[Task, ...], ...]
    tags: tuple[str, ...] = ()
    parameters: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """What the parameters are: in the first run, in the second ..."""
    endings: tuple[str, ...] = ("",)
    """What happens after the first stage: PAUSED, CANCELLED or CRASHED; in the first run, in the second ..."""
    deployment: str = ""
    """The deployment that its runs are made from."""


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
    """The server, over one connection."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.turn = asyncio.Lock()

    async def do(self, mutation: str, kind: str, selection: str, **given: Any) -> Answer:
        """The payload that a mutation answers with; RefusedError: it is a problem."""
        document = f"mutation($input: {kind}!) {{ it: {mutation}(input: $input) {{ {selection} {PROBLEM} }} }}"
        async with self.turn:
            answer: Answer = (await self.session.ask(document, input=given))["it"]
        if "code" in answer:
            raise RefusedError(f"{mutation}: {answer['message']}")
        return answer

    async def create(self, what: str, **given: Any) -> Answer:
        """Id and name of what is created, or was there already."""
        kind = what[0].upper() + what[1:]
        payload = f"... on Create{kind}Payload {{ {what} {{ id name }} }}"
        answer: Answer = (await self.do(f"create{kind}", f"Create{kind}Input", payload, **given))[what]
        return answer


@dataclass(frozen=True, slots=True)
class Run:
    """A run under way: it proposes its states, and does what the answers say."""

    api: Api
    tell: Tell
    label: str
    ref: dict[str, str]

    async def change(self, mutation: str, kind: str, **given: Any) -> Answer:
        """Have the run enter a state; what became of it."""
        answer = await self.api.do(mutation, kind, ANSWER, **given)
        if answer["status"] != "WAIT":
            self.tell(self.label, answer["state"]["name"], answer["reason"] or answer["state"]["message"] or "")
        return answer

    async def propose(self, kind: str, **state: Any) -> Answer:
        """Propose a state."""
        return await self.change("proposeState", "ProposeStateInput", run=self.ref, state={"type": kind, **state})

    async def start(self, **details: Any) -> Answer:
        """Propose RUNNING, as often as the rules want to be asked again; what became of it."""
        while (answer := await self.propose("RUNNING", details=details))["status"] == "WAIT":
            self.tell(self.label, "…", answer["reason"] or "")
            await asyncio.sleep(answer["retryAfterSeconds"])
        return answer

    async def work(self, attempt: Attempt, **details: Any) -> bool:
        """Attempt it until it completes, is cached, or may not be tried again; whether it ended well."""
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
    """The flows, run after run."""

    def __init__(self, api: Api, tell: Tell, speed: float) -> None:
        self.api, self.tell, self.speed = api, tell, speed

    async def prepare(self) -> None:
        """Have a limit, and a run that is due in an hour."""
        await self.api.create("concurrencyLimit", name="tag:database", limit=2)
        hour = (datetime.now(UTC) + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
        await self.deployed(FLOWS[0], {}, scheduledTime=hour.isoformat(), idempotencyKey=f"hourly {hour:%Y%m%d%H}")

    async def take(self, numbers: Iterator[int]) -> None:
        """Run a flow for each number, one after the other."""
        for number in numbers:
            nth, which = divmod(number, len(FLOWS))
            await self.run(FLOWS[which], nth)
            await self.rest(1)

    async def run(self, flow: Flow, nth: int, parent: str | None = None) -> str:
        """Run a flow, within a task run perhaps; its fault."""
        parameters = {name: turn(values, nth) for name, values in flow.parameters.items()}
        if flow.deployment:
            made = await self.deployed(flow, parameters)
        else:
            flow_id = (await self.api.create("flow", name=flow.name))["id"]
            more = {"parentTaskRunId": parent} if parent else {}
            made = await self.api.create("flowRun", flowId=flow_id, parameters=parameters, tags=list(flow.tags), **more)
        run = Run(self.api, self.tell, f"{flow.name} / {made['name']}", {"flowRunId": made["id"]})
        well = await run.work(lambda: self.stages(flow, nth, run, parameters))
        return "" if well else f"{flow.name} did not complete"

    async def deployed(self, flow: Flow, parameters: dict[str, Any], **more: Any) -> Answer:
        """Id and name of a new run of a flow's deployment."""
        flow_id = (await self.api.create("flow", name=flow.name))["id"]
        made = await self.api.create("deployment", flowId=flow_id, name=flow.deployment, tags=list(flow.tags))
        payload = "... on CreateFlowRunPayload { flowRun { id name } }"
        given = {"deploymentId": made["id"], "parameters": parameters, **more}
        run: Answer = (await self.api.do("runDeployment", "RunDeploymentInput", payload, **given))["flowRun"]
        return run

    async def stages(self, flow: Flow, nth: int, run: Run, parameters: dict[str, Any]) -> str | None:
        """Run the tasks of a flow; its fault, or None if it was ended in between."""
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
        """What happens in the middle of a run; whether it goes on afterwards."""
        here = {"id": run.ref["flowRunId"]}
        if ending == "PAUSED":
            await run.change("pauseFlowRun", "PauseFlowRunInput", **here, message="Who pays?", timeoutSeconds=3600)
            await self.rest(5)
            resumed = await run.change("resumeFlowRun", "ResumeFlowRunInput", **here)
            return str(resumed["status"]) == "ACCEPT"
        if ending == "CANCELLED":
            await run.change("cancelFlowRun", "CancelFlowRunInput", **here, message="Somebody changed their mind.")
            await self.rest(1)
            await run.propose("CANCELLED", message="Its process has ended.")
        elif ending == "CRASHED":
            await run.propose("CRASHED", message="The process was killed: out of memory.")
        return not ending

    async def task(
        self, task: Task, nth: int, run: Run, before: list[str], parameters: dict[str, Any]
    ) -> tuple[str, bool]:
        """Run a task: the id of its run, and whether it ended well."""
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
        faults = itertools.chain(["Connection reset by peer"] * turn(task.faults, nth), itertools.repeat(""))

        async def attempt() -> str:
            await self.rest(task.seconds)
            return await self.run(task.subflow, nth, task_run) if task.subflow else next(faults)

        details = cache(task, parameters) if task.cached_by else {}
        this = Run(self.api, self.tell, f"{run.label} / {task.name}", {"taskRunId": task_run})
        return task_run, await this.work(attempt, **details)

    async def rest(self, seconds: float) -> None:
        """Let time go by, at the speed that was asked for."""
        await asyncio.sleep(seconds / self.speed)


def turn(values: tuple[Any, ...], nth: int) -> Any:
    """Each value in its turn."""
    return values[nth % len(values)]


def cache(task: Task, parameters: dict[str, Any]) -> dict[str, Any]:
    """Where a result is shared, and for how long."""
    until = datetime.now(UTC) + timedelta(minutes=10)
    return {"cacheKey": f"{task.name} {parameters[task.cached_by]}", "cacheExpiration": until.isoformat()}


async def demo(address: str, key: str | None, runs: int | None, speed: float, tell: Tell) -> None:
    """Run flows, for ever or a number of them; a speed of 2 takes half the time. RefusedError: the server refuses."""
    numbers = iter(itertools.count() if runs is None else range(runs))
    async with websockets.connect(address, subprotocols=[PROTOCOL], max_size=2**24) as socket:
        session = Session(socket)
        await session.begin(key)
        try:
            made = Demo(Api(session), tell, speed)
            await made.prepare()
            await asyncio.gather(*(made.take(numbers) for _ in range(WORKERS)))
        except SubscriptionError as error:
            raise RefusedError(str(error)) from error


def say(label: str, state: str, message: str) -> None:
    """Print a step."""
    typer.echo(f"{datetime.now(UTC):%H:%M:%S}  {label:48} {state:16} {message}".rstrip())


def run_demo(url: str, key: str | None, runs: int | None, speed: float) -> None:
    """Run flows until there are enough, or somebody wants no more. RefusedError: the server is not there."""
    try:
        asyncio.run(demo(socket_address(url), key, runs, speed, say))
    except KeyboardInterrupt:
        typer.echo("Stopped.")
    except (OSError, websockets.WebSocketException) as error:
        insist_on_coming_back(error)
        raise RefusedError(f"There is no server at {url}: {error}") from error
