"""The longest wait of a proposal while many runs are retried, over HTTP.

    python -m benchmarks.bulk --database-kind postgresql --runs 10000

Starts a server on loopback with a new database, creates failed runs of a deployment, and retries all of them by one
`retryFlowRuns` while clients propose states for their own task runs. Prints the latencies of these proposals before and
meanwhile.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from benchmarks.databases import database
from benchmarks.http_client import Client, serving

GOAL_MILLISECONDS = 250
ALONE_SECONDS = 5
"""Time for which clients propose before the runs are retried."""
DEPLOY = """mutation { deployFlow(input: {flow: {name: "bulk"}, name: "nightly", createFlow: true}) {
  ... on CreateDeploymentPayload { deployment { id flowId } } } }"""
CREATE = """mutation($input: CreateFlowRunInput!) { createFlowRun(input: $input) { __typename } }"""
TASK = """mutation($key: String!) { createTaskRun(input: {taskKey: "bulk", dynamicKey: $key}) {
  ... on CreateTaskRunPayload { taskRun { id } } } }"""
PROPOSE = """mutation($run: ID!, $type: StateType!) { proposeState(input: {
  run: {taskRunId: $run}, state: {type: $type}, force: true}) { ... on OrchestrationResult { status } } }"""
RETRY = """mutation($after: String) { retryFlowRuns(where: {stateType: {eq: FAILED}}, limit: 10000, after: $after) {
  ... on BulkOperation { done changed finished hasMore cursor } } }"""
Kind = Annotated[str, typer.Option(help="`sqlite` or `postgresql`.")]
Runs = Annotated[int, typer.Option(help="Number of failed runs.")]
Clients = Annotated[int, typer.Option(help="Number of clients that propose states.")]


async def fail(url: str, input: dict[str, Any], number: int) -> None:
    """Create failed runs over one connection."""
    client = await Client.connect(url)
    for _ in range(number):
        await client.execute(CREATE, input=input)
    client.close()


async def propose(url: str, key: str, done: asyncio.Event) -> list[tuple[float, float]]:
    """Propose states for a task run of its own until the end; return start times and latencies in seconds."""
    client, taken = await Client.connect(url), list[tuple[float, float]]()
    run = (await client.execute(TASK, key=key))["createTaskRun"]["taskRun"]["id"]
    while not done.is_set():
        for state in ("RUNNING", "COMPLETED"):
            began = time.perf_counter()
            await client.execute(PROPOSE, run=run, type=state)
            taken.append((began, time.perf_counter() - began))
    client.close()
    return taken


async def retry(url: str) -> tuple[int, float]:
    """Retry all failed runs; return their number and the time in seconds."""
    client, began, changed, after, more = await Client.connect(url), time.perf_counter(), 0, None, True
    while more:
        found = (await client.execute(RETRY, after=after))["retryFlowRuns"]
        changed, after, more = changed + found["changed"], found["cursor"], found["hasMore"]
    client.close()
    return changed, time.perf_counter() - began


async def measure(url: str, runs: int, clients: int) -> None:
    """Create the runs, retry them and print a line."""
    client = await Client.connect(url)
    deployment = (await client.execute(DEPLOY))["deployFlow"]["deployment"]
    of_deployment = {"flowId": deployment["flowId"], "deploymentId": deployment["id"], "state": {"type": "FAILED"}}
    await asyncio.gather(*(fail(url, of_deployment, runs // clients) for _ in range(clients)))
    done = asyncio.Event()
    proposing = [asyncio.create_task(propose(url, str(number), done)) for number in range(clients)]
    await asyncio.sleep(ALONE_SECONDS)
    began = time.perf_counter()
    changed, seconds = await retry(url)
    done.set()
    taken = [each for found in await asyncio.gather(*proposing) for each in found]
    print(
        f"{changed} runs retried in {seconds:.1f} s, {clients} clients propose (goal: {GOAL_MILLISECONDS} ms at most)"
    )
    show("before", [latency for start, latency in taken if start < began - 1])
    show("meanwhile", [latency for start, latency in taken if start >= began - 1])


def show(when: str, seconds: list[float]) -> None:
    """Print a line with latencies."""
    taken = sorted(each * 1000 for each in seconds)
    p50, p99, longest = taken[len(taken) // 2], taken[len(taken) * 99 // 100], taken[-1]
    print(f"{when}: {len(taken)} proposals, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms")


def main(database_kind: Kind = "sqlite", runs: Runs = 10_000, clients: Clients = 16) -> None:
    """Measure one kind of database."""
    with tempfile.TemporaryDirectory() as folder, database(database_kind, Path(folder)) as at, serving(at) as (url, _):
        uvloop.run(measure(url, runs, clients))


if __name__ == "__main__":
    typer.run(main)
