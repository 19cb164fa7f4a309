"""The part of the demo that a worker executes: a pool, deployments with schedules, and their runs."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from runstate.cli.worker.api import Api
from runstate.cli.worker.worker import Options, Worker

POOL: Final = "demo"
QUEUE: Final = "maintenance"
RUNS: Final = 2
"""Number of runs besides those of the schedules."""
PROGRAM: Final = """
import json, sys, time
given = json.load(sys.stdin)
for step in given["steps"]:
    print(f"{step} …", flush=True)
    time.sleep(given["seconds"])
print(f"{len(given['steps'])} steps were completed")
"""
DEPLOYMENTS: Final[tuple[dict[str, Any], ...]] = (
    {
        "flow": "cleanup",
        "name": "every-minute",
        "workQueueName": QUEUE,
        "parameters": {"steps": ["Find old files", "Delete old files"]},
        "schedules": [{"schedule": {"interval": {"intervalSeconds": 60}}, "maxScheduledRuns": 3}],
    },
    {
        "flow": "weekly-report",
        "name": "mondays",
        "parameters": {"steps": ["Collect numbers", "Draw charts", "Send mail"]},
        "schedules": [
            {"slug": "mondays", "schedule": {"cron": {"cron": "0 7 * * mon", "timeZone": "Europe/Berlin"}}},
            {"slug": "end-of-month", "schedule": {"rrule": {"rrule": "FREQ=MONTHLY;BYMONTHDAY=-1;BYHOUR=18"}}},
        ],
    },
)

Do = Callable[..., Awaitable[Any]]
"""Executes a mutation: its name, the type of its input, the selection of its payload, and the fields of the input."""


class Deployed:
    """The deployments of the worker."""

    def __init__(self, do: Do, ask: Do) -> None:
        self.do, self.ask = do, ask
        self.ids: list[str] = []

    async def prepare(self, speed: float) -> None:
        """Create the pool, the deployments with their schedules, and runs."""
        known = await self.ask("query($name: String) { workPool(by: {name: $name}) { id } }", name=POOL)
        if known["workPool"] is None:
            await self.do("createWorkPool", "CreateWorkPoolInput", "__typename", name=POOL, type="process")
        for each in DEPLOYMENTS:
            self.ids.append(await self._deploy(each, speed))
        for number in range(RUNS):
            made = self.ids[number % len(self.ids)]
            await self.do("runDeployment", "RunDeploymentInput", "__typename", deploymentId=made)

    async def _deploy(self, deployment: dict[str, Any], speed: float) -> str:
        payload = "... on CreateDeploymentPayload { deployment { id } }"
        given = {
            **deployment,
            "flow": {"name": deployment["flow"]},
            "parameters": {**deployment["parameters"], "seconds": 1 / speed},
            "jobVariables": {"command": [sys.executable, "-c", PROGRAM]},
        }
        more = {"createFlow": True, "workPool": POOL, "paused": False}
        answer = await self.do("deployFlow", "DeployFlowInput", payload, **given, **more)
        return str(answer["deployment"]["id"])

    async def pause(self) -> None:
        """Pause the deployments: nobody will execute their runs any more."""
        for made in self.ids:
            await self.ask("mutation($id: ID!) { pauseDeployment(id: $id) { __typename } }", id=made)


@asynccontextmanager
async def working(address: str, key: str | None, tell: Callable[[str, str, str], None]) -> AsyncIterator[None]:
    """Execute the runs of the pool during the block, and those that are left at its end."""

    def say(label: str, message: str) -> None:
        # Messages about the worker itself have no run.
        if " / " in label:
            tell(label, "Worker", message)

    worker = Worker(Api(address, key, lambda _: None), Options(POOL, "demo"), {"RUNSTATE_URL": address}, say)
    running = asyncio.create_task(worker.run())
    try:
        yield
        idle = asyncio.create_task(worker.idle.wait())
        await asyncio.wait({idle, running}, return_when=asyncio.FIRST_COMPLETED)
        worker.stop()
        await running
    finally:
        running.cancel()
        await asyncio.wait({running})
