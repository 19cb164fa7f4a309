"""Fixtures for tests of the worker: a server process, its client, and worker processes."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from signal import SIGTERM
from typing import Any

import httpx
import pytest

from tests.client import Ask
from tests.graphql.mutations import create, do, make_flow
from tests.serving import run
from tests.subscribing import listening

PATIENCE_SECONDS = 60
RUN = "id stateType stateName claimCount claim { id } state { message actor }"


class Pool:
    """A pool of type `process` on a server, whose workers are processes."""

    def __init__(self, url: str, ask: Ask, workers: AsyncExitStack) -> None:
        self.url, self.ask, self.workers = url, ask, workers

    async def deploy(self, program: str, **given: Any) -> str:
        """Create a deployment whose runs execute a Python program; return its id."""
        variables = {"command": [sys.executable, "-c", program], **given.pop("jobVariables", {})}
        flow = await make_flow(self.ask)
        made = await create(
            self.ask, "deployment", flowId=flow, name="d", workPool="local", jobVariables=variables, **given
        )
        return str(made["deployment"]["id"])

    async def make_run(self, deployment: str, **given: Any) -> str:
        """Create a run of a deployment; return its id."""
        fields = "... on CreateFlowRunPayload { flowRun { id } } ... on Problem { message }"
        made = await do(self.ask, "runDeployment", "RunDeploymentInput", fields, deploymentId=deployment, **given)
        return str(made["flowRun"]["id"])

    async def worker(self, *options: str) -> Process:
        """Start a worker; it is killed at the end of the test."""
        command = ("worker", "start", "--pool", "local", "--url", self.url, "--poll", "1", "--lease", "10")
        process = await run(*command, *options, environment={})
        self.workers.push_async_callback(end, process)
        return process

    async def until(self, run_id: str, *types: str) -> Any:
        """Return a run once it is in a state of one of some types."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = (await self.ask(f"query($id: ID!) {{ flowRun(id: $id) {{ {RUN} }} }}", id=run_id))["flowRun"]
                if found["stateType"] in types:
                    return found
                await asyncio.sleep(0.05)

    async def lines(self, run_id: str, number: int = 1) -> list[str]:
        """Return the lines of the logs of a run, once there are as many."""
        document = "query($id: ID!) { logs(tree: $id, first: 200) { nodes { message } } }"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = (await self.ask(document, id=run_id))["logs"]["nodes"]
                if len(found) >= number:
                    return [each["message"] for each in found]
                await asyncio.sleep(0.05)


async def end(process: Process) -> None:
    """Kill a worker, if it is still running."""
    if process.returncode is None:
        process.kill()
    output, _ = await process.communicate()
    sys.stdout.write(output.decode())


async def said(process: Process, text: str) -> None:
    """Wait until a worker prints a text."""
    assert process.stdout
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for line in process.stdout:
            if text in line.decode():
                return


async def stopped(process: Process) -> int:
    """Stop a worker with SIGTERM; return its exit code."""
    process.send_signal(SIGTERM)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await process.wait()


@asynccontextmanager
async def pool_of(url: str) -> AsyncIterator[Pool]:
    """Yield the pool `local` on a server, which is created."""
    async with (
        AsyncExitStack() as workers,
        httpx.AsyncClient(base_url=url.removesuffix("/graphql"), timeout=60) as client,
    ):
        pool = Pool(url, Ask(client), workers)
        await create(pool.ask, "workPool", name="local")
        yield pool


@pytest.fixture
async def pool(url: str) -> AsyncIterator[Pool]:
    """Yield a pool on a server in this process."""
    async with (
        listening(url, services="claim-expiry", service_intervals={"claim-expiry": 0.2}) as server,
        pool_of(f"http://{server.address}") as pool,
    ):
        yield pool
