"""Random proposals of many clients for many runs, optionally with a server that is killed half-way.

    python -m benchmarks.soak --clients 64 --seconds 30  # SQLite
    python -m benchmarks.soak --database-url postgresql+asyncpg://… --servers 2 --clients 32 --seconds 60 --kill

Starts servers on loopback. Prints the answers and their latency. Exits with 1 if a client received an error, if an
answer contradicts the database, or if `runstate verify` finds an error.
"""

import argparse
import asyncio
import collections
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

TYPES = [
    "SCHEDULED",
    "PENDING",
    "RUNNING",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "CRASHED",
    "PAUSED",
    "CANCELLING",
]
PROPOSE = """mutation($input: ProposeStateInput!) { it: proposeState(input: $input) { __typename
  ... on OrchestrationResult { status state { id version } } ... on Problem { code } } }"""
CREATED = "... on Problem { code message }"
HISTORY = """query($after: String) { it: %s(first: 200, after: $after) { pageInfo { hasNextPage endCursor }
  nodes { id version stateType states(first: 200) { nodes { id version } } } } }"""


class Server:
    """A server process on a port that can be killed and restarted."""

    def __init__(self, port: int, database_url: str) -> None:
        self.url = f"http://127.0.0.1:{port}/graphql"
        self.environment = os.environ | {
            "RUNSTATE_PORT": str(port),
            "RUNSTATE_DATABASE_URL": database_url,
            "RUNSTATE_LOG_LEVEL": "error",
        }
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, client: httpx.AsyncClient) -> None:
        """Start the process and wait until it answers."""
        self.process = subprocess.Popen(  # noqa: ASYNC220 it returns at once
            [sys.executable, "-m", "runstate", "serve"], env=self.environment, stdout=subprocess.DEVNULL
        )
        for _ in range(300):
            try:
                await client.post(self.url, json={"query": "{ __typename }"})
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return
        raise SystemExit(f"{self.url} does not answer")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the process and wait for its end."""
        if self.process is None:
            return 0
        self.process.send_signal(how)
        return self.process.wait()


class Soak:
    """Requests and answers of the clients."""

    def __init__(self, servers: list[Server], client: httpx.AsyncClient) -> None:
        self.servers, self.client = servers, client
        self.answers: collections.Counter[str] = collections.Counter()
        self.errors: list[str] = []
        self.written: dict[str, tuple[str, int]] = {}
        """States that were answered as written: run and version by id."""
        self.seconds: list[float] = []

    async def ask(self, server: Server, document: str, **variables: Any) -> Any:
        """Execute a document and return the field `it`. Raise AssertionError if it has errors."""
        reply = await self.client.post(server.url, json={"query": document, "variables": variables})
        body = reply.json()
        if body.get("errors"):
            raise AssertionError(body["errors"])
        return body["data"]["it"]

    async def make(self, what: str, **given: Any) -> str:
        """Create an object; return its id."""
        kind = what[0].upper() + what[1:]
        document = f"""mutation($input: Create{kind}Input!) {{ it: create{kind}(input: $input) {{
          ... on Create{kind}Payload {{ {what} {{ id }} }} {CREATED} }} }}"""
        return str((await self.ask(self.servers[0], document, input=given))[what]["id"])

    async def runs(self, count: int) -> list[tuple[str, str]]:
        """Create flow runs of a deployment with a limit, with tagged task runs; return all of them."""
        flow = await self.make("flow", name="soak")
        deployment = await self.make("deployment", flowId=flow, name="soak", concurrencyLimit=5)
        await self.make("concurrencyLimit", name="tag:soak", limit=7)
        made = []
        for number in range(count // 4):
            run = await self.make("flowRun", flowId=flow, deploymentId=deployment, state={"type": "SCHEDULED"})
            made.append(("flowRunId", run))
            for task in range(3):
                tags = ["soak"] if task else []
                given = {"flowRunId": run, "taskKey": "t", "dynamicKey": f"{number}-{task}", "tags": tags}
                made.append(("taskRunId", await self.make("taskRun", policy={"retries": 2}, **given)))
        return made

    async def propose(self, runs: list[tuple[str, str]], chance: random.Random) -> None:
        """Propose a random state for a random run to a random server."""
        kind, run = chance.choice(runs)
        given = {"run": {kind: run}, "state": {"type": chance.choice(TYPES)}, "force": chance.random() < 0.05}
        started = time.perf_counter()
        try:
            answer = await self.ask(chance.choice(self.servers), PROPOSE, input=given)
        except httpx.TransportError as error:
            self.answers[f"connection: {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)
            return
        except AssertionError as error:
            self.errors.append(str(error))
            return
        self.seconds.append(time.perf_counter() - started)
        self.answers[answer.get("status") or answer["code"]] += 1
        if answer.get("status") in ("ACCEPT", "REJECT") and answer["state"]:
            self.written[answer["state"]["id"]] = (run, answer["state"]["version"])

    async def contradictions(self) -> list[str]:
        """Return the contradictions found: histories with gaps, and answers that differ from the histories."""
        found: list[str] = []
        states: dict[str, tuple[str, int]] = {}
        for field in ("flowRuns", "taskRuns"):
            async for run in self._all(field):
                versions = [state["version"] for state in run["states"]["nodes"]]
                states |= {state["id"]: (run["id"], state["version"]) for state in run["states"]["nodes"]}
                if versions != list(range(1, len(versions) + 1)):
                    found.append(f"{run['id']} has versions {versions}")
                if len(versions) < 200 and run["version"] != len(versions):
                    found.append(f"{run['id']} is at version {run['version']} and has {len(versions)} states")
        full = {run for run, version in states.values() if version == 200}
        lost = [state for state, (run, v) in self.written.items() if run not in full and states.get(state) != (run, v)]
        return found + [f"state {state} was answered and is not there" for state in lost]

    async def _all(self, field: str) -> Any:
        after = None
        while True:
            page = await self.ask(self.servers[0], HISTORY % field, after=after)
            for run in page["nodes"]:
                yield run
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                return


async def soak(options: argparse.Namespace, database_url: str) -> bool:
    """Run the benchmark. Return whether there was no error."""
    servers = [Server(options.port + number, database_url) for number in range(options.servers)]
    limits = httpx.Limits(max_connections=options.clients)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        for server in servers:
            await server.start(client)
        self = Soak(servers, client)
        try:
            runs = await self.runs(options.runs)
            await asyncio.gather(_load(self, runs, options), _kill(servers[-1], client, options))
            broken = await self.contradictions()
        finally:
            codes = [server.end() for server in servers]
    verified = subprocess.run(  # noqa: ASYNC221 nothing else goes on
        [sys.executable, "-m", "runstate", "verify", "--database-url", database_url], check=False
    )
    _report(self, broken, options)
    return not (self.errors or broken or any(codes) or verified.returncode)


async def _load(self: Soak, runs: list[tuple[str, str]], options: argparse.Namespace) -> None:
    end = time.monotonic() + options.seconds

    async def client(number: int) -> None:
        chance = random.Random(f"{options.seed}-{number}")
        while time.monotonic() < end:
            await self.propose(runs, chance)

    await asyncio.gather(*(client(number) for number in range(options.clients)))


async def _kill(server: Server, client: httpx.AsyncClient, options: argparse.Namespace) -> None:
    if options.kill:
        await asyncio.sleep(options.seconds / 2)
        server.end(signal.SIGKILL)
        await server.start(client)


def _report(self: Soak, broken: list[str], options: argparse.Namespace) -> None:
    seconds = sorted(self.seconds)
    print(f"{len(seconds)} answers, {len(seconds) / options.seconds:.0f} a second")
    print(f"p50 {statistics.median(seconds) * 1e3:.0f} ms, p99 {seconds[int(len(seconds) * 0.99)] * 1e3:.0f} ms")
    print(", ".join(f"{what} {count}" for what, count in self.answers.most_common()))
    print(f"{len(self.errors)} errors, {len(broken)} contradictions, {len(self.written)} states answered as written")
    for line in (*self.errors[:5], *broken[:5]):
        print(" ", line)


def main() -> None:
    """Run the benchmark with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", help="database to write to; a new SQLite file by default")
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--kill", action="store_true", help="kill and restart the last server after half of the time")
    parser.add_argument("--port", type=int, default=4310)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = f"sqlite+aiosqlite:///{Path(folder) / 'soak.db'}"
        sys.exit(not asyncio.run(soak(options, options.database_url or file)))


if __name__ == "__main__":
    main()
