"""A server that is asked everything that its schema allows, by schemathesis: no error may be the server's fault.

    python -m benchmarks.nonsense --seconds 300

schemathesis needs other versions of some packages than runstate's tests: it gets an environment of its own, once.
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
APART = HERE.parent / ".venv" / "schemathesis"
VERSION = "4.32.5"


def installed() -> Path:
    """The command, in an environment of its own."""
    command = APART / "bin" / "schemathesis"
    if not command.exists():
        venv.create(APART, with_pip=True, clear=True)
        subprocess.run([APART / "bin" / "pip", "install", "--quiet", f"schemathesis=={VERSION}"], check=True)
    return command


async def tried(command: Path, database_url: str, seconds: int) -> bool:
    """Ask a server for so long; whether it never was at fault, by what it answered and by what it logged."""
    async with serving({"RUNSTATE_DATABASE_URL": database_url, "RUNSTATE_LOG_FORMAT": "json"}) as server:
        process = await asyncio.create_subprocess_exec(
            *(command, "fuzz", server.url, "--max-time", str(seconds), "--continue-on-failure"),
            *("--checks", "not_a_server_error"),
            env={**os.environ, "SCHEMATHESIS_HOOKS": "nonsense_hooks", "PYTHONPATH": str(HERE)},
        )
        code = await process.wait()
        alive = server.process.returncode is None
        await server.stop()
        errors = [line for line in (await server.output).decode().splitlines() if '"level": "error"' in line]
    print(
        *errors,
        f"schemathesis: {code}; the server {'lived' if alive else 'died'}, {len(errors)} errors logged",
        sep="\n",
    )
    return code == 0 and alive and not errors


def main(
    seconds: Annotated[int, typer.Option(help="For how long.")] = 300,
    database_url: Annotated[
        str, typer.Option(help="Where the server keeps its data; a new SQLite file unless given.")
    ] = "",
    schemathesis: Annotated[Path | None, typer.Option(help="The command, if it is installed already.")] = None,
) -> None:
    """Ask for so long; exit code 1 if the server was at fault."""
    with tempfile.TemporaryDirectory() as directory:
        url = database_url or f"sqlite+aiosqlite:///{directory}/runstate.db"
        sys.exit(not asyncio.run(tried(schemathesis or installed(), url, seconds)))


if __name__ == "__main__":
    typer.run(main)
