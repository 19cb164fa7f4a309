"""Programs that use Prefect, run by an interpreter that has it."""

import asyncio
import os
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(__file__).parent / "programs"
PYTHON = Path(os.environ.get("PREFECT_PYTHON") or ROOT / ".venv" / "prefect" / "bin" / "python")
"""The interpreter of an environment of its own: Prefect needs other versions of packages."""
PATIENCE = "60"
"""Seconds for which a program waits for what the server has to do."""

needs_prefect = pytest.mark.skipif(
    not PYTHON.exists(),
    reason=f"Prefect is not installed at {PYTHON}: run `make prefect`, or set PREFECT_PYTHON",
)


async def run_program(program: str | Path, url: str, home: Path, *arguments: str, **environment: str) -> str:
    """Run a program against a server, and return its output. Raise AssertionError if it fails."""
    home.mkdir(parents=True, exist_ok=True)
    settings = {"PREFECT_API_URL": url, "PREFECT_HOME": str(home), "PATIENCE": PATIENCE, **environment}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
    process = await asyncio.create_subprocess_exec(
        PYTHON, PROGRAMS / program, *arguments, env={**inherited, **settings}, stdout=PIPE, stderr=STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = output.decode(errors="replace")
    assert process.returncode == 0, f"{program}:\n{text[-6000:]}"
    return text


async def run_programs(
    programs: Sequence[str], url: str, home: Path, at_once: int = 2, **environment: str
) -> list[str]:
    """Run programs, a few at once."""
    turns = asyncio.Semaphore(at_once)

    async def run(program: str) -> str:
        async with turns:
            return await run_program(program, url, home / program, **environment)

    return await asyncio.gather(*map(run, programs))
