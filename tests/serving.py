"""Servers as processes of their own."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, Signals

SOURCE = Path(__file__).parent.parent / "src"
ADDRESS = re.compile(r"http://\S+/graphql")
PATIENCE_SECONDS = 60


class DidNotStartError(AssertionError):
    """A server that ended before it listened; the message is its output."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is listening."""

    url: str
    process: Process
    output: asyncio.Task[bytes]
    greeting: str
    """Output before the server listened."""

    async def stop(self, by: Signals = SIGTERM) -> int:
        """Stop the server with a signal; return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(by)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()


class Serve:
    """Starts servers that are stopped at the end of the test."""

    def __init__(self, servers: AsyncExitStack, environment: Mapping[str, str]) -> None:
        self.servers = servers
        self.environment = environment

    async def __call__(self, **environment: str) -> Server:
        """Start a server with variables in its environment, and wait until it listens."""
        return await self.servers.enter_async_context(serving({**self.environment, **environment}))


async def run(*arguments: str, environment: Mapping[str, str]) -> Process:
    """Start `runstate` with arguments; settings come from the given environment only."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTATE_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runstate", *arguments),
        env={**inherited, "PYTHONPATH": str(SOURCE), **environment},
        stdout=PIPE,
        stderr=STDOUT,
    )


@asynccontextmanager
async def serving(environment: Mapping[str, str]) -> AsyncIterator[Server]:
    """Yield a server on a free port; its process is killed if it does not stop."""
    process = await run("serve", environment={"RUNSTATE_HOST": "127.0.0.1", "RUNSTATE_PORT": "0", **environment})
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            url, greeting = await _address(process)
        assert process.stdout
        server = Server(url, process, asyncio.create_task(process.stdout.read()), greeting)
        yield server
        await server.stop()
        await server.output
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _address(process: Process) -> tuple[str, str]:
    """Return the URL at which the server listens, and its output until then."""
    assert process.stdout
    said = b""
    async for line in process.stdout:
        said += line
        if address := ADDRESS.search(line.decode()):
            return address.group(), said.decode()
    raise DidNotStartError(said.decode())
