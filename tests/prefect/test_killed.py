"""A server that is killed while flows run, and started again."""

import asyncio
import os
import socket
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson

from runstate.core.checks.verify import verify
from runstate.database import Database
from tests.prefect.clients import PROGRAMS, PYTHON, needs_prefect
from tests.serving import Serve

STEPS = 6


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@needs_prefect
async def test_flows_go_on_when_their_server_is_killed_and_started_again(
    serve: Serve, database: Database, tmp_path: Path
) -> None:
    port = free_port()
    server = await serve(RUNSTATE_PORT=port)
    api = server.url.replace("/graphql", "/api")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
    flows = await asyncio.create_subprocess_exec(
        *(PYTHON, PROGRAMS / "ten_flows.py", str(STEPS)),
        env={**inherited, "PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path)},
        stdout=PIPE,
        stderr=STDOUT,
        limit=2**20,
    )
    try:
        assert flows.stdout
        said = [line async for line in until_running(flows.stdout)]
        server.process.kill()
        await server.process.wait()
        again = await serve(RUNSTATE_PORT=port)
        rest = await flows.stdout.read()
        assert await flows.wait() == 0, (b"".join(said) + rest)[-6000:].decode()
    finally:
        if flows.returncode is None:
            flows.kill()
            await flows.wait()

    ids = next(orjson.loads(line) for line in rest.splitlines() if line.startswith(b'["'))
    async with httpx.AsyncClient(base_url=again.url.replace("/graphql", "/api")) as client:
        runs = (await client.post("/flow_runs/filter", json={"flow_runs": {"id": {"any_": ids}}})).json()
        assert Counter(each["state_name"] for each in runs) == {"Completed": 10}
        tasks = (await client.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": ids}}})).json()
    assert Counter(each["flow_run_id"] for each in tasks) == dict.fromkeys(ids, STEPS)
    assert Counter(each["state_name"] for each in tasks) == {"Completed": 10 * STEPS}
    assert await verify(database, datetime.now(UTC)) == []


async def until_running(output: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a program until all of its flows run."""
    async for line in output:
        yield line
        if line.startswith(b"RUNNING"):
            return
