"""Programs that are ended by signals, as processes of their own."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.client import Ask
from tests.reporting.test_verdicts import history
from tests.subscribing import Listening

SOURCE = Path(__file__).parent.parent.parent / "src"
PROGRAM = """
import time
from runstate.client import Client
with Client(heartbeat_seconds=1) as client:
    with client.flow_run("etl") as run, run.task("sleep"):
        print(run.id, flush=True)
        time.sleep(60)
"""


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


async def started(server: Listening) -> tuple[Process, str]:
    """Start the program; return its process and the id of its flow run."""
    environment = {**os.environ, "RUNSTATE_URL": f"http://{server.address}", "PYTHONPATH": str(SOURCE)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=environment, stdout=PIPE)
    assert process.stdout
    return process, (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_crashes_the_run(server: Listening, ask: Ask, by: signal.Signals) -> None:
    process, run = await started(server)
    process.send_signal(by)
    code = await process.wait()
    assert await history(ask, run) == ["Pending", "Running", "Crashed"]
    assert code in {-signal.SIGINT, 128 + signal.SIGTERM}


async def test_a_cancellation_ends_a_sleep(server: Listening, ask: Ask) -> None:
    process, run = await started(server)
    cancel = "mutation($id: ID!) { cancelFlowRun(input: { id: $id }) { ... on OrchestrationResult { status } } }"
    await ask(cancel, id=run)
    async with asyncio.timeout(30):
        assert await process.wait() != 0
    assert await history(ask, run) == ["Pending", "Running", "Cancelling", "Cancelled"]
