"""`runstate logs`: the lines of a run, and new ones until it ends."""

import asyncio
from typing import Any

import pytest

from runstate.cli.logs import LiveLogs, existing
from runstate.cli.watch import watch
from runstate.client.errors import RefusedError
from runstate.client.sockets import socket_address
from tests.client import Ask
from tests.graphql.mutations import make_flow_run, make_task_run, propose
from tests.graphql.test_logs import line, write
from tests.serving import run
from tests.subscribing import Listening


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


async def test_all_lines_of_a_run_are_printed(server: Listening, live: Ask) -> None:
    flow_run = await make_flow_run(live)
    task_run = await make_task_run(live, flowRunId=flow_run)
    await write(live, *(line(str(number), number, flowRunId=flow_run) for number in range(250)))
    await write(live, line("disk full", 300, flowRunId=flow_run, taskRunId=task_run, level=40))

    output = [each async for each in existing(socket_address(server.address), flow_run, None)]
    assert [each["message"] for each in output] == [*map(str, range(250)), "disk full"]
    process = await run("logs", task_run, "--url", server.address, environment={})
    printed, _ = await process.communicate()
    assert printed.decode() == "2026-01-05 12:05:00.000  ERROR     app  disk full\n"
    assert process.returncode == 0


async def test_a_run_is_followed_to_its_end(server: Listening, live: Ask) -> None:
    flow_run = await make_flow_run(live)
    await write(live, *(line(str(number), number, flowRunId=flow_run) for number in range(5)))
    shown = asyncio.Queue[dict[str, Any]]()
    wish: Any = LiveLogs(flow_run, 2)
    task = asyncio.create_task(watch(socket_address(server.address), wish, shown.put_nowait, print))

    async with asyncio.timeout(30):
        assert [(await shown.get())["message"] for _ in range(2)] == ["3", "4"]
        await write(live, line("new", flowRunId=flow_run))
        assert (await shown.get())["message"] == "new"
        await propose(live, flow_run, "COMPLETED", force=True)
        await task


async def test_an_unknown_run_is_refused(server: Listening) -> None:
    with pytest.raises(RefusedError, match="No run has the id 01890000-0000-7000-8000-000000000000"):
        [each async for each in existing(socket_address(server.address), "01890000-0000-7000-8000-000000000000", None)]
