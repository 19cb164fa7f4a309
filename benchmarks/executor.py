"""Throughput of the executor, compared in the same run with servers without the fast path, and with graphql-core alone.

    python -m benchmarks.executor --seconds 4 --connections 8

All serve the same SQLite database, one after the other, each from a process of its own. Beside the figures of each
other server stand the ratio of requests per second and the ratio of CPU time per request.
"""

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import structlog
import typer
import uvicorn
from starlette.routing import WebSocketRoute
from strawberry import Schema as StockSchema
from strawberry.types.execution import ExecutionResult

from benchmarks.http_client import HEAD
from runstate.app import build_app
from runstate.graphql.execution.operation import AcceptedOperation, Schema
from runstate.graphql.schema import build_schema
from runstate.settings import Settings

PORTS = {"plans": 4331, "no fast path": 4332, "stock": 4333}
FIELDS = (
    "id name flowId stateType stateName version runCount created updated startTime endTime expectedStartTime "
    "totalRunTimeSeconds tags stateId"
)
REFERENCES = "flow { id name } state { id type name timestamp }"
PROPOSE = "mutation($i: ProposeStateInput!) { proposeState(input: $i) { __typename } }"
PROPOSE_MANY = (
    "mutation($i: [ProposeStateInput!]!) { proposeStates(inputs: $i) { ... on OrchestrationResult { status } } }"
)
FLOW = 'mutation { createFlow(input: {name: "etl"}) { ... on CreateFlowPayload { flow { id } } } }'
RUN = (
    "mutation($i: CreateFlowRunInput!) { createFlowRun(input: $i) { ... on CreateFlowRunPayload { flowRun { id } } } }"
)


class Stock(Schema):
    """The schema with graphql-core's executor."""

    execute = StockSchema.execute


class WithoutFastPath(Schema):
    """The schema with plans and without the fast path."""

    async def _executed(self, accepted: AcceptedOperation) -> ExecutionResult:
        return await self._executed_by_executor(accepted, None)


def serve(kind: str, url: str) -> None:
    """Serve with one of the executors."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    app: Any = build_app(Settings(database_url=url, services="off"))
    endpoint: Any = next(route.app for route in app.routes if isinstance(route, WebSocketRoute))
    if kind == "no fast path":
        endpoint.schema = build_schema(kind=WithoutFastPath)
    elif kind == "stock":
        endpoint.schema = build_schema(plans=False, kind=Stock)
    uvicorn.run(app, port=PORTS[kind], log_level="warning", access_log=False, loop="uvloop", http="httptools")


@contextmanager
def served(kind: str, url: str) -> Iterator[psutil.Process]:
    """Start a server and wait until it answers; yield its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.executor", "--serve", kind, "--url", url], env={**os.environ}
    )
    try:
        for _ in range(300):
            try:
                httpx.get(f"http://127.0.0.1:{PORTS[kind]}/readyz")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def ask(document: str, **variables: Any) -> Any:
    """Execute a document and return its data."""
    body = {"query": document, "variables": variables}
    answer = httpx.post(f"http://127.0.0.1:{PORTS['plans']}/graphql", json=body, timeout=60).json()
    if answer.get("errors"):
        raise RuntimeError(answer["errors"])
    return answer["data"]


def fill(count: int) -> list[str]:
    """Create flow runs; return their ids."""
    flow = ask(FLOW)["createFlow"]["flow"]["id"]
    return [ask(RUN, i={"flowId": flow})["createFlowRun"]["flowRun"]["id"] for _ in range(count)]


def proposal(run: str) -> dict[str, Any]:
    """Return a proposal that is always accepted, since it is forced."""
    return {"run": {"flowRunId": run}, "state": {"type": "RUNNING"}, "force": True}


async def client(port: int, body: bytes, until: float, delays: list[float]) -> None:
    """Send a request repeatedly on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = HEAD % len(body) + body
    while (started := time.perf_counter()) < until:
        writer.write(sent)
        answered = await reader.readuntil(b"\r\n\r\n")
        length = int(answered.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        content = await reader.readexactly(length)
        if b'"errors"' in content:
            raise RuntimeError(content[:500])
        delays.append(time.perf_counter() - started)
    writer.close()


async def load(port: int, body: bytes, seconds: float, connections: int) -> list[float]:
    """Return the latencies in seconds, sorted."""
    delays: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(client(port, body, until, delays) for _ in range(connections)))
    return sorted(delays)


def measure(process: psutil.Process, port: int, body: bytes, seconds: float, connections: int) -> tuple[float, float]:
    """Return requests per second, and CPU milliseconds of the server per request."""
    asyncio.run(load(port, body, 0.3, connections))
    before, started = sum(process.cpu_times()[:2]), time.perf_counter()
    delays = asyncio.run(load(port, body, seconds, connections))
    taken, spent = time.perf_counter() - started, sum(process.cpu_times()[:2]) - before
    return len(delays) / taken, spent / len(delays) * 1000


def main(
    seconds: float = 4.0, connections: int = 8, serve_as: str = typer.Option("", "--serve"), url: str = ""
) -> None:
    """Measure all executors and print a line for each kind of work. With `--serve`, run one of the servers."""
    if serve_as:
        serve(serve_as, url)
        return
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite+aiosqlite:///{Path(directory) / 'runstate.db'}"
        for work, body in works(url):
            compare(work, body, url, seconds, connections)


def works(url: str) -> list[tuple[str, bytes]]:
    """Return names and request bodies of the work to measure."""
    with served("plans", url):
        runs = fill(200)
    page = f"{{ flowRuns(first: 200) {{ nodes {{ {FIELDS} }} }} }}"
    references = f"{{ flowRuns(first: 200) {{ nodes {{ {FIELDS} {REFERENCES} }} }} }}"
    return [
        ("{ __typename }", orjson.dumps({"query": "{ __typename }"})),
        ("200 runs x 15", orjson.dumps({"query": page})),
        ("with flow and state", orjson.dumps({"query": references})),
        ("proposeState", orjson.dumps({"query": PROPOSE, "variables": {"i": proposal(runs[0])}})),
        ("proposeStates, 100", orjson.dumps({"query": PROPOSE_MANY, "variables": {"i": [*map(proposal, runs[:100])]}})),
    ]


def compare(work: str, body: bytes, url: str, seconds: float, connections: int) -> None:
    """Measure all servers, one after the other because one process owns a SQLite file."""
    found = {}
    for kind, port in PORTS.items():
        with served(kind, url) as process:
            found[kind] = measure(process, port, body, seconds, connections)
    fast, cheap = found["plans"]
    print(f"{work:20} {fast:8.0f}/s {cheap:7.2f} ms", end="")
    for kind in ("no fast path", "stock"):
        slow, dear = found[kind]
        print(f"   {kind} {slow:8.0f}/s {dear:7.2f} ms {fast / slow:5.2f} x, CPU {dear / cheap:5.2f} x", end="")
    print(flush=True)


if __name__ == "__main__":
    typer.run(main)
