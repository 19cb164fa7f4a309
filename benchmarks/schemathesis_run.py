"""Requests that schemathesis generates from the schema: no answer and no log line may be an error of the server.

    python -m benchmarks.schemathesis_run --seconds 300

schemathesis needs other versions of some packages than runstate's tests, so it is installed in a separate environment.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Annotated

import typer

from tests.serving import serving

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / ".venv" / "schemathesis"
VERSION = "4.32.5"


def installed() -> Path:
    """Return the path of the command; install it if it is missing."""
    command = ENVIRONMENT / "bin" / "schemathesis"
    if not command.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "--quiet", f"schemathesis=={VERSION}"], check=True)
    return command


async def run(command: Path, database_url: str, seconds: int) -> bool:
    """Send requests for some seconds. Return whether the server caused no error, in its answers and in its log."""
    async with serving({"RUNSTATE_DATABASE_URL": database_url, "RUNSTATE_LOG_FORMAT": "json"}) as server:
        process = await asyncio.create_subprocess_exec(
            *(command, "fuzz", server.url, "--max-time", str(seconds), "--continue-on-failure"),
            *("--checks", "not_a_server_error"),
            env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
        )
        code = await process.wait()
        alive = server.process.returncode is None
        await server.stop()
        errors = [line for line in (await server.output).decode().splitlines() if '"level": "error"' in line]
    print(
        *errors,
        f"schemathesis: {code}; the server {'is running' if alive else 'ended'}, {len(errors)} errors logged",
        sep="\n",
    )
    return code == 0 and alive and not errors


def main(
    seconds: Annotated[int, typer.Option(help="Duration in seconds.")] = 300,
    database_url: Annotated[str, typer.Option(help="Database of the server; a new SQLite file by default.")] = "",
    schemathesis: Annotated[Path | None, typer.Option(help="Path of the command if it is installed elsewhere.")] = None,
) -> None:
    """Send requests for some seconds. Exit with 1 if the server caused an error."""
    with tempfile.TemporaryDirectory() as directory:
        url = database_url or f"sqlite+aiosqlite:///{directory}/runstate.db"
        sys.exit(not asyncio.run(run(schemathesis or installed(), url, seconds)))


if __name__ == "__main__":
    typer.run(main)
